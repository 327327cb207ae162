"""Products with weights in the N:M format."""

from sparsejax_kernels.n_m_matmul.api import matmul

__all__ = ["matmul"]
