"""The product with a block weight by the native kernels, and its two gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from sparsejax_kernels.calls import at_level, call, floats, rows_first

__all__ = ["fused", "input_gradient", "value_gradient"]


def fused(
    x: Float[Array, "batch in"],
    values: Float[Array, "blocks height width"],
    coordinates: Integer[Array, "blocks 2"],
    bias: Float[Array, " out"] | None,
    activation: str | None,
    outputs: int,
) -> Float[Array, "batch out"]:
    """The product, bias and activation in one pass."""
    run = _multiply(outputs, relu=activation == "relu", transposed=False)
    x, values, numbers = floats(x, values, bias)
    return run(x, values, coordinates.astype(jnp.int32), numbers)


def input_gradient(
    cotangent: Float[Array, "batch out"],
    values: Float[Array, "blocks height width"],
    coordinates: Integer[Array, "blocks 2"],
    inputs: int,
) -> Float[Array, "batch in"]:
    """The product of the cotangent with the transposed weight."""
    run = _multiply(inputs, relu=False, transposed=True)
    cotangent, values, no_bias = floats(cotangent, values, None)
    return run(cotangent, values, coordinates.astype(jnp.int32), no_bias)


def value_gradient(
    cotangent: Float[Array, "batch out"],
    x: Float[Array, "batch in"],
    coordinates: Integer[Array, "blocks 2"],
    block: tuple[int, int],
) -> Float[Array, "blocks height width"]:
    """``x.T @ cotangent`` in the kept blocks alone."""
    shape = jax.ShapeDtypeStruct((coordinates.shape[0], *block), jnp.float32)
    run = call("block_value_gradient", shape, **at_level())
    return run(*floats(cotangent, x), coordinates.astype(jnp.int32))


def _multiply(outputs: int, *, relu: bool, transposed: bool):
    @rows_first
    def run(x, values, coordinates, bias):
        shape = jax.ShapeDtypeStruct((x.shape[0], outputs), jnp.float32)
        attributes = {"relu": relu, "transposed": transposed, **at_level()}
        kernel = call("block_forward", shape, **attributes)
        return kernel(x, values, coordinates, bias)

    return run
