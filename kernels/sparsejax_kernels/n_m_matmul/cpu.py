"""The product with a packed N:M weight by the native kernel, and its gradients.

The gradients are those of the fan-in format, by its kernels.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from sparsejax_kernels.calls import floats
from sparsejax_kernels.fan_in_matmul import cpu
from sparsejax_kernels.formats.packed_n_m import LANES, indices_of, packed_of, rows_of

__all__ = ["fused", "input_gradient", "value_gradient"]


def fused(
    x: Float[Array, "batch in"],
    values: Float[Array, "slices blocks slots 16"],
    offsets: Integer[Array, "slices blocks slots 16"],
    bias: Float[Array, " outputs"] | None,
    activation: str | None,
) -> Float[Array, "batch outputs"]:
    """The product, bias and activation in one pass, padding outputs included."""
    outputs = values.shape[0] * LANES
    run = cpu.forward_call("n_m_forward", outputs, activation == "relu")
    x, values, numbers = floats(x, values, bias)
    return run(x, values, offsets.astype(jnp.uint8), numbers)


def input_gradient(
    cotangent: Float[Array, "batch outputs"],
    values: Float[Array, "slices blocks slots 16"],
    offsets: Integer[Array, "slices blocks slots 16"],
    transposed: None,
    inputs: int,
) -> Float[Array, "batch in"]:
    """``dx[b, i] = sum over weights that read i of value * cotangent[b, o]``."""
    indices = indices_of(offsets, inputs)
    return cpu.input_gradient(cotangent, rows_of(values), indices, transposed, inputs)


def value_gradient(
    cotangent: Float[Array, "batch outputs"],
    x: Float[Array, "batch in"],
    offsets: Integer[Array, "slices blocks slots 16"],
) -> Float[Array, "slices blocks slots 16"]:
    """``dvalues = sum_b cotangent[b, o] * x[b, i]`` for the o and i of each weight."""
    rows = cpu.value_gradient(cotangent, x, indices_of(offsets, x.shape[1]))
    return packed_of(rows, offsets.shape)
