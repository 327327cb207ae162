"""Products with weights in the block format."""

from sparsejax_kernels.block_matmul.api import matmul

__all__ = ["matmul"]
