"""RigL of a transformer, on Python's standard library, on lm1b or on C4.

Paper: Evci et al., 2020, "Rigging the lottery: making all tickets winners", for the
method; Touvron et al., 2023, "LLaMA: open and efficient foundation language models",
for the network. Settings of the embedded corpus are ours; of the others as GPT-2 of
this size is usually trained.
Cost: python, 1,500 steps of 2,048 bytes.
Expected: python, not measured; lm1b and c4, not measured.

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
