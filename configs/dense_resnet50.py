"""Dense training of ResNet-50, on the embedded digits or on ImageNet.

Paper: no paper: the baseline that the others are held against.
Cost: digits, 154 steps of about 2 s on a 2-core CPU; ImageNet, 32,000 steps of 4,096
images, which take eight accelerators of 80 GB in float32, or five times as many steps.
Expected: digits, not measured; ImageNet, top-1 of 76.8 (Evci et al., 2020).

  python -m sparsejax.train --config=configs/dense_resnet50.py
  python -m sparsejax.train --config=configs/dense_resnet50.py:imagenet
  python -m sparsejax.train --config=dense_resnet50 --config.seed=1
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config for ``digits`` (default), ``imagenet`` or ``imagenet_5x``."""
    return recipes.resnet50("dense", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"seed": range(3)})
