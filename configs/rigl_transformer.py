"""RigL of a transformer, on Python's standard library, on lm1b or on C4.

Paper: Evci et al., 2020, "Rigging the lottery: making all tickets winners".
Cost: python, 1,000 steps of 2,048 bytes, about 5 min on a 2-core CPU; lm1b and
c4, 100,000 steps of 65,536 and 262,144 tokens, on accelerators.
Expected: python, 2.009 bits per byte of held-out files at 80 % sparsity, where gzip
needs 2.054 (seed 0, source of Python 3.11.7 with hash c04c32a9, measured on a CPU);
lm1b and c4, not measured.

  python -m sparsejax.train --config=configs/rigl_transformer.py
  python -m sparsejax.train --config=configs/rigl_transformer.py:c4
  python -m sparsejax.train --config=rigl_transformer --config.method.sparsity=0.9
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config for ``python``, the default, ``lm1b`` or ``c4``."""
    config = recipes.transformer("rigl", argument)
    config.method.drop_fraction = {"name": "cosine", "initial": 0.3}
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.8, 0.9), "seed": range(3)})
