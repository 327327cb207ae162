"""Structures whose masks are unions of units: blocks, neurons, diagonals."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from sparsejax.layers import Layer
from sparsejax.selection import order_key, top_k_masks
from sparsejax.structures.base import Structure

__all__ = ["Units", "of_units"]


class Units(NamedTuple):
    """How a layer is divided into units.

    Attributes:
      size: ``layer -> weights of a (whole) unit``.
      number: ``layer -> units``.
      pool: ``(layer, scores) -> scores of units [*stacked, units]``, finite where all
        the scores are.
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

    def select(layers, scores, counts, where=None, kept=None):
        keys, wanted = [], []
        for i, (layer, score) in enumerate(zip(layers, scores, strict=True)):
            inside = jnp.ones(score.shape, bool) if where is None else where[i]
            eligible = units.gather(layer, inside)
            key = order_key(units.pool(layer, _finite(score)), eligible)
            if kept is not None:
                top = jnp.array(jnp.iinfo(key.dtype).max, key.dtype)
                key = jnp.where(units.gather(layer, kept[i]), top, key)
            keys.append(key)
            size = units.size(layer)
            wanted.append(-(-jnp.asarray(counts[i], jnp.int32) // size))
        chosen = top_k_masks(keys, wanted, where=[key > 0 for key in keys])
        return [units.spread(*pair) for pair in zip(layers, chosen, strict=True)]

    def thin(layers, scores, counts, where):
        return select(layers, scores, counts, where)

    def measure(layers, masks):
        found = []
        for layer, mask in zip(layers, masks, strict=True):
            number = units.gather(layer, mask).sum(-1, dtype=jnp.int32)
            found.append(number * units.size(layer))
        return found

    def fit(layers, budgets):
        return [
            tuple(_fitted(name, units, layer, count) for count in budget)
            for layer, budget in zip(layers, budgets, strict=True)
        ]

    return Structure(name, select, thin, measure, fit)


def _fitted(name: str, units: Units, layer: Layer, count: int) -> int:
    size, number = units.size(layer), units.number(layer)
    whole = min(round(count / size), number)
    if whole < 1:
        raise ValueError(
            f"{layer.path} may keep {count} weights, less than half of one unit of "
            f"structure {name}, which has {size}; lower `sparsity`, or leave the layer "
            "dense by `where`"
        )
    return whole * size


def _finite(score: Num[Array, "..."]) -> Float[Array, "..."]:
    """Scores that can be summed: random bits as floats, the worst for NaN and -inf."""
    if jnp.issubdtype(score.dtype, jnp.unsignedinteger):
        return (score >> 8).astype(jnp.float32)
    lowest = jnp.finfo(jnp.float32).min / 2**16
    wide = score if score.dtype.itemsize == 8 else score.astype(jnp.float32)
    return jnp.where(wide > -jnp.inf, wide, lowest)
