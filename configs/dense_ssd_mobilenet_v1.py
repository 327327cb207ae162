"""Dense training of SSDLite on MobileNetV1: digit scenes, VOC or COCO.

Paper: Liu et al., 2016, "SSD: single shot multibox detector", and Sandler et al.,
2018, "MobileNetV2: inverted residuals and linear bottlenecks"; the baseline that sparse
ones are held against. Settings of COCO as torchvision trains its SSDLite at 320; of VOC
the paper's, but for the learning rate, which is ours.
Cost: scenes, 1,500 steps, about 9 minutes on a busy 2-core CPU; VOC, 120,000 steps of
32 images, and COCO, 406,000 steps of 192 images, on accelerators.
Expected: scenes, an average precision of 62.2 % at 50 % overlap (seeds 0 to 2: 54.5,
64.6 and 67.5) and of 39.5 % in the mean over 50 to 95 %, see
experiments/sparse_vision; VOC, not measured; COCO, an average precision of 22.2 %
(Sandler et al., 2018, with their own training).

  python -m sparsejax.train --config=configs/dense_ssd_mobilenet_v1.py
  python -m sparsejax.train --config=configs/dense_ssd_mobilenet_v1.py:coco
  python -m sparsejax.train --config=dense_ssd_mobilenet_v1 --config.seed=1
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config for ``scenes``, the default, ``voc`` or ``coco``."""
    return recipes.ssd_mobilenet_v1("dense", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"seed": range(3)})
