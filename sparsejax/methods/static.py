"""Static: a random sparse topology that never moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import optax

from sparsejax.card import Card
from sparsejax.masking import masked
from sparsejax.options import Options, method

__all__ = ["static"]

CARD = Card(
    paper="Liu et al., 2022",
    budget="fixed",
    choose="you have a topology (`initial_masks`), or want the simplest baseline: as "
    "good as others at low sparsity, far behind at 98 %",
)


@method
def static(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    **options: Unpack[Options],
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
      **options: the common arguments, `sparsejax.options.Options`.

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
        **options,
    )
