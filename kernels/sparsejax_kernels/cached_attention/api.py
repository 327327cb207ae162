"""Attention over a cache: arguments and choice of implementation."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sparsejax_kernels.cached_attention import cpu, reference, xla
from sparsejax_kernels.operations import choose, run_native

__all__ = ["cached_attention"]


def cached_attention(
    query: Float[Array, "batch 1 heads size"],
    keys: Float[Array, "batch groups capacity size"],
    values: Float[Array, "batch groups capacity size"],
    last: int | Int[Array, ""],
    *,
    padding: Int[Array, " batch"] | None = None,
    implementation: str | None = None,
) -> Float[Array, "batch 1 heads size"]:
    """Attention of one token over the first tokens of a cache, when decoding.

    ``softmax(query @ keys.T / sqrt(size)) @ values`` over the places from ``padding``
    up to ``last``. The native kernel reads only these; XLA's matrix products read, and
    copy, the whole cache. It has no gradient.

    Args:
      query: of the token; head ``h`` reads keys of group ``h // (heads // groups)``.
      keys: of all tokens so far, and what else there is room for.
      values: likewise.
      last: place of the last token to look at; below ``capacity``, or the native kernel
        raises.
      padding: how many of each sequence's first tokens are overlooked, at most
        ``last``; default none.
      implementation: "cpu" (native kernel, for float32), "xla"
        (`jax.nn.dot_product_attention`), "reference" (the definition), or None for the
        best of them that runs here.

    Returns:
      An array like the query.

    Raises:
      ValueError: if shapes do not fit, or the implementation is none of the above.
      RuntimeError: if the implementation that was asked for cannot run here.

    Example:
      >>> values = jnp.arange(8.0).reshape(1, 1, 4, 2)
      >>> cached_attention(jnp.ones((1, 1, 1, 2)), 0 * values, values, 1)
      Array([[[[1., 2.]]]], dtype=float32)
    """
    batch, groups, _, size = keys.shape
    fits = query.shape[:2] == (batch, 1) and query.shape[3] == size
    if keys.shape != values.shape or not fits or query.shape[2] % groups:
        raise ValueError(
            f"query has shape {query.shape}, keys {keys.shape} and values "
            f"{values.shape}; they have to be (batch, 1, heads, size) and twice "
            "(batch, groups, capacity, size), heads being a multiple of groups"
        )
    if padding is None:
        padding = jnp.zeros(batch, jnp.int32)
    arguments = (
        query.reshape(batch, groups, query.shape[2] // groups, size),
        keys,
        values,
        jnp.asarray(last, jnp.int32),
        padding,
    )
    name = choose(implementation)
    whole = all(x.dtype == jnp.float32 for x in (query, keys, values))
    if name == "cpu" and not whole and implementation is not None:
        raise ValueError(
            f"query is {query.dtype}, keys are {keys.dtype} and values {values.dtype}; "
            "implementation 'cpu' takes float32, None any"
        )
    if name == "reference":
        found = reference.forward(*arguments)
    elif name == "cpu" and whole and query.size:
        found = run_native(cpu.forward, xla.forward, *arguments)
    else:
        found = xla.forward(*arguments)
    return found.astype(query.dtype).reshape(query.shape)
