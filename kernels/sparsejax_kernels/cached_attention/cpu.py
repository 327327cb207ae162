"""Attention over a cache by the native kernel, which reads what is visible of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sparsejax_kernels.calls import at_level, call

__all__ = ["forward"]


def forward(
    query: Float[Array, "batch groups heads size"],
    keys: Float[Array, "batch groups capacity size"],
    values: Float[Array, "batch groups capacity size"],
    last: Int[Array, ""],
    padding: Int[Array, " batch"],
) -> Float[Array, "batch groups heads size"]:
    """One call for all of the batch; keys and values are read where they are."""
    # Keys and values in another shape would be other arrays to XLA: where a program has
    # just written to them in place, it would then write to copies.
    result = jax.ShapeDtypeStruct(query.shape, jnp.float32)
    run = call("cached_attention", result, **at_level())
    return run(query, keys, values, padding.astype(jnp.int32), last.reshape(1))
