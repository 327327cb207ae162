"""What is compared: branches of iterative magnitude pruning, and their results."""

import json
import pathlib
from fractions import Fraction
from typing import NamedTuple

BRANCHES = {
    "weights": "weight rewinding",
    "rate": "learning-rate rewinding",
    "random": "random weights",
}
"""The name of each branch and its title."""


class Settings(NamedTuple):
    """What all rounds of a study have in common; another study needs another folder.

    Attributes:
      seeds: networks of each branch, numbered from 0.
      steps: of the dense training, and the end of every other.
      rewind_step: where weights or the learning rate are rewound to.
      fraction: share of a hidden layer's weights that a round removes.
      output_fraction: the same of the output layer.
    """

    seeds: int
    steps: int
    rewind_step: int
    fraction: float
    output_fraction: float

    def count(self, path: str, size: int, number: int) -> int:
        """Weights of a layer that are left after a number of rounds, exactly.

        Args:
          path: of the layer.
          size: its weights.
          number: rounds.
        """
        share = self.output_fraction if path.startswith("head") else self.fraction
        return max(1, round(size * (1 - Fraction(str(share))) ** number))


class Row(NamedTuple):
    """One trained network.

    Attributes:
      branch: a key of `BRANCHES`, or "dense".
      number: of the round; 0 for the dense network.
      seed: of initial weights and of the order of examples.
      active: weights that are left.
      weights: that there are.
      accuracy: share of the test examples classified correctly.
    """

    branch: str
    number: int
    seed: int
    active: int
    weights: int
    accuracy: float


def check_folder(folder: pathlib.Path, settings: Settings) -> None:
    """Stores the settings of a study, or holds it to those that are stored.

    Args:
      folder: of the study.
      settings: asked for.

    Raises:
      ValueError: the folder has rounds of other settings.
    """
    path = folder / "settings.json"
    if not path.exists():
        path.write_text(json.dumps(settings._asdict(), indent=1) + "\n")
        return
    stored = json.loads(path.read_text())
    for name, value in settings._asdict().items():
        if stored.get(name) != value:
            option = "--" + name.replace("_", "-")
            raise ValueError(
                f"{option} {value}: the rounds in {folder} have {stored.get(name)}; "
                "choose another --output"
            )
