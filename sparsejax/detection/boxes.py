"""Boxes: how much two overlap, and their offsets from anchors."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["VARIANCES", "decode", "encode", "intersection_over_union"]

#: Scales of the offsets of centres and of sizes, those of SSD.
VARIANCES = (0.1, 0.2)

# Boxes without an area, such as those that fill up an array, have offsets, too.
_SMALLEST_SIDE = 1e-6
# A box of e^4 times its anchor's size is larger than any image.
_LARGEST_LOGARITHM = 4.0


def intersection_over_union(
    first: Float[Array, "first 4"], second: Float[Array, "second 4"]
) -> Float[Array, "first second"]:
    """The overlap of every box with every other, ``|a & b| / |a | b|``.

    Args:
      first: Boxes (top, left, bottom, right) in any unit.
      second: Boxes in the same unit.

    Returns:
      A number in [0, 1] for each pair; 0 where neither box has an area.

    Example:
      >>> square = jnp.array([[0.0, 0.0, 2.0, 2.0]])
      >>> others = jnp.array([[0.0, 0.0, 2.0, 1.0], [1.0, 2.0, 3.0, 3.0]])
      >>> intersection_over_union(square, others)
      Array([[0.5, 0. ]], dtype=float32)
    """
    top_left = jnp.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = jnp.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = jnp.prod(jnp.maximum(bottom_right - top_left, 0.0), axis=-1)
    union = _areas(first)[:, None] + _areas(second)[None, :] - shared
    return jnp.where(union > 0, shared / jnp.where(union > 0, union, 1.0), 0.0)


def encode(
    boxes: Float[Array, "n 4"],
    anchors: Float[Array, "n 4"],
    *,
    variances: tuple[float, float] = VARIANCES,
) -> Float[Array, "n 4"]:
    """The offsets of boxes from their anchors, which a network learns to predict.

    With centre ``c`` and size ``s`` along an axis, ``(c_box - c_anchor) / s_anchor``
    over the first variance, and ``log(s_box / s_anchor)`` over the second.

    Args:
      boxes: Boxes (top, left, bottom, right).
      anchors: As many anchors, in the same unit.
      variances: Of centres and of sizes.

    Returns:
      Offsets of the centre (vertical, horizontal) and of the size (height, width).

    Example:
      >>> anchor = jnp.array([[0.0, 0.0, 0.5, 0.5]])
      >>> encode(jnp.array([[0.1, 0.0, 0.6, 0.5]]), anchor).round(3)
      Array([[2., 0., 0., 0.]], dtype=float32)

    References:
      Liu et al., "SSD: single shot multibox detector", 2016, equation 2; the variances
      are those of the authors' code.
    """
    centres, sizes = _centres_and_sizes(boxes)
    anchor_centres, anchor_sizes = _centres_and_sizes(anchors)
    moved = (centres - anchor_centres) / (anchor_sizes * variances[0])
    scaled = jnp.log(jnp.maximum(sizes, _SMALLEST_SIDE) / anchor_sizes) / variances[1]
    return jnp.concatenate([moved, scaled], axis=-1)


def decode(
    offsets: Float[Array, "n 4"],
    anchors: Float[Array, "n 4"],
    *,
    variances: tuple[float, float] = VARIANCES,
) -> Float[Array, "n 4"]:
    """The boxes that offsets stand for: the inverse of :func:`encode`.

    Args:
      offsets: Offsets of the centre and of the size, as ``encode`` gives them.
      anchors: As many anchors.
      variances: Of centres and of sizes.

    Returns:
      Boxes (top, left, bottom, right), which may reach beyond the image. Sides of more
      than ``e^4`` anchors are cut to that.

    Example:
      >>> anchor = jnp.array([[0.0, 0.0, 0.5, 0.5]])
      >>> decode(jnp.array([[2.0, 0.0, 0.0, 0.0]]), anchor).round(3)
      Array([[0.1, 0. , 0.6, 0.5]], dtype=float32)
    """
    centres, sizes = _centres_and_sizes(anchors)
    centres = centres + offsets[:, :2] * variances[0] * sizes
    logarithms = jnp.minimum(offsets[:, 2:] * variances[1], _LARGEST_LOGARITHM)
    half = sizes * jnp.exp(logarithms) / 2
    return jnp.concatenate([centres - half, centres + half], axis=-1)


def _areas(boxes: Float[Array, "n 4"]) -> Float[Array, " n"]:
    return jnp.prod(jnp.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=-1)


def _centres_and_sizes(
    boxes: Float[Array, "n 4"],
) -> tuple[Float[Array, "n 2"], Float[Array, "n 2"]]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
