"""Layers that the convolutional networks share."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

__all__ = ["STEMS", "Depthwise", "check_images", "convolution", "normalisation"]

STEMS = ("imagenet", "small")


def check_images(input_shape: Sequence[int], stem: str, width: float) -> None:
    """Raises unless the arguments that all of the networks have are possible."""
    if stem not in STEMS:
        raise ValueError(f"stem = {stem!r}: use one of {', '.join(map(repr, STEMS))}.")
    if len(input_shape) != 3:
        raise ValueError(
            f"input_shape = {tuple(input_shape)} is not [height, width, channels]; use "
            "a dataset of images, or another model."
        )
    if width <= 0:
        raise ValueError(f"width = {width}: use a number above 0.")


def convolution(
    inputs: int,
    outputs: int,
    size: int,
    stride: int,
    *,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A square convolution without bias, He-normal by its fan-in."""
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=stride,
        # "SAME" would pad a strided convolution of an even image on one side only.
        padding=(size - 1) // 2,
        use_bias=False,
        kernel_init=nnx.initializers.he_normal(),
        dtype=dtype,
        rngs=rngs,
    )


def normalisation(
    features: int, *, zero_scale: bool = False, rngs: nnx.Rngs
) -> nnx.BatchNorm:
    """BatchNorm in float32, with a momentum for short runs."""
    initial_scale = nnx.initializers.zeros if zero_scale else nnx.initializers.ones
    # Flax's default momentum of 0.99 leaves the running statistics behind in runs of a
    # few hundred steps.
    return nnx.BatchNorm(
        features,
        momentum=0.9,
        epsilon=1e-5,
        scale_init=initial_scale,
        dtype=jnp.float32,
        rngs=rngs,
    )


class Depthwise(nnx.Module):
    """A 3x3 convolution of each channel by itself, padded by one pixel.

    On CPUs it is a sum of nine shifted images: there XLA's grouped convolution takes
    several times as long, forward and backward.

    Args:
      channels: of the images.
      stride: 1 or 2.
      dtype: of the computation; the kernel, ``(3, 3, 1, channels)``, stays float32.
      rngs: the initialisation's random streams.
    """

    def __init__(self, channels: int, stride: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        initial = nnx.initializers.he_normal()
        self.kernel = nnx.Param(initial(rngs.params(), (3, 3, 1, channels)))
        self.stride = stride
        self.dtype = dtype

    def __call__(
        self, inputs: Float[Array, "batch h w c"]
    ) -> Float[Array, "batch new_h new_w c"]:
        """Applies the convolution."""
        kernel = self.kernel.get_value().astype(self.dtype)
        return jax.lax.platform_dependent(
            inputs.astype(self.dtype), kernel, cpu=self._shifted, default=self._grouped
        )

    def _shifted(self, inputs, kernel):
        _, height, width, _ = inputs.shape
        padded = jnp.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
        step = self.stride
        shifted = [
            padded[:, row : row + height : step, column : column + width : step]
            * kernel[row, column, 0]
            for row in range(3)
            for column in range(3)
        ]
        return sum(shifted[1:], start=shifted[0])

    def _grouped(self, inputs, kernel):
        return jax.lax.conv_general_dilated(
            inputs,
            kernel,
            (self.stride, self.stride),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=inputs.shape[-1],
        )
