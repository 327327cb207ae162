"""The convolution by the native kernel."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from sparsejax_kernels.calls import (
    CHANNELS_FIRST,
    at_level,
    call,
    floats,
    index,
    rows_first,
)

__all__ = ["fused"]


def fused(
    x: Float[Array, "batch height width in"],
    values: Float[Array, "out k"],
    indices: Integer[Array, "out k"],
    bias: Float[Array, " out"] | None,
    *,
    size: tuple[int, int],
    strides: tuple[int, int],
    edges: Sequence[tuple[int, int]],
    rows_and_columns: tuple[int, int],
    activation: str | None,
) -> Float[Array, "batch rows columns out"]:
    """The convolution, bias and activation in one pass."""
    numbers = {
        "tall": size[0],
        "wide": size[1],
        "row_stride": strides[0],
        "column_stride": strides[1],
        "above": edges[0][0],
        "before": edges[1][0],
    }

    @rows_first
    def run(x, values, indices, bias):
        handler = call(
            "convolution_forward",
            jax.ShapeDtypeStruct(
                (x.shape[0], *rows_and_columns, values.shape[0]), jnp.float32
            ),
            layout=CHANNELS_FIRST,
            relu=activation == "relu",
            **{name: np.int64(number) for name, number in numbers.items()},
            **at_level(),
        )
        return handler(x, values, indices, bias)

    x, values, bias = floats(x, values, bias)
    return run(x, values, index(indices), bias)
