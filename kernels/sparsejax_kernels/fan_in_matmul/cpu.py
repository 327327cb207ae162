"""The product with a fan-in weight by the native kernels, and its two gradients."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from sparsejax_kernels.calls import at_level, call, floats, index, rows_first
from sparsejax_kernels.formats import Transposed
from sparsejax_kernels.formats.base import index_dtype

__all__ = [
    "forward_call",
    "fused",
    "gradients",
    "input_gradient",
    "transpose",
    "value_gradient",
]


def fused(
    x: Float[Array, "batch in"],
    values: Float[Array, "out k"],
    indices: Integer[Array, "out k"],
    bias: Float[Array, " out"] | None,
    activation: str | None,
) -> Float[Array, "batch out"]:
    """The product, bias and activation in one pass."""
    run = forward_call("fan_in_forward", values.shape[0], activation == "relu")
    x, values, numbers = floats(x, values, bias)
    return run(x, values, index(indices), numbers)


def input_gradient(
    cotangent: Float[Array, "batch out"],
    values: Float[Array, "out k"],
    indices: Integer[Array, "out k"],
    transposed: Transposed | None,
    inputs: int,
) -> Float[Array, "batch in"]:
    """``dx[b, i] = sum over weights that read i of value * cotangent[b, o]``."""
    if transposed is None:
        transposed = transpose(indices, inputs)
    result = jax.ShapeDtypeStruct((cotangent.shape[0], inputs), jnp.float32)
    return call("fan_in_input_gradient", result, **at_level())(
        *floats(cotangent, values),
        transposed.starts,
        index(transposed.outputs),
        transposed.positions,
    )


def value_gradient(
    cotangent: Float[Array, "batch out"],
    x: Float[Array, "batch in"],
    indices: Integer[Array, "out k"],
) -> Float[Array, "out k"]:
    """``dvalues[o, j] = sum_b cotangent[b, o] * x[b, indices[o, j]]``, sampled."""
    result = jax.ShapeDtypeStruct(indices.shape, jnp.float32)
    run = call("fan_in_value_gradient", result, **at_level())
    return run(*floats(cotangent, x), index(indices))


def gradients(
    cotangent: Float[Array, "batch out"],
    x: Float[Array, "batch in"],
    values: Float[Array, "out k"],
    indices: Integer[Array, "out k"],
    transposed: Transposed | None,
) -> tuple[Float[Array, "batch in"], Float[Array, "out k"]]:
    """Both of the above in one pass, which reads the cotangent once."""
    if transposed is None:
        transposed = transpose(indices, x.shape[1])
    results = (
        jax.ShapeDtypeStruct(x.shape, jnp.float32),
        jax.ShapeDtypeStruct(values.shape, jnp.float32),
    )
    return call("fan_in_gradients", results, **at_level())(
        *floats(cotangent, x, values),
        index(indices),
        transposed.starts,
        index(transposed.outputs),
        transposed.positions,
    )


def transpose(indices: Integer[Array, "out k"], inputs: int) -> Transposed:
    """`sparsejax_kernels.formats.transposed.transpose` by a counting sort."""
    entries = (indices.size,)
    rows = index_dtype(max(indices.shape[0], 256))
    results = (
        jax.ShapeDtypeStruct((inputs + 1,), jnp.int32),
        jax.ShapeDtypeStruct(entries, rows),
        jax.ShapeDtypeStruct(entries, jnp.int32),
    )
    return Transposed(*call("fan_in_transpose", results)(index(indices)))


def forward_call(name: str, outputs: int, relu: bool) -> Callable[..., Array]:
    """A forward kernel; mapping it over activations alone is a larger batch."""

    @rows_first
    def run(x, *weight):
        result = jax.ShapeDtypeStruct((x.shape[0], outputs), jnp.float32)
        return call(name, result, relu=relu, **at_level())(x, *weight)

    return run
