"""L1: every weight shrinks by the same amount at every step, and stops at zero."""

from __future__ import annotations

from typing import Unpack

import jax.numpy as jnp
import optax

from sparsejax.card import Card
from sparsejax.options import Options, method_without
from sparsejax.proximal import proximal

__all__ = ["l1"]

CARD = Card(
    paper="Tibshirani, 1996; Daubechies et al., 2004",
    budget="emergent",
    choose="the penalty is part of the problem (few, interpretable weights), and what "
    "sparsity it brings may follow",
    structures="none",
)


@method_without("distribution", "structure", "initial_masks", "seed")
def l1(
    inner: optax.GradientTransformation,
    *,
    shrinkage: float | optax.Schedule = 1e-5,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Minimises the loss plus ``strength * sum |w|`` by proximal steps.

    After the inner optimizer's step ``w += u``, with ``s = learning rate * strength``::

        w = sign(w) relu(|w| - s)

    which makes exact zeros, where the gradient of the penalty would only make small
    weights. A zero weight returns when a step is longer than ``s``.

    Args:
      inner: the optimizer, clipping and schedules included.
      shrinkage: ``s`` per step: the learning rate times the penalty's strength; a
        number, or a schedule over steps, such as ``lambda step: lr(step) * 1e-3``.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: a negative shrinkage.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.l1(optax.sgd(1.0), shrinkage=0.5)
      >>> params = {"kernel": jnp.array([[2.0, 0.25, -1.0]])}
      >>> zero = {"kernel": jnp.zeros((1, 3))}
      >>> updates, state = tx.update(zero, tx.init(params), params)
      >>> optax.apply_updates(params, updates)["kernel"].tolist()
      [[1.5, 0.0, -0.5]]

    References:
      Daubechies et al., "An iterative thresholding algorithm for linear inverse
      problems with a sparsity constraint", 2004. With optimizers other than SGD the
      amount is not divided by their statistics (as AdamW's weight decay is not).
    """

    def shrink(layer, weights, amount):
        del layer
        return jnp.sign(weights) * jnp.maximum(jnp.abs(weights) - amount, 0)

    # The common arguments that are not proximal's were refused.
    return proximal(inner, shrink=shrink, shrinkage=shrinkage, **options)  # pyright: ignore[reportCallIssue]
