"""The 1x1 convolution by the native kernel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from sparsejax_kernels.calls import call, rows_first

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
        kernel = call("pointwise_forward", result, relu=activation == "relu")
        return kernel(x, values, indices, bias)

    if bias is None:
        bias = jnp.zeros(0)
    narrow = indices.dtype in (jnp.uint8, jnp.uint16)
    index = indices.astype(jnp.uint16 if narrow else jnp.int32)
    x, values, bias = (each.astype(jnp.float32) for each in (x, values, bias))
    return run(x, values, index, bias)
