"""The file of results: one row per method, sparsity, number of steps and seed."""

from typing import NamedTuple


class Row(NamedTuple):
    """One trained network.

    Attributes:
      method: name of a setting.
      sparsity: share of the weights that are zero; 0 for ``dense``.
      steps: training steps.
      seed: of initial weights, masks and order of examples.
      active: weights that are left.
      accuracy: share of the test examples classified correctly.
    """

    method: str
    sparsity: float
    steps: int
    seed: int
    active: int
    accuracy: float
