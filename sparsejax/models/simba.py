"""SimBa: residual blocks with LayerNorm before them, for actors and critics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float, Num

from sparsejax.models.layers import as_features


class Block(nnx.Module):
    """LayerNorm, four times as wide, ReLU, back, and the sum with the input."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        normal = nnx.initializers.he_normal()
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.wide = nnx.Linear(width, 4 * width, kernel_init=normal, rngs=rngs)
        self.narrow = nnx.Linear(4 * width, width, kernel_init=normal, rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "batch width"]
    ) -> Float[Array, "batch width"]:
        return inputs + self.narrow(jax.nn.relu(self.wide(self.norm(inputs))))


class SimBa(nnx.Module):
    """``embedding``, blocks ``block0``, ..., a last LayerNorm, and ``head``."""

    def __init__(
        self, inputs: int, outputs: int, *, width: int, blocks: int, rngs: nnx.Rngs
    ):
        self.depth = blocks
        self.embedding = nnx.Linear(inputs, width, rngs=rngs)
        for index in range(blocks):
            setattr(self, f"block{index}", Block(width, rngs=rngs))
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, outputs, rngs=rngs)

    def __call__(
        self, inputs: Num[Array, "batch ..."], train: bool = False
    ) -> Float[Array, "batch outputs"]:
        """Computes the outputs of a batch of any shape, which is flattened."""
        del train
        features = self.embedding(as_features(inputs.reshape(inputs.shape[0], -1)))
        for index in range(self.depth):
            features = getattr(self, f"block{index}")(features)
        return self.head(self.norm(features))


def simba(
    input_shape: Sequence[int],
    outputs: int,
    *,
    width: int = 128,
    blocks: int = 1,
    rngs: nnx.Rngs,
) -> SimBa:
    """Builds SimBa's network; normalise its observations, as the paper does.

    The paper's actors have width 128 and one block, its critics 512 and two.

    Args:
      input_shape: Of one input, which is flattened.
      outputs: Width of the head.
      width: Of the residual stream; hidden layers are four times as wide.
      blocks: Residual blocks.
      rngs: The initialisation's random streams.

    Returns:
      A module called as ``model(inputs, train)``.

    Raises:
      ValueError: A size is below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> simba((17,), 6, rngs=nnx.Rngs(0))(jnp.zeros((2, 17))).shape
      (2, 6)

    References:
      Lee et al., "SimBa: Simplicity bias for scaling up parameters in deep
      reinforcement learning", 2025.
    """
    if width < 1 or blocks < 1:
        raise ValueError(
            f"width = {width}, blocks = {blocks}: use integers of at least 1."
        )
    size = math.prod(input_shape)
    return SimBa(size, outputs, width=width, blocks=blocks, rngs=rngs)
