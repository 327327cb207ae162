"""Wanda: prunes by weight magnitude times the norm of the input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from sparsejax.checks import check_sparsity
from sparsejax.distributions import Distribution
from sparsejax.layers import Layer, Layout, Where, matmul_weights
from sparsejax.pruning.driving import (
    Report,
    calibrated,
    planned,
    prune_network,
    selected,
)
from sparsejax.structures import Structure, fan_in
from sparsejax.structures.base import from_rows, to_rows

__all__ = ["input_scores", "wanda"]


def wanda(
    apply: Callable[..., Any],
    params: PyTree,
    batches: Iterable[PyTree],
    *,
    sparsity: float | Mapping[str, float],
    layer_by_layer: bool = True,
    distribution: Distribution | None = None,
    structure: Structure | None = None,
    where: Where = matmul_weights,
    layout: Layout | None = None,
    report: Report | None = None,
) -> tuple[PyTree, PyTree]:
    """Zeroes, in each neuron, the weights that change its output least.

    The score of weight ``w_ij`` (neuron ``i``, input ``j``) is ``|w_ij| ||x_j||``, the
    norm over all calibration samples (tokens, pixels) of what the layer's input ``j``
    is. Each neuron keeps its best; no weight is updated. The inputs of every layer are
    found by following the program of ``apply``, convolutions by their patches.

    Args:
      apply: ``(params, batch) -> anything``: the network, or all of it that is to be
        pruned.
      params: the trained parameters.
      batches: calibration inputs, some hundred samples in all; sizes may differ.
      sparsity: fraction of weights that become zero, in [0, 1); or a map from path
        patterns to fractions.
      layer_by_layer: compute the inputs of a layer by the layers pruned before it;
        otherwise by the dense network.
      distribution: splits the sparsity over the layers; default `uniform`.
      structure: family of masks; default `fan_in`, which compares within each neuron,
        as the paper; ``sj.n_m(2, 4)`` for its structured form.
      where: which leaves to prune; default every matmul and convolution weight.
      layout: roles of axes; default `by_name`.
      report: called with the path of each layer when it is pruned, and with its number
        among those that are stacked in the leaf; to show progress.

    Returns:
      The pruned parameters; and a tree like them of bool masks, None at dense leaves.

    Raises:
      ValueError: an argument out of range, or a layer whose inputs cannot be found.

    Example:
      >>> import jax.numpy as jnp, sparsejax as sj
      >>> params = {"kernel": jnp.array([[1.0], [2.0]])}
      >>> batch = jnp.array([[9.0, 1.0]])
      >>> apply = lambda params, batch: batch @ params["kernel"]
      >>> params, masks = sj.pruning.wanda(apply, params, [batch], sparsity=0.5)
      >>> params["kernel"].tolist()
      [[1.0], [0.0]]

    References:
      Sun et al., "A Simple and Effective Pruning Approach for Large Language Models",
      ICLR 2024. Deviation: ``floor`` of the kept instead of the removed weights of a
      neuron, where their number is no integer.
    """
    check_sparsity("sparsity", sparsity)
    structure = structure or fan_in()
    plan = planned(params, sparsity, distribution, structure, where, layout)

    def statistic(samples):
        return jnp.sum(samples * samples, axis=0)

    def prune(layer, budget, values, squares):
        scores = input_scores(layer, values, jnp.sqrt(squares))
        [mask] = selected(structure, [layer], [scores], [jnp.int32(budget)])
        return jnp.where(mask, values, jnp.zeros_like(values)), mask

    calibration = calibrated(statistic, layer_by_layer)
    return prune_network(apply, params, batches, plan, calibration, prune, report)


def input_scores(
    layer: Layer, weight: Float[Array, "..."], norms: Float[Array, " inputs"]
) -> Float[Array, "..."]:
    """``|w| ||x||`` of every weight, in the weight's shape.

    Args:
      layer: which axes of the weight are its inputs.
      weight: the leaf.
      norms: of each input, in the order of `to_rows`.
    """
    rows = jnp.abs(to_rows(layer, weight).astype(jnp.float32))
    return from_rows(layer, rows * norms.reshape(*(1,) * (rows.ndim - 1), -1))
