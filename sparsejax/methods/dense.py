"""Dense training: the identity, so that a comparison has its baseline."""

from __future__ import annotations

import optax

from sparsejax.card import Card
from sparsejax.masking import masked

__all__ = ["dense"]

CARD = Card(
    paper="",
    budget="fixed",
    choose="you want the baseline; the updates are the optimizer's, bit for bit",
    memory="nothing",
    structures="",
)


def dense(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Trains every weight: the updates are the inner optimizer's, bit for bit.

    Args:
      inner: the optimizer.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.dense(optax.sgd(0.1))
      >>> params = {"kernel": jnp.ones((2, 2))}
      >>> state = tx.init(params)
      >>> updates, state = tx.update(params, state, params)
      >>> sj.masks(state)
      {'kernel': None}
    """
    return masked(inner, rule=None, when=None, sparsity=0.0, where=None)
