"""Dense training of a transformer, on Python's standard library, on lm1b or on C4.

Paper: Touvron et al., 2023, "LLaMA: open and efficient foundation language models".
Cost: python, 1,000 steps of 2,048 bytes, about 5 min on a 2-core CPU; lm1b and
c4, 100,000 steps of 65,536 and 262,144 tokens, on accelerators.
Expected: python, 1.901 bits per byte of held-out files, where gzip needs 2.054 (seed 0,
source of Python 3.11.7 with hash c04c32a9, measured on a CPU); lm1b and c4, not
measured.

  python -m sparsejax.train --config=configs/dense_transformer.py
  python -m sparsejax.train --config=configs/dense_transformer.py:c4
  python -m sparsejax.train --config=dense_transformer --config.model.width=64
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config for ``python``, the default, ``lm1b`` or ``c4``."""
    return recipes.transformer("dense", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"seed": range(3)})
