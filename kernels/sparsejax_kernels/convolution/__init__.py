"""Convolutions of any window with a fan-in weight."""

from sparsejax_kernels.convolution.api import convolution

__all__ = ["convolution"]
