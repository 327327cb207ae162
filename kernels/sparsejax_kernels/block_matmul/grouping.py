"""Blocks grouped by the column that they add to: what a program of a GPU walks over."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Int

__all__ = ["grouped"]


def grouped(
    columns: Int[Array, " blocks"], count: int
) -> tuple[Int[Array, " blocks"], Int[Array, " starts"]]:
    """Blocks in the order of their columns, and where each column starts in it.

    Args:
      columns: of each block; padding has ``count`` or more and comes last.
      count: number of columns.

    Returns:
      The order, int32, and ``count + 1`` starts, int32.

    Example:
      >>> order, starts = grouped(jnp.asarray([2, 0, 3, 0], jnp.int32), 3)
      >>> order.tolist(), starts.tolist()
      ([1, 3, 0, 2], [0, 2, 2, 3])
    """
    order = jnp.argsort(columns, stable=True).astype(jnp.int32)
    edges = jnp.arange(count + 1, dtype=jnp.int32)
    starts = jnp.searchsorted(columns[order], edges).astype(jnp.int32)
    return order, starts
