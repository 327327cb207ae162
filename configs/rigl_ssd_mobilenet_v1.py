"""RigL of SSDLite on MobileNetV1, on the embedded digit scenes, on VOC or on COCO.

Paper: Evci et al., 2020, "Rigging the lottery: making all tickets winners", for the
method; Liu et al., 2016, "SSD: single shot multibox detector", and Sandler et al.,
2018, "MobileNetV2: inverted residuals and linear bottlenecks", for the detector.
Settings of COCO as torchvision trains its SSDLite at 320; of VOC the paper's, but for
the learning rate, which is ours.
Cost: scenes, 1,500 steps, 206 s on a 2-core CPU; VOC, 120,000 steps of 32 images, and
COCO, 406,000 steps of 192 images, on accelerators.
Expected: scenes, at 90 % sparsity, an average precision of 64.1 % at 50 % overlap
(seeds 0 to 2: 64.3, 61.5 and 66.3) and of 42.5 % in the mean over 50 to 95 %, see
experiments/sparse_vision; VOC and COCO, not measured (dense, Sandler et al. report an
average precision on COCO of 22.2 %).

  python -m sparsejax.train --config=configs/rigl_ssd_mobilenet_v1.py
  python -m sparsejax.train --config=configs/rigl_ssd_mobilenet_v1.py:coco
  python -m sparsejax.train --config=rigl_ssd_mobilenet_v1 --config.method.sparsity=0.95
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config for ``scenes``, the default, ``voc`` or ``coco``."""
    config = recipes.ssd_mobilenet_v1("rigl", argument)
    config.method.drop_fraction = {"name": "cosine", "initial": 0.3}
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.8, 0.9, 0.95), "seed": range(3)})
