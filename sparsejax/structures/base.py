"""What a structure is, and the views of a weight that structures work on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Num, UInt

from sparsejax.distributions import Budget
from sparsejax.layers import Layer
from sparsejax.selection import exact_count, order_key, top_k_masks

__all__ = [
    "Structure",
    "active_count",
    "fitted_density",
    "from_rows",
    "selection_keys",
    "thin_unstructured",
    "to_rows",
]


class Structure(NamedTuple):
    """A family of masks, given by how its best member is selected.

    All functions take lists over the sparsified leaves, so that all layers are searched
    at once; counts are int arrays over a leaf's stacked axes, and may be traced.

    Attributes:
      name: as printed in summaries.
      select: ``(layers, scores, counts, where, kept) -> masks``: the members of the
        family with (about) ``counts`` weights of highest score, inside ``where`` (all
        entries if None), that contain ``kept`` (nothing if None).
      thin: ``(layers, scores, counts, where) -> masks``: what stays when a member
        ``where`` loses its lowest-scored parts down to ``counts`` weights; `select`
        completes it to a member again.
      measure: ``(layers, masks) -> counts``: what to ask `select` for, to get as much
        as the masks have.
      fit: ``(layers, budgets) -> budgets``: the nearest exact counts that members of
        the family have; raises where there are none.
      strict: whether masks from outside are checked to be members. SRigL brings
        others into its layout at its moves.
    """

    name: str
    select: Callable[..., list[Bool[Array, "..."]]]
    thin: Callable[..., list[Bool[Array, "..."]]]
    measure: Callable[..., list[Int[Array, "..."]]]
    fit: Callable[[Sequence[Layer], Sequence[Budget]], list[Budget]]
    strict: bool = True


def active_count(layer: Layer, mask: Bool[Array, "..."]) -> Int[Array, "..."]:
    """Active weights of every layer that is stacked in a leaf."""
    axes = tuple(range(len(layer.spec.stacked), len(layer.shape)))
    return exact_count(mask, axes).astype(jnp.int32)


def thin_unstructured(
    layers: Sequence[Layer],
    scores: Sequence[Num[Array, "..."]],
    counts: Sequence[Int[Array, "..."]],
    where: Sequence[Bool[Array, "..."]],
) -> list[Bool[Array, "..."]]:
    """The ``counts`` best weights of each layer inside ``where``, wherever they are."""
    del layers
    return top_k_masks(scores, counts, where=where)


def to_rows(layer: Layer, array: Array) -> Array:
    """A leaf as ``[*stacked, neurons, inputs]``, input channels innermost."""
    spec = layer.spec
    moved = array.transpose(*spec.stacked, *spec.fan_out, *spec.fan_in)
    return moved.reshape(*layer.stacked_shape, layer.fan_out, layer.fan_in)


def from_rows(layer: Layer, rows: Array) -> Array:
    """The inverse of `to_rows`."""
    order = (*layer.spec.stacked, *layer.spec.fan_out, *layer.spec.fan_in)
    moved = rows.reshape(*(layer.shape[axis] for axis in order))
    return moved.transpose(*(order.index(axis) for axis in range(len(order))))


def selection_keys(
    score: Num[Array, "..."],
    where: Bool[Array, "..."] | None,
    kept: Bool[Array, "..."] | None,
) -> UInt[Array, "..."]:
    """`order_key` with ``kept`` above every score; 0 means "never selected"."""
    key = order_key(score, where)
    if kept is None:
        return key
    return jnp.where(kept, jnp.array(jnp.iinfo(key.dtype).max, key.dtype), key)


def fitted_density(
    name: str,
    layers: Sequence[Layer],
    budgets: Sequence[Budget],
    own: Sequence[int],
) -> list[Budget]:
    """Budgets of a structure whose density is given, if that is what was asked for.

    Args:
      name: the structure's, for the message.
      layers: the sparsified leaves.
      budgets: what the sparsity and its distribution ask for, or counts of given masks.
      own: weights that the structure keeps in each layer of a leaf.

    Raises:
      ValueError: the sparsity is another than the structure's.
    """
    fitted = [(count,) * layer.slices for layer, count in zip(layers, own, strict=True)]
    size = sum(layer.size for layer in layers)
    kept = sum(map(sum, fitted))
    asked = sum(map(sum, budgets))
    if abs(asked - kept) > max(0.02 * size, len(layers)):
        raise ValueError(
            f"sparsity={1 - asked / size:.4g} does not go with structure {name}, which "
            f"keeps {kept} of {size} weights; pass sparsity={1 - kept / size:.4g}, or "
            "another structure"
        )
    return fitted
