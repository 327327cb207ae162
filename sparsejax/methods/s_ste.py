"""S-STE: continuous 2:4 sparsity by soft-thresholding groups of dense weights."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Unpack

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from sparsejax.card import Card
from sparsejax.layers import Layer
from sparsejax.options import Options, method_without
from sparsejax.reparametrizing import reparametrized
from sparsejax.structures import n_m
from sparsejax.structures.n_m import from_groups, group_ranks, to_groups
from sparsejax.views import View, shared_shape, sum_to

__all__ = ["s_ste"]

CARD = Card(
    paper="Hu et al., 2024",
    budget="bounded",
    choose="a network is to be pre-trained 2:4 sparse; its loss is continuous in the "
    "dense weights, where `sr_ste` jumps",
    memory="masks, dense float32 weights",
    asks="a dense gradient at every step",
    dense_gradient="every step",
    structures="its own: N:M",
)


@method_without("distribution", "structure")
def s_ste(
    inner: optax.GradientTransformation,
    *,
    n: int = 2,
    m: int = 4,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Soft-thresholds every group of four dense weights to at most two.

    In each group of ``m`` neighbouring inputs of a neuron ``t`` is the largest
    magnitude that is not among the ``n`` first, and the parameters are ``beta S(w)``
    with ``S(w) = sign(w) relu(|w| - t)``: continuous in ``w``, where a hard mask jumps
    as two weights change places. ``beta = <w, S(w)> / <S(w), S(w)>`` of every layer is
    computed at init and stays. The gradient at the parameters is taken for that of
    ``w``, without the scale.

    Args:
      inner: the optimizer, clipping and schedules included; it trains the dense
        weights.
      n: weights to keep in each group, at most.
      m: width of a group.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: unless ``1 <= n <= m``.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.s_ste(optax.sgd(0.1))
      >>> params = {"kernel": jnp.array([[1.0], [-2.0], [0.5], [0.1]])}
      >>> view = sj.sparsify(params, tx.init(params))["kernel"][:, 0]
      >>> [round(float(value), 4) for value in view]
      [0.7, -2.1, 0.0, 0.0]

    References:
      Hu et al., "S-STE: Continuous Pruning Function for Efficient 2:4 Sparse
      Pre-training", NeurIPS 2024. Without its unbiased 2:4 estimate of the output
      gradient and its FP8 products, which are not an optimizer's matter.
    """
    n_m(n, m)  # checks both
    return reparametrized(inner, view=_GroupThreshold(n, m), sparsity=None, **options)


@dataclasses.dataclass(frozen=True)
class _GroupThreshold(View):
    n: int
    m: int

    budgeted: ClassVar[bool] = False

    def init(self, now, budgets):
        pairs = zip(now.layers, now.latents, strict=True)
        return None, [_scale(layer, w, self.soft(layer, w)) for layer, w in pairs]

    def select(self, now, budgets, where=None):
        pairs = zip(now.layers, now.latents, strict=True)
        return [self.above(*pair) > 0 for pair in pairs], now.memory

    def forward(self, now):
        rows = zip(now.layers, now.latents, now.memory, strict=True)
        return [scale * self.soft(layer, w) for layer, w, scale in rows]

    def pull(self, now, gradients):
        return gradients, now.extra

    def soft(self, layer: Layer, latent: Array) -> Array:
        return jnp.sign(latent) * jax.nn.relu(self.above(layer, latent))

    def above(self, layer: Layer, latent: Array) -> Array:
        """By how much magnitudes exceed the largest one left out of their group."""
        groups = to_groups(layer, jnp.abs(latent), self.m)
        # With n = m none is left out; a ragged group is filled up with zeros.
        left_out = jnp.where(group_ranks(groups) == self.n, groups, 0)
        return from_groups(layer, groups - left_out.sum(-1, keepdims=True))


def _scale(layer: Layer, latent: Array, soft: Array) -> Array:
    shape = shared_shape(layer, "layer")
    square, product = sum_to(soft**2, shape), sum_to(latent * soft, shape)
    return jnp.where(square > 0, product / jnp.where(square > 0, square, 1), 1)
