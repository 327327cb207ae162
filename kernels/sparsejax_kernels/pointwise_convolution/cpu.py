"""The 1x1 convolution by the native kernel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from sparsejax_kernels.calls import at_level, call, floats, index, rows_first

__all__ = ["fused"]


def fused(
    x: Float[Array, "batch in pixels"],
    values: Float[Array, "out k"],
    indices: Integer[Array, "out k"],
    bias: Float[Array, " out"] | None,
    activation: str | None,
) -> Float[Array, "batch out pixels"]:
    """The convolution, bias and activation in one pass."""

    @rows_first
    def run(x, values, indices, bias):
        shape = (x.shape[0], values.shape[0], x.shape[2])
        result = jax.ShapeDtypeStruct(shape, jnp.float32)
        attributes = {"relu": activation == "relu", **at_level()}
        kernel = call("pointwise_forward", result, **attributes)
        return kernel(x, values, indices, bias)

    x, values, numbers = floats(x, values, bias)
    return run(x, values, index(indices), numbers)
