"""Layers that the convolutional networks share."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

__all__ = [
    "STEMS",
    "Depthwise",
    "as_features",
    "check_images",
    "convolution",
    "layer_normalised",
    "normalisation",
]

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


def layer_normalised(features: Float[Array, "... width"]) -> Float[Array, "... width"]:
    """LayerNorm without parameters: mean 0 and variance 1 over the last axis.

    Args:
      features: Any array of floats.

    Returns:
      The same shape and dtype; the statistics are computed in float32.

    Example:
      >>> layer_normalised(jnp.array([1.0, 3.0])).round(3).tolist()
      [-1.0, 1.0]

    References:
      Ba et al., "Layer normalization", 2016.
    """
    wide = features.astype(jnp.float32)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + 1e-6)).astype(features.dtype)


def as_features(inputs: Num[Array, "..."]) -> Float[Array, "..."]:
    """Observations as a network takes them: float32, integers divided by 255.

    Args:
      inputs: Floats, bools, or integers from 0 to 255.

    Returns:
      The same shape.

    Example:
      >>> as_features(jnp.array([255, 0], jnp.uint8)).tolist()
      [1.0, 0.0]
    """
    scale = 1 / 255 if jnp.issubdtype(inputs.dtype, jnp.integer) else 1.0
    return inputs.astype(jnp.float32) * jnp.float32(scale)
