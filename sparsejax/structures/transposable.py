"""Transposable N:M: N of every M along the inputs and along the outputs."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

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
_EXACT = 4


@functools.cache
def transposable(n: int, m: int) -> Structure:
    """Keeps ``n`` weights in every row and column of every ``m x m`` tile.

    The weight and its transpose are then both ``n:m``, so that forward and backward
    products can use hardware for it. For ``m <= 4`` the best pattern of every tile is
    found by trying all of them (90 for 2:4); above, tiles start from the best of their
    cyclic patterns and exchange entries between two rows, each time the best ones,
    until no exchange of any two rows gains.

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
            tiles = [_to_tiles(layer, one, m) for one in (score, allowed)]
            tiles.append(None if stay is None else _to_tiles(layer, stay, m))
            worth = _worth(*tiles)
            best = _best_pattern(worth, n) if m <= _EXACT else _exchanged(worth, n)
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


def _worth(score: Array, allowed: Array, kept: Array | None) -> Float[Array, "t m m"]:
    """Scores of a tile from 0 to 1; a kept entry outweighs them, a forbidden spoils."""
    wide = score.astype(jnp.float32)
    wide = jnp.where(allowed & jnp.isfinite(wide), wide, 0)
    low = wide.min((1, 2), keepdims=True)
    span = wide.max((1, 2), keepdims=True) - low
    heavy = 2.0 * score.shape[-1] ** 2
    worth = jnp.where(allowed, (wide - low) / jnp.where(span > 0, span, 1), -heavy)
    return worth if kept is None else jnp.where(kept, heavy + worth, worth)


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


def _best_pattern(worth: Float[Array, "tiles m m"], n: int) -> Bool[Array, "tiles m m"]:
    patterns = _patterns(n, worth.shape[-1])
    flat = jnp.asarray(patterns.reshape(len(patterns), -1), jnp.float32)
    totals = jnp.matmul(
        worth.reshape(len(worth), -1), flat.T, precision=lax.Precision.HIGHEST
    )
    return jnp.asarray(patterns)[jnp.argmax(totals, axis=-1)]


def _exchanged(worth: Float[Array, "tiles m m"], n: int) -> Bool[Array, "tiles m m"]:
    m = worth.shape[-1]
    shifts = (np.arange(m)[None, :] - np.arange(m)[:, None]) % m
    cyclic = np.stack([(shifts - first) % m < n for first in range(m)])
    totals = jnp.einsum("tij,pij->tp", worth, cyclic.astype(np.float32))
    start = jnp.asarray(cyclic)[jnp.argmax(totals, axis=-1)]
    pairs = jnp.array(list(itertools.combinations(range(m), 2)))
    ahead = jnp.arange(m)[:, None] > jnp.arange(m)

    def exchange(mask, pair):
        """Gives each of two rows the columns of their difference that it gains by."""
        one, other = mask[:, pair[0]], mask[:, pair[1]]
        gain = worth[:, pair[0]] - worth[:, pair[1]]
        free = one ^ other
        above = (gain[:, None, :] > gain[:, :, None]) | (
            (gain[:, None, :] == gain[:, :, None]) & ahead
        )
        rank = jnp.sum(above & free[:, None, :], axis=-1)
        wanted = jnp.sum(one & free, axis=-1, keepdims=True)
        taken = free & (rank < wanted)
        both = one & other
        mask = mask.at[:, pair[0]].set(both | taken)
        return mask.at[:, pair[1]].set(both | (free & ~taken)), None

    def sweep(carry):
        mask, _, sweeps = carry
        after, _ = lax.scan(exchange, mask, pairs)
        return after, jnp.any(after != mask), sweeps + 1

    def unfinished(carry):
        # Ties are broken by position, so that a sweep without gain changes nothing
        # twice; the bound is for rounding.
        return carry[1] & (carry[2] < 4 * m)

    begin = (start, jnp.array(True), jnp.int32(0))
    return jax.lax.while_loop(unfinished, sweep, begin)[0]
