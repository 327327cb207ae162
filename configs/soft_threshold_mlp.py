"""STR (learned thresholds) in a perceptron on the embedded digits.

Paper: Kusupati et al., 2020, "Soft threshold weight reparameterization".
Cost: 2,000 steps, under a minute on a 2-core CPU.
Expected: not measured.

  python -m sparsejax.train --config=configs/soft_threshold_mlp.py
  python -m sparsejax.train --config=soft_threshold_mlp --config.seed=1
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the only argument is ``digits``, the default."""
    return recipes.mlp("soft_threshold", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"seed": range(5)})
