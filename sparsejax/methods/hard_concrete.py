"""L0 regularisation: stochastic gates of the hard concrete distribution."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Unpack

import jax
import jax.numpy as jnp
import optax

from sparsejax.card import Card
from sparsejax.checks import check_choice
from sparsejax.options import Options, method_without
from sparsejax.reparametrizing import reparametrized, without_decay
from sparsejax.views import Granularity, View, shared_shape

__all__ = ["hard_concrete"]

CARD = Card(
    paper="Louizos et al., 2018",
    budget="emergent",
    choose="the number of weights (or neurons) shall be part of the loss",
    memory="masks, dense float32 weights, gates",
    asks="`sj.evaluation_params` to evaluate, since training draws random gates",
    structures="none",
)

# The published constants: temperature, stretch, and where logarithms end.
_BETA, _GAMMA, _ZETA = 2 / 3, -0.1, 1.1
_EPSILON = 1e-6
_LEAST, _MOST = math.log(1e-2), math.log(1e2)


@method_without("distribution", "structure")
def hard_concrete(
    inner: optax.GradientTransformation,
    *,
    penalty: float = 1e-4,
    initial_probability: float = 0.5,
    granularity: Granularity = "weight",
    extra_optimizer: optax.GradientTransformation | None = None,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Multiplies dense weights by random gates, and charges for every open one.

    With ``u`` uniform at every step, ``b = 2/3`` and the gate's trained ``a``::

        s = sigmoid((log u - log(1 - u) + a) / b)
        z = clip(1.2 s - 0.1, 0, 1)

    and the parameters are ``w z``: closed gates are exact zeros, and where ``0 < z <
    1`` the gradient reaches ``a``. ``penalty`` times the expected number of open gates,
    ``sum sigmoid(a - b log(0.1 / 1.1))``, is added to the loss.
    `sparsejax.evaluation_params` gives the network to evaluate and to keep, ``w
    clip(1.2 sigmoid(a) - 0.1, 0, 1)``; masks and counts are those of the last sample.

    Args:
      inner: the optimizer, clipping and schedules included; it trains the dense
        weights.
      penalty: price of an open gate; the paper divides its own by the number of
        examples.
      initial_probability: ``sigmoid`` of the first ``a``, about which they are drawn
        with a deviation of 0.01; 1 minus the paper's drop rate.
      granularity: what shares a gate: a "layer", a "channel" (neuron) or nothing
        ("weight").
      extra_optimizer: trains the gates; default ``inner`` without its weight decay.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.hard_concrete(optax.adam(1e-3))
      >>> params = {"kernel": jnp.ones((4, 4))}
      >>> state = tx.init(params)
      >>> params = sj.sparsify(params, state)  # a sample
      >>> kept = sj.evaluation_params(params, state)
      >>> round(float(kept["kernel"].mean()), 1)
      0.5

    References:
      Louizos et al., "Learning Sparse Neural Networks through L0 Regularization", ICLR
      2018. Without the authors' L2 penalty weighted by the gates' probability.
    """
    check_choice("granularity", granularity, ("layer", "channel", "weight"))
    if not penalty >= 0:
        raise ValueError(
            f"penalty={penalty!r} is negative; gates would be paid to open"
        )
    if not 0 < initial_probability < 1:
        raise ValueError(
            f"initial_probability={initial_probability!r} is not between 0 and 1"
        )
    return reparametrized(
        inner,
        view=_Gated(float(penalty), float(initial_probability), granularity),
        sparsity=None,
        extra_optimizer=extra_optimizer or without_decay(inner),
        **options,
    )


@dataclasses.dataclass(frozen=True)
class _Gated(View):
    strength: float
    probability: float
    granularity: Granularity

    budgeted: ClassVar[bool] = False

    def init(self, now, budgets):
        mean = math.log(self.probability / (1 - self.probability))
        gates = []
        for index, layer in enumerate(now.layers):
            key = jax.random.fold_in(now.key, index)
            noise = jax.random.normal(key, shared_shape(layer, self.granularity))
            gates.append(mean + 0.01 * noise)
        return self.constrain(gates), None

    def select(self, now, budgets, where=None):
        pairs = zip(now.layers, self.sample(now), strict=True)
        return [jnp.broadcast_to(z > 0, layer.shape) for layer, z in pairs], now.memory

    def forward(self, now):
        pairs = zip(now.latents, self.sample(now), strict=True)
        return [latent * gate.astype(latent.dtype) for latent, gate in pairs]

    def sample(self, now):
        """The gates of this step, always the same: a function of its key."""
        gates = []
        for index, gate in enumerate(now.extra):
            key = jax.random.fold_in(now.key, index)
            u = jax.random.uniform(
                key, gate.shape, minval=_EPSILON, maxval=1 - _EPSILON
            )
            logit = jnp.log(u) - jnp.log1p(-u) + gate
            gates.append(_stretched(jax.nn.sigmoid(logit / _BETA)))
        return gates

    def penalty(self, now):
        shift = _BETA * math.log(-_GAMMA / _ZETA)
        expected = [jnp.sum(jax.nn.sigmoid(gate - shift)) for gate in now.extra]
        return self.strength * sum(expected, start=jnp.zeros(()))

    def constrain(self, extra):
        return [jnp.clip(gate, _LEAST, _MOST) for gate in extra]

    def evaluate(self, now):
        pairs = zip(now.latents, now.extra, strict=True)
        return [w * _stretched(jax.nn.sigmoid(a)).astype(w.dtype) for w, a in pairs]


def _stretched(gate):
    return jnp.clip(gate * (_ZETA - _GAMMA) + _GAMMA, 0.0, 1.0)
