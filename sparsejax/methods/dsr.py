"""DSR: weights flow to the layers whose weights are large."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from sparsejax.allocation import redistributed
from sparsejax.card import Card
from sparsejax.masking import Move, masked
from sparsejax.options import Options, method_without
from sparsejax.rules import leaves_of, magnitude, uniform_random
from sparsejax.runtime_checks import check_weights_remain
from sparsejax.schedules import Schedule, as_schedule, periodic
from sparsejax.selection import top_k_mask
from sparsejax.structures.base import active_count

__all__ = ["dsr"]

CARD = Card(
    paper="Mostafa & Wang, 2019",
    budget="global",
    choose="layers should find their own densities without a dense gradient",
    structures="unstructured",
)


@method_without("structure")
def dsr(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    stop: int,
    every: int = 100,
    start: int | None = None,
    drop_fraction: Schedule | float = 0.1,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Drops the smallest weights of all layers together, regrows where most stay.

    Every ``every`` steps, after the optimizer's step, the ``floor(f(t) n)`` smallest
    ``|w|`` of all ``n`` active weights go, whatever their layer. Of as many new ones,
    layer ``l`` gets a share in proportion to the ``R_l`` weights that it has left (a
    layer without enough room leaves the rest to the others), at random places among its
    zeros, those just dropped included. New weights start at zero.

    Args:
      inner: the optimizer, clipping and schedules included.
      sparsity: fraction of weights that are zero, in [0, 1); a map from path patterns
        to fractions; or None to take the counts of ``initial_masks``. The total stays
        as it is, each layer's number does not.
      stop: no move at or after this step (counted in updates made before it).
      every: steps from one move to the next.
      start: first move; default ``every``.
      drop_fraction: share of active weights dropped, a number or a schedule over
        ``step / stop``.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or a layer left without weights.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.dsr(optax.sgd(0.1), sparsity=0.5, every=2, stop=10)
      >>> keys = jax.random.split(jax.random.key(0))
      >>> params = {"small": {"kernel": jax.random.normal(keys[0], (8, 8)) / 100},
      ...           "large": {"kernel": jax.random.normal(keys[1], (8, 8))}}
      >>> state = tx.init(params)
      >>> params = sj.sparsify(params, state)
      >>> for _ in range(5):
      ...     updates, state = tx.update(params, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> counts = {path: active for path, (active, _) in sj.counts(state).items()}
      >>> counts["small/kernel"] < counts["large/kernel"], sum(counts.values())
      (True, 64)

    References:
      Mostafa & Wang, "Parameter Efficient Training of Deep Convolutional Neural
      Networks by Dynamic Sparse Reparameterization", ICML 2019. Deviations: the
      threshold is the one that drops exactly the share asked for, where the paper
      doubles or halves it to come near a number; the share is of the active weights.
    """
    fraction = as_schedule("drop_fraction", drop_fraction)

    def rule(move: Move) -> list[Bool[Array, "..."]]:
        leaves, layers = leaves_of(move), move.layers
        counts = [active_count(*pair) for pair in zip(layers, move.masks, strict=True)]
        total = jnp.stack([count.sum() for count in counts]).sum(dtype=jnp.int32)
        share = fraction(move.when.progress(move.step)) * total.astype(jnp.float32)
        scores = [magnitude(leaf) for leaf in leaves]
        dropped = jnp.floor(share).astype(jnp.int32)
        kept = top_k_mask(scores, total - dropped, where=move.masks)
        staying = [active_count(*pair) for pair in zip(layers, kept, strict=True)]
        strength = [count.astype(jnp.float32) for count in staying]
        counts = redistributed(layers, counts, kept, strength)
        order = [uniform_random(leaf) for leaf in leaves]
        masks = move.structure.select(layers, order, counts, None, kept)
        check_weights_remain(layers, masks)
        return masks

    return masked(
        inner,
        rule=rule,
        when=periodic(every, start=start, stop=stop),
        on_move="step",
        sparsity=sparsity,
        **options,
    )
