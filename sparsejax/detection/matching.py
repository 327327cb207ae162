"""Matching: which anchor is to predict which box, and what exactly."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sparsejax.detection.boxes import encode, intersection_over_union

__all__ = ["Targets", "match", "targets"]

BACKGROUND = -1


class Targets(NamedTuple):
    """What every anchor of an image is to predict.

    Attributes:
      labels: 0 for background, else the object's class plus 1.
      offsets: Of its box from the anchor; of background anchors without a meaning.
    """

    labels: Int[Array, " anchors"]
    offsets: Float[Array, "anchors 4"]


def match(
    boxes: Float[Array, "boxes 4"],
    valid: Bool[Array, " boxes"],
    anchors: Float[Array, "anchors 4"],
    *,
    threshold: float = 0.5,
) -> Int[Array, " anchors"]:
    """Gives every box at least one anchor, and every anchor at most one box.

    First the box and the anchor that overlap most of all are matched, then of the
    remaining boxes and anchors those that do, and so on until each box has an anchor of
    its own. Then every other anchor gets the box that it overlaps most, if the
    intersection over union is at least the threshold.

    Args:
      boxes: Boxes (top, left, bottom, right); ``boxes`` includes the padding.
      valid: Which boxes are there.
      anchors: The anchors, in the same unit.
      threshold: Least intersection over union of the second stage.

    Returns:
      The box of each anchor, or -1 for background. A box that overlaps no free anchor
      has none.

    Example:
      >>> anchors = jnp.array([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]])
      >>> boxes = jnp.array([[0.6, 0.6, 0.8, 0.8]])
      >>> match(boxes, jnp.array([True]), anchors)
      Array([-1,  0], dtype=int32)

    References:
      Liu et al., "SSD: single shot multibox detector", 2016, section 2.2.
    """
    overlaps = intersection_over_union(boxes, anchors)
    overlaps = jnp.where(valid[:, None], overlaps, 0.0)
    best = overlaps.argmax(axis=0).astype(jnp.int32)
    matched = jnp.where(overlaps.max(axis=0) >= threshold, best, BACKGROUND)
    anchor_count = anchors.shape[0]

    def take_the_best_pair(_, carry):
        matched, free = carry
        position = free.argmax().astype(jnp.int32)
        box, anchor = position // anchor_count, position % anchor_count
        found = free[box, anchor] > 0
        matched = matched.at[anchor].set(jnp.where(found, box, matched[anchor]))
        free = free.at[box, :].set(0.0).at[:, anchor].set(0.0)
        return matched, free

    matched, _ = jax.lax.fori_loop(
        0, boxes.shape[0], take_the_best_pair, (matched, overlaps)
    )
    return matched


def targets(
    boxes: Float[Array, "boxes 4"],
    labels: Int[Array, " boxes"],
    valid: Bool[Array, " boxes"],
    anchors: Float[Array, "anchors 4"],
    *,
    threshold: float = 0.5,
) -> Targets:
    """What every anchor is to predict in an image of these boxes.

    Args:
      boxes: Boxes (top, left, bottom, right).
      labels: Their classes, from 0.
      valid: Which boxes are there.
      anchors: The anchors.
      threshold: As for :func:`match`.

    Returns:
      Class and offsets for each anchor.

    Example:
      >>> anchors = jnp.array([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]])
      >>> found = targets(anchors[1:], jnp.array([6]), jnp.array([True]), anchors)
      >>> found.labels
      Array([0, 7], dtype=int32)
      >>> bool((found.offsets[1] == 0).all())
      True
    """
    box = match(boxes, valid, anchors, threshold=threshold)
    is_object = box != BACKGROUND
    box = jnp.maximum(box, 0)
    return Targets(
        jnp.where(is_object, labels[box].astype(jnp.int32) + 1, 0),
        encode(boxes[box], anchors),
    )
