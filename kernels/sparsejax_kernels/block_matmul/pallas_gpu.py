"""The product with a block weight on GPUs, and its two gradients, block by block.

bfloat16 products of suitable blocks run on Hopper's warpgroup instructions
(`sparsejax_kernels.block_matmul.wgmma`). All others, any block shape and float32, are
the kernels of this file, in Pallas' Triton form: float32 without tensor cores, as their
float32 has the mantissa of float16.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Integer

from sparsejax_kernels.block_matmul import wgmma
from sparsejax_kernels.block_matmul.grouping import grouped
from sparsejax_kernels.calls import rows_first
from sparsejax_kernels.operations import finish
from sparsejax_kernels.pallas_triton import (
    SMALLEST,
    Tile,
    along,
    cut,
    dot,
    launch,
    numbers,
    power_of_two,
    read,
    write,
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
    """The product, bias and activation in one pass, in the type of x."""
    if not x.size or not values.size or not outputs:
        y = jnp.zeros((x.shape[0], outputs), x.dtype)
        return finish(y, bias, activation)
    run = _multiply(outputs, relu=activation == "relu", transposed=False)
    return run(x, values, coordinates.astype(jnp.int32), numbers(bias, outputs))


def input_gradient(
    cotangent: Float[Array, "batch out"],
    values: Float[Array, "blocks height width"],
    coordinates: Integer[Array, "blocks 2"],
    inputs: int,
) -> Float[Array, "batch in"]:
    """The product of the cotangent with the transposed weight."""
    if not cotangent.size or not values.size or not inputs:
        return jnp.zeros((cotangent.shape[0], inputs), cotangent.dtype)
    run = _multiply(inputs, relu=False, transposed=True)
    place = coordinates.astype(jnp.int32)[:, ::-1]
    return run(cotangent, values, place, numbers(None, inputs))


def value_gradient(
    cotangent: Float[Array, "batch out"],
    x: Float[Array, "batch in"],
    coordinates: Integer[Array, "blocks 2"],
    block: tuple[int, int],
) -> Float[Array, "blocks height width"]:
    """``x.T @ cotangent`` in the kept blocks alone."""
    shape = (coordinates.shape[0], *block)
    if not x.size or not cotangent.size or not shape[0]:
        return jnp.zeros(shape, jnp.float32)

    @sequential_vmap
    def run(cotangent, x, coordinates):
        if wgmma.fits(block, cotangent, x):
            return wgmma.sampled(cotangent, x, coordinates, block)
        size = cut("block_matmul", x, cotangent)
        tile = _tile(size.side, x.shape[0], *block)
        result = jax.ShapeDtypeStruct(shape, jnp.float32)
        grid = (shape[0], *map(pl.cdiv, block, tile[1:]))
        kernel = functools.partial(_value_gradient, tile=tile)
        return launch(kernel, result, grid, cotangent, x, coordinates, warps=size.warps)

    return run(cotangent, x, coordinates.astype(jnp.int32))


def _multiply(outputs: int, *, relu: bool, transposed: bool):
    """The product with a weight or, where places are swapped, its transpose."""

    @rows_first
    def run(x, values, place, bias):
        height, width = values.shape[:0:-1] if transposed else values.shape[1:]
        columns = pl.cdiv(outputs, width)
        order, starts = grouped(place[:, 1], columns)
        if wgmma.fits((height, width), x, values):
            # A copy, so that no tile is transposed on its way to the tensor cores.
            values = values.swapaxes(1, 2) if transposed else values
            y = wgmma.column_sums(x, values, order, place[order, 0], starts)
            activation = "relu" if relu else None
            return finish(y[:, :outputs], bias, activation).astype(x.dtype)
        size = cut("block_matmul", x, values)
        tile = _tile(size.side, x.shape[0], height, width)
        grid = (pl.cdiv(x.shape[0], tile[0]), columns, pl.cdiv(width, tile[2]))
        options = {"tile": tile, "relu": relu, "transposed": transposed}
        kernel = functools.partial(_forward, **options)
        result = jax.ShapeDtypeStruct((x.shape[0], outputs), x.dtype)
        operands = (x, values, order, place[order, 0], starts, bias)
        return launch(kernel, result, grid, *operands, warps=size.warps)

    return run


def _tile(largest: int, batch: int, height: int, width: int) -> Tile:
    """Batch rows, inputs and outputs of the products that a program sums."""
    rows, inputs, outputs = (
        power_of_two(side, SMALLEST, largest) for side in (batch, height, width)
    )
    return rows, inputs, outputs


def _forward(
    x: Any,
    values: Any,
    order: Any,
    places: Any,
    starts: Any,
    bias: Any,
    y: Any,
    *,
    tile: Tile,
    relu: bool,
    transposed: bool,
) -> None:
    (batch, inputs), outputs = x.shape, y.shape[1]
    height, width = values.shape[:0:-1] if transposed else values.shape[1:]
    rows, read_side, written_side = tile
    first_row, column = pl.program_id(0) * rows, pl.program_id(1)
    first = pl.program_id(2) * written_side
    chunks = pl.cdiv(height, read_side)
    start = starts[column]

    def add(step, total):
        entry = start + jax.lax.div(step, jnp.int32(chunks))
        offset = jax.lax.rem(step, jnp.int32(chunks)) * read_side
        shape = (rows, read_side)
        row, inner = along(shape, 0, first_row), along(shape, 1, offset)
        one = places[entry] * height + inner
        there = (row < batch) & (inner < height) & (one >= 0) & (one < inputs)
        left = read(x, row, one, where=there)
        shape = (read_side, written_side)
        inner, outer = along(shape, 0, offset), along(shape, 1, first)
        block = jnp.full(shape, order[entry])
        index = (block, outer, inner) if transposed else (block, inner, outer)
        right = read(values, *index, where=(inner < height) & (outer < width))
        return total + dot(left, right)

    steps = (starts[column + 1] - start) * chunks
    total = jnp.zeros((rows, written_side), jnp.float32)
    total = jax.lax.fori_loop(0, steps, add, total)
    row, outer = along(total.shape, 0, first_row), along(total.shape, 1, first)
    output = column * width + outer
    inside = (outer < width) & (output < outputs)
    total += read(bias, output, where=inside)
    total = jnp.maximum(total, 0) if relu else total
    write(y, row, output, tile=total, where=inside & (row < batch))


def _value_gradient(
    cotangent: Any, x: Any, coordinates: Any, dvalues: Any, *, tile: Tile
) -> None:
    (batch, inputs), outputs = x.shape, cotangent.shape[1]
    height, width = dvalues.shape[1:]
    rows, block = tile[0], pl.program_id(0)
    first_in, first_out = pl.program_id(1) * tile[1], pl.program_id(2) * tile[2]
    above = coordinates[block, 0] * height
    before = coordinates[block, 1] * width

    def add(step, total):
        shape = (tile[1], rows)
        inner, row = along(shape, 0, first_in), along(shape, 1, step * rows)
        one = above + inner
        there = (row < batch) & (inner < height) & (one >= 0) & (one < inputs)
        left = read(x, row, one, where=there)
        shape = (rows, tile[2])
        row, outer = along(shape, 0, step * rows), along(shape, 1, first_out)
        one = before + outer
        there = (row < batch) & (outer < width) & (one >= 0) & (one < outputs)
        right = read(cotangent, row, one, where=there)
        return total + dot(left, right)

    total = jnp.zeros(tile[1:], jnp.float32)
    total = jax.lax.fori_loop(0, pl.cdiv(batch, rows), add, total)
    inner, outer = along(tile[1:], 0, first_in), along(tile[1:], 1, first_out)
    index = (jnp.full(tile[1:], block), inner, outer)
    write(dvalues, *index, tile=total, where=(inner < height) & (outer < width))
