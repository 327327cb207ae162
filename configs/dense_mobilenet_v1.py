"""Dense training of MobileNetV1, on the embedded digits or on ImageNet.

Paper: no paper: the baseline that the others are held against.
Cost: digits, 600 steps of about 0.35 s on a busy 2-core CPU; ImageNet, 32,000 steps of
4,096 images.
Expected: digits, 98.1 % of the 360 test images (seeds 0 to 2: 97.2, 98.6 and 98.6,
see experiments/sparse_vision); ImageNet, not measured here; published top-1 of 72.1
(Evci et al., 2020). The published training of MobileNetV1 gives the stairs of the
learning rate; what it leaves open (batch, steps, weight decay) is as for ResNet-50.

  python -m sparsejax.train --config=configs/dense_mobilenet_v1.py
  python -m sparsejax.train --config=configs/dense_mobilenet_v1.py:imagenet
  python -m sparsejax.train --config=dense_mobilenet_v1 --config.seed=1
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the argument is ``digits``, the default, or ``imagenet``."""
    return recipes.mobilenet_v1("dense", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"seed": range(3)})
