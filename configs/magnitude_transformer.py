"""Gradual magnitude pruning of a transformer, on Python's source, on lm1b or on C4.

Paper: Zhu and Gupta, 2017, "To prune, or not to prune".
Cost: python, 1,000 steps of 2,048 bytes, about 5 min on a 2-core CPU; lm1b and
c4, 100,000 steps of 65,536 and 262,144 tokens, on accelerators.
Expected: not measured.

  python -m sparsejax.train --config=configs/magnitude_transformer.py
  python -m sparsejax.train --config=configs/magnitude_transformer.py:c4
  python -m sparsejax.train --config=magnitude_transformer --config.method.sparsity=0.9
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config for ``python``, the default, ``lm1b`` or ``c4``."""
    return recipes.transformer("magnitude", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.8, 0.9), "seed": range(3)})
