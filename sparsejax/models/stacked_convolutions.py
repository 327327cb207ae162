"""Convolutions, one hidden layer and a head: the networks of Atari and MinAtar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, Float, Num

from sparsejax.models.layers import as_features, layer_normalised

__all__ = ["Convolution", "StackedConvolutions"]


class Convolution(NamedTuple):
    """One layer: its filters, the side of its square kernel, and its stride."""

    filters: int
    size: int
    stride: int


class StackedConvolutions(nnx.Module):
    """Layers ``convolution0``, ..., ``hidden`` and ``head``, ReLU between them.

    Args:
      input_shape: Height, width and channels.
      outputs: Width of the head.
      convolutions: The layers, without padding.
      hidden: Width of the hidden layer.
      layer_norm: Whether LayerNorm without parameters follows the hidden layer.
      rngs: The initialisation's random streams.

    Raises:
      ValueError: The images are too small, or the input is no image.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        convolutions: Sequence[Convolution],
        *,
        hidden: int,
        layer_norm: bool,
        rngs: nnx.Rngs,
    ):
        if len(input_shape) != 3:
            raise ValueError(
                f"input_shape = {tuple(input_shape)} is not [height, width, channels]; "
                "use an environment that shows images, or the model 'mlp'."
            )
        if not isinstance(hidden, int) or hidden < 1:
            raise ValueError(f"hidden = {hidden!r}: give one width of at least 1.")
        height, width, channels = input_shape
        self.depth, self.layer_norm = len(convolutions), layer_norm
        normal = nnx.initializers.he_normal()
        for index, (filters, size, stride) in enumerate(convolutions):
            layer = nnx.Conv(
                channels,
                filters,
                (size, size),
                strides=stride,
                padding="VALID",
                kernel_init=normal,
                rngs=rngs,
            )
            setattr(self, f"convolution{index}", layer)
            channels = filters
            height, width = ((n - size) // stride + 1 for n in (height, width))
        if min(height, width) < 1:
            raise ValueError(
                f"input_shape = {tuple(input_shape)} is too small for the convolutions "
                "of this model; use 'minatar_cnn' or 'mlp'."
            )
        self.hidden = nnx.Linear(
            height * width * channels, hidden, kernel_init=normal, rngs=rngs
        )
        self.head = nnx.Linear(hidden, outputs, rngs=rngs)

    def __call__(
        self, inputs: Num[Array, "batch height width channels"], train: bool = False
    ) -> Float[Array, "batch outputs"]:
        """Computes the outputs.

        Args:
          inputs: Images; of integers, 0 to 255, they are divided by 255.
          train: Ignored: nothing here behaves differently in training.

        Returns:
          The head's outputs.
        """
        del train
        features = as_features(inputs)
        for index in range(self.depth):
            features = jax.nn.relu(getattr(self, f"convolution{index}")(features))
        features = self.hidden(features.reshape(features.shape[0], -1))
        if self.layer_norm:
            features = layer_normalised(features)
        return self.head(jax.nn.relu(features))
