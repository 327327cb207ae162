"""SRigL (constant fan-in, ablated neurons) of ResNet-50, on the digits or on ImageNet.

Paper: Lasby et al., 2024, "Dynamic sparse training with structured sparsity".
Cost: digits, 154 steps of about 2 s on a 2-core CPU; ImageNet, 256,000 steps of 512
images (RigL's recipe in smaller batches, as in the paper), or five times as many.
Expected: digits, not measured (RigL: 98.3 %); ImageNet, not measured here; published
(Lasby et al., 2024, with ablation) top-1 of 75.0 at 80 %, 72.7 at 90 %, 69.2 at 95 %,
and five times as long about 76.2 at 90 % and 73.6 at 95 % (read off a plot).

  python -m sparsejax.train --config=configs/srigl_resnet50.py
  python -m sparsejax.train --config=configs/srigl_resnet50.py:imagenet
  python -m sparsejax.train --config=srigl_resnet50 --config.method.sparsity=0.95
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config for ``digits`` (default), ``imagenet`` or ``imagenet_5x``."""
    config = recipes.resnet50("srigl", argument, batch_size=512)
    config.method.drop_fraction = {"name": "cosine", "initial": 0.3}
    config.initialization = "srigl_gradient_flow"
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.8, 0.9, 0.95), "seed": range(3)})
