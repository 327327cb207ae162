"""S-STE (continuous 2:4) in a perceptron on the embedded digits.

Paper: Hu et al., 2024, "S-STE: continuous pruning function for efficient 2:4 sparse
pre-training".
Cost: 2,000 steps, under a minute on a 2-core CPU.
Expected: 99.2 % of the 360 test images at 50 % sparsity: seed 0, measured on a CPU.

  python -m sparsejax.train --config=configs/s_ste_mlp.py
  python -m sparsejax.train --config=s_ste_mlp --config.seed=1
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the only argument is ``digits``, the default."""
    config = recipes.mlp("s_ste", argument)
    config.initialization = "dense"
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"seed": range(5)})
