"""RigL of MobileNetV1, on the embedded digits or on ImageNet.

Paper: Evci et al., 2020, "Rigging the lottery: making all tickets winners".
Cost: digits, 600 steps of about 0.35 s on a busy 2-core CPU; ImageNet, 32,000 steps of
4,096 images.
Expected: digits, 97.8 % of the 360 test images at 90 % sparsity (seeds 0 to 2: 98.6,
97.8 and 96.9, see experiments/sparse_vision); ImageNet, not measured; dense top-1 of
72.1 (Evci et al., 2020). The published training of MobileNetV1 gives the stairs of the
learning rate; what it leaves open (batch, steps, weight decay) is as for ResNet-50.

  python -m sparsejax.train --config=configs/rigl_mobilenet_v1.py
  python -m sparsejax.train --config=configs/rigl_mobilenet_v1.py:imagenet
  python -m sparsejax.train --config=rigl_mobilenet_v1 --config.seed=1
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the argument is ``digits``, the default, or ``imagenet``."""
    config = recipes.mobilenet_v1("rigl", argument)
    config.method.drop_fraction = {"name": "cosine", "initial": 0.3}
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.75, 0.9), "seed": range(3)})
