"""RigL of a 128-128 perceptron on the embedded digits.

Paper: Evci et al., 2020, "Rigging the lottery: making all tickets winners".
Cost: 2,000 steps, about 20 s on a 2-core CPU.
Expected: 97.8 % of the 360 test images at 95 % sparsity: seed 0, measured on a CPU.

  python -m sparsejax.train --config=configs/rigl_mlp.py
  python -m sparsejax.train --config=rigl_mlp --config.method.sparsity=0.98
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the only argument is ``digits``, the default."""
    config = recipes.mlp("rigl", argument)
    config.method.drop_fraction = {"name": "cosine", "initial": 0.3}
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.9, 0.95, 0.98), "seed": range(5)})
