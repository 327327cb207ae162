"""Structures whose masks are unions of units: blocks, neurons, diagonals."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num, UInt

from sparsejax.layers import Layer
from sparsejax.selection import order_key, top_k_masks
from sparsejax.structures.base import Structure, active_count

__all__ = ["Units", "of_units"]


class Units(NamedTuple):
    """How a layer is divided into units.

    Attributes:
      size: ``layer -> weights of a whole unit``; those at the edges may have fewer.
      number: ``layer -> units``.
      pool: ``(layer, scores) -> scores of units [*stacked, units]``, finite where all
        the scores are. A larger score of a weight never lowers that of its unit.
      spread: ``(layer, mask of units) -> mask of weights``.
      gather: ``(layer, mask of weights) -> mask of units`` that are wholly inside.
    """

    size: Callable[[Layer], int]
    number: Callable[[Layer], int]
    pool: Callable[[Layer, Float[Array, "..."]], Float[Array, "..."]]
    spread: Callable[[Layer, Bool[Array, "..."]], Bool[Array, "..."]]
    gather: Callable[[Layer, Bool[Array, "..."]], Bool[Array, "..."]]


def of_units(name: str, units: Units) -> Structure:
    """The structure that keeps whole units, those of highest pooled score."""

    def best(layers, scores, wanted, where, kept):
        keys = []
        for i, (layer, score) in enumerate(zip(layers, scores, strict=True)):
            inside = None if where is None else units.gather(layer, where[i])
            key = _unit_keys(units, layer, score, inside)
            if kept is not None:
                top = jnp.array(jnp.iinfo(key.dtype).max, key.dtype)
                key = jnp.where(units.gather(layer, kept[i]), top, key)
            keys.append(key)
        chosen = top_k_masks(keys, wanted, where=[key > 0 for key in keys])
        return [units.spread(*pair) for pair in zip(layers, chosen, strict=True)]

    def select(layers, scores, counts, where=None, kept=None):
        pairs = zip(layers, counts, strict=True)
        wanted = [_units_with(units, layer, count) for layer, count in pairs]
        return best(layers, scores, wanted, where, kept)

    def thin(layers, scores, counts, where):
        # As many units go as fit into the weights that are to go: none for none, even
        # if the units that are there are smaller ones at the edges.
        wanted = []
        for layer, count, mask in zip(layers, counts, where, strict=True):
            number = units.gather(layer, mask).sum(-1, dtype=jnp.int32)
            dropped = active_count(layer, mask) - jnp.asarray(count, jnp.int32)
            wanted.append(number - dropped // units.size(layer))
        return best(layers, scores, wanted, where, None)

    def measure(layers, masks):
        counts = []
        for layer, mask in zip(layers, masks, strict=True):
            number = units.gather(layer, mask).sum(-1, dtype=jnp.int32)
            counts.append(_weights_in(units, layer, number))
        return counts

    def fit(layers, budgets):
        return [
            tuple(_fitted(name, units, layer, count) for count in budget)
            for layer, budget in zip(layers, budgets, strict=True)
        ]

    return Structure(name, select, thin, measure, fit)


def _unit_keys(
    units: Units, layer: Layer, score: Num[Array, "..."], inside: Array | None
) -> UInt[Array, "..."]:
    """Keys of units; the lowest for one with a NaN or -inf, 0 outside ``inside``."""
    if jnp.issubdtype(score.dtype, jnp.unsignedinteger):
        # Random bits: as floats they can be pooled, and stay random.
        return order_key(units.pool(layer, (score >> 8).astype(jnp.float32)), inside)
    wide = score if score.dtype.itemsize == 8 else score.astype(jnp.float32)
    usable = wide > -jnp.inf
    largest = jnp.finfo(wide.dtype).max / 2**16
    finite = jnp.clip(jnp.where(usable, wide, 0), -largest, largest)
    key = order_key(units.pool(layer, finite), inside)
    lowest = jnp.minimum(key, jnp.ones_like(key))
    return jnp.where(units.gather(layer, usable), key, lowest)


def _average(units: Units, layer: Layer) -> Fraction:
    """Weights of a unit in counts and budgets: below `size` if edges are ragged."""
    return Fraction(layer.size // layer.slices, units.number(layer))


def _weights_in(units: Units, layer: Layer, number: Int[Array, "..."]) -> Array:
    average = _average(units, layer)
    if average.denominator == 1:
        return number * average.numerator
    return jnp.floor(number.astype(jnp.float32) * float(average)).astype(jnp.int32)


def _units_with(units: Units, layer: Layer, count: Array) -> Array:
    """The smallest number of units that has ``count`` weights."""
    average = _average(units, layer)
    if average.denominator == 1:
        return -(-jnp.asarray(count, jnp.int32) // average.numerator)
    number = jnp.asarray(count, jnp.float32) / float(average)
    # The inverse of `_weights_in` although both round: ragged units have 1.5 weights on
    # average or more, so that a whole weight less is a third of a unit or more.
    return jnp.ceil(number - 0.25).astype(jnp.int32)


def _fitted(name: str, units: Units, layer: Layer, count: int) -> int:
    average, number = _average(units, layer), units.number(layer)
    whole = min(round(count / average), number)
    if whole < 1:
        raise ValueError(
            f"{layer.path} may keep {count} weights, less than half of one unit of "
            f"structure {name}, which has {units.size(layer)}; lower `sparsity`, or "
            "leave the layer dense by `where`"
        )
    return int(whole * average)
