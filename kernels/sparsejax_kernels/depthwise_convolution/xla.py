"""The depthwise convolution as nine shifted multiply-adds: the fallback.

On CPU XLA fuses them into loops that are many times faster than its grouped
convolution, forward and backward.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from sparsejax_kernels.windows import border

__all__ = ["forward"]


def forward(
    x: Float[Array, "batch channels height width"],
    kernel: Float[Array, "channels 3 3"],
    stride: int,
    padding: str | int = "SAME",
) -> Float[Array, "batch channels rows columns"]:
    """Each channel with its own filter, in float32."""
    x, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
    height, width = x.shape[2:]
    rows, columns = -(-height // stride), -(-width // stride)
    edges = [border(size, 3, stride, padding) for size in (height, width)]
    padded = jnp.pad(x, ((0, 0), (0, 0), *edges))
    y = jnp.zeros((*x.shape[:2], rows, columns))
    for row in range(3):
        for column in range(3):
            below = slice(row, row + (rows - 1) * stride + 1, stride)
            beside = slice(column, column + (columns - 1) * stride + 1, stride)
            taps = kernel[None, :, row, column, None, None]
            y = y + taps * padded[:, :, below, beside]
    return y
