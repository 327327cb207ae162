"""ResNet v1.5: the residual network with its stride on the 3x3 convolution."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sparsejax.models.layers import check_images, convolution, normalisation

# Per depth: the block's convolutions as (size, width in units of the stage's width,
# whether the block's stride is here), and the number of blocks in each stage.
_BASIC = ((3, 1, True), (3, 1, False))
_BOTTLENECK = ((1, 1, False), (3, 1, True), (1, 4, False))
_NETWORKS = {
    18: (_BASIC, (2, 2, 2, 2)),
    34: (_BASIC, (3, 4, 6, 3)),
    50: (_BOTTLENECK, (3, 4, 6, 3)),
    101: (_BOTTLENECK, (3, 4, 23, 3)),
    152: (_BOTTLENECK, (3, 8, 36, 3)),
}


class Stem(nnx.Module):
    """The first convolution, ``conv`` and ``norm``; for ImageNet with max pooling."""

    def __init__(
        self, inputs: int, outputs: int, kind: str, *, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.pool = kind == "imagenet"
        size, stride = (7, 2) if self.pool else (3, 1)
        self.conv = convolution(inputs, outputs, size, stride, dtype=dtype, rngs=rngs)
        self.norm = normalisation(outputs, rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "batch h w c"], train: bool = False
    ) -> Float[Array, "batch new_h new_w features"]:
        """Computes the features that the first stage starts from."""
        hidden = self.norm(self.conv(inputs), use_running_average=not train)
        hidden = jax.nn.relu(hidden)
        if self.pool:
            # Flax declares the padding as a string, and takes numbers as documented.
            padding: Any = ((1, 1), (1, 1))
            hidden = nnx.max_pool(hidden, (3, 3), strides=(2, 2), padding=padding)
        return hidden


class Block(nnx.Module):
    """A residual block: ``conv1``, ``norm1``, ..., and, if needed, ``shortcut``."""

    def __init__(
        self,
        inputs: int,
        width: int,
        layers: Sequence[tuple[int, int, bool]],
        stride: int,
        *,
        zero_scale: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.depth = len(layers)
        outputs = inputs
        for index, (size, expansion, strided) in enumerate(layers, start=1):
            features, outputs = outputs, width * expansion
            layer = convolution(
                features,
                outputs,
                size,
                stride if strided else 1,
                dtype=dtype,
                rngs=rngs,
            )
            last = index == self.depth
            norm = normalisation(outputs, zero_scale=zero_scale and last, rngs=rngs)
            setattr(self, f"conv{index}", layer)
            setattr(self, f"norm{index}", norm)
        self.outputs = outputs
        self.projects = stride != 1 or inputs != outputs
        if self.projects:
            self.shortcut = convolution(
                inputs, outputs, 1, stride, dtype=dtype, rngs=rngs
            )
            self.shortcut_norm = normalisation(outputs, rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "batch h w c"], train: bool = False
    ) -> Float[Array, "batch new_h new_w features"]:
        """Adds what the convolutions compute to the input or its projection."""
        average = not train
        hidden = inputs
        for index in range(1, self.depth + 1):
            hidden = getattr(self, f"conv{index}")(hidden)
            hidden = getattr(self, f"norm{index}")(hidden, use_running_average=average)
            if index < self.depth:
                hidden = jax.nn.relu(hidden)
        residual = inputs
        if self.projects:
            residual = self.shortcut(inputs)
            residual = self.shortcut_norm(residual, use_running_average=average)
        return jax.nn.relu(hidden + residual)


class Stage(nnx.Module):
    """Blocks of one width, ``block0``, ``block1``, ...; the first may be strided."""

    def __init__(self, blocks: Sequence[Block]):
        self.depth = len(blocks)
        for index, block in enumerate(blocks):
            setattr(self, f"block{index}", block)

    def __call__(
        self, inputs: Float[Array, "batch h w c"], train: bool = False
    ) -> Float[Array, "batch new_h new_w features"]:
        """Applies the blocks one after the other."""
        hidden = inputs
        for index in range(self.depth):
            hidden = getattr(self, f"block{index}")(hidden, train)
        return hidden


class ResNet(nnx.Module):
    """``stem``, ``stage1`` to ``stage4``, global average pooling and ``head``.

    The arguments are those of :func:`resnet`, all of them checked there.
    """

    def __init__(
        self,
        channels: int,
        number_of_classes: int,
        *,
        depth: int,
        stem: str,
        width: int,
        zero_initialised_scale: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        layers, blocks_per_stage = _NETWORKS[depth]
        self.stem = Stem(channels, width, stem, dtype=dtype, rngs=rngs)
        self.depth = len(blocks_per_stage)
        features = width
        for stage, number_of_blocks in enumerate(blocks_per_stage):
            blocks = []
            for index in range(number_of_blocks):
                block = Block(
                    features,
                    width * 2**stage,
                    layers,
                    2 if stage > 0 and index == 0 else 1,
                    zero_scale=zero_initialised_scale,
                    dtype=dtype,
                    rngs=rngs,
                )
                features = block.outputs
                blocks.append(block)
            setattr(self, f"stage{stage + 1}", Stage(blocks))
        self.head = nnx.Linear(features, number_of_classes, dtype=dtype, rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "batch h w c"], train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Computes the logits.

        Args:
          inputs: Images, channels last.
          train: Normalise by the batch and move the running statistics, instead of
            normalising by them.

        Returns:
          Logits in float32.
        """
        hidden = self.stem(inputs, train)
        for stage in range(1, self.depth + 1):
            hidden = getattr(self, f"stage{stage}")(hidden, train)
        return self.head(hidden.mean(axis=(1, 2))).astype(jnp.float32)


