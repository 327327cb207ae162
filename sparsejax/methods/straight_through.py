"""Straight-through: a magnitude mask over dense weights that all keep learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import jax.numpy as jnp
import optax

from sparsejax.card import Card
from sparsejax.options import Options, method
from sparsejax.reparametrizing import reparametrized
from sparsejax.schedules import Schedule, cubic, periodic
from sparsejax.views import TopK

__all__ = ["straight_through"]

CARD = Card(
    paper="Bengio et al., 2013; Zhu & Gupta, 2017",
    budget="scheduled",
    choose="dense gradients and memory are no problem, and pruned weights shall be "
    "able to come back",
    memory="masks, dense float32 weights",
    asks="a dense gradient at every step",
    dense_gradient="every step",
)


@method
def straight_through(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    start: int = 0,
    stop: int | None = None,
    every: int = 1,
    schedule: Schedule | None = None,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """Uses the largest of dense weights, and passes the gradient to all of them.

    The parameters are ``m w``, the dense weights ``w`` where ``m`` marks the largest
    ``|w|`` of each layer, and the gradient at the parameters is taken for that of
    ``w``: pruned weights keep learning and return once they are large. From the first
    step on with the full budget; with ``stop`` gradually, as in `magnitude`: the share
    of zeros after ``t`` updates is ``S (1 - (1 - (t - start) / (stop - start))**3)``.

    Args:
      inner: the optimizer, clipping and schedules included; it trains the dense
        weights.
      sparsity: fraction of weights that are zero in the end, in [0, 1); a map from path
        patterns to fractions; or None to take the counts of ``initial_masks``.
      start: first step with zeros (counted in updates made before it).
      stop: first step with all of them; None for ``start``.
      every: steps from one selection of the mask to the next.
      schedule: share of the final zeros as a function of the phase from 0 to 1; default
        `cubic`.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or a layer left without weights.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.straight_through(optax.sgd(1.0), sparsity=0.5)
      >>> params = {"kernel": jnp.array([[3.0, -1.0]])}
      >>> state = tx.init(params)
      >>> params = sj.sparsify(params, state)
      >>> gradients = {"kernel": jnp.array([[0.0, 4.0]])}
      >>> updates, state = tx.update(gradients, state, params)
      >>> optax.apply_updates(params, updates)["kernel"].tolist()
      [[0.0, -5.0]]

    References:
      Bengio et al., "Estimating or propagating gradients through stochastic neurons",
      2013; Zhu & Gupta, "To prune, or not to prune", 2017. With ``n_m`` as structure
      the N:M training of Zhou et al., ICLR 2021, without its regulariser (`sr_ste`).
    """
    gradual = start > 0 or stop is not None
    last = start if stop is None else stop
    when = periodic(every, start=start, stop=last, include_stop=True)
    rise = schedule or cubic()

    def due(count):
        regular = (count >= when.start) & ((count - when.start) % when.every == 0)
        return regular | (count == when.stop)

    def share(count):
        begun = jnp.asarray(count >= when.start, jnp.float32)
        return rise(when.phase(count)) * begun

    return reparametrized(
        inner,
        view=TopK(),
        sparsity=sparsity,
        refresh=None if every == 1 else due,
        values={"share": share} if gradual else None,
        exact=not gradual,
        **options,
    )
