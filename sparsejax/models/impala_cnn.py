"""The residual network of IMPALA, for agents that see images."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float, Num

from sparsejax.models.layers import as_features, layer_normalised


class Residual(nnx.Module):
    """ReLU, convolution, ReLU, convolution, and the sum with the input."""

    def __init__(self, filters: int, *, rngs: nnx.Rngs):
        self.first = _convolution(filters, filters, rngs)
        self.second = _convolution(filters, filters, rngs)

    def __call__(
        self, inputs: Float[Array, "batch height width filters"]
    ) -> Float[Array, "batch height width filters"]:
        return inputs + self.second(jax.nn.relu(self.first(jax.nn.relu(inputs))))


class Stage(nnx.Module):
    """A convolution, a max-pooling that halves the image, and residual blocks."""

    def __init__(self, inputs: int, filters: int, blocks: int, *, rngs: nnx.Rngs):
        self.convolution = _convolution(inputs, filters, rngs)
        self.depth = blocks
        for index in range(blocks):
            setattr(self, f"block{index}", Residual(filters, rngs=rngs))

    def __call__(
        self, inputs: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch half_height half_width filters"]:
        features = nnx.max_pool(self.convolution(inputs), (3, 3), (2, 2), "SAME")
        for index in range(self.depth):
            features = getattr(self, f"block{index}")(features)
        return features


class ImpalaCNN(nnx.Module):
    """Stages ``stage0``, ..., then ``hidden`` and ``head``."""

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        *,
        filters: Sequence[int],
        blocks: int,
        hidden: int,
        layer_norm: bool,
        rngs: nnx.Rngs,
    ):
        height, width, channels = input_shape
        self.depth, self.layer_norm = len(filters), layer_norm
        for index, count in enumerate(filters):
            stage = Stage(channels, count, blocks, rngs=rngs)
            setattr(self, f"stage{index}", stage)
            height, width, channels = -(-height // 2), -(-width // 2), count
        normal = nnx.initializers.he_normal()
        size = height * width * channels
        self.hidden = nnx.Linear(size, hidden, kernel_init=normal, rngs=rngs)
        self.head = nnx.Linear(hidden, outputs, rngs=rngs)

    def __call__(
        self, inputs: Num[Array, "batch height width channels"], train: bool = False
    ) -> Float[Array, "batch outputs"]:
        """Computes the outputs; integers, 0 to 255, are divided by 255."""
        del train
        features = as_features(inputs)
        for index in range(self.depth):
            features = getattr(self, f"stage{index}")(features)
        features = jax.nn.relu(features)
        features = self.hidden(features.reshape(features.shape[0], -1))
        if self.layer_norm:
            features = layer_normalised(features)
        return self.head(jax.nn.relu(features))


def impala_cnn(
    input_shape: Sequence[int],
    outputs: int,
    *,
    filters: Sequence[int] = (16, 32, 32),
    blocks: int = 2,
    hidden: int = 256,
    layer_norm: bool = False,
    rngs: nnx.Rngs,
) -> ImpalaCNN:
    """Builds the 15-layer residual network of IMPALA.

    Args:
      input_shape: Height, width and channels.
      outputs: Actions.
      filters: Of each stage; a stage halves the image.
      blocks: Residual blocks of a stage.
      hidden: Width of the hidden layer.
      layer_norm: Whether LayerNorm, without parameters, follows the hidden layer.
      rngs: The initialisation's random streams.

    Returns:
      A module called as ``model(inputs, train)``.

    Raises:
      ValueError: The input is no image, or a width is below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> model = impala_cnn((10, 10, 4), 3, filters=(8, 8), rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((2, 10, 10, 4), bool)).shape
      (2, 3)

    References:
      Espeholt et al., "IMPALA: Scalable distributed deep-RL with importance weighted
      actor-learner architectures", 2018.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"input_shape = {tuple(input_shape)} is not [height, width, channels]; use "
            "an environment that shows images, or the model 'mlp'."
        )
    if min((*filters, blocks, hidden), default=0) < 1:
        raise ValueError(
            f"filters = {tuple(filters)}, blocks = {blocks}, hidden = {hidden}: use "
            "integers of at least 1."
        )
    return ImpalaCNN(
        input_shape,
        outputs,
        filters=filters,
        blocks=blocks,
        hidden=hidden,
        layer_norm=layer_norm,
        rngs=rngs,
    )


def _convolution(inputs: int, filters: int, rngs: nnx.Rngs) -> nnx.Conv:
    normal = nnx.initializers.he_normal()
    return nnx.Conv(inputs, filters, (3, 3), kernel_init=normal, rngs=rngs)
