"""1x1 convolutions of channel-first pixels with a fan-in weight."""

from sparsejax_kernels.pointwise_convolution.api import pointwise_convolution

__all__ = ["pointwise_convolution"]
