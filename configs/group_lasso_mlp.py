"""Group lasso on neurons in a perceptron on the embedded digits.

Paper: Yuan and Lin, 2006, "Model selection and estimation in regression with grouped
variables".
Cost: 2,000 steps, under a minute on a 2-core CPU.
Expected: not measured.

  python -m sparsejax.train --config=configs/group_lasso_mlp.py
  python -m sparsejax.train --config=group_lasso_mlp --config.seed=1
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the only argument is ``digits``, the default."""
    return recipes.mlp("group_lasso", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"seed": range(5)})
