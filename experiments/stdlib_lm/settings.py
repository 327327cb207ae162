"""What is compared: methods and sparsities, and dense networks as small as they are."""

from typing import NamedTuple

from ml_collections import ConfigDict

from sparsejax import configuration

METHODS = ("static", "set", "rigl", "magnitude")
GROWTH_SAFE = ("set", "rigl")
SPARSITIES = (0.8, 0.9)
# Dense networks with as many parameters as the sparse ones have left, embedding and
# norms included: 191,334 and 112,690. At 80 % 191,640, at 90 % 112,552.
SMALL = {
    0.8: {"width": 60, "heads": 4, "head_size": 16, "hidden": 180},
    0.9: {"width": 44, "heads": 4, "head_size": 12, "hidden": 143},
}


class Cell(NamedTuple):
    """A network to train.

    Attributes:
      method: a method's name, or ``"small dense"``.
      sparsity: of its matrices; of a small dense network, of the one that it equals.
      optimizer: ``"adamw"``, or ``"safe"`` for `sparsejax.optim.adamw`, whose
        statistics know how long a weight has been there.
    """

    method: str
    sparsity: float
    optimizer: str


def cells(
    methods: tuple[str, ...] = METHODS, sparsities: tuple[float, ...] = SPARSITIES
) -> list[Cell]:
    """All networks of the study.

    Args:
      methods: the sparse ones among them.
      sparsities: that they have.
    """
    found = [Cell("dense", 0.0, "adamw")]
    for sparsity in sparsities:
        found.append(Cell("small dense", sparsity, "adamw"))
        found += [Cell(method, sparsity, "adamw") for method in methods]
        found += [Cell(m, sparsity, "safe") for m in GROWTH_SAFE if m in methods]
    return found


def configure(cell: Cell, steps: int) -> ConfigDict:
    """The config of a network: that of its method, for a shorter run.

    Args:
      cell: the network.
      steps: of training.
    """
    dense = cell.method in ("dense", "small dense")
    method = "dense" if dense else cell.method
    config = configuration.load(f"{method}_transformer")
    factor = steps / config.steps
    config.steps = steps
    schedule = config.learning_rate_schedule
    schedule.warmup_steps = max(round(schedule.warmup_steps * factor), 1)
    if cell.method == "small dense":
        with config.unlocked():
            config.model.update(SMALL[cell.sparsity])
    if not dense:
        config.method.sparsity = cell.sparsity
        if "every" in config.method:
            config.method.every = max(round(config.method.every * factor), 1)
    if cell.optimizer == "safe":
        config.optimizer.name = "sparsejax.optim.adamw"
    return config
