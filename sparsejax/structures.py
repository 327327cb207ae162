"""Structures: which sets of weights may be kept together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool

from sparsejax.layers import Layer
from sparsejax.selection import top_k_mask

__all__ = ["Structure", "select_per_layer", "unstructured"]


class Structure(NamedTuple):
    """A family of masks, given by how the best of them is selected.

    Attributes:
      name: as printed in summaries.
      select: ``(scores, k, where) -> mask`` for one layer (stacked axes removed): the
        mask of the family with k entries, all inside ``where``, of highest score. k may
        be traced.
    """

    name: str
    select: Callable[..., Bool[Array, "..."]]


def unstructured() -> Structure:
    """Any k weights of the layer: exact, ties to the lowest flat index.

    Example:
      >>> import jax.numpy as jnp
      >>> unstructured().select(jnp.ones((2, 2)), 3, None).tolist()
      [[True, True], [True, False]]
    """

    def select(scores, k, where):
        return top_k_mask(scores, k, where=where)

    return Structure("unstructured", select)


def select_per_layer(
    structure: Structure,
    layer: Layer,
    scores: Array,
    counts: Any,
    where: Bool[Array, "..."] | None,
) -> Bool[Array, "..."]:
    """Selects in every layer stacked in a leaf on its own.

    Args:
      structure: family of masks.
      layer: the leaf.
      scores: of the leaf's shape.
      counts: entries to select, one per stacked layer (any shape with as many elements).
      where: eligible entries, or None for all.
    """
    stacked = tuple(layer.shape[axis] for axis in layer.spec.stacked)
    counts = jnp.asarray(counts, jnp.int32).reshape(stacked)
    if where is None:
        select = layer.per_slice(lambda s, k: structure.select(s, k, None))
        return select(scores, counts)
    return layer.per_slice(structure.select)(scores, counts, where)
