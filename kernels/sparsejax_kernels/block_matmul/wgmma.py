"""The product with a block weight on Hopper: one warpgroup per tile, in Mosaic GPU.

A program owns a tile of the output, walks over the kept blocks of its column, has the
tensor memory accelerator fetch them and the inputs that they read into a ring of
buffers in shared memory, and sums on the tensor cores. All operands lie as the
instruction reads them, so that no tile is transposed in shared memory.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Int

from sparsejax_kernels import pallas_versions
from sparsejax_kernels.operations import interpreted

__all__ = ["SIDES", "column_sums", "fits", "sampled"]

SIDES = (64, 128)
"""Heights and widths of blocks whose tiles fill swizzled lines of 128 bytes."""
SHARED = 160 * 1024
"""Bytes of shared memory that the ring of buffers may take."""


def fits(block: tuple[int, int], *arrays: Array) -> bool:
    """Whether these kernels run here, on such blocks and arrays of these types."""
    if not pallas_versions.hopper() and not interpreted():
        return False
    half = all(array.dtype == jnp.bfloat16 for array in arrays)
    return half and all(side in SIDES for side in block)


def column_sums(
    x: Float[Array, "batch in"],
    values: Float[Array, "blocks height width"],
    order: Int[Array, " blocks"],
    places: Int[Array, " blocks"],
    starts: Int[Array, " starts"],
) -> Float[Array, "batch columns_width"]:
    """For each column the sum of its blocks times the inputs that they read.

    Args:
      x: bfloat16, any batch; the inputs are padded to whole blocks here.
      values: bfloat16 blocks.
      order: blocks in the order of their columns.
      places: for each entry of ``order`` the row of its block.
      starts: where in ``order`` each column starts, and the end of the last one.

    Returns:
      The sums in float32, of whole columns.
    """
    (batch, inputs), (_, height, width) = x.shape, values.shape
    rows = 64 if batch <= 64 else 128
    x = jnp.pad(x, ((0, -batch % rows), (0, -inputs % height)))
    columns = starts.shape[0] - 1
    depth = _depth((rows + width) * height)

    def kernel(x_ref, values_ref, order_ref, places_ref, starts_ref, y_ref, *shared):
        row, column = jax.lax.axis_index("rows"), jax.lax.axis_index("columns")
        first, end = starts_ref[column], starts_ref[column + 1]

        def fetch(entry, left, right, barrier):
            place = places_ref[entry] * height
            here = (pl.ds(row * rows, rows), pl.ds(place, height))
            plgpu.copy_gmem_to_smem(x_ref.at[here], left, barrier)
            plgpu.copy_gmem_to_smem(values_ref.at[order_ref[entry]], right, barrier)

        here = (pl.ds(row * rows, rows), pl.ds(column * width, width))
        _sum_products(fetch, first, end, y_ref.at[here], depth, *shared)

    y = _launch(
        kernel,
        jax.ShapeDtypeStruct((x.shape[0], columns * width), jnp.float32),
        (x.shape[0] // rows, columns),
        (rows, height, width),
        depth,
    )(x, values, order, places, starts)
    return y[:batch]


def sampled(
    cotangent: Float[Array, "batch out"],
    x: Float[Array, "batch in"],
    coordinates: Int[Array, "blocks 2"],
    block: tuple[int, int],
) -> Float[Array, "blocks height width"]:
    """``x.T @ cotangent`` in the kept blocks alone; x is transposed beforehand."""
    (batch, inputs), outputs = x.shape, cotangent.shape[1]
    height, width = block
    step = 64
    # One more row and column of blocks, of zeros, for padding to read.
    left = jnp.pad(x, ((0, -batch % step), (0, -inputs % height + height))).T
    right = jnp.pad(cotangent, ((0, -batch % step), (0, -outputs % width + width)))
    depth = _depth((height + width) * step)

    def kernel(left_ref, right_ref, coordinates_ref, dvalues_ref, *shared):
        one = jax.lax.axis_index("columns")
        above = coordinates_ref[one, 0] * height
        before = coordinates_ref[one, 1] * width

        def fetch(entry, left, right, barrier):
            rows = pl.ds(entry * step, step)
            here = left_ref.at[pl.ds(above, height), rows]
            plgpu.copy_gmem_to_smem(here, left, barrier)
            here = right_ref.at[rows, pl.ds(before, width)]
            plgpu.copy_gmem_to_smem(here, right, barrier)

        end = right.shape[0] // step
        _sum_products(fetch, 0, end, dvalues_ref.at[one], depth, *shared)

    return _launch(
        kernel,
        jax.ShapeDtypeStruct((coordinates.shape[0], height, width), jnp.float32),
        (1, coordinates.shape[0]),
        (height, step, width),
        depth,
    )(left, right, coordinates)


def _depth(elements: int) -> int:
    """How many pairs of bfloat16 tiles shared memory holds, four at most."""
    return min(4, SHARED // (2 * elements))


def _launch(kernel: Any, result: Any, grid: Any, tile: Any, depth: int) -> Any:
    """A kernel with its buffers, for the device or for the interpreter."""
    rows, inner, columns = tile
    lines = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128))
    wide = (plgpu.TilingTransform((8, 32)), plgpu.SwizzleTransform(128))
    options = (
        {"interpret": pallas_versions.mosaic_gpu_interpreter()} if interpreted() else {}
    )
    return plgpu.kernel(
        kernel,
        out_type=result,
        grid=grid,
        grid_names=("rows", "columns"),
        scratch_types=[
            plgpu.SMEM((depth, rows, inner), jnp.bfloat16, transforms=lines),
            plgpu.SMEM((depth, inner, columns), jnp.bfloat16, transforms=lines),
            plgpu.SMEM((rows, columns), jnp.float32, transforms=wide),
            plgpu.Barrier(num_arrivals=2, num_barriers=depth),
        ],
        **options,
    )


def _sum_products(
    fetch: Any,
    first: Any,
    end: Any,
    result: Any,
    depth: int,
    left: Any,
    right: Any,
    stored: Any,
    barriers: Any,
) -> None:
    """Sums products of fetched tiles, ``depth`` of them on their way at a time."""

    def fetch_into(entry, slot):
        @pl.when(entry < end)
        def _():
            fetch(entry, left.at[slot], right.at[slot], barriers.at[slot])

    for slot in range(depth):
        fetch_into(first + slot, slot)

    def accumulate(total):
        def add(entry, carry):
            slot = jax.lax.rem(entry - first, depth)
            plgpu.barrier_wait(barriers.at[slot])
            plgpu.wgmma(total, left.at[slot], right.at[slot])
            plgpu.wgmma_wait(0)
            fetch_into(entry + depth, slot)
            return carry

        jax.lax.fori_loop(first, end, add, ())
        return total[...]

    stored[...] = pl.run_scoped(accumulate, plgpu.ACC(stored.shape, jnp.float32))  # pyright: ignore[reportPrivateImportUsage]
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(stored, result)
    plgpu.wait_smem_to_gmem(0)
