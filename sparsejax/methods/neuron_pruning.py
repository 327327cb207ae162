"""Neuron pruning: gradual magnitude pruning of whole neurons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import optax

from sparsejax.card import Card
from sparsejax.distributions import Distribution, uniform
from sparsejax.layers import Where
from sparsejax.masking import masked
from sparsejax.options import Options, method
from sparsejax.rules import magnitude, prune
from sparsejax.schedules import Schedule, cubic, periodic
from sparsejax.structures import Structure, neuron

__all__ = ["neuron_pruning"]

CARD = Card(
    paper="Li et al., 2017",
    budget="scheduled",
    choose="the network has to become narrower: faster on any hardware, without "
    "special kernels",
    asks="`where`, without the output layer; dense training until `start`",
    structures="its own: neurons",
)


@method
def neuron_pruning(
    inner: optax.GradientTransformation,
    *,
    sparsity: float | Mapping[str, float] | None,
    where: Where,
    start: int,
    stop: int | None = None,
    every: int = 100,
    schedule: Schedule | None = None,
    structure: Structure | None = None,
    distribution: Distribution | None = None,
    **options: Unpack[Options],  # pyright: ignore[reportGeneralTypeIssues]
) -> optax.GradientTransformationExtraArgs:
    """Removes whole neurons (filters, channels) of smallest norm, little by little.

    A neuron is an index of a layer's outputs, its score the norm of its incoming
    weights after the optimizer's step. Training begins dense; the share of zeros
    follows ``s_t = S (1 - (1 - (t - start) / (stop - start))**3)`` in whole neurons
    (``schedule`` replaces the cubic), up to the target at ``stop``. Removed neurons
    never return.

    What a removed neuron still emits is constant: its bias, and what a norm and the
    activation make of it. That bias stays trainable, and the layers that read the
    neuron keep their weights, which act as one more bias there. Removing both leaves
    the function unchanged once the constant is added to the reader's bias.

    Args:
      inner: the optimizer, clipping and schedules included.
      sparsity: fraction of the chosen layers' neurons that are removed in the end, in
        [0, 1), rounded to whole neurons; a map from path patterns to fractions; or None
        to take the counts of ``initial_masks``.
      where: whose neurons may go. There is no default, since the neurons of the output
        layer are the classes: name the hidden kernels, such as
        ``"hidden.*/kernel"``.
      start: step of the first pruning (counted in updates made before it).
      stop: step of the last pruning; None prunes once, at ``start``.
      every: steps between prunings.
      schedule: share of the final zeros as a function of the phase from 0 to 1; default
        `cubic`.
      structure: default ``neuron(norm="l2")``; the norm is the only choice.
      distribution: splits the sparsity over the layers; default `uniform`.
      **options: the common arguments, `sparsejax.options.Options`.

    Raises:
      ValueError: an argument out of range, or a layer left without neurons.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.neuron_pruning(
      ...     optax.sgd(0.1), sparsity=0.5, where="hidden", start=0)
      >>> params = {"hidden": jnp.array([[1.0, 0.1, 2.0, 0.3]] * 3)}
      >>> updates, state = tx.update(params, tx.init(params), params)
      >>> sj.masks(state)["hidden"][0].tolist()
      [True, False, True, False]

    References:
      Li et al., "Pruning filters for efficient ConvNets", ICLR 2017 (L1 norms, one
      layer or all at once, then training on). Deviation: gradual, by the schedule of
      Zhu & Gupta, 2017.
    """
    structure = structure or neuron()
    if structure.name != "neuron":
        raise ValueError(
            f"structure={structure.name} does not go with neuron_pruning; give "
            "neuron(norm=...), or use magnitude for other structures"
        )
    one_shot = stop is None
    return masked(
        inner,
        rule=prune(score=magnitude, schedule=schedule or cubic()),
        when=periodic(
            every, start=start, stop=start if one_shot else stop, include_stop=True
        ),
        initial="dense",
        on_move="step",
        sparsity=sparsity,
        where=where,
        structure=structure,
        distribution=distribution or uniform(),
        **options,  # pyright: ignore[reportCallIssue]
    )
