"""AC/DC (alternately dense and sparse) of ResNet-50, on the digits or on ImageNet.

Paper: Peste et al., 2021, "AC/DC: alternating compressed/decompressed training".
Cost: digits, 154 steps of about 2 s on a 2-core CPU; ImageNet, 500,400 steps (100
epochs) of 256 images, or five times as many.
Expected: digits, not measured; ImageNet, not measured here; published (Peste et al.,
2021, one ranking over all layers) top-1 of 76.45 at 80 %, 75.03 at 90 %, 73.14 at 95 %;
nothing is published for five times as long.

  python -m sparsejax.train --config=configs/ac_dc_resnet50.py
  python -m sparsejax.train --config=configs/ac_dc_resnet50.py:imagenet
  python -m sparsejax.train --config=ac_dc_resnet50 --config.method.scope=layer
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config for ``digits`` (default), ``imagenet`` or ``imagenet_5x``."""
    config = recipes.resnet50("ac_dc", argument)
    # Of 100 epochs ten dense ones, then five of each kind in turn, the last 15 sparse.
    steps = config.get_ref("steps")
    config.method.start = steps // 10
    config.method.every = steps // 20
    config.method.stop = steps * 17 // 20
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.8, 0.9, 0.95), "seed": range(3)})
