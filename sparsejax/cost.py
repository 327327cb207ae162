"""What a sparse network costs: parameters, FLOPs and bytes, counted exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from sparsejax.checks import check_choice
from sparsejax.graph import Use, uses
from sparsejax.layers import leaves_with_paths, path_name

__all__ = ["Cost", "LayerCost", "StoredBytes", "TrainingCost", "cost", "training_cost"]

Number = int | float
"""An exact int wherever the count is whole, else a float."""


class LayerCost(NamedTuple):
    """The cost of one parameter leaf: MACs and FLOPs per example, forward pass only.

    Attributes:
      path: path of the leaf.
      shape: its shape.
      weights: its number of entries.
      active: entries that the mask keeps.
      dense_macs: multiply-accumulates of the dense layer.
      sparse_macs: those whose weight is active.
      dense_flops: FLOPs of the dense layer, in the mode asked for.
      sparse_flops: FLOPs of the sparse layer.
    """

    path: str
    shape: tuple[int, ...]
    weights: int
    active: int
    dense_macs: Number
    sparse_macs: Number
    dense_flops: Number
    sparse_flops: Number

    @property
    def density(self) -> float:
        """Fraction of the entries that are active."""
        return self.active / self.weights


class StoredBytes(NamedTuple):
    """Bytes that hold the parameters, in four forms.

    Attributes:
      dense: every entry.
      masked: the dense form and one byte per entry of a mask.
      packed: the dense form and one bit per entry of a mask.
      condensed: of each masked leaf the active values, each with its index along the
        fan-in in the smallest unsigned integer that holds it, or the dense form where
        that is smaller; other leaves dense. The count is that of constant fan-in,
        where no row pointers are needed.
    """

    dense: int
    masked: int
    packed: int
    condensed: int


class TrainingCost(NamedTuple):
    """FLOPs of training, averaged over its steps.

    Attributes:
      flops: per example and step.
      dense_flops: the same of the dense network: three forward passes.
      ratio: `flops / dense_flops`.
    """

    flops: float
    dense_flops: Number
    ratio: float


class Cost(NamedTuple):
    """What one example costs in inference, and what the parameters cost to store.

    Attributes:
      mode: `"exact"` or `"micronet"`.
      layers: one row per leaf that feeds a product or is masked, in order of execution.
      parameters: entries of all leaves.
      active_parameters: those that no mask removes.
      dense_macs: multiply-accumulates of the dense network per example.
      sparse_macs: those left when inactive weights cost nothing.
      dense_flops: FLOPs of the dense network per example, in the mode asked for.
      sparse_flops: FLOPs left when inactive weights cost nothing.
      ratio: `sparse_flops / dense_flops`.
      unattributed_flops: the part of both that no parameter feeds (attention scores).
      stored_bytes: bytes that hold the parameters.
      training: FLOPs of a training step; `training_cost` computes it.
    """

    mode: str
    layers: tuple[LayerCost, ...]
    parameters: int
    active_parameters: int
    dense_macs: Number
    sparse_macs: Number
    dense_flops: Number
    sparse_flops: Number
    ratio: float
    unattributed_flops: Number
    stored_bytes: StoredBytes
    training: TrainingCost

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dicts, lists and numbers, ready for JSON."""
        return {
            **self._asdict(),
            "layers": [
                {**layer._asdict(), "shape": list(layer.shape)} for layer in self.layers
            ],
            "stored_bytes": self.stored_bytes._asdict(),
            "training": self.training._asdict(),
        }


