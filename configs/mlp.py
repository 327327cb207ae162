"""A 128-128 perceptron on the embedded digits with any method, named as the argument.

Paper: that of the method; a method of yours, ``mypackage.mymethod``, works too.
Cost: 2,000 steps, about 20 s on a 2-core CPU.
Expected: see ``experiments/digits_methods``, which measures the methods.

  python -m sparsejax.train --config=configs/mlp.py
  python -m sparsejax.train --config=configs/mlp.py:snfs
  python -m sparsejax.train --config=mlp --config.method.sparsity=0.98
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the argument is a method's name, by default ``rigl``."""
    return recipes.mlp(argument or "rigl")


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.9, 0.95, 0.98), "seed": range(5)})
