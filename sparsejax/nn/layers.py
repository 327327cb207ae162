"""Linear layers over compressed weights, as NNX modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float
from sparsejax_kernels import NM, Block, FanIn, Packed, TwoFour, matmul

from sparsejax.nn.rectifying import mark_rectified

__all__ = [
    "BlockLinear",
    "CompressedLinear",
    "FanInLinear",
    "FanInPointwise",
    "Indices",
    "NMLinear",
]


class Indices(nnx.Variable):
    """What says where the values of a compressed weight belong; it is not trained."""


class CompressedLinear(nnx.Module):
    """``activation(x @ w + bias)`` with a compressed weight, over the last axis of x.

    The values are an `nnx.Param`, so that optimizers train them; the indices are
    `Indices`, so that another topology of the same shape compiles nothing anew.

    Args:
      weight: of any format of `sparsejax_kernels`.
      bias: one number per output, or None.
      dtype: x is cast to it; default: x stays as it is.
      activation: "relu" or None, computed in the product.
      implementation: of the product, see `sparsejax_kernels.matmul`; default: the best
        that runs here.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = jnp.array([[0.0, 2.0], [1.0, 0.0], [0.0, 3.0]])
      >>> layer = FanInLinear(FanIn.fromdense(weights, weights != 0))
      >>> layer(jnp.array([[1.0, 2.0, 3.0]])).tolist()
      [[2.0, 11.0]]
      >>> [path[0] for path, _ in nnx.to_flat_state(nnx.state(layer, nnx.Param))]
      ['values']
    """

    def __init__(
        self,
        weight: Block | FanIn | NM | Packed | TwoFour,
        bias: Float[Array, " out"] | None = None,
        *,
        dtype: DTypeLike | None = None,
        activation: str | None = None,
        implementation: str | None = None,
    ):
        # Values are the first leaf of every format; the others say where they belong.
        (values, *indices), self.format = jax.tree.flatten(weight)
        self.values = nnx.Param(values)
        self.indices = Indices((*indices,))
        self.bias = None if bias is None else nnx.Param(bias)
        self.dtype = dtype
        self.activation = activation
        self.implementation = implementation

    @property
    def weight(self) -> Block | FanIn | NM | Packed | TwoFour:
        """The compressed weight with its current values."""
        leaves = [self.values.get_value(), *self.indices.get_value()]
        return self.format.unflatten(leaves)

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        """Applies the layer."""
        y = matmul(
            jnp.asarray(x, self.dtype),
            self.weight,
            bias=None if self.bias is None else self.bias.get_value(),
            activation=self.activation,
            implementation=self.implementation,
        )
        return y if self.activation is None else mark_rectified(y)


class FanInLinear(CompressedLinear):
    """A linear layer whose outputs each read some inputs; see `CompressedLinear`."""


class NMLinear(CompressedLinear):
    """A linear layer whose outputs keep at most N weights of every M inputs.

    See `CompressedLinear`.
    """


class BlockLinear(CompressedLinear):
    """A linear layer of whole blocks of weights; see `CompressedLinear`."""


class FanInPointwise(CompressedLinear):
    """A 1x1 convolution of channels-last images; see `CompressedLinear`.

    Args:
      weight: of shape (input channels, output channels).
      bias: one number per output channel, or None.
      strides: of the convolution, one per spatial axis.
      **options: as for `CompressedLinear`.
    """

    def __init__(
        self,
        weight: FanIn,
        bias: Float[Array, " out"] | None = None,
        *,
        strides: Sequence[int],
        **options: Any,
    ):
        super().__init__(weight, bias, **options)
        self.strides = tuple(strides)

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        """Applies the convolution; the last axes are the spatial ones and channels."""
        spatial = tuple(slice(None, None, stride) for stride in self.strides)
        return super().__call__(x[(..., *spatial, slice(None))])
