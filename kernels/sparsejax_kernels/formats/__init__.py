"""Compressed weights: values, and where in the dense weight they belong."""

from sparsejax_kernels.formats.block import Block
from sparsejax_kernels.formats.fan_in import FanIn
from sparsejax_kernels.formats.n_m import NM
from sparsejax_kernels.formats.packed import Packed
from sparsejax_kernels.formats.transposed import Transposed
from sparsejax_kernels.formats.two_four import TwoFour

__all__ = ["NM", "Block", "FanIn", "Packed", "Transposed", "TwoFour"]
