"""Soft top-k: the largest of dense weights, scaled by a differentiable mask."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Unpack

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sparsejax.card import Card
from sparsejax.checks import check_step
from sparsejax.options import Options, method
from sparsejax.reparametrizing import reparametrized
from sparsejax.views import TopK, shared_shape, sum_to

__all__ = ["soft_top_k"]

CARD = Card(
    paper="Tai et al., 2022",
    budget="fixed",
    choose="weights near the threshold shall be able to change sides early in "
    "training and not late, with exact counts all along",
    memory="masks, dense float32 weights",
    asks="a dense gradient at every step; some thirty passes over the weights to find "
    "each mask",
    dense_gradient="every step",
)


@method
def soft_top_k(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    stop: int,
    initial_sharpness: float = 1.0,
    final_sharpness: float = 20.0,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Uses the largest weights, scaled by a soft mask of which the budget is the sum.

    The soft mask of a layer that keeps ``k`` weights is ``m = sigmoid(b (|w| - t))``
    with the ``t`` at which ``sum(m) = k``: of all masks in [0, 1] with that sum the one
    that maximises ``<m, |w|>`` plus its entropy divided by ``b``. The parameters are
    ``m w`` at the ``k`` largest ``|w|`` and zero elsewhere. Backward the projection to
    these is taken for the identity, and the soft mask is differentiated, ``t``
    included: all weights learn, those near the threshold by their rank too. The
    sharpness ``b`` rises linearly until ``stop``; the topology then stays.

    Args:
      inner: the optimizer, clipping and schedules included; it trains the dense
        weights.
      sparsity: fraction of weights that are zero, in [0, 1); a map from path patterns
        to fractions; or None to take the counts of ``initial_masks``.
      stop: steps that the annealing takes; 80 % of training in the authors' code.
      initial_sharpness: ``b`` at the first step, in units of 1 / weight.
      final_sharpness: ``b`` from ``stop`` on.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or a layer left without weights.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.soft_top_k(optax.adam(1e-3), sparsity=0.5, stop=100)
      >>> params = {"kernel": jnp.array([[2.0, -2.0, 1.0, 1.0]])}
      >>> view = sj.sparsify(params, tx.init(params))["kernel"][0]
      >>> [round(float(value), 4) for value in view]
      [1.2449, -1.2449, 0.0, 0.0]

    References:
      Tai, Tian & Lim, "Spartan: Differentiable Sparsity via Regularized
      Transportation", NeurIPS 2022. Each layer has its budget from the first step on,
      where the paper begins dense; after ``stop`` the soft mask goes on following the
      weights, where the paper freezes it.
    """
    check_step("stop", stop)
    if not 0 < initial_sharpness <= final_sharpness:
        raise ValueError(
            f"initial_sharpness={initial_sharpness} is not in (0, {final_sharpness}], "
            "which ends at final_sharpness"
        )

    def sharpness(step):
        progress = jnp.minimum(step.astype(jnp.float32) / max(stop, 1), 1.0)
        return initial_sharpness + (final_sharpness - initial_sharpness) * progress

    return reparametrized(
        inner,
        view=_SoftTopK(),
        sparsity=sparsity,
        refresh=lambda count: count <= stop,
        values={"sharpness": sharpness},
        **options,
    )


@dataclasses.dataclass(frozen=True)
class _SoftTopK(TopK):
    def select(self, now, budgets, where=None):
        masks, _ = super().select(now, budgets, where)
        rows = zip(now.layers, now.latents, budgets, strict=True)
        sharpness = now.values["sharpness"]
        return masks, [_threshold(*row, sharpness) for row in rows]

    def soft_masks(self, now):
        pairs = zip(now.latents, now.memory, strict=True)
        return [
            jax.nn.sigmoid(now.values["sharpness"] * (abs(w) - t)) for w, t in pairs
        ]

    def forward(self, now):
        pairs = zip(now.latents, self.soft_masks(now), strict=True)
        return [latent * mask.astype(latent.dtype) for latent, mask in pairs]

    def pull(self, now, gradients):
        pulled = []
        rows = zip(
            now.latents, gradients, self.soft_masks(now), now.memory, strict=True
        )
        for latent, gradient, mask, threshold in rows:
            slope = mask * (1 - mask)
            gain = gradient * latent
            # The threshold moves so that the mask's sum stays: a weighted mean.
            total = sum_to(slope, threshold.shape)
            mean = sum_to(gain * slope, threshold.shape)
            mean = mean / jnp.where(total > 0, total, 1)
            ranked = jnp.sign(latent) * slope * (gain - mean)
            pulled.append(gradient * mask + now.values["sharpness"] * ranked)
        return pulled, now.extra


def _threshold(layer, latent, budget, sharpness):
    """Where a soft mask of this sharpness sums up to the budget, by bisection."""
    shape = shared_shape(layer, "layer")
    axes = tuple(range(len(layer.spec.stacked), latent.ndim))
    size = jnp.abs(latent)
    budget = budget.reshape(shape).astype(latent.dtype)
    # With the threshold there, all masks are above their mean, or all below.
    shift = jnp.log(layer.size // layer.slices / budget - 1) / sharpness
    low = jnp.min(size, axis=axes, keepdims=True) + shift
    high = jnp.max(size, axis=axes, keepdims=True) + shift

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        mask = jax.nn.sigmoid(sharpness * (size - middle))
        above = sum_to(mask, shape) > budget
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    low, high = lax.fori_loop(0, 30, halve, (low, high))
    return (low + high) / 2
