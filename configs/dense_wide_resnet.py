"""Dense training of WRN-22-2, on the embedded digits or on CIFAR-10.

Paper: no paper: the baseline that the others are held against.
Cost: digits, 220 steps of 128 images; CIFAR-10, 97,656 steps (250 epochs) of 128
images.
Expected: digits and CIFAR-10, not measured (pruned to 50 %: see
magnitude_wide_resnet.py).

  python -m sparsejax.train --config=configs/dense_wide_resnet.py
  python -m sparsejax.train --config=configs/dense_wide_resnet.py:cifar10
  python -m sparsejax.train --config=dense_wide_resnet --config.seed=1
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the argument is ``digits``, the default, or ``cifar10``."""
    return recipes.wide_resnet("dense", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"seed": range(3)})
