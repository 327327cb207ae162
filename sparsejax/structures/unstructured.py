"""Unstructured: any weights of a layer."""

from __future__ import annotations

import functools

import jax.numpy as jnp

from sparsejax.selection import top_k_masks
from sparsejax.structures.base import Structure, active_count, thin_unstructured

__all__ = ["unstructured"]


@functools.cache
def unstructured() -> Structure:
    """Any weights of the layer: exact, ties to the lowest flat index.

    Example:
      >>> import sparsejax as sj
      >>> sj.unstructured().name
      'unstructured'
    """

    def select(layers, scores, counts, where=None, kept=None):
        if kept is None:
            return top_k_masks(scores, counts, where=where)
        missing = [
            jnp.maximum(count - active_count(layer, mask), 0)
            for layer, count, mask in zip(layers, counts, kept, strict=True)
        ]
        where = [None] * len(kept) if where is None else where
        free = [
            ~mask if one is None else one & ~mask
            for one, mask in zip(where, kept, strict=True)
        ]
        grown = top_k_masks(scores, missing, where=free)
        return [stay | new for stay, new in zip(kept, grown, strict=True)]

    def measure(layers, masks):
        return [active_count(*pair) for pair in zip(layers, masks, strict=True)]

    def fit(layers, budgets):
        return list(budgets)

    return Structure(
        "unstructured", select, thin_unstructured, measure, fit, strict=False
    )
