"""Compressed weights and the products with them that are faster than dense ones."""

from sparsejax_kernels import native
from sparsejax_kernels.choosing import explain, largest_density
from sparsejax_kernels.formats import NM, Block, FanIn, Transposed
from sparsejax_kernels.matmul import matmul

__all__ = [
    "NM",
    "Block",
    "FanIn",
    "Transposed",
    "explain",
    "largest_density",
    "matmul",
    "native",
]
