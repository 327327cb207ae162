"""SparseGPT: prunes column by column, the columns that remain make up for it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree

from sparsejax.checks import check_sparsity, check_step
from sparsejax.distributions import Distribution
from sparsejax.layers import Layer, Layout, LeafSpec, Where, matmul_weights
from sparsejax.pruning.driving import Report, calibrated, planned, prune_network
from sparsejax.structures import Structure, unstructured
from sparsejax.structures.base import from_rows, to_rows

__all__ = ["prune_rows", "sparsegpt"]


def sparsegpt(
    apply: Callable[..., Any],
    params: PyTree,
    batches: Iterable[PyTree],
    *,
    sparsity: float | Mapping[str, float],
    block: int = 128,
    damping: float = 0.01,
    layer_by_layer: bool = True,
    distribution: Distribution | None = None,
    structure: Structure | None = None,
    where: Where = matmul_weights,
    layout: Layout | None = None,
    report: Report | None = None,
) -> tuple[PyTree, PyTree]:
    """Prunes each layer so that its outputs change little, updating what stays.

    With inputs ``X`` of a layer, ``H = (2 / n) X' X + damping mean(diag H) I`` and the
    upper Cholesky factor ``U`` of ``H^-1``: in each block of inputs the weights of
    smallest ``(w_j / U_jj)**2`` are chosen, and from left to right their error
    ``w_j / U_jj`` is subtracted, times ``U_j``, from the inputs further right. The
    inputs of every layer are found as by `wanda`.

    Args:
      apply: ``(params, batch) -> anything``: the network, or all of it that is to be
        pruned.
      params: the trained parameters.
      batches: calibration inputs, some hundred samples in all; sizes may differ.
      sparsity: fraction of weights that become zero, in [0, 1); or a map from path
        patterns to fractions.
      block: inputs whose weights are chosen together; N:M chooses group by group.
      damping: added to the diagonal, as a share of its mean.
      layer_by_layer: compute the inputs of a layer by the layers pruned before it;
        otherwise by the dense network.
      distribution: splits the sparsity over the layers; default `uniform`.
      structure: `unstructured` (default; a block keeps its share of the layer's
        budget), `fan_in` (in every neuron) or `n_m`.
      where: which leaves to prune; default every matmul and convolution weight.
      layout: roles of axes; default `by_name`.
      report: called with the path of each layer when it is pruned, and with its number
        among those that are stacked in the leaf; to show progress.

    Returns:
      The pruned and updated parameters; and a tree like them of bool masks, None at
      dense leaves.

    Raises:
      ValueError: an argument out of range, another structure, a layer whose inputs
        cannot be found, or an N:M layer whose input channels are no multiple of M.

    Example:
      >>> import jax.numpy as jnp, sparsejax as sj
      >>> params = {"kernel": jnp.array([[1.0], [2.0]])}
      >>> batch = jnp.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.1]])
      >>> apply = lambda params, batch: batch @ params["kernel"]
      >>> params, _ = sj.pruning.sparsegpt(apply, params, [batch], sparsity=0.5)
      >>> [round(value, 1) for value in params["kernel"].ravel().tolist()]
      [0.0, 3.0]

    References:
      Frantar & Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned
      in One-Shot", ICML 2023. Deviation: exact counts, where the paper's threshold
      keeps all ties.
    """
    check_sparsity("sparsity", sparsity)
    check_step("block", block, least=1)
    if not damping > 0:
        raise ValueError(f"damping={damping!r} is not positive; the paper has 0.01")
    structure = structure or unstructured()
    plan = planned(params, sparsity, distribution, structure, where, layout)
    for layer in plan.layers:
        _block_of(layer.slice, structure, block)

    def statistic(samples):
        count = jnp.float32(samples.shape[0])
        return jnp.dot(samples.T, samples, precision=lax.Precision.HIGHEST), count

    def prune(layer, budget, values, statistics):
        products, count = statistics
        rows, kept = prune_rows(
            to_rows(layer, values).astype(jnp.float32),
            products * (2 / count),
            budget,
            structure=structure,
            block=_block_of(layer, structure, block),
            damping=damping,
        )
        return from_rows(layer, rows).astype(values.dtype), from_rows(layer, kept)

    calibration = calibrated(statistic, layer_by_layer)
    return prune_network(apply, params, batches, plan, calibration, prune, report)


def _block_of(layer: Layer, structure: Structure, block: int) -> int:
    """Columns that are chosen together: a group of an N:M structure, else ``block``."""
    groups = re.fullmatch(r"(\d+):(\d+)", structure.name)
    if groups is None:
        if structure.name not in ("unstructured", "fan-in"):
            raise ValueError(
                f"structure={structure.name} cannot be chosen column by column; use "
                "unstructured(), fan_in() or n_m(...), or sj.pruning.wanda"
            )
        return block
    width = int(groups[2])
    channels = layer.shape[layer.spec.fan_in[-1]]
    if channels % width:
        raise ValueError(
            f"{layer.path} has {channels} input channels, no multiple of {width} for "
            f"structure {structure.name}; leave the layer out by `where`"
        )
    return width


@functools.partial(jax.jit, static_argnames=("budget", "structure", "block", "damping"))
def prune_rows(
    rows: Float[Array, "neurons inputs"],
    hessian: Float[Array, "inputs inputs"],
    budget: int,
    *,
    structure: Structure,
    block: int = 128,
    damping: float = 0.01,
) -> tuple[Float[Array, "neurons inputs"], Bool[Array, "neurons inputs"]]:
    """Prunes a weight matrix by the second moments of its inputs.

    Args:
      rows: the weights, float32.
      hessian: ``(2 / n) X' X`` of the inputs ``X``.
      budget: weights to keep.
      structure: selects within each block of columns.
      block: columns that are chosen together; the whole number of an N:M group.
      damping: as of `sparsegpt`; 0 needs a hessian that is positive definite.

    Returns:
      The new weights, zero outside the mask; and the mask. Inputs that are always zero
      lose their weights' values.
    """
    neurons, inputs = rows.shape
    block = min(block, inputs)
    padding = -inputs % block
    dead = jnp.diag(hessian) == 0
    rows = jnp.where(dead, 0.0, rows)
    hessian = hessian + jnp.diag(dead.astype(hessian.dtype))
    ridge = damping * jnp.mean(jnp.diag(hessian))
    factor = _inverse_factor(hessian + ridge * jnp.eye(inputs, dtype=hessian.dtype))

    # Padded to whole blocks by columns that nothing depends on.
    factor = jnp.pad(factor, (0, padding)) + jnp.diag(
        jnp.pad(jnp.zeros(inputs, factor.dtype), (0, padding), constant_values=1.0)
    )
    quotas = jnp.asarray(_quotas(neurons, inputs, budget, block), jnp.int32)
    part = Layer("block", (neurons, block), LeafSpec((1,), (0,)))

    def prune_block(index, carry):
        weights, kept = carry
        start = index * block
        here = lax.dynamic_slice(weights, (0, start), (neurons, block))
        square = lax.dynamic_slice(factor, (start, start), (block, block))
        real = jnp.broadcast_to(start + jnp.arange(block) < inputs, here.shape)
        scores = jnp.square(here / jnp.diag(square)[None, :])
        [mask] = structure.select([part], [scores], [quotas[index]], [real])

        def prune_column(j, carry):
            here, errors = carry
            error = jnp.where(mask[:, j], 0.0, here[:, j]) / square[j, j]
            here = here - error[:, None] * square[j][None, :]
            return here, errors.at[:, j].set(error)

        here, errors = lax.fori_loop(
            0, block, prune_column, (here, jnp.zeros_like(here))
        )
        beyond = lax.dynamic_slice(factor, (start, 0), (block, factor.shape[1]))
        weights = weights - jnp.dot(errors, beyond, precision=lax.Precision.HIGHEST)
        weights = lax.dynamic_update_slice(weights, here, (0, start))
        return weights, lax.dynamic_update_slice(kept, mask, (0, start))

    padded = jnp.pad(rows, ((0, 0), (0, padding)))
    carry = (padded, jnp.zeros(padded.shape, bool))
    weights, kept = lax.fori_loop(0, len(quotas), prune_block, carry)
    weights, kept = weights[:, :inputs], kept[:, :inputs]
    return jnp.where(kept, weights, 0.0), kept


def _inverse_factor(hessian: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The upper ``U`` with ``U' U = hessian^-1``."""
    identity = jnp.eye(len(hessian), dtype=hessian.dtype)
    factor = jax.scipy.linalg.cho_factor(hessian, lower=True)
    inverse = jax.scipy.linalg.cho_solve(factor, identity)
    return jnp.linalg.cholesky(inverse).T


def _quotas(neurons: int, inputs: int, budget: int, block: int) -> list[int]:
    """What each block keeps: its share, the same in every neuron where that goes."""
    unit = neurons if budget % neurons == 0 else 1
    ends = np.minimum(np.arange(1, -(-inputs // block) + 1) * block, inputs)
    kept = [round(budget // unit * int(end) / inputs) * unit for end in ends]
    return np.diff([0, *kept]).tolist()
