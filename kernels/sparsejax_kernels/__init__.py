"""Compressed weights and the products with them that are faster than dense ones."""

from sparsejax_kernels import native
from sparsejax_kernels.formats import FanIn, Transposed
from sparsejax_kernels.matmul import matmul

__all__ = ["FanIn", "Transposed", "matmul", "native"]
