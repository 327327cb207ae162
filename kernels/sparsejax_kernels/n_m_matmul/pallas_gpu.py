"""The product with an N:M weight on GPUs, and its two gradients, by tensor cores.

Inputs are split into ``m`` planes, of which plane ``p`` holds input ``p`` of every
group. A tile of the weight for one plane is a comparison of the offsets with ``p``, in
registers, so that memory holds compressed weights alone, and a plane times its tile is
a dense product. Of its zeros an infinite input makes nan; where an operand has such a
number, which one scalar says, the same kernels go through the kept weights one by one
instead. Kernels are in Pallas' Triton form.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int, Integer

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

GROUPS = 32
TOGETHER = 4
"""Planes, at most, that share what is read of the weight; larger groups spill."""


def fused(
    x: Float[Array, "batch in"],
    values: Float[Array, "out groups n"],
    offsets: Integer[Array, "out groups n"],
    bias: Float[Array, " out"] | None,
    activation: str | None,
    m: int,
) -> Float[Array, "batch out"]:
    """The product, bias and activation in one pass, in the type of x."""
    outputs, groups, _ = values.shape
    if not x.size or not values.size:
        y = jnp.zeros((x.shape[0], outputs), x.dtype)
        return finish(y, bias, activation)

    @rows_first
    def run(x, values, offsets, bias):
        size = cut("n_m_matmul", x, values)
        tile = _tile(size.side, x.shape[0], outputs, groups)
        result = jax.ShapeDtypeStruct((x.shape[0], outputs), x.dtype)
        grid = (pl.cdiv(x.shape[0], tile[0]), pl.cdiv(outputs, tile[1]))
        relu = activation == "relu"
        kernel = functools.partial(_forward, tile=tile, relu=relu)
        planes = _planes(x, groups, m)
        return launch(
            kernel,
            result,
            grid,
            planes,
            values,
            offsets,
            bias,
            _finite(x),
            warps=size.warps,
        )

    return run(x, values, offsets, numbers(bias, outputs))


def input_gradient(
    cotangent: Float[Array, "batch out"],
    values: Float[Array, "out groups n"],
    offsets: Integer[Array, "out groups n"],
    transposed: None,
    inputs: int,
    m: int,
) -> Float[Array, "batch in"]:
    """``dx[b, i] = sum over weights that read i of value * cotangent[b, o]``."""
    del transposed
    outputs, groups, _ = values.shape
    if not cotangent.size or not values.size:
        return jnp.zeros((cotangent.shape[0], inputs), cotangent.dtype)

    @rows_first
    def run(cotangent, values, offsets):
        batch = cotangent.shape[0]
        size = cut("n_m_matmul", cotangent, values)
        tile = _tile(size.side, batch, outputs, groups)
        result = jax.ShapeDtypeStruct((m, batch, groups), cotangent.dtype)
        grid = (pl.cdiv(batch, tile[0]), pl.cdiv(groups, tile[2]), m)
        kernel = functools.partial(_input_gradient, tile=tile)
        operands = (cotangent, values, offsets, _finite(cotangent))
        planes = launch(kernel, result, grid, *operands, warps=size.warps)
        return planes.transpose(1, 2, 0).reshape(batch, groups * m)[:, :inputs]

    return run(cotangent, values, offsets)


def value_gradient(
    cotangent: Float[Array, "batch out"],
    x: Float[Array, "batch in"],
    offsets: Integer[Array, "out groups n"],
    m: int,
) -> Float[Array, "out groups n"]:
    """``dvalues = sum_b cotangent[b, o] * x[b, i]`` for the o and i of each weight."""
    if not x.size or not offsets.size:
        return jnp.zeros(offsets.shape, jnp.float32)
    outputs, groups, _ = offsets.shape

    @sequential_vmap
    def run(cotangent, x, offsets):
        size = cut("n_m_matmul", cotangent, x)
        tile = _tile(size.side, x.shape[0], outputs, groups)
        result = jax.ShapeDtypeStruct(offsets.shape, jnp.float32)
        grid = (pl.cdiv(outputs, tile[1]), pl.cdiv(groups, tile[2]), m)
        kernel = functools.partial(_value_gradient, tile=tile)
        return launch(
            kernel,
            result,
            grid,
            cotangent,
            _planes(x, groups, m),
            offsets,
            warps=size.warps,
        )

    return run(cotangent, x, offsets)


def _tile(largest: int, batch: int, outputs: int, groups: int) -> Tile:
    """Batch rows, outputs and groups that a program multiplies at once."""
    return (
        power_of_two(batch, SMALLEST, largest),
        power_of_two(outputs, SMALLEST, largest),
        power_of_two(groups, SMALLEST, GROUPS),
    )


def _planes(
    x: Float[Array, "batch in"], groups: int, m: int
) -> Float[Array, "m batch groups"]:
    """Plane ``p`` has the input ``p`` of each group, zero past the last input."""
    padded = jnp.pad(x, ((0, 0), (0, groups * m - x.shape[1])))
    return padded.reshape(x.shape[0], groups, m).transpose(2, 0, 1)


def _finite(array: Float[Array, "..."]) -> Int[Array, "1"]:
    """One where all numbers are finite, so that zeros times them are zero."""
    return jnp.isfinite(array).all().astype(jnp.int32)[None]


def _slots(
    values: Any, offsets: Any, output: Array, group: Array
) -> list[tuple[Array, Array]]:
    """Offset and weight of every slot of a tile of groups; outside all reads none."""
    outputs, groups, count = values.shape
    inside = (output < outputs) & (group < groups)
    found = []
    for slot in range(count):
        index = (output, group, jnp.full(output.shape, slot))
        offset = read(offsets, *index, where=inside).astype(jnp.int32)
        offset = jnp.where(inside, offset, -1)
        found.append((offset, read(values, *index, where=inside)))
    return found


def _weight(slots: list[tuple[Array, Array]], plane: Any) -> Array:
    """A tile of one plane of the dense weight."""
    first, *rest = (jnp.where(offset == plane, value, 0) for offset, value in slots)
    return sum(rest, start=first)


def _forward(
    planes: Any,
    values: Any,
    offsets: Any,
    bias: Any,
    finite: Any,
    y: Any,
    *,
    tile: Tile,
    relu: bool,
) -> None:
    (m, batch, groups), outputs = planes.shape, values.shape[0]
    rows, outs, width = tile
    first_row, first = pl.program_id(0) * rows, pl.program_id(1) * outs
    together = m if m <= TOGETHER else 1

    def multiply(step, total):
        plane, start = _plane_and_start(step, m // together, width)
        output, group = along((width, outs), 1, first), along((width, outs), 0, start)
        slots = _slots(values, offsets, output, group)
        row, group = along((rows, width), 0, first_row), along((rows, width), 1, start)
        there = (row < batch) & (group < groups)
        for one in range(together):
            one = plane * together + one
            left = read(planes, jnp.full(row.shape, one), row, group, where=there)
            total += dot(left, _weight(slots, one))
        return total

    def gather(step, total):
        plane, group = _plane_and_start(step, m, 1)
        row, output = along((rows, outs), 0, first_row), along((rows, outs), 1, first)
        group = jnp.full(row.shape, group)
        for offset, value in _slots(values, offsets, output, group):
            there = (offset == plane) & (row < batch)
            number = read(planes, jnp.full(row.shape, plane), row, group, where=there)
            value = jnp.where(there, value, 0)
            total += number.astype(jnp.float32) * value.astype(jnp.float32)
        return total

    total = jnp.zeros((rows, outs), jnp.float32)
    steps = pl.cdiv(groups, width) * (m // together)
    total = _either(finite, multiply, steps, gather, groups * m, total)
    row, output = along(total.shape, 0, first_row), along(total.shape, 1, first)
    total += read(bias, output, where=output < outputs)
    total = jnp.maximum(total, 0) if relu else total
    write(y, row, output, tile=total, where=(row < batch) & (output < outputs))


def _input_gradient(
    cotangent: Any, values: Any, offsets: Any, finite: Any, planes: Any, *, tile: Tile
) -> None:
    (_, batch, groups), outputs = planes.shape, values.shape[0]
    rows, outs, width = tile
    first_row, first = pl.program_id(0) * rows, pl.program_id(1) * width
    plane = pl.program_id(2)

    def multiply(step, total):
        start = step * outs
        row, output = along((rows, outs), 0, first_row), along((rows, outs), 1, start)
        there = (row < batch) & (output < outputs)
        left = read(cotangent, row, output, where=there)
        output, group = along((outs, width), 0, start), along((outs, width), 1, first)
        slots = _slots(values, offsets, output, group)
        return total + dot(left, _weight(slots, plane))

    def gather(step, total):
        row, group = along((rows, width), 0, first_row), along((rows, width), 1, first)
        output = jnp.full(row.shape, step)
        for offset, value in _slots(values, offsets, output, group):
            there = (offset == plane) & (row < batch)
            number = read(cotangent, row, output, where=there)
            value = jnp.where(there, value, 0)
            total += number.astype(jnp.float32) * value.astype(jnp.float32)
        return total

    total = jnp.zeros((rows, width), jnp.float32)
    steps = pl.cdiv(outputs, outs)
    total = _either(finite, multiply, steps, gather, outputs, total)
    row, group = along(total.shape, 0, first_row), along(total.shape, 1, first)
    index = (jnp.full(row.shape, plane), row, group)
    write(planes, *index, tile=total, where=(row < batch) & (group < groups))


def _value_gradient(
    cotangent: Any, planes: Any, offsets: Any, dvalues: Any, *, tile: Tile
) -> None:
    (m, batch, groups), (outputs, _, slots) = planes.shape, offsets.shape
    rows, outs, width = tile
    first, first_group = pl.program_id(0) * outs, pl.program_id(1) * width
    plane = pl.program_id(2)

    def add(step, total):
        output, row = along((outs, rows), 0, first), along((outs, rows), 1, step * rows)
        there = (row < batch) & (output < outputs)
        left = read(cotangent, row, output, where=there)
        row = along((rows, width), 0, step * rows)
        group = along((rows, width), 1, first_group)
        there = (row < batch) & (group < groups)
        right = read(planes, jnp.full(row.shape, plane), row, group, where=there)
        return total + dot(left, right)

    total = jnp.zeros((outs, width), jnp.float32)
    total = jax.lax.fori_loop(0, pl.cdiv(batch, rows), add, total)
    output, group = along(total.shape, 0, first), along(total.shape, 1, first_group)
    inside = (output < outputs) & (group < groups)
    for slot in range(slots):
        index = (output, group, jnp.full(total.shape, slot))
        offset = read(offsets, *index, where=inside).astype(jnp.int32)
        # Padding belongs to no plane; the first one clears it.
        padding = (offset >= m) & (plane == 0)
        kept = jnp.where(offset == plane, total, 0)
        write(dvalues, *index, tile=kept, where=inside & ((offset == plane) | padding))


def _either(
    finite: Any,
    multiply: Callable[..., Array],
    steps: int,
    gather: Callable[..., Array],
    single_steps: int,
    total: Array,
) -> Array:
    """Runs one of two loops: for both, the other one has no steps."""
    all_finite = finite[0]
    total = jax.lax.fori_loop(0, all_finite * steps, multiply, total)
    return jax.lax.fori_loop(0, (1 - all_finite) * single_steps, gather, total)


def _plane_and_start(step: Any, m: int, width: int) -> tuple[Any, Any]:
    """Which plane a step reads, and from which group on; planes alternate first."""
    return jax.lax.rem(step, jnp.int32(m)), jax.lax.div(step, jnp.int32(m)) * width
