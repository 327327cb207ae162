"""Transposable N:M: N of every M along the inputs and along the outputs."""

from __future__ import annotations

import functools
import itertools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from sparsejax.checks import check_step
from sparsejax.layers import Layer
from sparsejax.structures.base import (
    Structure,
    fitted_density,
    from_rows,
    selection_keys,
    thin_unstructured,
    to_rows,
)

__all__ = ["transposable"]

# Tiles up to this width are solved by looking at every pattern (90 of 2:4).
_ENUMERATED = 4


@functools.cache
def transposable(n: int, m: int) -> Structure:
    """Keeps ``n`` weights in every row and column of every ``m x m`` tile.

    The weight and its transpose are then both ``n:m``, so that forward and backward
    products can use hardware for it. The pattern of every tile is the best one: for
    ``m <= 4`` found by trying all of them (90 for 2:4), above by exchanging entries
    until no exchange gains, which takes about ten times as long for 4:8 and fifty times
    for 8:16. There is nothing denser to pass through: a schedule that prunes little by
    little arrives at once.

    Args:
      n: weights to keep in each row and column of a tile.
      m: width of a tile; must divide a layer's outputs and input channels.

    Raises:
      ValueError: unless ``1 <= n <= m``; at ``init`` if the sparsity is not 1 - n / m,
        or ``m`` does not divide a layer.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.static(
      ...     optax.sgd(0.1), sparsity=0.5, structure=sj.transposable(2, 4))
      >>> mask = sj.masks(tx.init({"kernel": jnp.ones((4, 4))}))["kernel"]
      >>> mask.sum(axis=0).tolist(), mask.sum(axis=1).tolist()
      ([2, 2, 2, 2], [2, 2, 2, 2])

    References:
      Hubara et al., "Accelerated Sparse Neural Training", NeurIPS 2021; Hu et al.,
      "Accelerating Transformer Pre-training with 2:4 Sparsity", ICML 2024.
    """
    check_step("n", n, least=1)
    check_step("m", m, least=1)
    if n > m:
        raise ValueError(f"n={n} of every m={m} weights cannot be kept; give n <= m")

    def select(layers, scores, counts, where=None, kept=None):
        del counts
        nothing = [None] * len(layers)
        masks = []
        rows = zip(layers, scores, where or nothing, kept or nothing, strict=True)
        for layer, score, inside, stay in rows:
            allowed = selection_keys(score, inside, stay) > 0
            stay = jnp.zeros_like(allowed) if stay is None else stay
            worth, rank = _worth(
                *(_to_tiles(layer, one, m) for one in (score, allowed, stay))
            )
            best = (_enumerated if m <= _ENUMERATED else _exchanged)(worth, rank, n)
            masks.append(_from_tiles(layer, best) & allowed)
        return masks

    def measure(layers, masks):
        del masks
        return [
            jnp.full(layer.stacked_shape, _kept(layer), jnp.int32) for layer in layers
        ]

    def fit(layers, budgets):
        for layer in layers:
            channels = layer.shape[layer.spec.fan_in[-1]]
            if layer.fan_out % m or channels % m:
                raise ValueError(
                    f"structure transposable {n}:{m} needs multiples of {m}; "
                    f"{layer.path} has {layer.fan_out} outputs and {channels} input "
                    "channels; leave it dense by `where`"
                )
        name = f"transposable {n}:{m}"
        return fitted_density(name, layers, budgets, [_kept(one) for one in layers])

    def _kept(layer: Layer) -> int:
        return layer.size // layer.slices * n // m

    return Structure(f"transposable {n}:{m}", select, thin_unstructured, measure, fit)


def _worth(
    score: Array, allowed: Bool[Array, "t m m"], kept: Bool[Array, "t m m"]
) -> tuple[Float[Array, "t m m"], Float[Array, "t m m"]]:
    """What an entry adds to its tile, and before that: 1 if kept, -1 if forbidden.

    Scores are brought to 0 to 1 in every tile, without those that have no say.
    """
    free = allowed & ~kept
    wide = score.astype(jnp.float32)
    finite = free & jnp.isfinite(wide)
    low = jnp.where(finite, wide, jnp.inf).min((1, 2), keepdims=True)
    high = jnp.where(finite, wide, -jnp.inf).max((1, 2), keepdims=True)
    span = jnp.where(high > low, high - low, 1)
    worth = jnp.clip((wide - jnp.where(high < low, 0, low)) / span, 0, 1)
    rank = kept.astype(jnp.float32) - (~allowed).astype(jnp.float32)
    return jnp.where(free, worth, 0), rank


