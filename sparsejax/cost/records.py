"""What is known about a cost: plain records, ready for JSON."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

__all__ = [
    "ActivationBytes",
    "Cost",
    "LayerCost",
    "Number",
    "StoredBytes",
    "TrainingCost",
    "number",
]

Number = int | float
"""An exact int wherever the count is whole, else a float."""


class LayerCost(NamedTuple):
    """The cost of one parameter leaf: MACs and FLOPs per example, forward pass only.

    Attributes:
      path: path of the leaf.
      shape: its shape.
      weights: its number of entries.
      active: entries that the mask keeps.
      dense_macs: multiply-accumulates of the dense layer.
      sparse_macs: those whose weight is active.
      dense_flops: FLOPs of the dense layer, in the mode asked for.
      sparse_flops: FLOPs of the sparse layer.
    """

    path: str
    shape: tuple[int, ...]
    weights: int
    active: int
    dense_macs: Number
    sparse_macs: Number
    dense_flops: Number
    sparse_flops: Number

    @property
    def density(self) -> float:
        """Fraction of the entries that are active."""
        return self.active / self.weights


class StoredBytes(NamedTuple):
    """Bytes that hold the parameters, in five forms.

    Attributes:
      dense: every entry.
      masked: the dense form and one byte per entry of a mask.
      packed: the dense form and one bit per entry of a mask.
      condensed: of each masked leaf the active values, each with its index along the
        fan-in in the smallest unsigned integer that holds it, or the dense form where
        that is smaller; other leaves dense. The count is that of constant fan-in,
        where no row pointers are needed.
      csr: of each masked leaf the active values, each with its index along the fan-in
        in four bytes, and a row pointer of four bytes per output and one more, as
        sparse libraries store compressed rows, or the dense form where that is smaller;
        other leaves dense.
    """

    dense: int
    masked: int
    packed: int
    condensed: int
    csr: int


class ActivationBytes(NamedTuple):
    """Bytes per example of what the layers hand to one another.

    Counted are values that depend on the data and are written to memory: what a
    product, gather or loop computes or reads, and what a reduction computes. Whatever
    lies between two of these (activation functions, normalisation by known statistics,
    casts, slices, broadcasts) is taken as fused into them, as compilers do; reshapes
    and transposes are views. Parameters and the inputs themselves are not counted.

    Attributes:
      peak: the most that is alive at one moment of the forward pass: operations run in
        the program's order, each value stays until it was read for the last time, and
        a fused result may take the place of what it was computed from.
      kept: all of these values together, in loops those of every iteration: what
        training holds for the backward pass where nothing is computed twice.
    """

    peak: Number
    kept: Number


class TrainingCost(NamedTuple):
    """FLOPs of training, averaged over its steps.

    Attributes:
      flops: per example and step.
      dense_flops: the same of the dense network: three forward passes.
      ratio: `flops / dense_flops`.
    """

    flops: float
    dense_flops: Number
    ratio: float


class Cost(NamedTuple):
    """What one example costs in inference, and what the parameters cost to store.

    Attributes:
      mode: `"exact"` or `"micronet"`.
      layers: one row per leaf that feeds a product or is masked, in order of execution.
      parameters: entries of all leaves.
      active_parameters: those that no mask removes.
      dense_macs: multiply-accumulates of the dense network per example.
      sparse_macs: those left when inactive weights cost nothing.
      dense_flops: FLOPs of the dense network per example, in the mode asked for.
      sparse_flops: FLOPs left when inactive weights cost nothing.
      ratio: `sparse_flops / dense_flops`.
      unattributed_flops: the part of both that no parameter feeds (attention scores).
      stored_bytes: bytes that hold the parameters.
      activation_bytes: bytes per example of what the layers hand to one another.
      training: FLOPs of a training step; `training_cost` computes it.
    """

    mode: str
    layers: tuple[LayerCost, ...]
    parameters: int
    active_parameters: int
    dense_macs: Number
    sparse_macs: Number
    dense_flops: Number
    sparse_flops: Number
    ratio: float
    unattributed_flops: Number
    stored_bytes: StoredBytes
    activation_bytes: ActivationBytes
    training: TrainingCost

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dicts, lists and numbers, ready for JSON."""
        return {
            **self._asdict(),
            "layers": [
                {**layer._asdict(), "shape": list(layer.shape)} for layer in self.layers
            ],
            "stored_bytes": self.stored_bytes._asdict(),
            "activation_bytes": self.activation_bytes._asdict(),
            "training": self.training._asdict(),
        }


def number(value: Fraction | float) -> Number:
    """An int if the value is whole, else a float."""
    exact = Fraction(value)
    return int(exact) if exact.denominator == 1 else float(exact)
