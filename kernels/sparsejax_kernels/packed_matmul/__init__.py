"""Products with packed weights."""

from sparsejax_kernels.packed_matmul.api import matmul

__all__ = ["matmul"]
