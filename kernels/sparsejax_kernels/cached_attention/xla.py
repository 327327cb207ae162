"""Attention over a cache by jax's own, which reads all of it: the fallback."""

from __future__ import annotations

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
    """By `jax.nn.dot_product_attention`."""
    batch, groups, heads, size = query.shape
    places = jnp.arange(keys.shape[2])[None]
    seen = (places >= padding[:, None]) & (places <= last)
    keys, values = (x.swapaxes(1, 2).astype(query.dtype) for x in (keys, values))
    flat = query.reshape(batch, 1, groups * heads, size)
    mask = seen[:, None, None]
    found = jax.nn.dot_product_attention(flat, keys, values, mask=mask)
    return found.reshape(query.shape)
