"""The depthwise convolution by the native kernel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sparsejax_kernels.calls import CHANNELS_FIRST, at_level, call, floats, rows_first
from sparsejax_kernels.windows import border

__all__ = ["fused"]


def fused(
    x: Float[Array, "batch _ _ _"],
    kernel: Float[Array, "channels 3 3"],
    bias: Float[Array, " channels"] | None,
    *,
    stride: int,
    padding: str | int,
    activation: str | None,
    channels_last: bool,
) -> Float[Array, "batch _ _ _"]:
    """The convolution, bias and activation in one pass."""

    @rows_first
    def run(x, kernel, bias):
        sizes = x.shape[1:3] if channels_last else x.shape[2:]
        rows, columns = (-(-size // stride) for size in sizes)
        above, before = (border(size, 3, stride, padding)[0] for size in sizes)
        channels = kernel.shape[0]
        shape = (
            (rows, columns, channels) if channels_last else (channels, rows, columns)
        )
        handler = call(
            "depthwise_forward",
            jax.ShapeDtypeStruct((x.shape[0], *shape), jnp.float32),
            layout=CHANNELS_FIRST if channels_last else None,
            relu=activation == "relu",
            channels_last=channels_last,
            stride=np.int64(stride),
            above=np.int64(above),
            before=np.int64(before),
            **at_level(),
        )
        return handler(x, kernel, bias)

    return run(*floats(x, kernel, bias))
