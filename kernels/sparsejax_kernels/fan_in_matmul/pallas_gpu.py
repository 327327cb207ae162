"""The product with a fan-in weight on GPUs, and its two gradients, all by gathering.

Every program holds a tile of (batch rows, outputs, weights of an output), gathers the
inputs that the weights read, multiplies and sums over one axis. The gather bounds it,
so it is meant for small batches: at large ones tensor cores multiply by a dense weight
faster. Kernels are in Pallas' Triton form, as Mosaic GPU cannot gather by an array of
indices.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Integer

from sparsejax_kernels.calls import rows_first
from sparsejax_kernels.formats import Transposed
from sparsejax_kernels.formats.transposed import transpose
from sparsejax_kernels.operations import finish
from sparsejax_kernels.pallas_triton import (
    Tile,
    along,
    cut,
    launch,
    numbers,
    power_of_two,
    read,
    write,
)

__all__ = ["fused", "input_gradient", "value_gradient"]

ROWS = 8
OUTPUTS = 16


def fused(
    x: Float[Array, "batch in"],
    values: Float[Array, "out k"],
    indices: Integer[Array, "out k"],
    bias: Float[Array, " out"] | None,
    activation: str | None,
) -> Float[Array, "batch out"]:
    """The product, bias and activation in one pass, in the type of x."""
    outputs, fan_in = values.shape
    if not x.size or not values.size:
        y = jnp.zeros((x.shape[0], outputs), x.dtype)
        return finish(y, bias, activation)

    @rows_first
    def run(x, values, indices, bias):
        size = cut("fan_in_matmul", x, values)
        tile = _tile(size.side, x.shape[0], outputs, fan_in)
        kernel = functools.partial(_forward, tile=tile, relu=activation == "relu")
        result = jax.ShapeDtypeStruct((x.shape[0], outputs), x.dtype)
        grid = (pl.cdiv(x.shape[0], tile[0]), pl.cdiv(outputs, tile[1]))
        operands = (x, values, indices, bias)
        return launch(kernel, result, grid, *operands, warps=size.warps)

    return run(x, values, indices, numbers(bias, outputs))


def input_gradient(
    cotangent: Float[Array, "batch out"],
    values: Float[Array, "out k"],
    indices: Integer[Array, "out k"],
    transposed: Transposed | None,
    inputs: int,
) -> Float[Array, "batch in"]:
    """``dx[b, i] = sum over weights that read i of value * cotangent[b, o]``."""
    if not cotangent.size or not values.size or not inputs:
        return jnp.zeros((cotangent.shape[0], inputs), cotangent.dtype)
    if transposed is None:
        transposed = transpose(indices, inputs)
    readers = -(-values.size // inputs)

    @rows_first
    def run(cotangent, values, starts, outputs, positions):
        size = cut("fan_in_matmul", cotangent, values)
        tile = _tile(size.side, cotangent.shape[0], inputs, readers)
        kernel = functools.partial(_input_gradient, tile=tile)
        result = jax.ShapeDtypeStruct((cotangent.shape[0], inputs), cotangent.dtype)
        grid = (pl.cdiv(cotangent.shape[0], tile[0]), pl.cdiv(inputs, tile[1]))
        operands = (cotangent, values, starts, outputs, positions)
        return launch(kernel, result, grid, *operands, warps=size.warps)

    index = (transposed.starts, transposed.outputs, transposed.positions)
    return run(cotangent, values.reshape(-1), *index)


def value_gradient(
    cotangent: Float[Array, "batch out"],
    x: Float[Array, "batch in"],
    indices: Integer[Array, "out k"],
) -> Float[Array, "out k"]:
    """``dvalues[o, j] = sum_b cotangent[b, o] * x[b, indices[o, j]]``, sampled."""
    if not x.size or not indices.size:
        return jnp.zeros(indices.shape, jnp.float32)

    @sequential_vmap
    def run(cotangent, x, indices):
        size = cut("fan_in_matmul", cotangent, x)
        tile = _tile(size.side, x.shape[0], *indices.shape)
        kernel = functools.partial(_value_gradient, tile=tile)
        result = jax.ShapeDtypeStruct(indices.shape, jnp.float32)
        grid = tuple(map(pl.cdiv, indices.shape, tile[1:]))
        operands = (cotangent, x, indices)
        return launch(kernel, result, grid, *operands, warps=size.warps)

    return run(cotangent, x, indices)


def _tile(gathered: int, batch: int, outputs: int, fan_in: int) -> Tile:
    """Batch rows, outputs and weights of an output that a program takes at once."""
    rows = power_of_two(batch, largest=ROWS)
    outputs = power_of_two(outputs, largest=OUTPUTS)
    return rows, outputs, power_of_two(fan_in, largest=gathered // (rows * outputs))


def _forward(
    x: Any, values: Any, indices: Any, bias: Any, y: Any, *, tile: Tile, relu: bool
) -> None:
    (batch, inputs), (outputs, fan_in) = x.shape, values.shape
    first_row, first = pl.program_id(0) * tile[0], pl.program_id(1) * tile[1]
    row = along(tile, 0, first_row)
    output = along(tile[1:], 0, first)

    def add(step, total):
        slot = along(tile[1:], 1, step * tile[2])
        kept = (output < outputs) & (slot < fan_in)
        value = read(values, output, slot, where=kept).astype(jnp.float32)
        index = read(indices, output, slot, where=kept).astype(jnp.int32)
        kept &= (index >= 0) & (index < inputs)
        kept = _each_row(kept, tile) & (row < batch)
        number = read(x, row, _each_row(index, tile), where=kept).astype(jnp.float32)
        return total + jnp.sum(number * _each_row(value, tile), axis=2)

    steps = pl.cdiv(fan_in, tile[2])
    total = jax.lax.fori_loop(0, steps, add, jnp.zeros(tile[:2], jnp.float32))
    row, output = along(tile[:2], 0, first_row), along(tile[:2], 1, first)
    total += read(bias, output, where=output < outputs)
    total = jnp.maximum(total, 0) if relu else total
    write(y, row, output, tile=total, where=(row < batch) & (output < outputs))


def _input_gradient(
    cotangent: Any,
    values: Any,
    starts: Any,
    outputs: Any,
    positions: Any,
    dx: Any,
    *,
    tile: Tile,
) -> None:
    batch, inputs = dx.shape
    first_row, first = pl.program_id(0) * tile[0], pl.program_id(1) * tile[1]
    row = along(tile, 0, first_row)
    each = along(tile[1:2], 0, first)
    start = read(starts, each, where=each < inputs)
    end = read(starts, each + 1, where=each < inputs)

    def add(step, total):
        entry = start[:, None] + along(tile[1:], 1, step * tile[2])
        kept = entry < end[:, None]
        kept &= (entry >= 0) & (entry < positions.shape[0])
        position = read(positions, entry, where=kept)
        kept &= (position >= 0) & (position < values.shape[0])
        value = read(values, position, where=kept).astype(jnp.float32)
        output = read(outputs, entry, where=kept).astype(jnp.int32)
        kept &= (output >= 0) & (output < cotangent.shape[1])
        kept = _each_row(kept, tile) & (row < batch)
        number = read(cotangent, row, _each_row(output, tile), where=kept)
        products = number.astype(jnp.float32) * _each_row(value, tile)
        return total + jnp.sum(products, axis=2)

    steps = pl.cdiv(jnp.max(end - start), tile[2])
    total = jax.lax.fori_loop(0, steps, add, jnp.zeros(tile[:2], jnp.float32))
    row, each = along(tile[:2], 0, first_row), along(tile[:2], 1, first)
    write(dx, row, each, tile=total, where=(row < batch) & (each < inputs))


def _value_gradient(
    cotangent: Any, x: Any, indices: Any, dvalues: Any, *, tile: Tile
) -> None:
    (batch, inputs), (outputs, fan_in) = x.shape, indices.shape
    first, first_slot = pl.program_id(0) * tile[1], pl.program_id(1) * tile[2]
    output, slot = along(tile[1:], 0, first), along(tile[1:], 1, first_slot)
    inside = (output < outputs) & (slot < fan_in)
    index = read(indices, output, slot, where=inside).astype(jnp.int32)
    kept = _each_row(inside & (index >= 0) & (index < inputs), tile)

    def add(step, total):
        row = along(tile, 0, step * tile[0])
        here = kept & (row < batch)
        number = read(x, row, _each_row(index, tile), where=here)
        row = along(tile[:2], 0, step * tile[0])
        output = along(tile[:2], 1, first)
        here = (row < batch) & (output < outputs)
        factor = read(cotangent, row, output, where=here).astype(jnp.float32)
        return total + jnp.sum(number.astype(jnp.float32) * factor[:, :, None], axis=0)

    steps = pl.cdiv(batch, tile[0])
    total = jax.lax.fori_loop(0, steps, add, jnp.zeros(tile[1:], jnp.float32))
    write(dvalues, output, slot, tile=total, where=inside)


def _each_row(array: Array, tile: Tile) -> Array:
    """The same for every batch row of a tile."""
    return jnp.broadcast_to(array[None], tile)
