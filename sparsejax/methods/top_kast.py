"""Top-KAST: always sparse forward and backward, the backward set the larger one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, Unpack

import jax.numpy as jnp
import optax

from sparsejax.card import Card
from sparsejax.checks import check_choice, check_sparsity, check_step
from sparsejax.options import Options, method
from sparsejax.reparametrizing import reparametrized
from sparsejax.rules import remaining_count
from sparsejax.structures import unstructured
from sparsejax.structures.base import active_count
from sparsejax.views import TopK, shared_shape

__all__ = ["top_kast"]

CARD = Card(
    paper="Jayakumar et al., 2020",
    budget="fixed",
    choose="the network shall be sparse all along, but near the threshold weights "
    "shall compete by learning instead of by one gradient",
    memory="masks (two), dense float32 weights",
    asks="gradients at the weights that learn unseen",
    dense_gradient="every step",
)


@method
def top_kast(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    backward_sparsity: float | None = None,
    penalty: float = 1e-4,
    norm: Literal["l1", "l2"] = "l2",
    every: int = 100,
    stop: int | None = None,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Uses the largest of dense weights, and trains these and the next largest.

    The parameters are ``w`` on the set ``A`` of the largest ``|w|`` of each layer, of
    density ``D``, and zero elsewhere. The gradient at the parameters moves ``w`` on a
    larger set ``B`` of the largest, and nowhere else: weights outside ``B`` and their
    statistics stay as they are. A penalty, ``penalty`` times the sum of ``w**2`` over
    ``A`` and of ``w**2 / D`` over the rest of ``B``, makes newcomers prove themselves.

    Args:
      inner: the optimizer, clipping and schedules included; it trains the dense
        weights.
      sparsity: fraction of parameters that are zero, in [0, 1); a map from path
        patterns to fractions; or None to take the counts of ``initial_masks``.
      backward_sparsity: fraction of weights that do not learn, over all chosen layers
        (each layer's zeros shrink alike); default half the sparsity; 0 trains all.
      penalty: strength of the penalty.
      norm: "l2" for squares, "l1" for magnitudes.
      every: steps from one selection of the sets to the next.
      stop: no selection after so many updates; None for no end.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or a layer left without weights.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.top_kast(
      ...     optax.sgd(1.0), sparsity=0.5, backward_sparsity=0.25, penalty=0.0)
      >>> params = {"kernel": jnp.array([[3.0, -2.0, 1.0, 0.5]])}
      >>> state = tx.init(params)
      >>> params = sj.sparsify(params, state)
      >>> gradients = {"kernel": jnp.ones((1, 4))}
      >>> updates, state = tx.update(gradients, state, params)
      >>> optax.apply_updates(params, updates)["kernel"].tolist()
      [[2.0, -3.0, 0.0, 0.0]]
      >>> state.latents["kernel"].tolist()
      [[2.0, -3.0, 0.0, 0.5]]

    References:
      Jayakumar et al., "Top-KAST: Top-K Always Sparse Training", NeurIPS 2020. The
      gradient is computed densely and then masked.
    """
    check_choice("norm", norm, ("l1", "l2"))
    check_step("every", every, least=1)
    if backward_sparsity is not None:
        check_sparsity("backward_sparsity", backward_sparsity)
        if isinstance(sparsity, int | float) and backward_sparsity > sparsity:
            raise ValueError(
                f"backward_sparsity={backward_sparsity} is above sparsity={sparsity}; "
                "the weights that learn include those in use"
            )
    if stop is not None:
        check_step("stop", stop)
    if not penalty >= 0:
        raise ValueError(f"penalty={penalty!r} is negative; weights would grow")

    def due(count):
        regular = count % every == 0
        return regular if stop is None else regular & (count <= stop)

    return reparametrized(
        inner,
        view=_TopKast(backward_sparsity, float(penalty), norm),
        sparsity=sparsity,
        refresh=due,
        **options,
    )


@dataclasses.dataclass(frozen=True)
class _TopKast(TopK):
    backward_sparsity: float | None
    strength: float
    norm: str

    def select(self, now, budgets, where=None):
        used, _ = super().select(now, budgets, where)
        sizes = [layer.size // layer.slices for layer in now.layers]
        frozen = self._share_of_zeros(now, budgets)
        counts = [
            remaining_count(frozen, size, budget)
            for size, budget in zip(sizes, budgets, strict=True)
        ]
        # The memory is the set that learns.
        scores = [jnp.abs(latent) for latent in now.latents]
        return used, unstructured().select(now.layers, scores, counts, None, used)

    def _share_of_zeros(self, now, budgets):
        """Which share of the zeros does not learn."""
        if self.backward_sparsity is None:
            return jnp.float32(0.5)
        size = sum(layer.size for layer in now.layers)
        kept = sum((budget.sum() for budget in budgets), start=jnp.zeros((), jnp.int32))
        zeros = jnp.maximum(size - kept, 1).astype(jnp.float32)
        return jnp.minimum(self.backward_sparsity * size / zeros, 1.0)

    def trainable(self, now):
        return now.memory

    def penalty(self, now):
        total = jnp.zeros(())
        rows = zip(now.layers, now.latents, now.masks, now.memory, strict=True)
        for layer, latent, used, learning in rows:
            cost = jnp.abs(latent) if self.norm == "l1" else latent**2
            count = active_count(layer, used).reshape(shared_shape(layer, "layer"))
            density = jnp.maximum(count, 1) / (layer.size // layer.slices)
            cost = jnp.where(used, cost, cost / density)
            total += jnp.sum(jnp.where(learning, cost, 0))
        return self.strength * total
