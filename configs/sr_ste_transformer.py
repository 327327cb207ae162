"""SR-STE (2:4) in a transformer, on Python's standard library, on lm1b or on C4.

Paper: Zhou et al., 2021, "Learning N:M fine-grained structured sparse networks from
scratch".
Cost: python, 1,000 steps of 2,048 bytes, about 5 min on a 2-core CPU; lm1b and
c4, 100,000 steps of 65,536 and 262,144 tokens, on accelerators.
Expected: not measured.

  python -m sparsejax.train --config=configs/sr_ste_transformer.py
  python -m sparsejax.train --config=configs/sr_ste_transformer.py:c4
  python -m sparsejax.train --config=sr_ste_transformer --config.method.decay=0.001
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config for ``python``, the default, ``lm1b`` or ``c4``."""
    config = recipes.transformer("sr_ste", argument)
    config.method.sparsity = 0.5
    config.method.every = 1
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"seed": range(3)})
