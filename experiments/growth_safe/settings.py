"""What is compared: optimizers for weights that grow, in two methods."""

from typing import NamedTuple

from ml_collections import ConfigDict

from sparsejax import recipes

METHODS = {"rigl": "RigL", "set": "SET"}
OPTIMIZERS = {
    "adam": "optax.adam",
    "ages": "sj.optim.adam",
    "warm-up": "with warm-up",
}


class Row(NamedTuple):
    """One trained network.

    Attributes:
      method: "rigl" or "set".
      sparsity: share of the weights that are zero.
      every: steps from one topology move to the next.
      optimizer: a key of `OPTIMIZERS`.
      learning_rate: its peak; it falls to 0 by a cosine.
      steps: training steps.
      seed: of initial weights, masks and order of examples.
      active: weights that are left.
      accuracy: share of the test examples classified correctly.
    """

    method: str
    sparsity: float
    every: int
    optimizer: str
    learning_rate: float
    steps: int
    seed: int
    active: int
    accuracy: float


class Cell(NamedTuple):
    """What the seeds of one cell have in common; fields as of `Row`."""

    method: str
    sparsity: float
    every: int
    optimizer: str
    learning_rate: float
    steps: int


def cell_of(row: Row) -> Cell:
    """The cell that a row belongs to."""
    return Cell(*row[: len(Cell._fields)])


def configure(cell: Cell) -> ConfigDict:
    """The config of `configs/<method>_mlp.py` with the cell's settings.

    The warm-up lasts until the next move.
    """
    config = recipes.mlp(cell.method)
    config.steps = cell.steps
    config.method.sparsity = cell.sparsity
    config.method.every = cell.every
    config.optimizer.learning_rate = cell.learning_rate
    if cell.optimizer != "adam":
        config.optimizer.name = "sparsejax.optim.adam"
    if cell.optimizer == "warm-up":
        config.optimizer.warm_up = cell.every
    return config
