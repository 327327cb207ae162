"""STR (learned thresholds) of ResNet-50, on the embedded digits or on ImageNet.

Paper: Kusupati et al., 2020, "Soft threshold weight reparameterization for learnable
sparsity".
Cost: digits, 154 steps of about 2 s on a 2-core CPU; ImageNet, 500,400 steps (100
epochs) of 256 images, or five times as many.
Expected: digits, not measured; ImageNet, not measured here; published (the authors'
repository) top-1 of 74.31 at 90.23 % with these settings, and with others 76.12 at
81.27 % and 70.23 at 95.15 %. There is no target: sparsity rises with the weight decay,
which has to reach the thresholds.

  python -m sparsejax.train --config=configs/soft_threshold_resnet50.py
  python -m sparsejax.train --config=configs/soft_threshold_resnet50.py:imagenet
  python -m sparsejax.train --config=soft_threshold_resnet50 --config.seed=1
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config for ``digits`` (default), ``imagenet`` or ``imagenet_5x``."""
    config = recipes.resnet50("soft_threshold", argument)
    config.optimizer.weight_decay_of = "all"
    on_digits = argument in (None, "digits")
    config.method.initial_threshold = -5.0 if on_digits else -3200.0
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid(
        {"optimizer.weight_decay": (1e-5, 2.25e-5, 4e-5), "seed": range(3)}
    )
