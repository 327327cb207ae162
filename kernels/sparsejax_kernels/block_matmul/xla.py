"""The product with a block weight by XLA's own operations: the fallback."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from sparsejax_kernels.block_matmul import reference
from sparsejax_kernels.formats import Block

__all__ = ["product"]

# Larger dense weights are never built, for the time of one call either.
LARGEST_DENSE_WEIGHT = 2**26


def product(
    x: Float[Array, "batch in"],
    values: Float[Array, "blocks height width"],
    coordinates: Integer[Array, "blocks 2"],
    outputs: int,
) -> Float[Array, "batch out"]:
    """Densely while that fits, else block by block."""
    if x.shape[1] * outputs > LARGEST_DENSE_WEIGHT:
        return reference.forward(x, values, coordinates, outputs)
    dense = Block(values, coordinates, x.shape[1], outputs).todense()
    return jnp.dot(x, dense.astype(x.dtype), preferred_element_type=jnp.float32)