def cost(
    function: Callable,
    params: PyTree,
    masks: PyTree | Mapping[str, int | tuple[int, int]] | None = None,
    *inputs: Any,
    mode: str = "exact",
    examples: int = 1,
    dense_gradient_every: int | None = None,
    mean_progress: float = 1.0,
) -> Cost:
    """Counts what `function(params, *inputs)` costs, without running it.

    Every product in the program is attributed to the leaf that it reads
    (`sparsejax.graph.uses`), and costs its dense MACs times the leaf's density. In
    mode `"exact"` a MAC is 2 FLOPs, and everything that is not a product is free. Mode
    `"micronet"` reproduces the count of published tables: `2 L density + 1` FLOPs per
    output element of fan-in `L`, where a strided first convolution is counted over the
    whole padded image (115x115 outputs in ResNet-50).

    Args:
      function: the forward pass; its first argument is `params`.
      params: pytree of arrays or `jax.ShapeDtypeStruct`.
      masks: pytree like `params` with a boolean array at masked leaves and None at
        dense ones; or active counts by path, as `sparsejax.counts` returns them
        (`path -> active` or `path -> (active, size)`); None: all dense.
      *inputs: the further arguments; arrays or `jax.ShapeDtypeStruct`.
      mode: `"exact"` or `"micronet"`.
      examples: batch size of `inputs`; MACs and FLOPs are per example.
      dense_gradient_every: as in `training_cost`.
      mean_progress: as in `training_cost`.

    Returns:
      A `Cost`.

    Raises:
      ValueError: an unknown mode, masks that do not fit the parameters, or a program
        that cannot be counted.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from sparsejax.cost import cost
      >>> params = {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}
      >>> forward = lambda params, x: x @ params["kernel"] + params["bias"]
      >>> image = jax.ShapeDtypeStruct((1, 4), "float32")
      >>> report = cost(forward, params, {"kernel": 8}, image)
      >>> report.dense_flops, report.sparse_flops, report.active_parameters
      (64, 16, 16)

    References:
      Evci et al., Rigging the Lottery: Making All Tickets Winners, ICML 2020,
      appendix H, and the code that made its tables.
    """
    check_choice("mode", mode, ("exact", "micronet"))
    if examples < 1:
        raise ValueError(f"examples={examples!r}: give the batch size, at least 1")
    leaves = dict(leaves_with_paths(params))
    active = _active_counts(leaves, masks)
    found = uses(function, params, *inputs)
    executed = [use.path for use in found if use.path is not None]
    rows = tuple(
        _layer(path, leaves[path], active.get(path), found, mode, examples)
        for path in dict.fromkeys([*executed, *active])
    )
    free = [use for use in found if use.path is None]
    free_macs = Fraction(sum(use.macs for use in free), examples)
    free_flops = sum((_flops(use, Fraction(1), mode) for use in free), Fraction(0))
    free_flops /= examples

    def total(field: str, extra: Fraction) -> Number:
        return _number(sum((Fraction(getattr(r, field)) for r in rows), extra))

    parameters = sum(math.prod(leaf.shape) for leaf in leaves.values())
    removed = sum(math.prod(leaves[path].shape) - n for path, n in active.items())
    dense_flops = total("dense_flops", free_flops)
    sparse_flops = total("sparse_flops", free_flops)
    return Cost(
        mode=mode,
        layers=rows,
        parameters=parameters,
        active_parameters=parameters - removed,
        dense_macs=total("dense_macs", free_macs),
        sparse_macs=total("sparse_macs", free_macs),
        dense_flops=dense_flops,
        sparse_flops=sparse_flops,
        ratio=float(sparse_flops / dense_flops) if dense_flops else 1.0,
        unattributed_flops=_number(free_flops),
        stored_bytes=_stored_bytes(leaves, active, found),
        training=training_cost(
            dense_flops,
            sparse_flops,
            dense_gradient_every=dense_gradient_every,
            mean_progress=mean_progress,
        ),
    )


def training_cost(
    dense_flops: Number,
    sparse_flops: Number,
    *,
    dense_gradient_every: int | None = None,
    mean_progress: float = 1.0,
) -> TrainingCost:
    """Counts the FLOPs of a training step: the backward pass costs two forward passes.

    With `f_D` and `f_S` the dense and sparse forward pass, a step of a network that is
    sparse throughout costs `3 f_S`. A method that needs the dense gradient at every
    `T`-th step (RigL) costs `(3 f_S T + 2 f_S + f_D) / (T + 1)` on average. While a
    network is being pruned, `f` falls from `f_D` to `f_S` in proportion to the sparsity
    reached.

    Args:
      dense_flops: FLOPs of the dense network's forward pass per example.
      sparse_flops: those of the final sparse network's.
      dense_gradient_every: steps from one dense gradient to the next; None: never.
      mean_progress: the mean over all steps of `s(t) / s(end)`: 1 where the sparsity
        does not change, less for gradual pruning. Exact where the sparsities of all
        layers rise in proportion, an estimate elsewhere.

    Returns:
      A `TrainingCost`, per example and step.

    Raises:
      ValueError: `dense_gradient_every` below 1, or `mean_progress` outside [0, 1].

    Example:
      >>> round(training_cost(1.0, 0.2, dense_gradient_every=100).ratio, 4)
      0.2026

    References:
      Evci et al., Rigging the Lottery: Making All Tickets Winners, ICML 2020,
      appendix H.
    """
    if dense_gradient_every is not None and dense_gradient_every < 1:
        raise ValueError(
            f"dense_gradient_every={dense_gradient_every!r}: give a number of steps, "
            "at least 1, or None for a method that needs no dense gradient"
        )
    if not 0 <= mean_progress <= 1:
        raise ValueError(
            f"mean_progress={mean_progress!r}: the mean of s(t) / s(end) lies in [0, 1]"
        )
    dense = dense_flops
    sparse = dense - (dense - sparse_flops) * mean_progress
    flops = 3 * sparse
    if dense_gradient_every is not None:
        steps = dense_gradient_every
        flops = (3 * sparse * steps + 2 * sparse + dense) / (steps + 1)
    ratio = flops / (3 * dense) if dense else 1.0
    return TrainingCost(float(flops), 3 * dense, float(ratio))


