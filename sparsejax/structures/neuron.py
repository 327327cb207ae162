"""Neuron (channel, filter) sparsity: all inputs of a neuron, or none."""

from __future__ import annotations

import functools
from typing import Literal

import jax.numpy as jnp

from sparsejax.checks import check_choice
from sparsejax.structures.base import Structure, from_rows, to_rows
from sparsejax.structures.units import Units, of_units

__all__ = ["neuron"]


@functools.cache
def neuron(*, norm: Literal["l1", "l2"] = "l2") -> Structure:
    """Keeps whole neurons: output features of a matrix, filters of a convolution.

    A layer's budget is rounded to whole neurons. Their scores are the norms of their
    weights' scores. What a removed neuron still emits is its bias.

    Args:
      norm: of a neuron's scores.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.static(optax.sgd(0.1), sparsity=0.5, structure=sj.neuron())
      >>> state = tx.init({"kernel": jnp.ones((3, 4))})
      >>> sorted(sj.masks(state)["kernel"].sum(axis=0).tolist())
      [0, 0, 3, 3]
    """
    check_choice("norm", norm, ("l1", "l2"))

    def pool(layer, scores):
        rows = to_rows(layer, scores)
        if norm == "l1":
            return rows.sum(-1)
        # Scaled by the largest, or squares of small weights would vanish.
        largest = jnp.max(jnp.abs(rows), axis=(-2, -1), keepdims=True)
        scaled = rows / jnp.where(largest > 0, largest, 1)
        # A negative score lowers that of its neuron.
        squares = (scaled * jnp.abs(scaled)).sum(-1)
        return jnp.sign(squares) * jnp.sqrt(jnp.abs(squares))

    def spread(layer, chosen):
        rows = jnp.broadcast_to(chosen[..., None], (*chosen.shape, layer.fan_in))
        return from_rows(layer, rows)

    return of_units(
        "neuron",
        Units(
            size=lambda layer: layer.fan_in,
            number=lambda layer: layer.fan_out,
            pool=pool,
            spread=spread,
            gather=lambda layer, mask: to_rows(layer, mask).all(-1),
        ),
    )
