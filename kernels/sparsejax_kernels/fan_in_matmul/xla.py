"""The product with a fan-in weight by XLA's own operations: the fallback."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from sparsejax_kernels.fan_in_matmul import reference
from sparsejax_kernels.formats import FanIn, Transposed

__all__ = ["input_gradient", "product", "value_gradient"]

# Larger dense weights are never built, for the time of one call either.
LARGEST_DENSE_WEIGHT = 2**26
GATHERED = 2**24
GATHER_DENSITY = 0.1


def product(
    x: Float[Array, "batch in"],
    values: Float[Array, "out k"],
    indices: Integer[Array, "out k"],
) -> Float[Array, "batch out"]:
    """By gathering at batch 1 and low density, else densely while that fits."""
    inputs = x.shape[1]
    gather = x.shape[0] == 1 and values.shape[1] <= GATHER_DENSITY * inputs
    if gather or inputs * values.shape[0] > LARGEST_DENSE_WEIGHT:

        def rows(part):
            one_values, one_indices = part
            return reference.forward(x, one_values[None], one_indices[None])[:, 0]

        chunk = max(1, GATHERED // max(1, x.shape[0] * values.shape[1]))
        chunk = None if chunk >= values.shape[0] else chunk
        if chunk is None:
            return reference.forward(x, values, indices)
        return jax.lax.map(rows, (values, indices), batch_size=chunk).T
    dense = FanIn(values, indices, inputs).todense()
    return jnp.dot(x, dense, preferred_element_type=jnp.float32)


def input_gradient(
    cotangent: Float[Array, "batch out"],
    values: Float[Array, "out k"],
    indices: Integer[Array, "out k"],
    transposed: Transposed | None,
    inputs: int,
) -> Float[Array, "batch in"]:
    """``dx[b, i] = sum over weights that read i of value * cotangent[b, o]``."""
    del transposed
    if inputs * values.shape[0] <= LARGEST_DENSE_WEIGHT:
        dense = FanIn(values, indices, inputs).todense()
        return jnp.dot(cotangent, dense.T, preferred_element_type=jnp.float32)

    def add(total, row):
        one_values, one_indices, one_cotangent = row
        terms = one_cotangent[:, None] * one_values[None]
        return total.at[:, one_indices].add(terms, mode="drop"), None

    start = jnp.zeros((cotangent.shape[0], inputs), jnp.float32)
    rows = (values, indices.astype(jnp.int32), cotangent.T)
    return jax.lax.scan(add, start, rows)[0]


def value_gradient(
    cotangent: Float[Array, "batch out"],
    x: Float[Array, "batch in"],
    indices: Integer[Array, "out k"],
) -> Float[Array, "out k"]:
    """``dvalues[o, j] = sum_b cotangent[b, o] * x[b, indices[o, j]]``, sampled."""
    read = indices.astype(jnp.int32)
    if x.shape[1] * cotangent.shape[1] <= LARGEST_DENSE_WEIGHT:
        dense = jnp.dot(cotangent.T, x, preferred_element_type=jnp.float32)
        kept = jnp.take_along_axis(dense, read, axis=1, mode="fill", fill_value=0)
        return kept

    def row(part):
        one_cotangent, one_indices = part
        inputs = jnp.take(x, one_indices, axis=1, mode="fill", fill_value=0)
        return one_cotangent @ inputs

    return jax.lax.map(row, (cotangent.T, read))
