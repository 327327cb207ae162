"""SET of WRN-22-2, on the embedded digits or on CIFAR-10.

Paper: Mocanu et al., 2018, "Scalable training of artificial neural networks with
adaptive sparse connectivity inspired by network science".
Cost: digits, 220 steps of 128 images; CIFAR-10, 97,656 steps (250 epochs) of 128
images.
Expected: digits and CIFAR-10, not measured (RigL: see rigl_wide_resnet.py).

  python -m sparsejax.train --config=configs/set_wide_resnet.py
  python -m sparsejax.train --config=configs/set_wide_resnet.py:cifar10
  python -m sparsejax.train --config=set_wide_resnet --config.method.sparsity=0.95
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the argument is ``digits``, the default, or ``cifar10``."""
    config = recipes.wide_resnet("set", argument)
    config.method.drop_fraction = {"name": "cosine", "initial": 0.3}
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.5, 0.8, 0.9, 0.95), "seed": range(3)})
