"""The product with a fan-in weight by a TPU's matrix unit, and its two gradients.

A TPU has no gather across its registers. So a kernel expands a tile of the weight, 128
inputs by 128 outputs, in fast memory, by comparing the indices with the numbers of the
inputs, and multiplies by it; the dense weight is in no memory at any time. Indices
ascend along a row, so that few of them can lie in a tile: the first and the last such
slot of each tile are found outside of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Integer

from sparsejax_kernels.calls import rows_first
from sparsejax_kernels.formats import Transposed
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

# Slots that are read at once: the rows of a register.
GROUP = 8
NOWHERE = -1


def fused(
    x: Float[Array, "batch in"],
    values: Float[Array, "out k"],
    indices: Integer[Array, "out k"],
    bias: Float[Array, " out"] | None,
    activation: str | None,
) -> Float[Array, "batch out"]:
    """The product, bias and activation, in the type of x."""

    @rows_first
    def run_rows(x, values, indices):
        return _multiply(x, values, indices, x.shape[1], transposed=False)

    y = run_rows(x, values, indices)
    return finish(y, bias, activation).astype(x.dtype)


def input_gradient(
    cotangent: Float[Array, "batch out"],
    values: Float[Array, "out k"],
    indices: Integer[Array, "out k"],
    transposed: Transposed | None,
    inputs: int,
) -> Float[Array, "batch in"]:
    """``dx[b, i] = sum over weights that read i of value * cotangent[b, o]``.

    By the same tiles, which serve in both directions; the transposed index is not read.
    """
    del transposed

    @rows_first
    def run_rows(cotangent, values, indices):
        return _multiply(cotangent, values, indices, inputs, transposed=True)

    return run_rows(cotangent, values, indices)


def value_gradient(
    cotangent: Float[Array, "batch out"],
    x: Float[Array, "batch in"],
    indices: Integer[Array, "out k"],
) -> Float[Array, "out k"]:
    """``dvalues[o, j] = sum_b cotangent[b, o] * x[b, indices[o, j]]``, sampled.

    A tile of ``x.T @ cotangent`` at a time, of which only the kept weights are stored.
    """
    (batch, inputs), (outputs, fan_in) = x.shape, indices.shape
    grid = tiles_of(outputs), tiles_of(inputs)
    slots = _slots_first(_known(indices, inputs), NOWHERE)
    first, last = _ranges(slots, grid)
    x, cotangent = same_type(x, cotangent)
    tile = batch_tile(batch)
    batches = tiles_of(batch, tile)
    x = padded(x, (batches * tile, grid[1] * TILE))
    cotangent = padded(cotangent, (batches * tile, grid[0] * TILE))

    def kernel(first, last, indices, x, cotangent, dvalues):
        output, place, part = (pl.program_id(axis) for axis in range(3))
        inputs = _inputs(place)

        @pl.when((place == 0) & (part == 0))
        def _():
            dvalues[...] = jnp.zeros_like(dvalues)

        def sample(group, gradient):
            rows = _rows(group)
            index, found = indices[rows, :], []
            for slot in range(GROUP):
                here = inputs == index[slot : slot + 1]
                kept = jnp.where(here, gradient, 0.0)
                found.append(jnp.sum(kept, axis=0, keepdims=True))
            dvalues[rows, :] += jnp.concatenate(found)
            return gradient

        start, stop = first[output, place], last[output, place]

        @pl.when(start < stop)
        def _():
            gradient = dot(x[...], cotangent[...], "aTb")
            jax.lax.fori_loop(start, stop, sample, gradient)

    dvalues = run(
        kernel,
        (first, last),
        [
            (slots, (slots.shape[0], TILE), lambda o, i, b, *_: (0, o)),
            (x, (tile, TILE), lambda o, i, b, *_: (b, i)),
            (cotangent, (tile, TILE), lambda o, i, b, *_: (b, o)),
        ],
        (slots.shape, (slots.shape[0], TILE), lambda o, i, b, *_: (0, o)),
        (*grid, batches),
    )
    return dvalues[:fan_in, :outputs].T


def _multiply(x, values, indices, inputs, *, transposed):
    """``x @ w``, or ``x @ w.T`` where x is a cotangent."""
    batch, outputs = x.shape[0], values.shape[0]
    grid = tiles_of(outputs), tiles_of(inputs)
    slots = _slots_first(_known(indices, inputs), NOWHERE)
    first, last = _ranges(slots, grid)
    x, values = same_type(x, values)
    numbers = _slots_first(values.astype(jnp.float32), 0)
    tile = batch_tile(batch)
    batches = tiles_of(batch, tile)
    summed, written = grid if transposed else grid[::-1]
    x = padded(x, (batches * tile, summed * TILE))

    def kernel(first, last, indices, values, x, y):
        @pl.when(pl.program_id(2) == 0)
        def _():
            y[...] = jnp.zeros_like(y)

        output, place = pl.program_id(1), pl.program_id(2)
        if transposed:
            output, place = place, output
        groups = first[output, place], last[output, place]

        @pl.when(groups[0] < groups[1])
        def _():
            weights = _expand(groups, place, indices, values)
            y[...] += kept_dot(
                x[...],
                weights,
                lambda: _expand(groups, place, indices, None),
                "abT" if transposed else "ab",
            )

    def slots_of(b, one, other, *_):
        return 0, (other if transposed else one)

    y = run(
        kernel,
        (first, last),
        [
            (slots, (slots.shape[0], TILE), slots_of),
            (numbers, (slots.shape[0], TILE), slots_of),
            (x, (tile, TILE), lambda b, one, other, *_: (b, other)),
        ],
        (
            (batches * tile, written * TILE),
            (tile, TILE),
            lambda b, one, other, *_: (b, one),
        ),
        (batches, written, summed),
    )
    return y[:batch, : inputs if transposed else outputs]


def _expand(groups, place, indices, values):
    """A tile of the dense weight, or, without values, of where it is kept."""
    inputs = _inputs(place)

    def add(group, tile):
        rows = _rows(group)
        index = indices[rows, :]
        value = jnp.ones(index.shape) if values is None else values[rows, :]
        for slot in range(GROUP):
            one = slice(slot, slot + 1)
            tile += jnp.where(inputs == index[one], value[one], 0.0)
        return tile

    zeros = jnp.zeros((TILE, TILE), jnp.float32)
    return jax.lax.fori_loop(groups[0], groups[1], add, zeros)


def _inputs(place):
    """Numbers of the inputs of a tile, one for each of its rows."""
    return place * TILE + jax.lax.broadcasted_iota(jnp.int32, (TILE, TILE), 0)


def _rows(group):
    return pl.ds(pl.multiple_of(group * GROUP, GROUP), GROUP)


def _known(indices: Integer[Array, "out k"], inputs: int) -> Integer[Array, "out k"]:
    """Indices as int32, padding where no input is."""
    wide = indices.astype(jnp.int32)
    return jnp.where((wide >= 0) & (wide < inputs), wide, NOWHERE)


def _slots_first(array: Array, padding: int) -> Array:
    """``(slots, outputs)``, in whole groups and tiles: a row is a slot of them all."""
    outputs, fan_in = array.shape
    shape = (tiles_of(fan_in, GROUP) * GROUP, tiles_of(outputs) * TILE)
    return padded(array.T, shape, padding)


def _ranges(
    slots: Integer[Array, "slots outputs"], grid: tuple[int, int]
) -> tuple[Integer[Array, "columns rows"], Integer[Array, "columns rows"]]:
    """First group of slots that may read a tile, and one past the last of them."""
    outputs, inputs = grid
    known = jnp.where(slots == NOWHERE, inputs * TILE, slots)
    largest = _over_groups(slots, outputs, jnp.max)
    smallest = _over_groups(known, outputs, jnp.min)
    start = TILE * jnp.arange(inputs, dtype=jnp.int32)[None, None]
    reads = (largest >= start) & (smallest < start + TILE)
    count = reads.shape[1]
    groups = jnp.arange(count, dtype=jnp.int32)[None, :, None]
    first = jnp.min(jnp.where(reads, groups, count), axis=1)
    return first, jnp.max(jnp.where(reads, groups + 1, 0), axis=1)


def _over_groups(
    slots: Integer[Array, "slots outputs"], outputs: int, reduce: Callable[..., Array]
) -> Integer[Array, "columns groups 1"]:
    """One number for each group of slots in a tile; two steps compile much faster."""
    lanes = reduce(slots.reshape(-1, outputs, TILE), axis=2)
    return reduce(lanes.reshape(-1, GROUP, outputs), axis=1).T[:, :, None]
