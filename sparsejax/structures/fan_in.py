"""Constant fan-in: as many inputs for every neuron of a layer."""

from __future__ import annotations

import functools

import jax.numpy as jnp

from sparsejax.selection import top_k_masks
from sparsejax.structures.base import (
    Structure,
    active_count,
    from_rows,
    selection_keys,
    thin_unstructured,
    to_rows,
)

__all__ = ["fan_in"]


@functools.cache
def fan_in() -> Structure:
    """Every neuron keeps ``floor(budget / neurons)`` of its inputs, its best ones.

    The layout of SRigL (Lasby et al., ICLR 2024), which stores as ``(values, indices)``
    of shape ``(neurons, fan-in)``. Weights are dropped wherever in the layer they are
    smallest, and every neuron grows back to the common fan-in.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.static(optax.sgd(0.1), sparsity=0.75, structure=sj.fan_in())
      >>> state = tx.init({"kernel": jnp.ones((8, 5))})
      >>> sj.masks(state)["kernel"].sum(axis=0).tolist()
      [2, 2, 2, 2, 2]
    """

    def select(layers, scores, counts, where=None, kept=None):
        nothing = [None] * len(layers)
        rows = zip(layers, scores, where or nothing, kept or nothing, strict=True)
        keys = [
            to_rows(layer, selection_keys(score, inside, stay))
            for layer, score, inside, stay in rows
        ]
        fan_ins = [
            jnp.broadcast_to((count // layer.fan_out)[..., None], key.shape[:-1])
            for layer, count, key in zip(layers, counts, keys, strict=True)
        ]
        masks = top_k_masks(keys, fan_ins, where=[key > 0 for key in keys])
        return [from_rows(*pair) for pair in zip(layers, masks, strict=True)]

    def measure(layers, masks):
        return [active_count(*pair) for pair in zip(layers, masks, strict=True)]

    def fit(layers, budgets):
        for layer, budget in zip(layers, budgets, strict=True):
            if min(budget) < layer.fan_out:
                raise ValueError(
                    f"{layer.path} may keep {min(budget)} weights, fewer than its "
                    f"{layer.fan_out} neurons, so their fan-in would be 0; lower "
                    "`sparsity`, or leave the layer dense by `where`"
                )
        return [
            tuple(count - count % layer.fan_out for count in budget)
            for layer, budget in zip(layers, budgets, strict=True)
        ]

    return Structure("fan-in", select, thin_unstructured, measure, fit)