def resnet(
    input_shape: Sequence[int],
    number_of_classes: int,
    *,
    depth: int = 50,
    stem: str = "imagenet",
    width: int = 64,
    zero_initialised_scale: bool = True,
    dtype: DTypeLike = "float32",
    rngs: nnx.Rngs,
) -> ResNet:
    """Builds a ResNet v1.5 (He et al., 2016; stride on the 3x3 convolutions).

    Kernels are named ``stem/conv/kernel``, ``stage1/block0/conv1/kernel``, ...,
    ``stage1/block0/shortcut/kernel`` and ``head/kernel``; convolutions have the shape
    [height, width, inputs, outputs] and He-normal initial values by their fan-in.
    Depth 50 with 1000 classes has 25,502,912 weights in 54 convolutions and linear
    layers. BatchNorm has momentum 0.9 and computes in float32.

    Args:
      input_shape: [height, width, channels] of one image; only the channels matter.
      number_of_classes: Width of the logits.
      depth: 18 or 34 (blocks of two 3x3), 50, 101 or 152 (bottlenecks 1x1, 3x3, 1x1).
      stem: ``"imagenet"`` (7x7 with stride 2, then 3x3 max pooling with stride 2) or
        ``"small"`` (3x3 with stride 1, no pooling), for images of 8 to 64 pixels.
      width: Channels of the stem and of the first stage's 3x3 convolutions; each stage
        doubles it.
      zero_initialised_scale: Start the last BatchNorm scale of every block at 0, so
        that every block starts as the identity.
      dtype: Dtype of convolutions and the head; parameters, statistics and logits stay
        float32.
      rngs: The initialisation's random streams.

    Returns:
      A module called as ``model(inputs, train)``.

    Raises:
      ValueError: If an argument is none of the values above.

    Example:
      >>> model = nnx.eval_shape(
      ...     lambda: resnet((224, 224, 3), 1000, depth=50, rngs=nnx.Rngs(0))
      ... )
      >>> model.stage1.block0.conv2.kernel.shape
      (3, 3, 64, 64)
    """
    if depth not in _NETWORKS:
        raise ValueError(
            f"depth = {depth!r}: use one of {', '.join(map(str, _NETWORKS))}."
        )
    check_images(input_shape, stem, width)
    return ResNet(
        input_shape[-1],
        number_of_classes,
        depth=depth,
        stem=stem,
        width=width,
        zero_initialised_scale=zero_initialised_scale,
        dtype=jnp.dtype(dtype),
        rngs=rngs,
    )
