"""Dense training of a 128-128 perceptron on the embedded digits.

Paper: no paper: the baseline that the others are held against.
Cost: 2,000 steps, about 20 s on a 2-core CPU.
Expected: 98.6 % of the 360 test images: seed 0, measured on a CPU.

  python -m sparsejax.train --config=configs/dense_mlp.py
  python -m sparsejax.train --config=dense_mlp --config.seed=1
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the only argument is ``digits``, the default."""
    return recipes.mlp("dense", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"seed": range(5)})
