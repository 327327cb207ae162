"""Static random sparsity of ResNet-50, on the embedded digits or on ImageNet.

Paper: Liu et al., 2022, "The unreasonable effectiveness of random pruning".
Cost: digits, 154 steps of about 2 s on a 2-core CPU; ImageNet, 32,000 steps of 4,096
images, which take eight accelerators of 80 GB in float32, or five times as many steps.
Expected: digits, not measured (RigL: 98.3 %); ImageNet, top-1 of 71.3 at 80 % (uniform;
jaxpruner).

  python -m sparsejax.train --config=configs/static_resnet50.py
  python -m sparsejax.train --config=configs/static_resnet50.py:imagenet
  python -m sparsejax.train --config=static_resnet50 --config.method.track=False
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config for ``digits`` (default), ``imagenet`` or ``imagenet_5x``."""
    return recipes.resnet50("static", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.8, 0.9, 0.95), "seed": range(3)})
