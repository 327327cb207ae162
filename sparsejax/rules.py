"""Parts that masking methods are made of: scores, drop-and-grow, pruning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sparsejax.layers import Layer
from sparsejax.masking import Move, Rule
from sparsejax.schedules import Schedule
from sparsejax.selection import exact_count, top_k_mask
from sparsejax.structures import Structure

__all__ = [
    "Leaf",
    "Score",
    "drop_and_grow",
    "gradient_magnitude",
    "keep_largest",
    "keep_largest_by_sign",
    "magnitude",
    "prune",
    "uniform_random",
]


class Leaf(NamedTuple):
    """One sparsified leaf as scores see it; arrays have the leaf's shape."""

    layer: Layer
    weight: Float[Array, "..."]
    gradient: Float[Array, "..."]
    mask: Bool[Array, "..."]
    key: PRNGKeyArray


Score = Callable[[Leaf], Array]
"""Rates every entry of a leaf; larger is kept or grown first."""


def magnitude(leaf: Leaf) -> Array:
    """``|w|``."""
    return jnp.abs(leaf.weight)


def gradient_magnitude(leaf: Leaf) -> Array:
    """``|dL/dw|``, of the dense gradient."""
    return jnp.abs(leaf.gradient)


def uniform_random(leaf: Leaf) -> Array:
    """32 random bits per entry: a uniformly random order."""
    return jax.random.bits(leaf.key, leaf.weight.shape)


Keep = Callable[[Structure, list[Leaf], Array], tuple[list[Array], list[Array]]]
"""(structure, leaves, fraction to drop) -> masks that stay, and how many were dropped.

The numbers are per stacked layer; the masks lie inside the leaves' own.
"""


def keep_largest(score: Score) -> Keep:
    """Drops ``floor(fraction n)`` of a layer's ``n`` active weights, lowest first.

    Args:
      score: what makes a weight worth keeping.
    """

    def keep(structure: Structure, leaves: list[Leaf], fraction: Array):
        active = [active_count(leaf.layer, leaf.mask) for leaf in leaves]
        dropped = [_floor(fraction, count) for count in active]
        kept = [n - drop for n, drop in zip(active, dropped, strict=True)]
        masks = [leaf.mask for leaf in leaves]
        return _select(structure, leaves, score, kept, masks), dropped

    return keep


def keep_largest_by_sign(score: Score) -> Keep:
    """`keep_largest` among the positive and among the negative weights separately.

    SET's removal of the smallest positive and the largest negative weights (Mocanu et
    al., 2018), by counts instead of thresholds. Active weights that are zero count as
    positive, and so are the first to go.

    Args:
      score: what makes a weight worth keeping.
    """
    keep = keep_largest(score)

    def keep_both(structure: Structure, leaves: list[Leaf], fraction: Array):
        def side(negative):
            signed = [
                leaf._replace(mask=leaf.mask & ((leaf.weight < 0) == negative))
                for leaf in leaves
            ]
            return keep(structure, signed, fraction)

        (below, below_dropped), (above, above_dropped) = side(True), side(False)
        return (
            [one | other for one, other in zip(below, above, strict=True)],
            [m + n for m, n in zip(below_dropped, above_dropped, strict=True)],
        )

    return keep_both


def drop_and_grow(
    *, keep: Keep, grow: Score, fraction: Schedule, regrow_dropped: bool = True
) -> Rule:
    """Drops a fraction of every layer's weights and grows as many elsewhere.

    The number of weights of every layer is conserved exactly, whatever it is.

    Args:
      keep: which weights stay.
      grow: rates the candidates for growth.
      fraction: share of the active weights that is dropped, as a function of
        ``step / stop``.
      regrow_dropped: whether weights dropped by this move are candidates (they then
        keep their value and statistics), as in RigL's released code.
    """

    def rule(move: Move) -> list[Bool[Array, "..."]]:
        leaves = leaves_of(move)
        share = fraction(move.when.progress(move.step))
        kept, dropped = keep(move.structure, leaves, share)
        taken = kept if regrow_dropped else [leaf.mask for leaf in leaves]
        candidates = [~mask for mask in taken]
        grown = _select(move.structure, leaves, grow, dropped, candidates)
        return [stay | new for stay, new in zip(kept, grown, strict=True)]

    return rule


def prune(
    *, score: Score, schedule: Schedule, scope: Literal["layer", "global"] = "layer"
) -> Rule:
    """Removes the lowest-scored active weights until the budget is reached.

    At phase ``p`` of the schedule ``round(schedule(p) (N - n))`` of a layer's ``N``
    weights are zero, ``n`` being its budget; exactly ``N - n`` once the schedule is at
    1. Pruned weights never return.

    Args:
      score: what makes a weight worth keeping.
      schedule: share of the final zeros, from 0 to 1, as a function of the phase
        ``(step - start) / (stop - start)``.
      scope: "layer" ranks within each layer; "global" ranks all layers together, with
        the sum of the budgets.
    """

    def rule(move: Move) -> list[Bool[Array, "..."]]:
        share = schedule(move.when.phase(move.step))
        leaves = leaves_of(move)
        if scope == "global":
            size = sum(layer.size for layer in move.layers)
            budgets = (jnp.sum(budget) for budget in move.budgets)
            total = sum(budgets, start=jnp.zeros((), jnp.int32))
            scores = [score(leaf) for leaf in leaves]
            return top_k_mask(scores, _remaining(share, size, total), where=move.masks)
        kept = [
            _remaining(share, layer.size // layer.slices, budget)
            for layer, budget in zip(move.layers, move.budgets, strict=True)
        ]
        return _select(move.structure, leaves, score, kept, move.masks)

    return rule


def leaves_of(move: Move) -> list[Leaf]:
    """The sparsified leaves of a move, each with its own random key."""
    rows = zip(move.layers, move.weights, move.gradients, move.masks, strict=True)
    return [
        Leaf(*row, key=jax.random.fold_in(move.key, index))
        for index, row in enumerate(rows)
    ]


def active_count(layer: Layer, mask: Bool[Array, "..."]) -> Int[Array, "..."]:
    """Active weights of every layer that is stacked in a leaf."""
    axes = tuple(range(len(layer.spec.stacked), len(layer.shape)))
    return exact_count(mask, axes).astype(jnp.int32)


def _select(structure, leaves, score, counts, where) -> list[Bool[Array, "..."]]:
    layers = [leaf.layer for leaf in leaves]
    return structure.select(layers, [score(leaf) for leaf in leaves], counts, where)


def _floor(fraction: Array, count: Array) -> Array:
    return jnp.floor(fraction * count.astype(jnp.float32)).astype(jnp.int32)


def _remaining(share: Array, size: int, budget: Array) -> Array:
    """Weights left: by rounding on the way, by the exact integer at the end."""
    zeros = size - budget
    removed = jnp.round(share * zeros.astype(jnp.float32)).astype(jnp.int32)
    return jnp.where(share >= 1, budget, size - jnp.minimum(removed, zeros))
