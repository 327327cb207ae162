"""Products with weights in the fan-in format."""

from sparsejax_kernels.fan_in_matmul.api import matmul

__all__ = ["matmul"]
