"""SNIP (connection sensitivity) in a perceptron on the embedded digits.

Paper: Lee et al., 2019, "SNIP: single-shot network pruning".
Cost: 2,000 steps, under a minute on a 2-core CPU.
Expected: 96.1 % of the 360 test images at 95 % sparsity: seed 0, measured on a CPU.

  python -m sparsejax.train --config=configs/snip_mlp.py
  python -m sparsejax.train --config=snip_mlp --config.method.scope=layer
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the only argument is ``digits``, the default."""
    return recipes.mlp("snip", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.9, 0.95, 0.98), "seed": range(5)})
