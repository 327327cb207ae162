"""SET of ResNet-50, on the embedded digits or on ImageNet.

Paper: Mocanu et al., 2018, "Scalable training of artificial neural networks with
adaptive sparse connectivity inspired by network science".
Cost: digits, 154 steps of about 2 s on a 2-core CPU; ImageNet, 32,000 steps of 4,096
images, which take eight accelerators of 80 GB in float32, or five times as many steps.
Expected: digits, not measured (RigL: 98.3 %); ImageNet, top-1 of 74.6 at 80 % (uniform;
jaxpruner).

  python -m sparsejax.train --config=configs/set_resnet50.py
  python -m sparsejax.train --config=configs/set_resnet50.py:imagenet
  python -m sparsejax.train --config=set_resnet50 --config.method.every=20
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config for ``digits`` (default), ``imagenet`` or ``imagenet_5x``."""
    config = recipes.resnet50("set", argument)
    config.method.drop_fraction = {"name": "cosine", "initial": 0.3}
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.8, 0.9, 0.95), "seed": range(3)})
