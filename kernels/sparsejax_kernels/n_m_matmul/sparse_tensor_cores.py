"""The product with a 2:4 weight by Hopper's sparse tensor cores, in Mosaic GPU.

A program owns 128 outputs and up to 128 rows of the batch, has the tensor memory
accelerator fetch values, words and inputs into a ring of buffers, and sums
``weight.T @ x.T``, as the sparse operand has to be the left one. The gradient with
respect to the activations is the same product with the transposed weight, if the mask
allows one.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Int

from sparsejax_kernels import pallas_versions
from sparsejax_kernels.calls import rows_first
from sparsejax_kernels.fan_in_matmul import reference
from sparsejax_kernels.formats.two_four import (
    ROWS,
    STEP,
    TwoFour,
    TwoFourTransposed,
    offsets_of,
)
from sparsejax_kernels.n_m_matmul import pallas_gpu
from sparsejax_kernels.n_m_matmul.sparse_wgmma import (
    FOUR_WORDS,
    SWIZZLED,
    sparse_wgmma,
)
from sparsejax_kernels.operations import finish, interpreted

__all__ = ["fused", "input_gradient", "value_gradient"]

COLUMNS = (32, 64, 128)
"""Rows of the batch that an instruction takes, its columns."""
DEPTH = 3
"""Tiles on their way; three of the largest take 150 KiB of shared memory."""


def fused(
    x: Float[Array, "batch in"],
    values: Float[Array, "out half_in"],
    words: Int[Array, "row_tiles steps 2 256"],
    bias: Float[Array, " out"] | None,
    activation: str | None,
) -> Float[Array, "batch out"]:
    """The product, bias and activation in the type of x; elsewhere by dense tiles."""
    if not x.size or not values.size:
        y = jnp.zeros((x.shape[0], values.shape[0]), x.dtype)
        return finish(y, bias, activation)
    if interpreted():
        # The instruction has no interpreter; this reads the words as it would.
        w = TwoFour(values, words, x.shape[1]).to_fan_in()
        y = reference.forward(x, w.values, w.indices)
        return finish(y, bias, activation).astype(x.dtype)
    half = x.dtype == values.dtype == jnp.bfloat16
    if not (half and pallas_versions.hopper()):
        offsets = _offsets(words, values)
        grouped = values.reshape(offsets.shape)
        return pallas_gpu.fused(x, grouped, offsets, bias, activation, 4)
    y = rows_first(_product)(x, values, words)
    return finish(y, bias, activation).astype(x.dtype)


def input_gradient(
    cotangent: Float[Array, "batch out"],
    values: Float[Array, "out half_in"],
    words: Int[Array, "row_tiles steps 2 256"],
    transposed: TwoFourTransposed | None,
    inputs: int,
) -> Float[Array, "batch in"]:
    """``dx[b, i] = sum over weights that read i of value * cotangent[b, o]``."""
    if transposed is not None:
        values = jnp.take(values.reshape(-1), transposed.places, axis=0)
        return fused(cotangent, values, transposed.words, None, None)
    offsets = _offsets(words, values)
    values = values.reshape(offsets.shape)
    return pallas_gpu.input_gradient(cotangent, values, offsets, None, inputs, 4)


def value_gradient(
    cotangent: Float[Array, "batch out"],
    x: Float[Array, "batch in"],
    words: Int[Array, "row_tiles steps 2 256"],
) -> Float[Array, "out half_in"]:
    """``dvalues = sum_b cotangent[b, o] * x[b, i]`` for the o and i of each weight."""
    outputs, inputs = cotangent.shape[1], x.shape[1]
    offsets = offsets_of(words)[:outputs, : inputs // 4]
    dvalues = pallas_gpu.value_gradient(cotangent, x, offsets, 4)
    return dvalues.reshape(outputs, inputs // 2)


def _offsets(words: Array, values: Array) -> Array:
    outputs, half = values.shape
    return offsets_of(words)[:outputs, : half // 2]


def _product(
    x: Float[Array, "batch in"],
    values: Float[Array, "out half_in"],
    words: Int[Array, "row_tiles steps 2 256"],
) -> Float[Array, "batch out"]:
    """The sums in float32."""
    batch, outputs = x.shape[0], values.shape[0]
    columns = next((most for most in COLUMNS if batch <= most), COLUMNS[-1])
    x = jnp.pad(x, ((0, -batch % columns), (0, -x.shape[1] % STEP)))
    rest = ((0, -outputs % ROWS), (0, -values.shape[1] % (STEP // 2)))
    values = jnp.pad(values, rest)
    return _launch(values, words, x, columns)[:outputs, :batch].T


def _launch(values: Array, words: Array, x: Array, columns: int) -> Array:
    """``weight.T @ x.T`` of whole tiles."""
    steps = x.shape[1] // STEP
    multiply = sparse_wgmma(columns)

    def kernel(values_ref, words_ref, x_ref, y_ref, *shared):
        left, right, selected, stored, barriers = shared
        row, column = jax.lax.axis_index("rows"), jax.lax.axis_index("columns")
        rows, places = pl.ds(row * ROWS, ROWS), pl.ds(column * columns, columns)

        def fetch(step, slot):
            @pl.when(step < steps)
            def _():
                def copy(source: Any, target: Any):
                    plgpu.copy_gmem_to_smem(source, target.at[slot], barriers.at[slot])

                half = STEP // 2
                copy(values_ref.at[rows, pl.ds(step * half, half)], left)
                copy(x_ref.at[places, pl.ds(step * STEP, STEP)], right)
                copy(words_ref.at[row, step], selected)

        for slot in range(DEPTH):
            fetch(slot, slot)

        def add(step, total):
            slot = jax.lax.rem(step, DEPTH)
            plgpu.barrier_wait(barriers.at[slot])
            which = pallas_versions.load(selected.at[slot], FOUR_WORDS)
            total = multiply(left.at[slot], right.at[slot], which, total)
            fetch(step + DEPTH, slot)
            return total

        zero = jnp.zeros((ROWS, columns), jnp.float32)
        zero = plgpu.layout_cast(zero, plgpu.Layout.WGMMA)
        stored[...] = jax.lax.fori_loop(0, steps, add, zero)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(stored, y_ref.at[rows, places])
        plgpu.wait_smem_to_gmem(0)

    wide = (plgpu.TilingTransform((8, 32)), plgpu.SwizzleTransform(128))
    run = plgpu.kernel(
        kernel,
        out_type=jax.ShapeDtypeStruct((values.shape[0], x.shape[0]), jnp.float32),
        grid=(values.shape[0] // ROWS, x.shape[0] // columns),
        grid_names=("rows", "columns"),
        scratch_types=[
            plgpu.SMEM((DEPTH, ROWS, STEP // 2), jnp.bfloat16, transforms=SWIZZLED),
            plgpu.SMEM((DEPTH, columns, STEP), jnp.bfloat16, transforms=SWIZZLED),
            plgpu.SMEM((DEPTH, 2, 256), jnp.int32),
            plgpu.SMEM((ROWS, columns), jnp.float32, transforms=wide),
            plgpu.Barrier(num_arrivals=3, num_barriers=DEPTH),
        ],
    )
    return run(values, words, x)
