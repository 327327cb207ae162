"""The instruction `wgmma.mma_async.sp` of Hopper, for kernels in Mosaic GPU.

Pallas multiplies on dense tensor cores alone, so this goes one level below: to the
registers and descriptors of its compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.experimental.mosaic.gpu import fragmented_array, mma_utils
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import llvm, nvvm

__all__ = ["FOUR_WORDS", "SWIZZLED", "sparse_wgmma"]

SWIZZLED = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128))
"""How both operands lie in shared memory: in atoms of 8 lines of 128 bytes."""
FOUR_WORDS = plgpu.Layout.WG_STRIDED((2, 256), vec_size=4)
"""Each of the 128 threads has four words that follow one another."""
ATOM = 8 * 128
HEIGHT = 64
INSTRUCTIONS = 4
"""Instructions along the 128 inputs of a tile, 32 inputs each."""


def sparse_wgmma(columns: int) -> Callable[..., Any]:
    """A function ``(left, right, words, total) -> total + left @ right.T``.

    Args:
      columns: rows of ``right``, a multiple of 8 up to 256.

    Returns:
      The function, for use in a kernel. ``left`` is ``(128, 64)`` and ``right``
      ``(columns, 128)``, both bfloat16 and `SWIZZLED` in shared memory; ``words``, in
      the layout `FOUR_WORDS`, say for each pair of ``left`` which two of four numbers
      of ``right`` it multiplies (`sparsejax_kernels.formats.two_four`); ``total`` is
      ``(128, columns)``, float32, in the layout of dense products.
    """
    memory = plgpu.RefType(SWIZZLED)
    wgmma = plgpu.Layout.WGMMA
    return plgpu.inline_mgpu(
        arg_types=(memory, memory, FOUR_WORDS, wgmma),
        return_type=plgpu.ShapeDtypeStruct((128, columns), jnp.float32, layout=wgmma),
    )(_multiply)


def _multiply(context: Any, left: Any, right: Any, words: Any, total: Any) -> Any:
    del context
    layout = total.layout
    columns = total.shape[1]
    total = total.to_layout(fragmented_array.WGMMA_LAYOUT_ACC_32BIT)
    # Else the compiler may move the making of registers past the fence.
    total = fragmented_array.optimization_barrier(total)
    left, right = _descriptor(left, HEIGHT), _descriptor(right, columns)
    (word,) = words.registers.flat
    registers = total.registers.copy()
    for half in range(registers.shape[0]):
        operands = []
        for step in range(INSTRUCTIONS):
            # A pair of instructions shares a word and, on the right, a line.
            pair, selector = divmod(step, 2)
            operands += [
                _advanced(left, half * HEIGHT // 8 * ATOM + step * 32),
                _advanced(right, pair * ATOM + selector * 64),
                llvm.extractelement(word, _integer(2 * half + pair, 32)),
            ]
        old = registers[half : half + 1]
        new = _instructions(list(old.flat), operands, columns)
        registers[half : half + 1] = np.array(new, object).reshape(old.shape)
    nvvm.wgmma_wait_group_sync_aligned(0)
    result = fragmented_array.FragmentedArray(
        _registers=registers, _layout=total.layout, _is_signed=None
    )
    return fragmented_array.optimization_barrier(result).to_layout(layout)


def _instructions(total: list[Any], operands: list[Any], columns: int) -> list[Any]:
    """Four instructions that add to the same registers, as one group."""
    count = len(total)
    names = ", ".join(f"${index}" for index in range(count))
    lines = ["wgmma.fence.sync.aligned;"]
    for step in range(INSTRUCTIONS):
        left, right, word = (f"${2 * count + 3 * step + i}" for i in range(3))
        lines.append(
            f"wgmma.mma_async.sp.sync.aligned.m64n{columns}k32.f32.bf16.bf16 "
            f"{{{names}}}, {left}, {right}, {word}, {step % 2}, 1, 1, 1, 0, 0;"
        )
    lines.append("wgmma.commit_group.sync.aligned;")
    constraints = ["=f"] * count + [str(index) for index in range(count)]
    constraints += ["l", "l", "r"] * INSTRUCTIONS
    one = total[0].type
    struct: Any = llvm.inline_asm(
        llvm.StructType.get_literal([one] * count),
        [*total, *operands],
        " ".join(lines),
        ",".join(constraints),
        asm_dialect=0,
        has_side_effects=True,
    )
    return [llvm.extractvalue(one, struct, [index]) for index in range(count)]


def _descriptor(memory: Any, rows: int) -> Any:
    """What tells the tensor cores where an operand lies."""
    (base, _), *_ = mma_utils.create_descriptor(
        memory, swizzle=128, group_size=(rows, 64), logical_k_major=False
    )
    return base


def _advanced(descriptor: Any, offset: int) -> Any:
    """The descriptor of what lies so many bytes further on, in units of 16 bytes."""
    if offset == 0:
        return descriptor
    flags = llvm.IntegerOverflowFlags.none
    return llvm.add(descriptor, _integer(offset // 16, 64), overflow_flags=flags)


def _integer(value: int, bits: int) -> Any:
    kind = ir.IntegerType.get_signless(bits)
    return llvm.ConstantOp(kind, ir.IntegerAttr.get(kind, value)).result
