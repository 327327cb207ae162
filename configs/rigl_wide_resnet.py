"""RigL of WRN-22-2, on the embedded digits or on CIFAR-10.

Paper: Evci et al., 2020, "Rigging the lottery: making all tickets winners".
Cost: digits, 220 steps of 128 images; CIFAR-10, 97,656 steps (250 epochs) of 128
images.
Expected: digits, 98.9 % of the 360 test images at 90 % sparsity (seed 0, jax 0.10.2);
CIFAR-10, not measured here; published (Evci et al., 2020, ERK) 94.2, 93.6, 92.9 and
91.8 % at 50, 80, 90 and 95 %.

  python -m sparsejax.train --config=configs/rigl_wide_resnet.py
  python -m sparsejax.train --config=configs/rigl_wide_resnet.py:cifar10
  python -m sparsejax.train --config=rigl_wide_resnet --config.method.sparsity=0.95
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the argument is ``digits``, the default, or ``cifar10``."""
    config = recipes.wide_resnet("rigl", argument)
    config.method.drop_fraction = {"name": "cosine", "initial": 0.3}
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.5, 0.8, 0.9, 0.95), "seed": range(3)})
