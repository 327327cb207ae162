"""Pruning once, before training, by what the gradients of the first batches say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax.numpy as jnp
import optax
from jaxtyping import Array

from sparsejax.checks import check_step
from sparsejax.leaves import wider
from sparsejax.masking import Memory, Move, masked
from sparsejax.rules import Score, check_scope, prune
from sparsejax.runtime_checks import check_signal, check_weights_remain, is_silent
from sparsejax.schedules import at, constant

__all__ = ["Signals", "single_shot", "summed_gradients"]

Signals = Callable[[Move], Mapping[str, list[Array]]]
"""What the score is made of, by its name in messages; the last is the score's own."""


def single_shot(
    inner: optax.GradientTransformation,
    *,
    signals: Signals,
    score: Score,
    batches: int,
    scope: Literal["layer", "global"],
    sparsity: float | Mapping[str, float] | None,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """Prunes a dense network at the last of the first updates, which hold its weights.

    Args:
      inner: the optimizer.
      signals: measured at the pruning; a layer in which one is zero everywhere has
        nothing to be ranked by, and raises.
      score: of a leaf whose gradient is the last signal.
      batches: updates before training begins.
      scope: "layer" keeps each layer's budget, "global" ranks all layers together.
      sparsity: as of every method.
      **options: of `masked`.

    Raises:
      ValueError: ``batches`` or ``scope`` out of range; at the pruning, a layer without
        a signal or, with ``scope="global"``, without a weight left.
    """
    check_step("batches", batches, least=1)
    check_scope(scope, options.get("structure"))
    by_score = prune(score=score, schedule=constant(1.0), scope=scope)

    def rule(move: Move) -> list[Array]:
        values: list[Array] = move.gradients
        for what, values in signals(move).items():
            pairs = zip(move.layers, values, strict=True)
            check_signal(move.layers, [is_silent(*pair) for pair in pairs], what)
        masks = by_score(move._replace(gradients=values))
        check_weights_remain(move.layers, masks)
        return masks

    return masked(
        inner,
        rule=rule,
        when=at(batches - 1),
        initial="dense",
        on_move="hold",
        hold_before=batches - 1,
        memory=_sum_of_gradients(batches),
        sparsity=sparsity,
        **options,
    )


def summed_gradients(move: Move) -> list[Array]:
    """The gradients of all batches so far; of a single one they need no memory."""
    return move.gradients if move.memory is None else move.memory


def _sum_of_gradients(batches: int) -> Memory | None:
    if batches == 1:
        return None

    def init(weights):
        wide = [wider(weight.dtype, jnp.float32) for weight in weights]
        pairs = zip(weights, wide, strict=True)
        return [jnp.zeros_like(weight, dtype) for weight, dtype in pairs]

    def update(memory, step, weights, gradients, masks):
        del weights, masks
        return [
            jnp.where(step < batches, total + gradient.astype(total.dtype), total)
            for total, gradient in zip(memory, gradients, strict=True)
        ]

    return Memory(init, update)
