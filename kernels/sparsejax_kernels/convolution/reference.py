"""What a convolution with a fan-in weight means, in plain jax.numpy."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

__all__ = ["forward"]


def forward(
    x: Float[Array, "batch height width in"],
    values: Float[Array, "out k"],
    indices: Integer[Array, "out k"],
    size: tuple[int, int],
    strides: tuple[int, int],
    edges: Sequence[tuple[int, int]],
) -> Float[Array, "batch rows columns out"]:
    """``y[b, r, c, o] = sum_j values[o, j] * window(b, r, c)[indices[o, j]]``.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.asarray([[[[1.0], [2.0]], [[3.0], [4.0]]]])
      >>> edges = ((0, 0), (0, 0))
      >>> found = forward(
      ...     x, jnp.ones((1, 2)), jnp.asarray([[0, 3]]), (2, 2), (1, 1), edges
      ... )
      >>> found.ravel()
      Array([5.], dtype=float32)
    """
    padded = jnp.pad(x.astype(jnp.float32), ((0, 0), *edges, (0, 0)))
    height, width = padded.shape[1:3]
    taps = [
        padded[
            :,
            row : height - size[0] + row + 1 : strides[0],
            column : width - size[1] + column + 1 : strides[1],
        ]
        for row in range(size[0])
        for column in range(size[1])
    ]
    windows = jnp.concatenate(taps, axis=-1)
    read = indices.astype(jnp.int32)
    inputs = jnp.take(windows, read, axis=-1, mode="fill", fill_value=0)
    return jnp.einsum(
        "brcoj,oj->brco", inputs, values.astype(jnp.float32), precision="highest"
    )
