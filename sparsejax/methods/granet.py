"""GraNet: gradual pruning, with weights regrown after every pruning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from sparsejax.card import Card
from sparsejax.checks import check_sparsity
from sparsejax.distributions import budget_of
from sparsejax.masking import Move, masked
from sparsejax.options import Options, method
from sparsejax.rules import (
    check_scope,
    gradient_magnitude,
    keep_largest,
    magnitude,
    remaining_count,
    replace,
)
from sparsejax.runtime_checks import check_weights_remain
from sparsejax.schedules import Schedule, as_schedule, cosine, cubic, periodic
from sparsejax.selection import top_k_mask

__all__ = ["granet"]

CARD = Card(
    paper="Liu et al., 2021",
    budget="global",
    choose="training may begin denser than it ends, for the sake of accuracy",
    dense_gradient=True,
    structures="unstructured",
)


@method
def granet(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    stop: int,
    every: int = 100,
    start: int | None = None,
    stop_pruning: int | None = None,
    initial_sparsity: float = 0.5,
    drop_fraction: Schedule | float | None = None,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Prunes all layers together little by little, and repairs each after every cut.

    Every ``every`` steps, after the optimizer's step: of all layers together the
    largest ``|w|`` stay, as many as ``s_t = s_i + (s_f - s_i) (1 - (1 - phase)**3)``
    leaves, the phase going from 0 at ``start`` to 1 at ``stop_pruning``; then in each
    layer of ``n`` weights the ``ceil(r_t n)`` smallest are dropped and as many grown
    where the dense gradient is largest. After ``stop_pruning`` only the second part
    goes on.

    Args:
      inner: the optimizer, clipping and schedules included.
      sparsity: fraction of weights that are zero in the end, in [0, 1); a map from path
        patterns to fractions; or None to take the counts of ``initial_masks``.
      stop: last move (counted in updates made before it).
      every: steps from one move to the next.
      start: first move; default ``every``.
      stop_pruning: from the first move at or after this step on the network has its
        final sparsity; default two thirds of ``stop``.
      initial_sparsity: of the random masks that training begins with, split over the
        layers as ``distribution`` does, and at most ``sparsity``; 0 begins dense.
      drop_fraction: r_t, the share of active weights that is replaced, a schedule over
        ``step / stop`` or a number; default ``cosine(0.5, final=0.005)``.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or a layer left without weights.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.granet(optax.sgd(0.1), sparsity=0.75, every=1, stop=4)
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (4, 4))}
      >>> state = tx.init(params)
      >>> params = sj.sparsify(params, state)
      >>> counts = []
      >>> for _ in range(5):
      ...     updates, state = tx.update(params, state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     counts.append(sj.counts(state)["kernel"][0])
      >>> counts
      [8, 8, 4, 4, 4]

    References:
      Liu et al., "Sparse Training via Boosting Pruning Plasticity with
      Neuroregeneration", NeurIPS 2021. What is active is read from the mask, so that a
      weight that is zero counts as any other.
    """
    check_scope("global", options.get("structure"))
    check_sparsity("initial_sparsity", initial_sparsity)
    targets = sparsity.values() if isinstance(sparsity, Mapping) else [sparsity]
    if any(target is not None and target < initial_sparsity for target in targets):
        raise ValueError(
            f"initial_sparsity={initial_sparsity} is above sparsity={sparsity}: there "
            "is nothing to prune; begin denser"
        )
    when = periodic(every, start=start, stop=stop, include_stop=True)
    pruning = when._replace(
        stop=stop * 2 // 3 if stop_pruning is None else stop_pruning
    )
    if not when.start <= pruning.stop <= stop:
        raise ValueError(
            f"stop_pruning={pruning.stop} is not between the first move, "
            f"{when.start}, and stop={stop}; pruning would not end, or not begin"
        )
    fraction = as_schedule(
        "drop_fraction",
        cosine(0.5, final=0.005) if drop_fraction is None else drop_fraction,
    )
    schedule = cubic()

    def rule(move: Move) -> list[Bool[Array, "..."]]:
        share = schedule(pruning.phase(move.step))
        size = sum(layer.size for layer in move.layers)
        final = jnp.stack([budget.sum() for budget in move.budgets]).sum()
        first = jnp.asarray(budget_of(size, initial_sparsity), jnp.int32)
        total = remaining_count(share, jnp.maximum(first, final), final)
        scores = [jnp.abs(weight) for weight in move.weights]
        pruned = top_k_mask(scores, total, where=move.masks)
        check_weights_remain(move.layers, pruned)
        keep = keep_largest(magnitude, round_up=True)
        return replace(
            move._replace(masks=pruned),
            keep,
            gradient_magnitude,
            fraction(move.when.progress(move.step)),
        )

    return masked(
        inner,
        rule=rule,
        when=when,
        on_move="step",
        sparsity=sparsity,
        initial_sparsity=initial_sparsity,
        **options,
    )
