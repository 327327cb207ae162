"""SNFS: sparse networks from scratch, growth by the momentum of the gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from sparsejax.allocation import redistributed
from sparsejax.card import Card
from sparsejax.checks import check_fraction
from sparsejax.layers import Layer
from sparsejax.masking import Memory, Move, masked
from sparsejax.options import Options, method
from sparsejax.rules import keep_largest, leaves_of, magnitude
from sparsejax.schedules import Schedule, as_schedule, cosine, periodic
from sparsejax.structures.base import active_count

__all__ = ["snfs"]

CARD = Card(
    paper="Dettmers & Zettlemoyer, 2019",
    budget="global",
    choose="single gradients are too noisy to grow by, and layers should find their "
    "own densities",
    memory="masks and a dense momentum in float32",
    dense_gradient="every step",
    structures="with `redistribute=False` any, else unstructured",
)


@method
def snfs(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    stop: int,
    every: int = 100,
    start: int | None = None,
    drop_fraction: Schedule | float | None = None,
    momentum: float = 0.9,
    redistribute: bool = True,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Moves weights to where the averaged gradient is large, between layers too.

    At every step ``M <- momentum M + (1 - momentum) dL/dw``, dense. Every ``every``
    steps, after the optimizer's step, each layer with ``n`` active weights drops the
    ``floor(f(t) n)`` smallest ``|w|``. All that was dropped, ``D`` weights, is shared
    by the layers in proportion to the mean ``|M|`` of their active weights (a layer
    without enough room leaves the rest to the others), and grows where ``|M|`` is
    largest among all other positions, those just dropped included.

    Args:
      inner: the optimizer, clipping and schedules included.
      sparsity: fraction of weights that are zero, in [0, 1); a map from path patterns
        to fractions; or None to take the counts of ``initial_masks``.
      stop: no move at or after this step (counted in updates made before it).
      every: steps from one move to the next.
      start: first move; default ``every``.
      drop_fraction: share of active weights dropped, a schedule over ``step / stop`` or
        a number; default ``cosine(0.5)``.
      momentum: how slowly the average follows the gradient, in [0, 1).
      redistribute: whether weights move between layers; else every layer keeps its
        number.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or a layer left without weights.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.snfs(optax.sgd(0.1), sparsity=0.5, every=2, stop=10)
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (4, 4))}
      >>> state = tx.init(params)
      >>> params = sj.sparsify(params, state)
      >>> for _ in range(5):
      ...     updates, state = tx.update(params, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> sj.counts(state)
      {'kernel': (8, 16)}

    References:
      Dettmers & Zettlemoyer, "Sparse Networks from Scratch: Faster Training without
      Losing Performance", 2019. Deviations: the average is of the raw gradient, apart
      from the optimizer's own momentum, so that it works with any optimizer; moves are
      counted in steps instead of epochs.
    """
    check_fraction("momentum", momentum)
    structure = options.get("structure")
    if redistribute and structure is not None and structure.name != "unstructured":
        raise ValueError(
            f"structure={structure.name} does not go with redistribute=True, which "
            "moves single weights between layers; pass redistribute=False"
        )
    fraction = as_schedule(
        "drop_fraction", cosine(0.5) if drop_fraction is None else drop_fraction
    )

    def begin(weights):
        return [jnp.zeros(weight.shape, jnp.float32) for weight in weights]

    def follow(memory, step, weights, gradients, masks):
        del step, weights, masks
        return [
            momentum * old + (1 - momentum) * gradient.astype(jnp.float32)
            for old, gradient in zip(memory, gradients, strict=True)
        ]

    def rule(move: Move) -> list[Bool[Array, "..."]]:
        structure, layers = move.structure, move.layers
        share = fraction(move.when.progress(move.step))
        kept = keep_largest(magnitude)(structure, leaves_of(move), share)
        counts = structure.measure(layers, move.masks)
        if redistribute:
            rows = zip(layers, move.memory, move.masks, strict=True)
            counts = redistributed(
                layers, counts, kept, [_mean_active(*r) for r in rows]
            )
        scores = [jnp.abs(average) for average in move.memory]
        return structure.select(layers, scores, counts, None, kept)

    return masked(
        inner,
        rule=rule,
        when=periodic(every, start=start, stop=stop),
        on_move="step",
        memory=Memory(begin, follow),
        sparsity=sparsity,
        **options,
    )


def _mean_active(layer: Layer, average: Array, mask: Array) -> Float[Array, "..."]:
    axes = tuple(range(len(layer.spec.stacked), len(layer.shape)))
    total = jnp.where(mask, jnp.abs(average), 0).sum(axes)
    return total / jnp.maximum(active_count(layer, mask), 1).astype(jnp.float32)
