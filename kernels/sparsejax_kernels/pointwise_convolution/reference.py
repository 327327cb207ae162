"""What a 1x1 convolution with a fan-in weight means, in plain jax.numpy."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

__all__ = ["forward"]


def forward(
    x: Float[Array, "batch in pixels"],
    values: Float[Array, "out k"],
    indices: Integer[Array, "out k"],
) -> Float[Array, "batch out pixels"]:
    """``y[b, o, p] = sum_j values[o, j] * x[b, indices[o, j], p]``, in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.asarray([[[1.0, 2.0], [3.0, 4.0]]])
      >>> forward(x, jnp.ones((1, 2)), jnp.asarray([[0, 1]]))
      Array([[[4., 6.]]], dtype=float32)
    """
    read = indices.astype(jnp.int32)
    inputs = jnp.take(x, read, axis=1, mode="fill", fill_value=0)
    products = inputs.astype(jnp.float32) * values.astype(jnp.float32)[None, :, :, None]
    return jnp.sum(products, axis=2)
