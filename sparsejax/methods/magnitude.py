"""Magnitude pruning: one-shot or gradual, per layer or global."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Unpack

import optax

from sparsejax.card import Card
from sparsejax.masking import masked
from sparsejax.options import Options, method
from sparsejax.rules import check_scope, prune
from sparsejax.rules import magnitude as absolute_value
from sparsejax.schedules import Schedule, cubic, periodic

__all__ = ["magnitude"]

CARD = Card(
    paper="Zhu & Gupta, 2017; Han et al., 2015",
    budget="scheduled",
    choose="only the final network has to be sparse, or a trained network is to be "
    "pruned (`start=0` and no `stop`)",
    asks="dense training until `start`",
    structures='any; with `scope="global"` unstructured',
)


@method
def magnitude(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    start: int,
    stop: int | None = None,
    every: int = 100,
    schedule: Schedule | None = None,
    scope: Literal["layer", "global"] = "layer",
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Removes the weights of smallest magnitude, at once or little by little.

    Training begins dense. At step ``t`` of the pruning phase the share
    ``s_t = S (1 - (1 - (t - start) / (stop - start))**3)`` of a layer's weights is
    zero (``schedule`` replaces the cubic): those of smallest ``|w|`` after the
    optimizer's step. The last pruning is at ``stop`` exactly, whatever the interval, so
    the target is always reached; pruned weights never return.

    Args:
      inner: the optimizer, clipping and schedules included.
      sparsity: fraction of weights that are zero in the end, in [0, 1); a map from path
        patterns to fractions; or None to take the counts of ``initial_masks``.
      start: step of the first pruning (counted in updates made before it).
      stop: step of the last pruning; None prunes once, at ``start``.
      every: steps between prunings.
      schedule: share of the final zeros as a function of the phase from 0 to 1; default
        `cubic`.
      scope: "layer" keeps each layer's budget; "global" ranks all weights together, so
        that only the total is fixed; a layer of small weights may lose them all, as
        `sparsejax.summary` shows.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or a layer left without weights.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.magnitude(optax.sgd(0.1), sparsity=0.75, start=0)
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (4, 4))}
      >>> state = tx.init(params)
      >>> updates, state = tx.update(params, state, params)
      >>> params = optax.apply_updates(params, updates)
      >>> int(jnp.count_nonzero(params["kernel"]))
      4

    References:
      Zhu & Gupta, "To prune, or not to prune", 2017; Han et al., "Learning both weights
      and connections for efficient neural networks", NeurIPS 2015. Global scope is
      plain ``|w|``, without normalising layers.
    """
    check_scope(scope, options.get("structure"))
    one_shot = stop is None
    return masked(
        inner,
        rule=prune(score=absolute_value, schedule=schedule or cubic(), scope=scope),
        when=periodic(
            every, start=start, stop=start if one_shot else stop, include_stop=True
        ),
        initial="dense",
        on_move="step",
        sparsity=sparsity,
        **options,
    )
