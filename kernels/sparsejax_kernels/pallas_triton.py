"""Pallas' Triton form: tiles of powers of two that may reach over an array's edge.

JAX deprecates this backend from 0.11 on. Nothing else in the package names it, so what
takes its place has to offer `launch`, `read` and `write`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Bool, Float, Int

from sparsejax_kernels.operations import interpreted
from sparsejax_kernels.tiles import Tiles, tiles

__all__ = [
    "SMALLEST",
    "Tile",
    "along",
    "cut",
    "dot",
    "launch",
    "numbers",
    "power_of_two",
    "read",
    "write",
]

Tile = tuple[int, int, int]
SMALLEST = 16
"""The shortest side of a product of two tiles."""


def launch(
    kernel: Callable[..., None],
    result: jax.ShapeDtypeStruct,
    grid: tuple[int, ...],
    *operands: Array,
    warps: int,
    stages: int = 2,
) -> Array:
    """Runs a kernel once for every point of a grid, on references to whole arrays."""
    run = pl.pallas_call(
        kernel,
        out_shape=result,
        grid=grid,
        interpret=interpreted(),
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=stages),
    )
    return run(*operands)


def power_of_two(size: int, smallest: int = 1, largest: int | None = None) -> int:
    """The side of a tile that covers ``size``, within bounds that are powers of two.

    Example:
      >>> power_of_two(24), power_of_two(3, smallest=16), power_of_two(99, largest=32)
      (32, 16, 32)
    """
    side = max(smallest, 1 << max(size - 1, 0).bit_length())
    return side if largest is None else min(side, largest)


def along(tile: Sequence[int], axis: int, start: Any = 0) -> Int[Array, "..."]:
    """A tile of indices that count up from ``start`` along one axis."""
    return start + jax.lax.broadcasted_iota(jnp.int32, tuple(tile), axis)


def read(ref: Any, *indices: Array, where: Bool[Array, "..."]) -> Array:
    """The elements at a tile of indices, zero where there are none."""
    return triton.load(ref.at[indices], mask=where, other=0)


def write(ref: Any, *indices: Array, tile: Array, where: Bool[Array, "..."]) -> None:
    """Stores a tile at indices, in the type of the array, where that is allowed."""
    triton.store(ref.at[indices], tile.astype(ref.dtype), mask=where)


def dot(a: Float[Array, "m k"], b: Float[Array, "k n"]) -> Float[Array, "m n"]:
    """The product of two tiles summed in float32, exact unless both are bfloat16."""
    if a.dtype == b.dtype == jnp.bfloat16:
        return jnp.dot(a, b, preferred_element_type=jnp.float32)
    wide = (a.astype(jnp.float32), b.astype(jnp.float32))
    return jnp.dot(*wide, precision="highest", preferred_element_type=jnp.float32)


def cut(operation: str, *arrays: Array) -> Tiles:
    """How an operation on such arrays is cut into tiles."""
    half = all(array.dtype == jnp.bfloat16 for array in arrays)
    return tiles(operation, "bfloat16" if half else "float32")


def numbers(bias: Array | None, outputs: int) -> Float[Array, " outputs"]:
    """The bias in float32, or zeros: kernels always read one."""
    if bias is None:
        return jnp.zeros(outputs, jnp.float32)
    return bias.astype(jnp.float32)
