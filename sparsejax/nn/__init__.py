"""Compressed layers for Flax NNX, and the surgery that puts them into a model."""

from sparsejax.nn.compressing import compress
from sparsejax.nn.convolutions import DepthwiseConvolution, FanInConvolution
from sparsejax.nn.layers import (
    BlockLinear,
    CompressedLinear,
    FanInLinear,
    FanInPointwise,
    Indices,
    NMLinear,
)
from sparsejax.nn.rectifying import Rectified
from sparsejax.nn.storing import load, save

__all__ = [
    "BlockLinear",
    "CompressedLinear",
    "DepthwiseConvolution",
    "FanInConvolution",
    "FanInLinear",
    "FanInPointwise",
    "Indices",
    "NMLinear",
    "Rectified",
    "compress",
    "load",
    "save",
]
