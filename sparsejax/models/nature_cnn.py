"""The network of the DQN paper: three convolutions and a hidden layer of 512."""

from __future__ import annotations

from collections.abc import Sequence

from flax import nnx

from sparsejax.models.stacked_convolutions import Convolution, StackedConvolutions


def nature_cnn(
    input_shape: Sequence[int],
    outputs: int,
    *,
    width: float = 1.0,
    layer_norm: bool = False,
    rngs: nnx.Rngs,
) -> StackedConvolutions:
    """Builds the network that learned to play Atari.

    Kernels: ``convolution0/kernel`` (8x8, 32 filters, stride 4), ``convolution1``
    (4x4, 64, stride 2), ``convolution2`` (3x3, 64, stride 1), ``hidden`` (512),
    ``head``.

    Args:
      input_shape: Height, width and channels: 84x84x4 on Atari; at least 36x36.
      outputs: Actions.
      width: Factor on the numbers of filters and of hidden units.
      layer_norm: Whether LayerNorm, without parameters, follows the hidden layer.
      rngs: The initialisation's random streams.

    Returns:
      A module called as ``model(inputs, train)``.

    Raises:
      ValueError: The input is no image, or too small, or the width not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> model = nature_cnn((84, 84, 4), 6, width=0.25, rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((1, 84, 84, 4), jnp.uint8)).shape
      (1, 6)

    References:
      Mnih et al., "Human-level control through deep reinforcement learning", 2015.
    """
    if width <= 0:
        raise ValueError(f"width = {width}: use a number above 0.")
    scaled = [max(1, round(width * n)) for n in (32, 64, 64, 512)]
    shapes = ((8, 4), (4, 2), (3, 1))
    layers = [
        Convolution(filters, *shape)
        for filters, shape in zip(scaled[:3], shapes, strict=True)
    ]
    return StackedConvolutions(
        input_shape, outputs, layers, hidden=scaled[3], layer_norm=layer_norm, rngs=rngs
    )
