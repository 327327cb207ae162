"""Compressed weights and the products with them that are faster than dense ones."""

from sparsejax_kernels import native
from sparsejax_kernels.cached_attention import cached_attention
from sparsejax_kernels.choosing import explain, largest_density
from sparsejax_kernels.convolution import convolution
from sparsejax_kernels.depthwise_convolution import depthwise_convolution
from sparsejax_kernels.formats import NM, Block, FanIn, Packed, Transposed, TwoFour
from sparsejax_kernels.matmul import matmul
from sparsejax_kernels.pointwise_convolution import pointwise_convolution

__all__ = [
    "NM",
    "Block",
    "FanIn",
    "Packed",
    "Transposed",
    "TwoFour",
    "cached_attention",
    "convolution",
    "depthwise_convolution",
    "explain",
    "largest_density",
    "matmul",
    "native",
    "pointwise_convolution",
]
