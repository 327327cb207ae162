"""Structures: which sets of weights may be kept together."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Bool

from sparsejax.selection import top_k_masks

__all__ = ["Structure", "unstructured"]


class Structure(NamedTuple):
    """A family of masks, given by how the best of them is selected.

    Attributes:
      name: as printed in summaries.
      select: ``(layers, scores, counts, where) -> masks`` for all leaves at once, four
        lists of one length (``where`` may be None): the masks of the family with
        ``counts`` entries in each stacked layer, all inside ``where``, of highest
        score. Counts may be traced.
    """

    name: str
    select: Callable[..., list[Bool[Array, "..."]]]


def unstructured() -> Structure:
    """Any weights of the layer: exact, ties to the lowest flat index."""

    def select(layers, scores, counts, where):
        del layers
        return top_k_masks(scores, counts, where=where)

    return Structure("unstructured", select)
