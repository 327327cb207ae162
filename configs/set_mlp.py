"""SET of a 128-128 perceptron on the embedded digits.

Paper: Mocanu et al., 2018, "Scalable training of artificial neural networks with
adaptive sparse connectivity inspired by network science".
Cost: 2,000 steps, about 20 s on a 2-core CPU.
Expected: 96.1 % of the 360 test images at 95 % sparsity: seed 0, measured on a CPU.

  python -m sparsejax.train --config=configs/set_mlp.py
  python -m sparsejax.train --config=set_mlp --config.method.sparsity=0.98
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the only argument is ``digits``, the default."""
    config = recipes.mlp("set", argument)
    config.method.drop_fraction = {"name": "cosine", "initial": 0.3}
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.9, 0.95, 0.98), "seed": range(5)})
