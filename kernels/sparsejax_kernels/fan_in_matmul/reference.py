"""What the product with a fan-in weight means, in plain jax.numpy."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

__all__ = ["forward"]


def forward(
    x: Float[Array, "batch in"],
    values: Float[Array, "out k"],
    indices: Integer[Array, "out k"],
) -> Float[Array, "batch out"]:
    """``y[b, o] = sum_j values[o, j] * x[b, indices[o, j]]``, summed in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> forward(jnp.asarray([[1.0, 2.0]]), jnp.ones((1, 2)), jnp.asarray([[0, 1]]))
      Array([[3.]], dtype=float32)
    """
    read = indices.astype(jnp.int32)
    inputs = jnp.take(x, read, axis=-1, mode="fill", fill_value=0)
    products = inputs.astype(jnp.float32) * values.astype(jnp.float32)[None]
    return jnp.sum(products, axis=-1)
