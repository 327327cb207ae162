"""The transposed index: for every input the outputs that read it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Integer

from sparsejax_kernels.formats.base import compressed, index_dtype

__all__ = ["Transposed", "transpose"]


@compressed()
class Transposed:
    """Weights grouped by input, as positions into ``values`` of the weight itself.

    Attributes:
      starts: int32, ``(in + 1,)``; input ``i`` has the entries ``starts[i]`` up to
        ``starts[i + 1]``.
      outputs: which output an entry belongs to, ``(out * fan-in,)``.
      positions: int32, its place in the flattened values, ``(out * fan-in,)``.
    """

    starts: Integer[Array, " starts"]
    outputs: Integer[Array, " nnz"]
    positions: Integer[Array, " nnz"]


def transpose(indices: Integer[Array, "out k"], in_features: int) -> Transposed:
    """Groups the entries of a fan-in index by input; padding comes last.

    Args:
      indices: which input each weight reads, ``in_features`` for padding.
      in_features: number of inputs.

    Example:
      >>> import jax.numpy as jnp
      >>> index = transpose(jnp.asarray([[0, 2], [1, 2]]), 3)
      >>> index.starts.tolist(), index.outputs.tolist()
      ([0, 1, 2, 4], [0, 1, 0, 1])
    """
    outputs, fan_in = indices.shape
    flat = indices.reshape(-1).astype(jnp.int32)
    order = jnp.argsort(flat, stable=True).astype(jnp.int32)
    counts = jnp.zeros(in_features, jnp.int32).at[flat].add(1, mode="drop")
    starts = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(counts)])
    rows = jax.lax.div(order, jnp.int32(fan_in)).astype(index_dtype(outputs))
    return Transposed(starts.astype(jnp.int32), rows, order)
