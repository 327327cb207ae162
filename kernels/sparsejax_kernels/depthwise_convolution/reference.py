"""What a 3x3 depthwise convolution means, by XLA's grouped convolution."""

from __future__ import annotations

import jax
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
    """Each channel with its own filter, in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> forward(jnp.ones((1, 1, 2, 3)), jnp.ones((1, 3, 3)), 1)
      Array([[[[4., 6., 4.],
               [4., 6., 4.]]]], dtype=float32)
    """
    return jax.lax.conv_general_dilated(
        x.astype(jnp.float32),
        kernel.astype(jnp.float32)[:, None],
        (stride, stride),
        [border(size, 3, stride, padding) for size in x.shape[2:]],
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
        feature_group_count=x.shape[1],
        precision="highest",
    )
