"""Calls of native kernels: how they are named, and mapped over batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from sparsejax_kernels import native

__all__ = ["CHANNELS_FIRST", "at_level", "call", "floats", "index", "rows_first"]

CHANNELS_FIRST = (0, 3, 1, 2)
"""How images (batch, height, width, channels) lie in memory where kernels read them."""


def call(
    name: str,
    result: jax.ShapeDtypeStruct | Sequence[jax.ShapeDtypeStruct],
    *,
    layout: Sequence[int] | None = None,
    **attributes: Any,
) -> Callable:
    """A native kernel as a function of its operands.

    Args:
      name: one of `sparsejax_kernels.native`'s handlers.
      result: shapes and types of what it returns.
      layout: in which order the axes of the first operand and of the result lie in
        memory, the slowest first; default: in theirs.
      **attributes: of the handler; `at_level` is one of most.
    """

    def run(*operands):
        layouts = {}
        if layout is not None:
            layouts["input_layouts"] = [layout, *([None] * (len(operands) - 1))]
            layouts["output_layouts"] = layout
        target = jax.ffi.ffi_call(
            native.PREFIX + name, result, vmap_method="sequential", **layouts
        )
        return target(*operands, **attributes)

    return run


def at_level() -> dict[str, Any]:
    """The attribute that says which instruction set a kernel may use at most."""
    return {"level": np.int64(native.level())}


def floats(*arrays: Array | None) -> list[Array]:
    """What kernels read numbers as; None becomes an empty array."""
    return [
        jnp.zeros(0, jnp.float32) if array is None else array.astype(jnp.float32)
        for array in arrays
    ]


def index(array: Array) -> Array:
    """What kernels read indices as: uint16 where that is enough, else int32."""
    narrow = array.dtype in (jnp.uint8, jnp.uint16)
    return array.astype(jnp.uint16 if narrow else jnp.int32)


def rows_first(function: Callable[..., Array]) -> Callable[..., Array]:
    """Lets ``vmap`` over the first argument alone make its leading axis longer.

    Mapped over any other argument the function runs once for each element.
    """
    mapped_function = jax.custom_batching.custom_vmap(function)

    @mapped_function.def_vmap
    def batched(size, mapped, *operands):
        x = operands[0]
        if mapped[0] and not any(mapped[1:]):
            y = mapped_function(x.reshape(-1, *x.shape[2:]), *operands[1:])
            return y.reshape(size, -1, *y.shape[1:]), True

        def one(index):
            pairs = zip(operands, mapped, strict=True)
            return mapped_function(
                *(each[index] if many else each for each, many in pairs)
            )

        return jax.lax.map(one, jnp.arange(size)), True

    return mapped_function
