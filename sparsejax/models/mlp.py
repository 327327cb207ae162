"""MLP: fully connected layers with ReLU, on flattened inputs."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from sparsejax.models.layers import as_features, layer_normalised


class MLP(nnx.Module):
    """Fully connected layers ``hidden0``, ``hidden1``, ... and ``head``.

    Args:
      sizes: Widths from the flattened input to the logits, both included.
      layer_norm: Whether LayerNorm, without parameters, follows each hidden layer.
      dtype: Dtype of the computation; parameters and logits stay float32.
      rngs: The initialisation's random streams.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        layer_norm: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.depth = len(sizes) - 2
        self.layer_norm = layer_norm
        dtype = jnp.dtype(dtype)
        for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes[:-1])):
            layer = nnx.Linear(
                inputs,
                outputs,
                kernel_init=nnx.initializers.he_normal(),
                dtype=dtype,
                rngs=rngs,
            )
            setattr(self, f"hidden{index}", layer)
        self.head = nnx.Linear(sizes[-2], sizes[-1], dtype=dtype, rngs=rngs)

    def __call__(
        self, inputs: Num[Array, "batch ..."], train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Computes the logits.

        Args:
          inputs: A batch of any shape whose entries match the first width; integers,
            0 to 255, are divided by 255.
          train: Ignored: nothing here behaves differently in training.

        Returns:
          Logits in float32.
        """
        del train
        hidden = as_features(inputs.reshape(inputs.shape[0], -1))
        for index in range(self.depth):
            hidden = getattr(self, f"hidden{index}")(hidden)
            if self.layer_norm:
                hidden = layer_normalised(hidden)
            hidden = jax.nn.relu(hidden)
        return self.head(hidden).astype(jnp.float32)


def mlp(
    input_shape: Sequence[int],
    number_of_classes: int,
    *,
    hidden: Sequence[int] = (128, 128),
    layer_norm: bool = False,
    dtype: DTypeLike = "float32",
    rngs: nnx.Rngs,
) -> MLP:
    """Builds a multilayer perceptron with ReLU and He initialisation.

    Kernels are named ``hidden0/kernel``, ``hidden1/kernel``, ..., ``head/kernel``, each
    of shape [inputs, outputs]. Hidden kernels have variance 2 / inputs, the head's
    (no ReLU follows it) 1 / inputs.

    Args:
      input_shape: Shape of one input, without the batch axis; it is flattened.
      number_of_classes: Width of the logits.
      hidden: Widths of the hidden layers; none gives a linear classifier.
      layer_norm: Whether LayerNorm, without parameters of its own, follows each hidden
        layer, before its ReLU. Agents that learn values diverge without.
      dtype: Dtype of the computation; parameters and logits stay float32.
      rngs: The initialisation's random streams.

    Returns:
      A module called as ``model(inputs, train)``.

    Raises:
      ValueError: If a width is not positive.

    Example:
      >>> model = mlp((8, 8, 1), 10, hidden=(32,), rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((2, 8, 8, 1))).shape
      (2, 10)
    """
    hidden = tuple(hidden)
    if any(width < 1 for width in hidden):
        raise ValueError(f"hidden = {hidden} has a width below 1; use widths >= 1.")
    sizes = (math.prod(input_shape), *hidden, number_of_classes)
    return MLP(sizes, layer_norm=layer_norm, dtype=dtype, rngs=rngs)
