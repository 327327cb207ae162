"""RigL of ResNet-50, on the embedded digits or on ImageNet.

Paper: Evci et al., 2020, "Rigging the lottery: making all tickets winners".
Cost: digits, 154 steps of about 2 s on a 2-core CPU; ImageNet, 32,000 steps of 4,096
images, which take eight accelerators of 80 GB in float32, or five times as many steps.
Expected: digits, at least 96 % test accuracy at 90 % sparsity (98.3 % after 154 steps,
seed 0, jax 0.10.2); ImageNet, top-1 of 75.1 at 80 %, 73.1 at 90 % (ERK; Evci et al.,
2020), about 69.6 at 95 % (read off a plot; Lasby et al., 2024), and five times as long
77.2, 76.4 and 74.6.

  python -m sparsejax.train --config=configs/rigl_resnet50.py
  python -m sparsejax.train --config=configs/rigl_resnet50.py:imagenet
  python -m sparsejax.train --config=rigl_resnet50 --config.method.sparsity=0.95
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config for ``digits`` (default), ``imagenet`` or ``imagenet_5x``."""
    config = recipes.resnet50("rigl", argument)
    config.method.drop_fraction = {"name": "cosine", "initial": 0.3}
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.8, 0.9, 0.95), "seed": range(3)})
