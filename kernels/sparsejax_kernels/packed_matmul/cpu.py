"""The product with a packed weight by the native kernel, and its gradients.

The gradients are those of the fan-in format, by its kernels.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from sparsejax_kernels.calls import floats, index
from sparsejax_kernels.fan_in_matmul import cpu
from sparsejax_kernels.formats.packed import LANES, indices_of, packed_of, rows_of

__all__ = ["Places", "fused", "input_gradient", "value_gradient"]

Places = tuple[
    Integer[Array, "slices blocks slots 16"], Integer[Array, "slices depth 16"]
]
"""Offsets of the slots, inputs of the rest."""


def fused(
    x: Float[Array, "batch in"],
    values: Float[Array, "slices entries 16"],
    places: Places,
    bias: Float[Array, " outputs"] | None,
    activation: str | None,
) -> Float[Array, "batch outputs"]:
    """The product, bias and activation in one pass, padding outputs included."""
    offsets, rest = places
    outputs = values.shape[0] * LANES
    run = cpu.forward_call("packed_forward", outputs, activation == "relu")
    x, values, numbers = floats(x, values, bias)
    return run(x, values, offsets.astype(jnp.uint8), index(rest), numbers)


def input_gradient(
    cotangent: Float[Array, "batch outputs"],
    values: Float[Array, "slices entries 16"],
    places: Places,
    transposed: None,
    inputs: int,
) -> Float[Array, "batch in"]:
    """``dx[b, i] = sum over weights that read i of value * cotangent[b, o]``."""
    indices = indices_of(places, inputs)
    return cpu.input_gradient(cotangent, rows_of(values), indices, transposed, inputs)


def value_gradient(
    cotangent: Float[Array, "batch outputs"],
    x: Float[Array, "batch in"],
    places: Places,
) -> Float[Array, "slices entries 16"]:
    """``dvalues = sum_b cotangent[b, o] * x[b, i]`` for the o and i of each weight."""
    return packed_of(cpu.value_gradient(cotangent, x, indices_of(places, x.shape[1])))
