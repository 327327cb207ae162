"""The product with a block weight by a TPU's matrix unit, and its two gradients.

Kept blocks are visited in the order of their columns, each once, and added up in the
tile of the output that they belong to: its place, as that of the inputs that a block
reads, is known before the step begins (scalar prefetch). This is the sparse matrix
product of JAX's Pallas documentation, with blocks of any shape. A step has an overhead
of its own, so blocks of 128 by 128 or more are what it is for. Places are held in a
scalar memory of 1 MiB, room for some 60,000 blocks, and a block in fast memory: 512 by
512 compiles for a v5e, 2048 by 2048 does not.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float, Integer

from sparsejax_kernels.calls import rows_first
from sparsejax_kernels.operations import finish
from sparsejax_kernels.tpu_tiles import (
    batch_tile,
    dot,
    padded,
    run,
    same_type,
    tiles_of,
)

__all__ = ["fused", "input_gradient", "value_gradient"]


def fused(
    x: Float[Array, "batch in"],
    values: Float[Array, "blocks height width"],
    coordinates: Integer[Array, "blocks 2"],
    bias: Float[Array, " out"] | None,
    activation: str | None,
    outputs: int,
) -> Float[Array, "batch out"]:
    """The product, bias and activation, in the type of x."""
    y = _multiply(x, values, coordinates, outputs, transposed=False)
    return finish(y, bias, activation).astype(x.dtype)


def input_gradient(
    cotangent: Float[Array, "batch out"],
    values: Float[Array, "blocks height width"],
    coordinates: Integer[Array, "blocks 2"],
    inputs: int,
) -> Float[Array, "batch in"]:
    """The product of the cotangent with the transposed weight."""
    return _multiply(cotangent, values, coordinates, inputs, transposed=True)


def value_gradient(
    cotangent: Float[Array, "batch out"],
    x: Float[Array, "batch in"],
    coordinates: Integer[Array, "blocks 2"],
    block: tuple[int, int],
) -> Float[Array, "blocks height width"]:
    """``x.T @ cotangent`` in the kept blocks alone, a step for each."""
    count, (height, width) = coordinates.shape[0], block
    if count == 0:
        return jnp.zeros((0, height, width), jnp.float32)
    (batch, inputs), outputs = x.shape, cotangent.shape[1]
    rows, columns = tiles_of(inputs, height), tiles_of(outputs, width)
    row, column, kept = _places(coordinates, inputs, outputs, block)
    x, cotangent = same_type(x, cotangent)
    tile = batch_tile(batch)

    def kernel(row, column, x, cotangent, dvalues):
        del row, column

        @pl.when(pl.program_id(1) == 0)
        def _():
            dvalues[...] = jnp.zeros_like(dvalues)

        dvalues[0] += dot(x[0], cotangent[0], "aTb")

    dvalues = run(
        kernel,
        (row, column),
        [
            (
                _cut(x, rows, height, tile),
                (1, tile, height),
                lambda n, b, row, column: (row[n], b, 0),
            ),
            (
                _cut(cotangent, columns, width, tile),
                (1, tile, width),
                lambda n, b, row, column: (column[n], b, 0),
            ),
        ],
        ((count, height, width), (1, height, width), lambda n, b, *_: (n, 0, 0)),
        (count, tiles_of(batch, tile)),
    )
    # Over the edges zeros were multiplied, perhaps by infinity.
    inside = kept[:, None, None]
    for axis, (start, size) in enumerate(
        ((row * height, inputs), (column * width, outputs)), start=1
    ):
        place = jax.lax.broadcasted_iota(jnp.int32, dvalues.shape, axis)
        inside = inside & (start[:, None, None] + place < size)
    return jnp.where(inside, dvalues, 0)


def _multiply(
    x: Float[Array, "batch in"],
    values: Float[Array, "blocks height width"],
    coordinates: Integer[Array, "blocks 2"],
    outputs: int,
    *,
    transposed: bool,
) -> Float[Array, "batch out"]:
    """``x @ w``, or ``x @ w.T`` with what x and outputs mean exchanged."""

    @rows_first
    def run_rows(x, values, coordinates):
        return _multiply_rows(x, values, coordinates, outputs, transposed)

    return run_rows(x, values, coordinates.astype(jnp.int32))


def _multiply_rows(x, values, coordinates, outputs, transposed):
    (batch, inputs), (count, *block) = x.shape, values.shape
    if count == 0:
        return jnp.zeros((batch, outputs), jnp.float32)
    if transposed:
        coordinates, block = coordinates[:, ::-1], block[::-1]
    height, width = block
    row, column, kept = _places(coordinates, inputs, outputs, block)
    rows, columns = tiles_of(inputs, height), tiles_of(outputs, width)
    # Padding comes last and is skipped there.
    order = jnp.argsort(jnp.where(kept, column, columns)).astype(jnp.int32)
    scalars = (order, row[order], column[order], kept[order].astype(jnp.int32))
    x, values = same_type(x, values)
    tile = batch_tile(batch)

    def kernel(order, row, column, kept, x, values, y):
        del order, row
        step = pl.program_id(1)

        @pl.when((step == 0) | (column[step] != column[jnp.maximum(step - 1, 0)]))
        def _():
            y[...] = jnp.zeros_like(y)

        @pl.when(kept[step] == 1)
        def _():
            y[0] += dot(x[0], values[0], "abT" if transposed else "ab")

    y = run(
        kernel,
        scalars,
        [
            (
                _cut(x, rows, height, tile),
                (1, tile, height),
                lambda b, n, order, row, *_: (row[n], b, 0),
            ),
            (values, (1, *values.shape[1:]), lambda b, n, order, *_: (order[n], 0, 0)),
        ],
        (
            (columns, tiles_of(batch, tile) * tile, width),
            (1, tile, width),
            lambda b, n, order, row, column, *_: (column[n], b, 0),
        ),
        (tiles_of(batch, tile), count),
    )
    # Nothing has been written where no block is.
    written = jnp.zeros(columns, bool).at[column].max(kept)
    y = jnp.where(written[:, None, None], y, 0).transpose(1, 0, 2)
    return y.reshape(y.shape[0], columns * width)[:batch, :outputs]


def _places(
    coordinates: Integer[Array, "blocks 2"],
    inputs: int,
    outputs: int,
    block: tuple[int, int] | list[int],
) -> tuple[Integer[Array, " n"], Integer[Array, " n"], Bool[Array, " n"]]:
    """Row and column of every block, and whether it is one; padding has the last."""
    row, column = coordinates.astype(jnp.int32).T
    rows, columns = tiles_of(inputs, block[0]), tiles_of(outputs, block[1])
    kept = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    kept = kept & (inputs > 0) & (outputs > 0)
    return jnp.where(kept, row, rows - 1), jnp.where(kept, column, columns - 1), kept


def _cut(
    array: Float[Array, "batch features"], parts: int, size: int, tile: int
) -> Float[Array, "parts rows size"]:
    """Features in parts of the size of a block, as which a kernel can read them."""
    rows = tiles_of(array.shape[0], tile) * tile
    array = padded(array, (rows, parts * size))
    return array.reshape(rows, parts, size).transpose(1, 0, 2)
