"""MEST: drops by weight and gradient, grows at random, in shrinking mutations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Unpack

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from sparsejax.card import Card
from sparsejax.checks import check_fraction
from sparsejax.masking import Move, masked
from sparsejax.options import Options, method
from sparsejax.planning import budget_arrays
from sparsejax.rules import Leaf, leaves_of, uniform_random
from sparsejax.schedules import periodic

__all__ = ["mest"]

CARD = Card(
    paper="Yuan et al., 2021",
    budget="scheduled",
    choose="memory counts: no dense gradient is read, and with `soft_memory_bound` a "
    "little more of it buys accuracy",
    structures="any; with `soft_memory_bound` not transposable",
)


@method
def mest(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    stop: int,
    every: int = 100,
    start: int | None = None,
    mutation: Sequence[float] = (0.2, 0.1, 0.0),
    soft_memory_bound: bool = False,
    gradient_weight: float = 0.0,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Replaces the least salient weights by random ones, fewer in every stage.

    Training begins with the largest initial weights of each layer, ``n`` of them. Steps
    up to ``stop`` are divided into as many stages as ``mutation`` has entries. Every
    ``every`` steps, after the optimizer's step, with the stage's mutation ``c``:
    elastic mutation (EM) keeps the ``n - round(c n)`` weights of largest ``|w| + lambda
    |dL/dw|`` and grows to ``n`` at random; with a soft memory bound (EM&S) it keeps
    ``n`` and grows to ``n + round(c n)``, so that the network is denser than its target
    until the last move, at ``stop``, which only drops.

    Args:
      inner: the optimizer, clipping and schedules included.
      sparsity: fraction of weights that are zero, in [0, 1); a map from path patterns
        to fractions; or None to take the counts of ``initial_masks``.
      stop: last move (counted in updates made before it).
      every: steps from one move to the next.
      start: first move; default ``every``.
      mutation: of each stage, as a share of a layer's active weights (the paper's mu, a
        share of all weights, is this times the density). With a soft memory bound the
        last has to be 0.
      soft_memory_bound: EM&S instead of EM.
      gradient_weight: lambda; the authors' code has 0, others 0.01. Only the gradients
        of active weights are read.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or a layer left without weights.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.mest(optax.sgd(0.1), sparsity=0.5, every=2, stop=10)
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (4, 4))}
      >>> state = tx.init(params)
      >>> params = sj.sparsify(params, state)
      >>> for _ in range(5):
      ...     updates, state = tx.update(params, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> sj.counts(state)
      {'kernel': (8, 16)}

    References:
      Yuan et al., "MEST: Accurate and Fast Memory-Economic Sparse Training Framework on
      the Edge", NeurIPS 2021. Deviations: exact counts instead of percentiles, so that
      ties are not lost; what is active is read from the mask; moves are counted in
      steps instead of epochs.
    """
    for index, share in enumerate(mutation):
        check_fraction(f"mutation[{index}]", share)
    if not len(mutation):
        raise ValueError("mutation=() has no stage; give at least one share")
    if soft_memory_bound and mutation[-1] != 0:
        raise ValueError(
            f"mutation={tuple(mutation)!r} grows in its last stage: the network would "
            "stay denser than its sparsity; let it end with 0.0"
        )
    structure = options.get("structure")
    if soft_memory_bound and structure and structure.name.startswith("transposable"):
        raise ValueError(
            f"soft_memory_bound=True does not go with structure={structure.name}, "
            "which has no denser masks to grow to; use soft_memory_bound=False"
        )
    shares = jnp.asarray(mutation, jnp.float32)

    def salience(leaf: Leaf) -> Array:
        gradient = jnp.abs(leaf.gradient).astype(leaf.weight.dtype)
        return jnp.abs(leaf.weight) + gradient_weight * gradient

    def largest(layers, budgets, structure, key, weights, params_with):
        del key, params_with
        scores = [jnp.abs(weight) for weight in weights]
        return structure.select(layers, scores, budget_arrays(layers, budgets))

    def rule(move: Move) -> list[Bool[Array, "..."]]:
        progress = move.when.progress(move.step)
        stage = jnp.floor(progress * len(mutation)).astype(jnp.int32)
        share = shares[jnp.minimum(stage, len(mutation) - 1)]
        extra = [
            jnp.round(share * budget.astype(jnp.float32)).astype(jnp.int32)
            for budget in move.budgets
        ]
        leaves, structure = leaves_of(move), move.structure
        pairs = list(zip(move.budgets, extra, strict=True))
        scores = [salience(leaf) for leaf in leaves]
        random = [uniform_random(leaf) for leaf in leaves]
        if soft_memory_bound:
            most = [n + more for n, more in pairs]
            # A member of the structure, since the last move grows nothing.
            kept = structure.select(move.layers, scores, move.budgets, move.masks)
        else:
            most = move.budgets
            fewest = [n - jnp.minimum(more, n - 1) for n, more in pairs]
            kept = structure.thin(move.layers, scores, fewest, move.masks)
        return structure.select(move.layers, random, most, None, kept)

    return masked(
        inner,
        rule=rule,
        when=periodic(every, start=start, stop=stop, include_stop=True),
        initial=largest,
        on_move="step",
        sparsity=sparsity,
        **options,
    )
