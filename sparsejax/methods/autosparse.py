"""AutoSparse: learned thresholds, with an annealed gradient for pruned weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Unpack

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from sparsejax.card import Card
from sparsejax.checks import check_choice, check_fraction, check_step
from sparsejax.options import Options, method
from sparsejax.reparametrizing import reparametrized, without_decay
from sparsejax.views import Granularity, SoftThreshold, TopK, sum_to

__all__ = ["autosparse", "sigmoid_cosine"]

CARD = Card(
    paper="Kundu et al., 2023",
    budget="emergent",
    choose="layers shall find their own sparsities, and no decay is to be tuned for "
    "it; or, with `sparsity`, pruned weights shall return early and settle late",
    memory="masks, dense float32 weights, thresholds",
    asks="a dense gradient at every step",
    dense_gradient="every step",
    structures="none; with `sparsity` any",
)


@method
def autosparse(
    inner: optax.GradientTransformation,
    *,
    stop: int,
    sparsity: float | Mapping[str, float] | None = None,
    alpha: float = 0.5,
    reset: int | None = None,
    initial_threshold: float = -5.0,
    granularity: Granularity = "channel",
    extra_optimizer: optax.GradientTransformation | None = None,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Soft-thresholds dense weights, and passes part of the gradient to pruned ones.

    The parameters are ``sign(w) relu(x)`` with ``x = |w| - sigmoid(T)``. Backward the
    derivative of relu is taken as ``h(x) = 1`` where ``x > 0`` and ``alpha`` elsewhere,
    for ``w`` and for the thresholds ``T``; ``alpha`` falls from its first value as
    `sigmoid_cosine` of ``step / stop``, and is 0 from ``reset`` on. There is no target:
    lowering ``alpha`` raises the sparsity.

    With ``sparsity`` a fixed budget takes the thresholds' place: the parameters are the
    largest weights of each layer as they are, and the gradient is scaled by ``alpha``
    where they are zero. ``alpha = 0`` is then a mask that no weight enters, and
    ``alpha = 1`` is `straight_through`.

    Args:
      inner: the optimizer, clipping and schedules included; it trains the dense
        weights.
      stop: steps that the annealing takes, of all of training in the paper.
      sparsity: None for thresholds; or the fraction of weights that are zero, in [0,
        1), or a map from path patterns to fractions.
      alpha: share of the gradient that pruned weights get in the beginning.
      reset: from this step on ``alpha`` is 0; default 90 % of ``stop``.
      initial_threshold: the first ``T``.
      granularity: what shares a threshold: a "layer", a "channel" (neuron) or nothing
        ("weight").
      extra_optimizer: trains the thresholds; default ``inner`` without its weight
        decay, which would drive them up.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or a structure or distribution without a
        sparsity.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.autosparse(optax.adam(1e-3), stop=1000)
      >>> params = {"kernel": jnp.array([[0.5], [-0.002], [0.006], [-0.3]])}
      >>> view = sj.sparsify(params, tx.init(params))["kernel"][:, 0]
      >>> [round(float(value), 4) for value in view]
      [0.4933, 0.0, 0.0, -0.2933]

    References:
      Kundu et al., "AutoSparse: Towards Automated Sparse Training of Deep Neural
      Networks", 2023; defaults are those of PQuantML's implementation. Anneals by step
      instead of by epoch; without the sparser backward pass.
    """
    check_step("stop", stop, least=1)
    check_fraction("alpha", alpha)
    check_choice("granularity", granularity, ("layer", "channel", "weight"))
    last = round(0.9 * stop) if reset is None else reset
    check_step("reset", last)
    for name in ("structure", "distribution"):
        if sparsity is None and options.get(name) is not None:
            raise ValueError(f"{name} without sparsity: thresholds have no budget")

    def annealed(step):
        share = sigmoid_cosine(step.astype(jnp.float32) / stop)
        return jnp.where(step >= last, 0.0, alpha * share)

    if sparsity is None:
        view = _AnnealedThreshold(granularity, float(initial_threshold))
    else:
        view = _AnnealedTopK()
    return reparametrized(
        inner,
        view=view,
        sparsity=sparsity,
        values={"alpha": annealed},
        extra_optimizer=extra_optimizer or without_decay(inner),
        **options,
    )


def sigmoid_cosine(progress: Float[Array, ""]) -> Float[Array, ""]:
    """``max((1 + cos(pi p)) / 2, 1 - sigmoid(12 p - 6))``, from 1 to 0.0025.

    Example:
      >>> round(float(sigmoid_cosine(jnp.float32(0.9))), 4)
      0.0245
    """
    progress = jnp.clip(progress, 0.0, 1.0)
    cosine = (1 + jnp.cos(jnp.pi * progress)) / 2
    return jnp.maximum(cosine, jax.nn.sigmoid(6 - 12 * progress))


@dataclasses.dataclass(frozen=True)
class _AnnealedThreshold(SoftThreshold):
    def pull(self, now, gradients):
        alpha = now.values["alpha"]
        latents, thresholds = [], []
        rows = zip(gradients, now.latents, self.above(now), now.extra, strict=True)
        for gradient, latent, above, threshold in rows:
            passed = jnp.where(
                above > 0, gradient, alpha.astype(gradient.dtype) * gradient
            )
            sign = jnp.sign(latent)
            latents.append(sign * sign * passed)
            total = sum_to(sign * passed, threshold.shape)
            slope = jax.nn.sigmoid(threshold) * jax.nn.sigmoid(-threshold)
            thresholds.append(-slope * total.astype(threshold.dtype))
        return latents, thresholds


@dataclasses.dataclass(frozen=True)
class _AnnealedTopK(TopK):
    def pull(self, now, gradients):
        alpha = now.values["alpha"]
        pairs = zip(now.masks, gradients, strict=True)
        passed = [jnp.where(m, g, alpha.astype(g.dtype) * g) for m, g in pairs]
        return passed, now.extra
