"""The product with a block weight by the native kernels, and its two gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from sparsejax_kernels.calls import call, rows_first

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
    if bias is None:
        bias = jnp.zeros(0, jnp.float32)
    run = _multiply(outputs, relu=activation == "relu", transposed=False)
    return run(_float(x), _float(values), _integer(coordinates), _float(bias))


def input_gradient(
    cotangent: Float[Array, "batch out"],
    values: Float[Array, "blocks height width"],
    coordinates: Integer[Array, "blocks 2"],
    inputs: int,
) -> Float[Array, "batch in"]:
    """The product of the cotangent with the transposed weight."""
    run = _multiply(inputs, relu=False, transposed=True)
    bias = jnp.zeros(0, jnp.float32)
    return run(_float(cotangent), _float(values), _integer(coordinates), bias)


def value_gradient(
    cotangent: Float[Array, "batch out"],
    x: Float[Array, "batch in"],
    coordinates: Integer[Array, "blocks 2"],
    block: tuple[int, int],
) -> Float[Array, "blocks height width"]:
    """``x.T @ cotangent`` in the kept blocks alone."""
    shape = jax.ShapeDtypeStruct((coordinates.shape[0], *block), jnp.float32)
    run = call("block_value_gradient", shape)
    return run(_float(cotangent), _float(x), _integer(coordinates))


def _multiply(outputs: int, *, relu: bool, transposed: bool):
    @rows_first
    def run(x, values, coordinates, bias):
        shape = jax.ShapeDtypeStruct((x.shape[0], outputs), jnp.float32)
        kernel = call("block_forward", shape, relu=relu, transposed=transposed)
        return kernel(x, values, coordinates, bias)

    return run


def _float(array):
    return array.astype(jnp.float32)


def _integer(array):
    return array.astype(jnp.int32)
