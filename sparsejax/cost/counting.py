"""The cost of any JAX function, by tracing it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from sparsejax.checks import check_choice
from sparsejax.cost.activations import activation_bytes
from sparsejax.cost.records import Cost, LayerCost, Number, number
from sparsejax.cost.storage import stored_bytes
from sparsejax.cost.training import training_cost
from sparsejax.graph import Use, uses_in
from sparsejax.layers import leaves_with_paths, path_name

__all__ = ["cost"]


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
      *inputs: the further arguments, arrays or `jax.ShapeDtypeStruct`; everything but
        booleans and random keys counts as data.
      mode: `"exact"` or `"micronet"`.
      examples: batch size of `inputs`; MACs, FLOPs and bytes of activations are per
        example.
      dense_gradient_every: as in `training_cost`.
      mean_progress: as in `training_cost`.

    Returns:
      A `Cost`.

    Raises:
      ValueError: an unknown mode, masks that do not fit the parameters, or a program
        that cannot be counted.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import sparsejax as sj
      >>> params = {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}
      >>> forward = lambda params, x: x @ params["kernel"] + params["bias"]
      >>> image = jax.ShapeDtypeStruct((1, 4), "float32")
      >>> report = sj.cost(forward, params, {"kernel": 8}, image)
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
    program = jax.make_jaxpr(function)(params, *inputs)
    found = uses_in(program, params)
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
        return number(sum((Fraction(getattr(r, field)) for r in rows), extra))

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
        unattributed_flops=number(free_flops),
        stored_bytes=stored_bytes(leaves, active, found),
        activation_bytes=activation_bytes(program, len(leaves), examples),
        training=training_cost(
            dense_flops,
            sparse_flops,
            dense_gradient_every=dense_gradient_every,
            mean_progress=mean_progress,
        ),
    )


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
        dense_macs=number(macs),
        sparse_macs=number(macs * density),
        dense_flops=number(dense / examples),
        sparse_flops=number(sparse / examples),
    )


def _flops(use: Use, density: Fraction, mode: str) -> Fraction:
    flops = 2 * use.macs * density
    if mode == "exact":
        return flops
    return (flops + use.outputs) * Fraction(use.framed_outputs, use.outputs)
