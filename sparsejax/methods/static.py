"""Static: a random sparse topology that never moves."""

from __future__ import annotations

from collections.abc import Mapping

import optax
from jaxtyping import PRNGKeyArray, PyTree

from sparsejax.distributions import Distribution
from sparsejax.layers import Layout, Where, matmul_weights
from sparsejax.masking import masked
from sparsejax.structures import Structure

__all__ = ["static"]

BUDGET = "fixed"


def static(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    distribution: Distribution | None = None,
    structure: Structure | None = None,
    where: Where = matmul_weights,
    layout: Layout | None = None,
    initial_masks: PyTree | None = None,
    seed: int | PRNGKeyArray = 0,
    packed: bool = False,
    track: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Trains a fixed random subset of the weights, or a given one.

    Every layer keeps exactly its budget at uniformly random positions. A strong
    baseline with the ERK distribution (Liu et al., 2022, "The Unreasonable
    Effectiveness of Random Pruning"); with ``initial_masks`` it trains on from a
    topology found elsewhere.

    Args:
      inner: the optimizer, clipping and schedules included.
      sparsity: fraction of weights that are zero, in [0, 1); a map from path patterns
        to fractions; or None to take the counts of ``initial_masks``.
      distribution: splits the sparsity over the layers; default `erk`.
      structure: family of masks; default `unstructured`.
      where: which leaves to sparsify; default every matmul and convolution weight.
      layout: roles of axes; default `by_name`.
      initial_masks: tree like params of bool arrays, None at dense leaves.
      seed: integer or random key (may be traced).
      packed: store masks at one bit a weight.
      track: record exploration and turnover.

    Raises:
      ValueError: an argument out of range, or a layer left without weights.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.static(optax.adam(1e-3), sparsity=0.75)
      >>> params = {"kernel": jnp.ones((8, 8))}
      >>> params = sj.sparsify(params, tx.init(params))
      >>> int(params["kernel"].sum())
      16
    """
    return masked(
        inner,
        rule=None,
        when=None,
        sparsity=sparsity,
        distribution=distribution,
        structure=structure,
        where=where,
        layout=layout,
        initial_masks=initial_masks,
        seed=seed,
        packed=packed,
        track=track,
    )
