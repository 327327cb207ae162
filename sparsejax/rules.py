"""Parts that masking methods are made of: scores, drop-and-grow, pruning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sparsejax.checks import check_choice
from sparsejax.layers import Layer
from sparsejax.masking import Move, Rule
from sparsejax.schedules import Schedule
from sparsejax.selection import top_k_mask
from sparsejax.structures import Structure
from sparsejax.structures.base import active_count

__all__ = [
    "Leaf",
    "Score",
    "check_scope",
    "drop_and_grow",
    "exponential_count",
    "gradient_magnitude",
    "keep_largest",
    "keep_largest_by_sign",
    "leaves_of",
    "magnitude",
    "prune",
    "remaining_count",
    "replace",
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


Keep = Callable[[Structure, list[Leaf], Array], list[Array]]
"""(structure, leaves, fraction to drop) -> masks that stay, inside the leaves' own."""


def keep_largest(score: Score, *, round_up: bool = False) -> Keep:
    """Drops ``floor(fraction n)`` of a layer's ``n`` active weights, lowest first.

    Args:
      score: what makes a weight worth keeping.
      round_up: whether ``ceil(fraction n)`` are dropped.
    """

    def keep(structure: Structure, leaves: list[Leaf], fraction: Array):
        active = [active_count(leaf.layer, leaf.mask) for leaf in leaves]
        share = [fraction * count.astype(jnp.float32) for count in active]
        dropped = [jnp.ceil(one) if round_up else jnp.floor(one) for one in share]
        kept = [
            count - one.astype(jnp.int32)
            for count, one in zip(active, dropped, strict=True)
        ]
        layers = [leaf.layer for leaf in leaves]
        masks = [leaf.mask for leaf in leaves]
        return structure.thin(layers, [score(leaf) for leaf in leaves], kept, masks)

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

        pairs = zip(side(True), side(False), strict=True)
        return [below | above for below, above in pairs]

    return keep_both


def drop_and_grow(
    *, keep: Keep, grow: Score, fraction: Schedule, regrow_dropped: bool = True
) -> Rule:
    """Drops a fraction of every layer's weights and grows as many elsewhere.

    What stays is completed to a mask of the structure: every layer has as many weights
    (units, groups) as before, exactly, whatever the number.

    Args:
      keep: which weights stay.
      grow: rates the candidates for growth.
      fraction: share of the active weights that is dropped, as a function of
        ``step / stop``.
      regrow_dropped: whether weights dropped by this move are candidates (they then
        keep their value and statistics), as in RigL's released code.
    """

    def rule(move: Move) -> list[Bool[Array, "..."]]:
        share = fraction(move.when.progress(move.step))
        return replace(move, keep, grow, share, regrow_dropped=regrow_dropped)

    return rule


def replace(
    move: Move,
    keep: Keep,
    grow: Score,
    fraction: Array,
    *,
    regrow_dropped: bool = True,
) -> list[Bool[Array, "..."]]:
    """One drop-and-grow of a move's masks, by a given fraction."""
    leaves, structure = leaves_of(move), move.structure
    counts = structure.measure(move.layers, move.masks)
    kept = keep(structure, leaves, fraction)
    scores = [grow(leaf) for leaf in leaves]
    if not regrow_dropped:
        pairs = zip(kept, move.masks, strict=True)
        candidates = [stay | ~mask for stay, mask in pairs]
        # Where there are too few of them, dropped weights fill up: the count is fixed.
        kept = structure.select(move.layers, scores, counts, candidates, kept)
    return structure.select(move.layers, scores, counts, None, kept)


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
            return top_k_mask(
                scores, remaining_count(share, size, total), where=move.masks
            )
        kept = [
            remaining_count(share, layer.size // layer.slices, budget)
            for layer, budget in zip(move.layers, move.budgets, strict=True)
        ]
        scores = [score(leaf) for leaf in leaves]
        return move.structure.select(move.layers, scores, kept, move.masks)

    return rule


def exponential_count(
    done: int | Int[Array, ""], rounds: int, size: int, budget: Int[Array, ""]
) -> Int[Array, ""]:
    """Weights left after some of the rounds in which as large a share goes each time.

    ``size (budget / size)**(done / rounds)``, rounded; exactly the budget in the end.

    Args:
      done: rounds until then.
      rounds: all of them.
      size: weights before the first.
      budget: weights after the last.

    Example:
      >>> [int(exponential_count(k, 3, 1000, jnp.array(100))) for k in range(4)]
      [1000, 464, 215, 100]
    """
    left = jnp.asarray(done, jnp.float32) / rounds
    share = (budget.astype(jnp.float32) / size) ** left
    count = jnp.maximum(jnp.round(size * share).astype(budget.dtype), budget)
    return jnp.where(left >= 1, budget, count)


def check_scope(scope: str, structure: Structure | None) -> None:
    """Raises unless ``scope`` is known, and ranks what the structure is made of."""
    check_choice("scope", scope, ("layer", "global"))
    name = "unstructured" if structure is None else structure.name
    if scope == "global" and name != "unstructured":
        raise ValueError(
            f"structure={name} does not go with scope='global', which ranks "
            "single weights of all layers; use scope='layer'"
        )


def leaves_of(move: Move) -> list[Leaf]:
    """The sparsified leaves of a move, each with its own random key."""
    rows = zip(move.layers, move.weights, move.gradients, move.masks, strict=True)
    return [
        Leaf(*row, key=jax.random.fold_in(move.key, index))
        for index, row in enumerate(rows)
    ]


def remaining_count(share: Array, size: int | Array, budget: Array) -> Array:
    """Weights left: by rounding on the way, by the exact integer at the end."""
    zeros = size - budget
    removed = jnp.round(share * zeros.astype(jnp.float32)).astype(jnp.int32)
    return jnp.where(share >= 1, budget, size - jnp.minimum(removed, zeros))
