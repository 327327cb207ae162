"""DynaDiag: learns which diagonals of a weight matrix to keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Unpack

import jax
import jax.numpy as jnp
import optax

from sparsejax.card import Card
from sparsejax.checks import check_step
from sparsejax.layers import Layer
from sparsejax.options import Options, method_without
from sparsejax.reparametrizing import reparametrized, without_decay
from sparsejax.schedules import cosine
from sparsejax.structures import diagonal
from sparsejax.structures.base import from_rows
from sparsejax.structures.diagonal import diagonal_offsets
from sparsejax.views import View

__all__ = ["dynadiag"]

CARD = Card(
    paper="Tyagi et al., 2025",
    budget="bounded",
    choose="weights are to lie on diagonals, which multiply fast without indices",
    memory="masks, dense float32 weights, one gate per diagonal",
    asks="dense training until `stop`",
    structures="its own: diagonals",
)


@method_without("structure")
def dynadiag(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    stop: int,
    initial_temperature: float = 5.0,
    final_temperature: float = 0.05,
    extra_optimizer: optax.GradientTransformation | None = None,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Scales the diagonals of dense weights by a soft top-k that becomes a hard one.

    A layer of ``R`` neurons and ``C`` inputs is a sum over its ``max(R, C)`` wrapped
    diagonals. Diagonal ``d`` is scaled by ``min(K softmax(a / T)_d, 1)`` with a trained
    ``a_d`` and ``K`` diagonals in the budget; the temperature ``T`` falls as a cosine
    until ``stop``. From then on the ``K`` diagonals of largest ``a`` are used as they
    are, and all others are zero. Before, no weight is: masks are all True.

    Args:
      inner: the optimizer, clipping and schedules included; it trains the dense
        weights.
      sparsity: fraction of weights that are zero in the end, in [0, 1); a map from path
        patterns to fractions; or None to take the counts of ``initial_masks``. Budgets
        are rounded to whole diagonals.
      stop: first step with hard gates (counted in updates made before it).
      initial_temperature: ``T`` at the first step.
      final_temperature: ``T`` at ``stop``.
      extra_optimizer: trains the gates; default ``inner`` without its weight decay.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or a layer left without a diagonal.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.dynadiag(optax.adam(1e-3), sparsity=0.75, stop=0)
      >>> params = {"kernel": jnp.ones((4, 4))}
      >>> sj.sparsify(params, tx.init(params))["kernel"].sum(axis=1).tolist()
      [1.0, 1.0, 1.0, 1.0]

    References:
      Tyagi et al., "Dynamic Sparse Training of Diagonally Sparse Networks", ICML 2025.
      The number of diagonals is rounded to the nearest, not up. Gates become 1 at
      ``stop``, as in the authors' code.
    """
    check_step("stop", stop)
    if not 0 < final_temperature <= initial_temperature:
        raise ValueError(
            f"final_temperature={final_temperature} is not in (0, "
            f"{initial_temperature}], which ends at initial_temperature"
        )
    options["structure"] = diagonal()
    fall = cosine(1.0, final=final_temperature / initial_temperature)

    def temperature(step):
        progress = jnp.minimum(step.astype(jnp.float32) / max(stop, 1), 1.0)
        return initial_temperature * fall(progress)

    return reparametrized(
        inner,
        view=_Diagonals(),
        sparsity=sparsity,
        refresh=lambda count: count == stop,
        values={"temperature": temperature, "hard": lambda step: step >= stop},
        exact=False,
        extra_optimizer=extra_optimizer or without_decay(inner),
        **options,
    )


@dataclasses.dataclass(frozen=True)
class _Diagonals(View):
    def init(self, now, budgets):
        """One ``a`` per diagonal, and the number ``K`` of diagonals to keep."""
        gates, wanted = [], []
        for layer, budget in zip(now.layers, budgets, strict=True):
            shape = (*layer.stacked_shape, max(layer.fan_out, layer.fan_in))
            gates.append(jnp.full(shape, 1 / layer.fan_in, jnp.float32))
            length = min(layer.fan_out, layer.fan_in)
            wanted.append(budget.astype(jnp.float32) / length)
        return gates, wanted

    def select(self, now, budgets, where=None):
        pairs = zip(now.layers, now.extra, strict=True)
        # The structure ranks by magnitude: positive scores in the order of the gates.
        scores = [_spread(layer, jax.nn.softmax(gate)) for layer, gate in pairs]
        hard = now.structure.select(now.layers, scores, list(budgets))
        return [mask | ~now.values["hard"] for mask in hard], now.memory

    def forward(self, now):
        values = []
        rows = zip(now.layers, now.latents, now.extra, now.memory, strict=True)
        for layer, latent, gate, wanted in rows:
            share = jax.nn.softmax(gate / now.values["temperature"], axis=-1)
            soft = jnp.minimum(wanted[..., None] * share, 1.0)
            scale = jnp.where(now.values["hard"], 1.0, _spread(layer, soft))
            values.append(latent * scale.astype(latent.dtype))
        return values


def _spread(layer: Layer, gates):
    """Values of diagonals as values of weights."""
    return from_rows(layer, gates[..., diagonal_offsets(layer)])
