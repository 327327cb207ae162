"""Wide ResNet: the pre-activation residual network for images of 32 pixels."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sparsejax.models.layers import check_images, convolution, normalisation


class PreactivationBlock(nnx.Module):
    """``norm1``, ``conv1``, ``norm2``, ``conv2`` and, if needed, ``shortcut``."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, dtype: DTypeLike, rngs
    ):
        self.norm1 = normalisation(inputs, rngs=rngs)
        self.conv1 = convolution(inputs, outputs, 3, stride, dtype=dtype, rngs=rngs)
        self.norm2 = normalisation(outputs, rngs=rngs)
        self.conv2 = convolution(outputs, outputs, 3, 1, dtype=dtype, rngs=rngs)
        self.projects = stride != 1 or inputs != outputs
        if self.projects:
            self.shortcut = convolution(
                inputs, outputs, 1, stride, dtype=dtype, rngs=rngs
            )

    def __call__(
        self, inputs: Float[Array, "batch h w c"], train: bool = False
    ) -> Float[Array, "batch new_h new_w features"]:
        """Adds what the convolutions compute to the input or its projection."""
        active = jax.nn.relu(self.norm1(inputs, use_running_average=not train))
        hidden = self.norm2(self.conv1(active), use_running_average=not train)
        hidden = self.conv2(jax.nn.relu(hidden))
        return hidden + (self.shortcut(active) if self.projects else inputs)


class WideResNet(nnx.Module):
    """``stem``, ``stage1`` to ``stage3`` of ``block0`` ..., ``norm`` and ``head``.

    The arguments are those of :func:`wide_resnet`, all of them checked there.
    """

    def __init__(
        self,
        channels: int,
        number_of_classes: int,
        *,
        depth: int,
        width: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.stem = convolution(channels, 16, 3, 1, dtype=dtype, rngs=rngs)
        self.blocks = (depth - 4) // 6
        features = 16
        for stage in range(3):
            outputs = 16 * width * 2**stage
            for index in range(self.blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                block = PreactivationBlock(
                    features, outputs, stride, dtype=dtype, rngs=rngs
                )
                setattr(self, f"stage{stage + 1}_block{index}", block)
                features = outputs
        self.norm = normalisation(features, rngs=rngs)
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
        hidden = self.stem(inputs)
        for stage in range(1, 4):
            for index in range(self.blocks):
                hidden = getattr(self, f"stage{stage}_block{index}")(hidden, train)
        hidden = jax.nn.relu(self.norm(hidden, use_running_average=not train))
        return self.head(hidden.mean(axis=(1, 2))).astype(jnp.float32)


def wide_resnet(
    input_shape: Sequence[int],
    number_of_classes: int,
    *,
    depth: int = 22,
    width: int = 2,
    dtype: DTypeLike = "float32",
    rngs: nnx.Rngs,
) -> WideResNet:
    """Builds a Wide ResNet (Zagoruyko and Komodakis, 2016), WRN-22-2 by default.

    Kernels are named ``stem/kernel``, ``stage1_block0/conv1/kernel``, ...,
    ``stage1_block0/shortcut/kernel`` and ``head/kernel``. Without dropout.

    Args:
      input_shape: [height, width, channels] of one image; only the channels matter.
      number_of_classes: Width of the logits.
      depth: Number of layers, 6 n + 4.
      width: Multiplier of the channels, which are 16, 32 and 64 at width 1.
      dtype: Dtype of convolutions and the head; parameters, statistics and logits stay
        float32.
      rngs: The initialisation's random streams.

    Returns:
      A module called as ``model(inputs, train)``.

    Raises:
      ValueError: If an argument is none of the values above.

    Example:
      >>> model = nnx.eval_shape(
      ...     lambda: wide_resnet((32, 32, 3), 10, rngs=nnx.Rngs(0))
      ... )
      >>> model.stage3_block2.conv2.kernel.shape
      (3, 3, 128, 128)
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth = {depth!r}: use 6 n + 4, such as 16, 22, 28 or 40.")
    check_images(input_shape, "small", width)
    return WideResNet(
        input_shape[-1],
        number_of_classes,
        depth=depth,
        width=width,
        dtype=jnp.dtype(dtype),
        rngs=rngs,
    )
