"""MobileNetV1: depthwise 3x3 and 1x1 convolutions in turn."""

from collections.abc import Collection, Iterator, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sparsejax.models.layers import Depthwise, check_images, convolution, normalisation

# Channels and stride of every block, at width 1.
_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
# For small images the first strides, the stem's among them, are 1.
_SMALL_UNSTRIDED = (0, 1, 2)


def scaled(features: int, width: float) -> int:
    """The features of a layer in a network of another width, a multiple of 8.

    Never more than a tenth below what was asked for.

    Example:
      >>> scaled(32, 0.3)
      16
    """
    wanted = features * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


class SeparableBlock(nnx.Module):
    """``depthwise``, ``norm1``, ``pointwise``, ``norm2``; a ReLU follows each norm."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, dtype: DTypeLike, rngs
    ):
        self.depthwise = Depthwise(inputs, stride, dtype=dtype, rngs=rngs)
        self.norm1 = normalisation(inputs, rngs=rngs)
        self.pointwise = convolution(inputs, outputs, 1, 1, dtype=dtype, rngs=rngs)
        self.norm2 = normalisation(outputs, rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "batch h w c"], train: bool = False
    ) -> Float[Array, "batch new_h new_w features"]:
        """Filters every channel, then mixes them."""
        hidden = self.norm1(self.depthwise(inputs), use_running_average=not train)
        hidden = self.pointwise(jax.nn.relu(hidden))
        return jax.nn.relu(self.norm2(hidden, use_running_average=not train))


class Trunk(nnx.Module):
    """``stem``, ``stem_norm`` and ``block0`` to ``block12``.

    Args:
      channels: of the images.
      width: the width multiplier.
      unstrided: which of the five strides of 2, counted from 0, are 1.
      dtype: of the convolutions.
      rngs: the initialisation's random streams.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: float,
        unstrided: Collection[int],
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        features = scaled(32, width)
        first = 1 if 0 in unstrided else 2
        self.stem = convolution(channels, features, 3, first, dtype=dtype, rngs=rngs)
        self.stem_norm = normalisation(features, rngs=rngs)
        self.depth = len(_BLOCKS)
        strides = 0
        for index, (outputs, stride) in enumerate(_BLOCKS):
            strides += stride > 1
            if strides in unstrided:
                stride = 1
            outputs = scaled(outputs, width)
            block = SeparableBlock(features, outputs, stride, dtype=dtype, rngs=rngs)
            setattr(self, f"block{index}", block)
            features = outputs

    def maps(
        self, inputs: Float[Array, "batch h w c"], train: bool
    ) -> Iterator[Float[Array, "batch new_h new_w features"]]:
        """Computes the outputs of all blocks, one after the other."""
        hidden = self.stem_norm(self.stem(inputs), use_running_average=not train)
        hidden = jax.nn.relu(hidden)
        for index in range(self.depth):
            hidden = getattr(self, f"block{index}")(hidden, train)
            yield hidden


class MobileNetV1(Trunk):
    """``stem``, ``stem_norm``, ``block0`` to ``block12``, pooling and ``head``.

    The arguments are those of :func:`mobilenet_v1`, all of them checked there.
    """

    def __init__(
        self,
        channels: int,
        number_of_classes: int,
        *,
        width: float,
        stem: str,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        unstrided = _SMALL_UNSTRIDED if stem == "small" else ()
        super().__init__(
            channels, width=width, unstrided=unstrided, dtype=dtype, rngs=rngs
        )
        features = scaled(_BLOCKS[-1][0], width)
        self.head = nnx.Linear(features, number_of_classes, dtype=dtype, rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "batch h w c"], train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Computes the logits, in float32.

        Args:
          inputs: Images, channels last.
          train: Normalise by the batch and move the running statistics, instead of
            normalising by them.
        """
        *_, hidden = self.maps(inputs, train)
        return self.head(hidden.mean(axis=(1, 2))).astype(jnp.float32)


def mobilenet_v1(
    input_shape: Sequence[int],
    number_of_classes: int,
    *,
    width: float = 1.0,
    stem: str = "imagenet",
    dtype: DTypeLike = "float32",
    rngs: nnx.Rngs,
) -> MobileNetV1:
    """Builds a MobileNetV1 (Howard et al., 2017).

    Kernels are named ``stem/kernel``, ``block0/depthwise/kernel``,
    ``block0/pointwise/kernel``, ..., ``head/kernel``. Depthwise kernels have the shape
    (3, 3, 1, channels), by which sparse methods know and leave them dense. At width 1
    with 1000 classes it has 4,231,976 parameters.

    Args:
      input_shape: [height, width, channels] of one image; only the channels matter.
      number_of_classes: Width of the logits.
      width: The width multiplier; channels are rounded to multiples of 8.
      stem: ``"imagenet"`` (strides of 32 in all), or ``"small"``, for images of 8 to 64
        pixels, without the first three of the five strides.
      dtype: Dtype of convolutions and the head; parameters, statistics and logits stay
        float32.
      rngs: The initialisation's random streams.

    Returns:
      A module called as ``model(inputs, train)``.

    Raises:
      ValueError: If an argument is none of the values above.

    Example:
      >>> model = nnx.eval_shape(
      ...     lambda: mobilenet_v1((224, 224, 3), 1000, width=0.5, rngs=nnx.Rngs(0))
      ... )
      >>> model.block12.pointwise.kernel.shape
      (1, 1, 512, 512)
    """
    check_images(input_shape, stem, width)
    return MobileNetV1(
        input_shape[-1],
        number_of_classes,
        width=width,
        stem=stem,
        dtype=jnp.dtype(dtype),
        rngs=rngs,
    )
