"""L1 regularisation by proximal steps in a perceptron on the embedded digits.

Paper: Tibshirani, 1996, "Regression shrinkage and selection via the lasso".
Cost: 2,000 steps, under a minute on a 2-core CPU.
Expected: not measured.

  python -m sparsejax.train --config=configs/l1_mlp.py
  python -m sparsejax.train --config=l1_mlp --config.seed=1
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the only argument is ``digits``, the default."""
    return recipes.mlp("l1", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"seed": range(5)})
