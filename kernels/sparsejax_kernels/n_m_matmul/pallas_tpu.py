"""The product with an N:M weight by a TPU's matrix unit, and its two gradients.

What a weight's offset names is one of m planes of the activations: plane j holds the
j-th input of every group. A kernel expands the part of the weight that reads a plane,
in fast memory, by comparing the offsets with j, and multiplies by it; neither the dense
weight nor an index of it is in any memory. Offsets are read as bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Integer

from sparsejax_kernels.calls import rows_first
from sparsejax_kernels.operations import finish
from sparsejax_kernels.tpu_tiles import (
    TILE,
    batch_tile,
    dot,
    kept_dot,
    padded,
    run,
    same_type,
    tiles_of,
)

__all__ = ["fused", "input_gradient", "value_gradient"]

# No group has that many inputs.
NOWHERE = 255
# Rows of the smallest tile of bytes.
BYTES = 32
# Activations in fast memory at a time: planes times rows of the batch.
LARGEST_ROWS = 4096


def _planes(
    x: Float[Array, "batch in"], groups: int, m: int
) -> Float[Array, "batch m groups"]:
    """Activations by their place in a group, with zeros for inputs past the last.

    Example:
      >>> _planes(jnp.asarray([[1.0, 2.0, 3.0]]), groups=2, m=2).tolist()
      [[[1.0, 3.0], [2.0, 0.0]]]
    """
    x = padded(x, (x.shape[0], groups * m))
    return x.reshape(-1, groups, m).swapaxes(1, 2)


def fused(
    x: Float[Array, "batch in"],
    values: Float[Array, "out groups n"],
    offsets: Integer[Array, "out groups n"],
    bias: Float[Array, " out"] | None,
    activation: str | None,
    m: int,
) -> Float[Array, "batch out"]:
    """The product, bias and activation, in the type of x."""

    @rows_first
    def run_rows(x, values, offsets):
        return _forward(_planes(x, values.shape[1], m), values, offsets)

    y = run_rows(x, values, offsets)
    return finish(y, bias, activation).astype(x.dtype)


def input_gradient(
    cotangent: Float[Array, "batch out"],
    values: Float[Array, "out groups n"],
    offsets: Integer[Array, "out groups n"],
    transposed: None,
    inputs: int,
    m: int,
) -> Float[Array, "batch in"]:
    """The cotangent times what reads each plane, transposed."""
    del transposed

    @rows_first
    def run_rows(cotangent, values, offsets):
        planes = _backward(cotangent, values, offsets, m).swapaxes(1, 2)
        return planes.reshape(len(planes), -1)[:, :inputs]

    return run_rows(cotangent, values, offsets)


def value_gradient(
    cotangent: Float[Array, "batch out"],
    x: Float[Array, "batch in"],
    offsets: Integer[Array, "out groups n"],
    m: int,
) -> Float[Array, "out groups n"]:
    """``dvalues = sum_b cotangent[b, o] * x[b, i]`` for the o and i of each weight.

    A tile of ``x.T @ cotangent`` at a time, of which only the kept weights are stored.
    """
    batch, (outputs, groups, slots) = x.shape[0], offsets.shape
    tiles = _tiles(batch, m, groups, outputs)
    x, cotangent = same_type(_planes(x, groups, m), cotangent)

    def kernel(offsets, x, cotangent, dvalues):
        @pl.when(pl.program_id(2) == 0)
        def _():
            dvalues[...] = jnp.zeros_like(dvalues)

        def sample(plane, _):
            gradient = dot(x[plane], cotangent[...], "aTb")

            def keep(slot, _):
                here = offsets[slot].astype(jnp.int32) == plane
                dvalues[slot] += jnp.where(here, gradient, 0.0)

            jax.lax.fori_loop(0, max(1, slots), keep, None)

        jax.lax.fori_loop(0, m, sample, None)

    bytes_ = _of_weight(offsets.astype(jnp.uint8), tiles, NOWHERE)
    block = bytes_.shape[0], tiles.group, TILE
    dvalues = run(
        kernel,
        (),
        [
            (bytes_, block, lambda g, o, b: (0, g, o)),
            (
                _of_planes(x, tiles),
                (m, tiles.batch, tiles.group),
                lambda g, o, b: (0, b, g),
            ),
            (
                _of_outputs(cotangent, tiles),
                (tiles.batch, TILE),
                lambda g, o, b: (b, o),
            ),
        ],
        (bytes_.shape, block, lambda g, o, b: (0, g, o)),
        (tiles.groups, tiles.outputs, tiles.batches),
    )
    return dvalues[:slots, :groups, :outputs].T


class _Tiles(NamedTuple):
    """Sizes of a tile of the batch and of the groups, and how many tiles there are."""

    batch: int
    group: int
    batches: int
    groups: int
    outputs: int


def _tiles(batch: int, m: int, groups: int, outputs: int) -> _Tiles:
    largest = max(16, min(512, LARGEST_ROWS // m // 16 * 16))
    rows = batch_tile(batch, largest)
    group = min(TILE, tiles_of(groups, BYTES) * BYTES)
    counts = tiles_of(batch, rows), tiles_of(groups, group), tiles_of(outputs)
    return _Tiles(rows, group, *counts)


def _of_weight(array: Array, tiles: _Tiles, padding: int) -> Array:
    """``(n, groups, out)`` in whole tiles."""
    shape = (max(1, array.shape[2]), tiles.groups * tiles.group, tiles.outputs * TILE)
    return padded(array.T, shape, padding)


def _of_planes(x: Array, tiles: _Tiles) -> Array:
    """``(m, batch, groups)`` in whole tiles."""
    shape = x.shape[1], tiles.batches * tiles.batch, tiles.groups * tiles.group
    return padded(x.swapaxes(0, 1), shape)


def _of_outputs(cotangent: Array, tiles: _Tiles) -> Array:
    return padded(cotangent, (tiles.batches * tiles.batch, tiles.outputs * TILE))


def _expand(plane, offsets, values):
    """What reads a plane of a dense tile, or, without values, where that is kept."""

    def add(slot, tile):
        here = offsets[slot].astype(jnp.int32) == plane
        value = 1.0 if values is None else values[slot].astype(jnp.float32)
        return tile + jnp.where(here, value, 0.0)

    zeros = jnp.zeros(offsets.shape[1:], jnp.float32)
    return jax.lax.fori_loop(0, offsets.shape[0], add, zeros)


def _forward(x, values, offsets):
    (batch, m, groups), outputs = x.shape, values.shape[0]
    tiles = _tiles(batch, m, groups, outputs)
    x, values = same_type(x, values)

    def kernel(offsets, values, x, y):
        @pl.when(pl.program_id(2) == 0)
        def _():
            y[...] = jnp.zeros_like(y)

        def add(plane, _):
            weights = _expand(plane, offsets, values)
            y[...] += kept_dot(
                x[plane], weights, lambda: _expand(plane, offsets, None), "ab"
            )

        jax.lax.fori_loop(0, m, add, None)

    offsets = _of_weight(offsets.astype(jnp.uint8), tiles, NOWHERE)
    weight = (offsets.shape[0], tiles.group, TILE), lambda b, o, g: (0, g, o)
    y = run(
        kernel,
        (),
        [
            (offsets, *weight),
            (_of_weight(values, tiles, 0), *weight),
            (
                _of_planes(x, tiles),
                (m, tiles.batch, tiles.group),
                lambda b, o, g: (0, b, g),
            ),
        ],
        (
            (tiles.batches * tiles.batch, tiles.outputs * TILE),
            (tiles.batch, TILE),
            lambda b, o, g: (b, o),
        ),
        (tiles.batches, tiles.outputs, tiles.groups),
    )
    return y[:batch, :outputs]


def _backward(cotangent, values, offsets, m):
    batch, (outputs, groups, _) = cotangent.shape[0], values.shape
    tiles = _tiles(batch, m, groups, outputs)
    cotangent, values = same_type(cotangent, values)

    def kernel(offsets, values, cotangent, dx):
        @pl.when(pl.program_id(2) == 0)
        def _():
            dx[...] = jnp.zeros_like(dx)

        def add(plane, _):
            weights = _expand(plane, offsets, values)
            dx[plane] += kept_dot(
                cotangent[...], weights, lambda: _expand(plane, offsets, None), "abT"
            )

        jax.lax.fori_loop(0, m, add, None)

    offsets = _of_weight(offsets.astype(jnp.uint8), tiles, NOWHERE)
    weight = (offsets.shape[0], tiles.group, TILE), lambda b, g, o: (0, g, o)
    dx = run(
        kernel,
        (),
        [
            (offsets, *weight),
            (_of_weight(values, tiles, 0), *weight),
            (
                _of_outputs(cotangent, tiles),
                (tiles.batch, TILE),
                lambda b, g, o: (b, o),
            ),
        ],
        (
            (m, tiles.batches * tiles.batch, tiles.groups * tiles.group),
            (m, tiles.batch, tiles.group),
            lambda b, g, o: (0, b, g),
        ),
        (tiles.batches, tiles.groups, tiles.outputs),
    )
    return dx[:, :batch, :groups].swapaxes(0, 1)
