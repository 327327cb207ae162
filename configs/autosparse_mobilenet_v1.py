"""AutoSparse with gradient annealing of MobileNetV1, on digits or on ImageNet.

Paper: Kundu et al., 2023, "AutoSparse: towards automated sparse training".
Cost: digits, 600 steps of about 0.35 s on a busy 2-core CPU; ImageNet, 32,000 steps of
4,096 images.
Expected: digits and ImageNet, not measured; dense top-1 on ImageNet of 72.1 (Evci et
al., 2020). With a sparsity the largest weights of every layer are used; without one
(None) thresholds are learned, and the sparsity follows from training. The published
training of MobileNetV1 gives the stairs of the learning rate; what it leaves open
(batch, steps, weight decay) is as for ResNet-50.

  python -m sparsejax.train --config=configs/autosparse_mobilenet_v1.py
  python -m sparsejax.train --config=configs/autosparse_mobilenet_v1.py:imagenet
  python -m sparsejax.train --config=autosparse_mobilenet_v1 --config.seed=1
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the argument is ``digits``, the default, or ``imagenet``."""
    config = recipes.mobilenet_v1("autosparse", argument)
    # Annealed over all of training, as in the paper.
    config.method.stop = config.get_ref("steps")
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.75, 0.9), "seed": range(3)})
