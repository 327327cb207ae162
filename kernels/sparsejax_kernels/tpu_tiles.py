"""What the TPU kernels share: shapes of tiles, products of tiles, how they are called.

Tiles are as large as the matrix unit of a TPU wants them, 128 by 128, and as the
largest of the types needs them: 16 rows for bfloat16, 32 for bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from sparsejax_kernels.operations import interpreted

__all__ = [
    "TILE",
    "batch_tile",
    "dot",
    "kept_dot",
    "padded",
    "run",
    "same_type",
    "tiles_of",
]

TILE = 128
BATCH = 512
BATCH_STEP = 16

# Contractions of two matrices: a @ b, a @ b.T and a.T @ b.
AXES = {"ab": ((1,), (0,)), "abT": ((1,), (1,)), "aTb": ((0,), (0,))}


def tiles_of(size: int, tile: int = TILE) -> int:
    """Tiles that cover a size, at least one."""
    return max(1, -(-size // tile))


def batch_tile(rows: int, largest: int = BATCH) -> int:
    """Rows of a tile of the batch: even parts, none larger than allowed.

    Example:
      >>> batch_tile(3), batch_tile(520)
      (16, 272)
    """
    rows = max(rows, 1)
    part = -(-rows // tiles_of(rows, largest))
    return -(-part // BATCH_STEP) * BATCH_STEP


def padded(array: Array, shape: Sequence[int], value: int = 0) -> Array:
    """An array with its axes made longer at their ends."""
    more = [(0, new - old) for old, new in zip(array.shape, shape, strict=True)]
    return jnp.pad(array, more, constant_values=value)


def same_type(*arrays: Array) -> list[Array]:
    """All in bfloat16 if they are so already, else all in float32."""
    small = all(array.dtype == jnp.bfloat16 for array in arrays)
    return [array.astype(jnp.bfloat16 if small else jnp.float32) for array in arrays]


def dot(a: Array, b: Array, contraction: str) -> Float[Array, "rows columns"]:
    """A product of two tiles, summed in float32; float32 is not rounded before."""
    exact = a.dtype == jnp.float32
    return jax.lax.dot_general(
        a,
        b,
        (AXES[contraction], ((), ())),
        precision=jax.lax.Precision.HIGHEST if exact else None,
        preferred_element_type=jnp.float32,
    )


def kept_dot(
    x: Array, weights: Array, kept: Callable[[], Array], contraction: str
) -> Float[Array, "rows columns"]:
    """`dot` with an expanded tile, in which zeros stand for what is not kept.

    Infinity times such a zero would not be a number, where a product that skips it is
    one. So a tile of activations that are not all finite takes a second way: they are
    left out, and only what reads them becomes NaN.

    Args:
      x: a tile of activations.
      weights: a tile of the dense weight, float32.
      kept: computes 1 where the tile keeps a weight and 0 elsewhere, float32.
      contraction: "ab" or "abT".
    """
    finite = jnp.abs(x.astype(jnp.float32)) < jnp.inf
    spoilt = jnp.where(finite, 0.0, 1.0)

    def plain():
        return dot(x, weights.astype(x.dtype), contraction)

    def careful():
        numbers = jnp.where(finite, x.astype(jnp.float32), 0.0)
        y = dot(numbers, weights, contraction)
        return jnp.where(dot(spoilt, kept(), contraction) > 0, jnp.nan, y)

    return jax.lax.cond(jnp.max(spoilt) > 0, careful, plain)


def run(
    kernel: Callable[..., None],
    scalars: Sequence[Array],
    operands: Sequence[tuple[Array, tuple[int, ...], Callable]],
    result: tuple[tuple[int, ...], tuple[int, ...], Callable],
    grid: tuple[int, ...],
) -> Array:
    """Calls a kernel for every point of a grid, the last axis fastest.

    Args:
      kernel: reads references to scalars and to blocks of operands, and writes one to
        a block of the result.
      scalars: int32 arrays that the kernel and the maps below read numbers from.
      operands: arrays, the shape of a block of each, and its map from a point of the
        grid and the references to scalars to the place of the block.
      result: shape of the float32 result, of a block, and its map.
      grid: points along each axis.
    """
    shape, block, where = result
    specification = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=len(scalars),
        grid=grid,
        in_specs=[pl.BlockSpec(size, place) for _, size, place in operands],
        out_specs=pl.BlockSpec(block, where),
    )
    call: Callable[..., Any] = pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct(shape, np.float32),
        grid_spec=specification,
        interpret=interpreted(),
    )
    return call(*scalars, *(array for array, _, _ in operands))
