"""Structures: which sets of weights may be kept together. One family per file."""

from sparsejax.structures.base import Structure
from sparsejax.structures.block import block
from sparsejax.structures.diagonal import diagonal
from sparsejax.structures.fan_in import fan_in
from sparsejax.structures.n_m import n_m
from sparsejax.structures.neuron import neuron
from sparsejax.structures.transposable import transposable
from sparsejax.structures.unstructured import unstructured

__all__ = [
    "Structure",
    "block",
    "diagonal",
    "fan_in",
    "n_m",
    "neuron",
    "transposable",
    "unstructured",
]
