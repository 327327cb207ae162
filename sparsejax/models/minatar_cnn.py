"""The network of MinAtar: one convolution of 16 filters, one hidden layer."""

from __future__ import annotations

from collections.abc import Sequence

from flax import nnx

from sparsejax.models.stacked_convolutions import Convolution, StackedConvolutions


def minatar_cnn(
    input_shape: Sequence[int],
    outputs: int,
    *,
    hidden: int = 128,
    layer_norm: bool = True,
    rngs: nnx.Rngs,
) -> StackedConvolutions:
    """Builds the network of the MinAtar paper.

    Kernels: ``convolution0/kernel`` (3x3, 16 filters, stride 1), ``hidden/kernel``,
    ``head/kernel``.

    Args:
      input_shape: Height, width and channels: 10x10 and one channel per kind of object.
      outputs: Actions.
      hidden: Width of the hidden layer.
      layer_norm: Whether LayerNorm, without parameters, follows the hidden layer; the
        paper has none.
      rngs: The initialisation's random streams.

    Returns:
      A module called as ``model(inputs, train)``.

    Raises:
      ValueError: The input is no image, or too small.

    Example:
      >>> import jax.numpy as jnp
      >>> model = minatar_cnn((10, 10, 4), 3, rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((2, 10, 10, 4), bool)).shape
      (2, 3)

    References:
      Young and Tian, "MinAtar: An Atari-inspired testbed for thorough and reproducible
      reinforcement learning experiments", 2019.
    """
    layers = (Convolution(16, 3, 1),)
    return StackedConvolutions(
        input_shape, outputs, layers, hidden=hidden, layer_norm=layer_norm, rngs=rngs
    )
