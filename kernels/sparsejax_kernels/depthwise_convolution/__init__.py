"""3x3 depthwise convolutions of channel-first images."""

from sparsejax_kernels.depthwise_convolution.api import depthwise_convolution

__all__ = ["depthwise_convolution"]