def _active_counts(leaves: dict[str, Any], masks: Any) -> dict[str, int]:
    """Active entries of each masked leaf; raises where they do not fit the leaves."""
    if masks is None:
        return {}
    given = {
        path_name(path): value
        for path, value in jax.tree.leaves_with_path(masks, is_leaf=_is_count)
    }
    counts = {}
    for path, value in given.items():
        if path not in leaves:
            known = ", ".join(list(leaves)[:4])
            raise ValueError(
                f"masks has an entry {path!r}, which is no leaf of params (such as "
                f"{known}); give a tree like params, or active counts by path"
            )
        shape = tuple(leaves[path].shape)
        if getattr(value, "ndim", 0):
            if value.shape != shape:
                raise ValueError(
                    f"masks[{path!r}] has shape {value.shape}, params have {shape}"
                )
            counts[path] = int(np.count_nonzero(value))
        else:
            counts[path] = int(value[0] if isinstance(value, tuple) else value)
        if not 0 <= counts[path] <= math.prod(shape):
            raise ValueError(
                f"masks[{path!r}] keeps {counts[path]} of {math.prod(shape)} entries"
            )
    return counts


def _is_count(node: Any) -> bool:
    pair = isinstance(node, tuple) and len(node) == 2
    return pair and all(isinstance(count, int | np.integer) for count in node)


def _layer(
    path: str,
    leaf: Any,
    active: int | None,
    found: tuple[Use, ...],
    mode: str,
    examples: int,
) -> LayerCost:
    weights = math.prod(leaf.shape)
    active = weights if active is None else active
    density = Fraction(active, weights)
    own = [use for use in found if use.path == path]
    macs = Fraction(sum(use.macs for use in own), examples)
    dense = sum((_flops(use, Fraction(1), mode) for use in own), Fraction(0))
    sparse = sum((_flops(use, density, mode) for use in own), Fraction(0))
    return LayerCost(
        path=path,
        shape=tuple(leaf.shape),
        weights=weights,
        active=active,
        dense_macs=_number(macs),
        sparse_macs=_number(macs * density),
        dense_flops=_number(dense / examples),
        sparse_flops=_number(sparse / examples),
    )


def _flops(use: Use, density: Fraction, mode: str) -> Fraction:
    flops = 2 * use.macs * density
    if mode == "exact":
        return flops
    return (flops + use.outputs) * Fraction(use.framed_outputs, use.outputs)


def _stored_bytes(
    leaves: dict[str, Any], active: dict[str, int], found: tuple[Use, ...]
) -> StoredBytes:
    fan_in = {use.path: use.weights_per_output for use in found}
    dense = masks = packed = condensed = 0
    for path, leaf in leaves.items():
        size, width = math.prod(leaf.shape), np.dtype(leaf.dtype).itemsize
        dense += size * width
        if path not in active:
            condensed += size * width
            continue
        masks += size
        packed += -(-size // 8)
        inputs = fan_in.get(path, size // leaf.shape[-1] if leaf.shape else 1)
        pair = width + np.min_scalar_type(max(inputs - 1, 0)).itemsize
        condensed += min(size * width, active[path] * pair)
    return StoredBytes(dense, dense + masks, dense + packed, condensed)


def _number(value: Fraction | float) -> Number:
    exact = Fraction(value)
    return int(exact) if exact.denominator == 1 else float(exact)
