"""SSDLite on MobileNetV1: a detector with separable heads on six feature maps."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sparsejax.detection.anchors import anchor_boxes, anchors_per_cell
from sparsejax.models.layers import Depthwise, check_images, convolution, normalisation
from sparsejax.models.mobilenet_v1 import SeparableBlock, Trunk, scaled

# For each stem the blocks of the trunk whose outputs are feature maps, with their
# features at width 1, and the features of the maps beyond, each half as large as the
# one before.
_MAPS = {
    "imagenet": ({10: 512, 12: 1024}, (512, 256, 256, 128)),
    "small": ({4: 256, 10: 512, 12: 1024}, (512,)),
}
_RATIOS = (2.0, 3.0)


class ExtraLayer(nnx.Module):
    """``reduce``, ``norm``, then ``block``, separable and of stride 2."""

    def __init__(self, inputs: int, outputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        hidden = outputs // 2
        self.reduce = convolution(inputs, hidden, 1, 1, dtype=dtype, rngs=rngs)
        self.norm = normalisation(hidden, rngs=rngs)
        self.block = SeparableBlock(hidden, outputs, 2, dtype=dtype, rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "batch h w c"], train: bool = False
    ) -> Float[Array, "batch new_h new_w features"]:
        """Halves the sides."""
        hidden = self.norm(self.reduce(inputs), use_running_average=not train)
        return self.block(jax.nn.relu(hidden), train)


class Predictor(nnx.Module):
    """``depthwise``, ``norm``, ``pointwise``: some numbers for each anchor of a map."""

    def __init__(
        self,
        inputs: int,
        anchors: int,
        numbers: int,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.numbers = numbers
        self.depthwise = Depthwise(inputs, 1, dtype=dtype, rngs=rngs)
        self.norm = normalisation(inputs, rngs=rngs)
        self.pointwise = nnx.Conv(
            inputs, anchors * numbers, (1, 1), dtype=dtype, rngs=rngs
        )

    def __call__(
        self, inputs: Float[Array, "batch h w c"], train: bool = False
    ) -> Float[Array, "batch anchors numbers"]:
        """Predicts, cell by cell."""
        hidden = self.norm(self.depthwise(inputs), use_running_average=not train)
        hidden = self.pointwise(jax.nn.relu(hidden))
        return hidden.reshape(len(hidden), -1, self.numbers)


class SSDMobileNetV1(Trunk):
    """The trunk, ``extra0`` and on, and for each map ``classes0``, ``boxes0`` and on.

    The arguments are those of :func:`ssd_mobilenet_v1`, all of them checked there.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        number_of_classes: int,
        *,
        width: float,
        stem: str,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            input_shape[-1], width=width, unstrided=(), dtype=dtype, rngs=rngs
        )
        blocks, extra = _MAPS[stem]
        self.blocks, self.extra = tuple(blocks), len(extra)
        maps = [scaled(features, width) for features in blocks.values()]
        for index, features in enumerate(extra):
            features = scaled(features, width)
            layer = ExtraLayer(maps[-1], features, dtype=dtype, rngs=rngs)
            setattr(self, f"extra{index}", layer)
            maps.append(features)
        per_cell = anchors_per_cell(_RATIOS)
        for index, features in enumerate(maps):
            for name, numbers in (("classes", number_of_classes + 1), ("boxes", 4)):
                head = Predictor(features, per_cell, numbers, dtype=dtype, rngs=rngs)
                setattr(self, f"{name}{index}", head)
        # The stride of the last block is 32, that of the maps before it half as much.
        finest = 2 ** (6 - len(blocks))
        self.grids = [
            tuple(-(-side // (finest * 2**index)) for side in input_shape[:2])
            for index in range(len(maps))
        ]

    def anchors(self) -> Float[np.ndarray, "anchors 4"]:
        """The anchors that the predictions are for, in the same order."""
        return anchor_boxes(self.grids, ratios=[_RATIOS] * len(self.grids))

    def __call__(
        self, inputs: Float[Array, "batch h w c"], train: bool = False
    ) -> Float[Array, "batch anchors numbers"]:
        """Computes the predictions for every anchor, in float32.

        Args:
          inputs: Images, channels last.
          train: Normalise by the batch and move the running statistics, instead of
            normalising by them.

        Returns:
          The logits of the background and of each class, then the four offsets of the
          box from the anchor.
        """
        maps = [x for i, x in enumerate(self.maps(inputs, train)) if i in self.blocks]
        for index in range(self.extra):
            maps.append(getattr(self, f"extra{index}")(maps[-1], train))
        predictions = [
            jnp.concatenate(
                [
                    getattr(self, f"classes{index}")(features, train),
                    getattr(self, f"boxes{index}")(features, train),
                ],
                axis=-1,
            )
            for index, features in enumerate(maps)
        ]
        return jnp.concatenate(predictions, axis=1).astype(jnp.float32)


def ssd_mobilenet_v1(
    input_shape: Sequence[int],
    number_of_classes: int,
    *,
    width: float = 1.0,
    stem: str = "imagenet",
    dtype: DTypeLike = "float32",
    rngs: nnx.Rngs,
) -> SSDMobileNetV1:
    """Builds the detector SSDLite on a MobileNetV1.

    Feature maps are the outputs of ``block10`` and ``block12`` of
    :func:`sparsejax.models.mobilenet_v1.mobilenet_v1` and of the extra layers on top of
    it, at strides of 16 to 512. Each has six anchors in every cell, and two separable
    heads: ``classes0/depthwise/kernel``, ``classes0/pointwise/kernel``,
    ``boxes0/depthwise/kernel``, ... Depthwise kernels have the shape (3, 3, 1,
    channels), by which sparse methods know and leave them dense.

    Args:
      input_shape: [height, width, channels] of one image.
      number_of_classes: Classes of objects; the background is one more.
      width: The width multiplier, of the extra layers too; channels are rounded to
        multiples of 8.
      stem: ``"imagenet"`` (six maps), or ``"small"``, for images of about 64 pixels:
        four maps at strides of 8 to 64, the first of them the output of ``block4``.
      dtype: Dtype of the convolutions; parameters, statistics and predictions stay
        float32.
      rngs: The initialisation's random streams.

    Returns:
      A module called as ``model(inputs, train)``; ``model.anchors()`` are the anchors
      of its predictions.

    Raises:
      ValueError: If an argument is none of the values above.

    Example:
      >>> model = nnx.eval_shape(
      ...     lambda: ssd_mobilenet_v1((320, 320, 3), 80, rngs=nnx.Rngs(0)))
      >>> model.anchors().shape
      (3234, 4)

    References:
      Liu et al., "SSD: single shot multibox detector", 2016; Sandler et al.,
      "MobileNetV2: inverted residuals and linear bottlenecks", 2018, section 6.2, for
      the separable heads. Six anchors on each map, as in torchvision's SSDLite.
    """
    check_images(input_shape, stem, width)
    return SSDMobileNetV1(
        input_shape,
        number_of_classes,
        width=width,
        stem=stem,
        dtype=jnp.dtype(dtype),
        rngs=rngs,
    )
