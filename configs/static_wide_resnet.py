"""Static random sparsity in WRN-22-2, on the embedded digits or on CIFAR-10.

Paper: Liu et al., 2022, "The unreasonable effectiveness of random pruning".
Cost: digits, 220 steps of 128 images; CIFAR-10, 97,656 steps (250 epochs) of 128
images.
Expected: digits, not measured; CIFAR-10, not measured here; published (Evci et al.,
2020, ERK) 94.1, 92.9, 91.5 and 89.0 % at 50, 80, 90 and 95 %.

  python -m sparsejax.train --config=configs/static_wide_resnet.py
  python -m sparsejax.train --config=configs/static_wide_resnet.py:cifar10
  python -m sparsejax.train --config=static_wide_resnet --config.method.sparsity=0.95
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the argument is ``digits``, the default, or ``cifar10``."""
    return recipes.wide_resnet("static", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.5, 0.8, 0.9, 0.95), "seed": range(3)})
