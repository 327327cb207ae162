"""Group lasso: whole neurons or input channels shrink, and vanish together."""

from __future__ import annotations

from typing import Literal, Unpack

import jax.numpy as jnp
import optax

from sparsejax.card import Card
from sparsejax.checks import check_choice
from sparsejax.options import Options, method_without
from sparsejax.proximal import proximal
from sparsejax.structures.base import from_rows, to_rows

__all__ = ["group_lasso"]

CARD = Card(
    paper="Yuan & Lin, 2006; Wen et al., 2016",
    budget="emergent",
    choose="whole neurons or channels shall go, and how many may follow from the "
    "penalty",
    structures="neurons or input channels, by `groups`",
)


@method_without("distribution", "structure", "initial_masks", "seed")
def group_lasso(
    inner: optax.GradientTransformation,
    *,
    shrinkage: float | optax.Schedule = 1e-5,
    groups: Literal["neuron", "input"] = "neuron",
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Minimises the loss plus ``strength * sum_g sqrt(p_g) ||w_g||`` by proximal steps.

    After the inner optimizer's step, with ``s = learning rate * strength`` and ``p_g``
    weights in group ``g``::

        w_g = w_g relu(1 - s sqrt(p_g) / ||w_g||)

    so that a group is zero as a whole or not at all. A zero group returns when a step
    is longer than ``s sqrt(p_g)``.

    Args:
      inner: the optimizer, clipping and schedules included.
      shrinkage: ``s`` per step: the learning rate times the penalty's strength; a
        number, or a schedule over steps.
      groups: what vanishes together: the weights into one "neuron" (filter), or those
        from one "input" (channel), at all positions of a convolution.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: a negative shrinkage, or an unknown kind of groups.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.group_lasso(optax.sgd(1.0), shrinkage=0.5)
      >>> params = {"kernel": jnp.array([[3.0, 0.1], [0.0, 0.1], [4.0, 0.1], [0, 0]])}
      >>> zero = {"kernel": jnp.zeros((4, 2))}
      >>> updates, state = tx.update(zero, tx.init(params), params)
      >>> print(optax.apply_updates(params, updates)["kernel"].T)
      [[2.4 0.  3.2 0. ]
       [0.  0.  0.  0. ]]

    References:
      Yuan & Lin, "Model selection and estimation in regression with grouped variables",
      2006; for networks Wen et al., "Learning Structured Sparsity in Deep Neural
      Networks", NeurIPS 2016, whose penalty has no ``sqrt(p_g)``.
    """
    check_choice("groups", groups, ("neuron", "input"))

    def shrink(layer, weights, amount):
        rows = to_rows(layer, weights)
        channels = layer.shape[layer.spec.fan_in[-1]]
        # [*stacked, neurons, positions, channels]
        parts = rows.reshape(*rows.shape[:-1], -1, channels)
        axes = (-2, -1) if groups == "neuron" else (-3, -2)
        size = parts.size / jnp.sum(parts, axes).size
        # Scaled by the largest, or squares of small weights would vanish.
        largest = jnp.max(jnp.abs(parts), axes, keepdims=True)
        scaled = parts / jnp.where(largest > 0, largest, 1)
        norm = largest * jnp.sqrt(jnp.sum(scaled * scaled, axes, keepdims=True))
        ratio = amount * size**0.5 / jnp.where(norm > 0, norm, 1)
        kept = parts * jnp.maximum(1 - ratio, 0)
        return from_rows(layer, kept.reshape(rows.shape))

    # The common arguments that are not proximal's were refused.
    return proximal(inner, shrink=shrink, shrinkage=shrinkage, **options)  # pyright: ignore[reportCallIssue]
