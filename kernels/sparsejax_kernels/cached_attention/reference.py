"""What attention over a cache means."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

__all__ = ["forward"]


def forward(
    query: Float[Array, "batch groups heads size"],
    keys: Float[Array, "batch groups capacity size"],
    values: Float[Array, "batch groups capacity size"],
    last: Int[Array, ""],
    padding: Int[Array, " batch"],
) -> Float[Array, "batch groups heads size"]:
    """Softmax of all scores at once, in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> values = jnp.arange(3.0).reshape(1, 1, 3, 1)
      >>> last, padding = jnp.int32(1), jnp.zeros(1, jnp.int32)
      >>> forward(jnp.ones((1, 1, 1, 1)), 0 * values, values, last, padding).tolist()
      [[[[0.5]]]]
    """
    places = jnp.arange(keys.shape[2])[None]
    seen = (places >= padding[:, None]) & (places <= last)
    query, keys, values = (x.astype(jnp.float32) for x in (query, keys, values))
    scores = jnp.einsum("bghs,bgcs->bghc", query, keys, precision="highest")
    scores = scores / math.sqrt(query.shape[-1])
    shares = jax.nn.softmax(jnp.where(seen[:, None, None], scores, -jnp.inf), axis=-1)
    return jnp.einsum("bghc,bgcs->bghs", shares, values, precision="highest")