def _to_tiles(layer: Layer, array: Array, m: int) -> Array:
    """``[tiles, m outputs, m inputs]``."""
    rows = to_rows(layer, array)
    outputs, inputs = rows.shape[-2:]
    split = rows.reshape(-1, outputs // m, m, inputs // m, m)
    return split.transpose(0, 1, 3, 2, 4).reshape(-1, m, m)


def _from_tiles(layer: Layer, tiles: Array) -> Array:
    m = tiles.shape[-1]
    split = tiles.reshape(-1, layer.fan_out // m, layer.fan_in // m, m, m)
    rows = split.transpose(0, 1, 3, 2, 4)
    shape = (*layer.stacked_shape, layer.fan_out, layer.fan_in)
    return from_rows(layer, rows.reshape(shape))


@functools.cache
def _patterns(n: int, m: int) -> np.ndarray:
    """All ``m x m`` zero-one matrices with row and column sums ``n``."""
    lines = [
        [i in chosen for i in range(m)]
        for chosen in itertools.combinations(range(m), n)
    ]
    tiles = np.array(list(itertools.product(lines, repeat=m)))
    return tiles[(tiles.sum(axis=1) == n).all(axis=1)]


def _best_of(
    patterns: np.ndarray, worth: Float[Array, "t m m"], rank: Float[Array, "t m m"]
) -> Bool[Array, "t m m"]:
    """The pattern of highest rank, and among those of highest worth."""
    flat = jnp.asarray(patterns.reshape(len(patterns), -1).T, jnp.float32)

    def total(values):
        tiles = values.reshape(len(values), -1)
        return jnp.matmul(tiles, flat, precision=lax.Precision.HIGHEST)

    ranks = total(rank)
    first = ranks == ranks.max(-1, keepdims=True)
    best = jnp.argmax(jnp.where(first, total(worth), -jnp.inf), axis=-1)
    return jnp.asarray(patterns)[best]


def _enumerated(worth: Array, rank: Array, n: int) -> Bool[Array, "t m m"]:
    return _best_of(_patterns(n, worth.shape[-1]), worth, rank)


def _exchanged(worth: Array, rank: Array, n: int) -> Bool[Array, "t m m"]:
    """The best pattern, by exchanges along cycles, from the best cyclic pattern.

    A row that gives up column ``x`` for ``y`` is an edge from ``x`` to ``y`` whose
    length is what the tile gains by it. A cycle of edges keeps the sums of all rows and
    columns, and a pattern is the best if no cycle has a positive length. Cycles are
    found as in the algorithm of Bellman and Ford, for all tiles at once.
    """
    m = worth.shape[-1]
    shifts = (np.arange(m)[None, :] - np.arange(m)[:, None]) % m
    start = _best_of(
        np.stack([(shifts - first) % m < n for first in range(m)]), worth, rank
    )
    # Integers, so that the search ends. One rank outweighs all worth of a tile, and a
    # path of m edges stays below 2**30.
    unit = 2**30 // (2 * m**3 + m)
    value = jnp.round(worth * unit).astype(jnp.int32)
    value += rank.astype(jnp.int32) * (unit * m * m)

    def exchange(carry):
        mask, _ = carry
        gain, row = _edges(mask, value)
        source, on_cycle, found = _cycle(gain)
        return _flipped(mask, row, source, on_cycle, found), found.any()

    return lax.while_loop(lambda carry: carry[1], exchange, (start, jnp.array(True)))[0]


def _edges(
    mask: Bool[Array, "t m m"], value: Int[Array, "t m m"]
) -> tuple[Int[Array, "t m m"], Int[Array, "t m m"]]:
    """The longest edge from column to column, and the row that it belongs to."""
    nothing = jnp.full(mask.shape, -(2**30), jnp.int32)

    def add(longest, row):
        length, owner = longest
        here, worth = mask[:, row], value[:, row]
        possible = here[:, :, None] & ~here[:, None, :]
        own = jnp.where(possible, worth[:, None, :] - worth[:, :, None], nothing)
        better = own > length
        return (jnp.where(better, own, length), jnp.where(better, row, owner)), None

    rows = jnp.arange(mask.shape[-1], dtype=jnp.int32)
    return lax.scan(add, (nothing, jnp.zeros_like(nothing)), rows)[0]


def _cycle(
    gain: Int[Array, "t m m"],
) -> tuple[Int[Array, "t m"], Int[Array, " t"], Bool[Array, " t"]]:
    """A cycle of positive length: each column's source, one column, whether any."""
    m = gain.shape[-1]
    none = jnp.zeros(gain.shape[:2], jnp.int32)

    def relax(carry, _):
        length, source, _ = carry
        through = length[:, :, None] + gain
        longest = through.max(1)
        better = longest > length
        best = jnp.argmax(through, 1).astype(jnp.int32)
        source = jnp.where(better, best, source)
        return (jnp.where(better, longest, length), source, better), None

    (_, source, better), _ = lax.scan(relax, (none, none, none.astype(bool)), length=m)
    # What a path of m edges improves comes from a cycle, m steps back at most.
    column = jnp.argmax(better, 1).astype(jnp.int32)
    column = lax.fori_loop(0, m, lambda _, one: _at(source, one), column)
    return source, column, better.any(1)


def _flipped(mask, row, source, start, found) -> Bool[Array, "t m m"]:
    """The masks after the exchange along the cycle through ``start``."""
    m, tile = mask.shape[-1], jnp.arange(len(mask))

    def follow(_, carry):
        mask, column, active = carry
        before = _at(source, column)
        owner = row[tile, before, column]
        mask = mask.at[tile, owner, before].set(mask[tile, owner, before] & ~active)
        mask = mask.at[tile, owner, column].set(mask[tile, owner, column] | active)
        return mask, before, active & (before != start)

    return lax.fori_loop(0, m, follow, (mask, start, found))[0]


def _at(values: Int[Array, "t m"], index: Int[Array, " t"]) -> Int[Array, " t"]:
    return jnp.take_along_axis(values, index[:, None], axis=1)[:, 0]
