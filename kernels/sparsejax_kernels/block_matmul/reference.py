"""What the product with a block weight means, in plain jax.numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

__all__ = ["forward"]


def forward(
    x: Float[Array, "batch in"],
    values: Float[Array, "blocks height width"],
    coordinates: Integer[Array, "blocks 2"],
    outputs: int,
) -> Float[Array, "batch out"]:
    """``y[b, c * width + o] = sum of values[n, i, o] * x[b, r * height + i]``.

    The sum is over the blocks ``n`` of column ``c``, with ``(r, c) = coordinates[n]``,
    and over ``i``, in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> forward(jnp.ones((1, 4)), jnp.ones((1, 2, 2)), jnp.asarray([[1, 0]]), 3)
      Array([[2., 2., 0.]], dtype=float32)
    """
    (batch, inputs), (_, height, width) = x.shape, values.shape
    rows, columns = -(-inputs // height), -(-outputs // width)
    place = coordinates.astype(jnp.int32)
    inside = (place[:, 0] < rows) & (place[:, 1] < columns)
    padded = jnp.pad(x.astype(jnp.float32), ((0, 0), (0, rows * height - inputs)))
    read = padded.reshape(batch, rows, height).transpose(1, 0, 2)
    read = jnp.take(read, place[:, 0], axis=0, mode="fill", fill_value=0)
    products = jnp.matmul(read, values.astype(jnp.float32), precision="highest")
    column = jnp.where(inside, place[:, 1], columns)
    sums = jax.ops.segment_sum(products, column, columns)
    y = sums.transpose(1, 0, 2).reshape(batch, columns * width)
    return y[:, :outputs]
