"""Convolutions of compressed networks, between which images stay channel-first."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float
from sparsejax_kernels import FanIn, convolution, depthwise_convolution
from sparsejax_kernels.windows import Padding

from sparsejax.models.layers import Depthwise
from sparsejax.nn.layers import CompressedLinear
from sparsejax.nn.rectifying import mark_rectified

__all__ = [
    "DepthwiseConvolution",
    "FanInConvolution",
    "convolution_twin",
    "depthwise_twin",
    "is_convolution",
    "is_depthwise",
]


class FanInConvolution(CompressedLinear):
    """A convolution of images, each output channel of some inputs of its window.

    Images are channels-last in shape; on CPU they lie channel-first in memory, see
    `sparsejax_kernels.convolution`.

    Args:
      weight: from the inputs of a window (height, width, input channels, made one axis)
        to output channels.
      bias: one number per output channel, or None.
      kernel_size: of the window.
      strides: of the window.
      padding: as in Flax.
      **options: as for `CompressedLinear`.

    Example:
      >>> kernel = jnp.zeros((3, 3, 1, 1)).at[0, 1].set(1.0)
      >>> flat = kernel.reshape(9, 1)
      >>> layer = FanInConvolution(FanIn.fromdense(flat, flat != 0), kernel_size=(3, 3))
      >>> layer(jnp.asarray([1.0, 2.0]).reshape(1, 2, 1, 1)).ravel().tolist()
      [0.0, 1.0]
    """

    def __init__(
        self,
        weight: FanIn,
        bias: Float[Array, " out"] | None = None,
        *,
        kernel_size: tuple[int, int],
        strides: tuple[int, int] = (1, 1),
        padding: Padding = "SAME",
        **options: Any,
    ):
        super().__init__(weight, bias, **options)
        self.kernel_size = kernel_size
        self.strides = strides
        self.padding = padding

    def __call__(
        self, x: Float[Array, "*batch h w in"]
    ) -> Float[Array, "*batch _ _ out"]:
        """Applies the layer."""
        weight = self.weight
        assert isinstance(weight, FanIn)
        y = convolution(
            jnp.asarray(x, self.dtype),
            weight,
            kernel_size=self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            bias=None if self.bias is None else self.bias.get_value(),
            activation=self.activation,
            implementation=self.implementation,
        )
        return y if self.activation is None else mark_rectified(y)


class DepthwiseConvolution(nnx.Module):
    """A 3x3 convolution of each channel by itself, between compressed ones.

    Args:
      kernel: the filter of each channel.
      bias: one number per channel, or None.
      stride: 1 or 2.
      padding: zeros around an image: "SAME", or 1 on all sides.
      dtype: x is cast to it; default: x stays as it is.
      activation: "relu" or None, computed in the convolution.
      implementation: see `sparsejax_kernels.depthwise_convolution`.

    Example:
      >>> layer = DepthwiseConvolution(jnp.ones((2, 3, 3)))
      >>> layer(jnp.ones((1, 2, 1, 2))).shape
      (1, 2, 1, 2)
    """

    def __init__(
        self,
        kernel: Float[Array, "channels 3 3"],
        bias: Float[Array, " channels"] | None = None,
        *,
        stride: int = 1,
        padding: str | int = "SAME",
        dtype: DTypeLike | None = None,
        activation: str | None = None,
        implementation: str | None = None,
    ):
        self.kernel = nnx.Param(kernel)
        self.bias = None if bias is None else nnx.Param(bias)
        self.stride = stride
        self.padding = padding
        self.dtype = dtype
        self.activation = activation
        self.implementation = implementation

    def __call__(
        self, x: Float[Array, "*batch h w channels"]
    ) -> Float[Array, "*batch _ _ channels"]:
        """Applies the layer."""
        y = depthwise_convolution(
            jnp.asarray(x, self.dtype),
            self.kernel.get_value(),
            stride=self.stride,
            padding=self.padding,
            bias=None if self.bias is None else self.bias.get_value(),
            activation=self.activation,
            channels_last=True,
            implementation=self.implementation,
        )
        return y if self.activation is None else mark_rectified(y)


def is_convolution(layer: Any) -> bool:
    """Whether a layer is a convolution of images that `FanInConvolution` computes."""
    return (
        isinstance(layer, nnx.Conv)
        and len(layer.kernel_size) == 2
        and layer.feature_group_count == 1
        and _is_plain(layer)
    )


def is_depthwise(layer: Any) -> bool:
    """Whether a layer is a convolution that `DepthwiseConvolution` computes."""
    if isinstance(layer, Depthwise):
        return True
    return (
        isinstance(layer, nnx.Conv)
        and layer.kernel.get_value().shape[:3] == (3, 3, 1)
        and layer.feature_group_count == layer.in_features == layer.out_features
        and pair(layer.strides) in ((1, 1), (2, 2))
        and _padding(layer.padding) in ("SAME", ((1, 1), (1, 1)))
        and _is_plain(layer)
    )


def _is_plain(layer: nnx.Conv) -> bool:
    """Whether nothing is dilated, wrapped around, or masked by the layer itself."""
    dilations = {*pair(layer.input_dilation), *pair(layer.kernel_dilation)}
    named = isinstance(layer.padding, str) and layer.padding not in ("SAME", "VALID")
    return dilations == {1} and not named and layer.mask is None


def pair(numbers: Any) -> tuple[int, int]:
    """Two numbers, of which Flax lets one or none say both."""
    if numbers is None or isinstance(numbers, int):
        numbers = (numbers or 1,) * 2
    down, right = numbers
    return down, right


def _padding(padding: Any) -> Any:
    """Zeros before and behind each axis, or a name."""
    if isinstance(padding, str):
        return padding
    sides = (padding,) * 2 if isinstance(padding, int) else padding
    return tuple(
        (side, side) if isinstance(side, int) else tuple(side) for side in sides
    )


def convolution_twin(layer: Any, weight: FanIn, **options: Any) -> FanInConvolution:
    """The compressed twin of a layer that `is_convolution`."""
    down, right = layer.kernel_size
    return FanInConvolution(
        weight,
        None if layer.bias is None else layer.bias.get_value(),
        kernel_size=(down, right),
        strides=pair(layer.strides),
        padding=_padding(layer.padding),
        dtype=layer.dtype,
        **options,
    )


def depthwise_twin(layer: Any, **options: Any) -> DepthwiseConvolution:
    """The twin of a layer that `is_depthwise`."""
    bias = getattr(layer, "bias", None)
    if isinstance(layer, Depthwise):
        stride, padding = layer.stride, 1
    else:
        stride, _ = pair(layer.strides)
        padding = "SAME" if layer.padding == "SAME" else 1
    return DepthwiseConvolution(
        layer.kernel.get_value()[:, :, 0].transpose(2, 0, 1),
        None if bias is None else bias.get_value(),
        stride=stride,
        padding=padding,
        dtype=layer.dtype,
        **options,
    )
