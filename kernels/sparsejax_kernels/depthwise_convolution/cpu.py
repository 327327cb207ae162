"""The depthwise convolution by the native kernel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sparsejax_kernels.calls import at_level, call, floats, rows_first

__all__ = ["fused"]


def fused(
    x: Float[Array, "batch channels height width"],
    kernel: Float[Array, "channels 3 3"],
    bias: Float[Array, " channels"] | None,
    stride: int,
    activation: str | None,
) -> Float[Array, "batch channels rows columns"]:
    """The convolution, bias and activation in one pass."""

    @rows_first
    def run(x, kernel, bias):
        rows, columns = (-(-size // stride) for size in x.shape[2:])
        result = jax.ShapeDtypeStruct((*x.shape[:2], rows, columns), jnp.float32)
        attributes = {"relu": activation == "relu", "stride": np.int64(stride)}
        handler = call("depthwise_forward", result, **attributes, **at_level())
        return handler(x, kernel, bias)

    return run(*floats(x, kernel, bias))
