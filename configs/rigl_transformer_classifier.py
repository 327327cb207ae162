"""RigL of a transformer that tells Python's packages by pieces of their source.

Paper: Evci et al., 2020, "Rigging the lottery: making all tickets winners".
Cost: 400 steps of 16 pieces of 128 bytes, some minutes on a 2-core CPU.
Expected: not measured (with its head among the layers of ERK, kept dense: 50.5 %).

  python -m sparsejax.train --config=configs/rigl_transformer_classifier.py
  python -m sparsejax.train --config=rigl_transformer_classifier --config.seed=1
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the only argument is ``python``, the default."""
    config = recipes.transformer_classifier("rigl", argument)
    config.method.drop_fraction = {"name": "cosine", "initial": 0.3}
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.8, 0.9), "seed": range(3)})
