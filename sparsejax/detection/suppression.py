"""Suppression: of many predictions of the same object the best one, within jit."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sparsejax.detection.boxes import intersection_over_union

__all__ = ["Detections", "best_detections", "suppress"]


class Detections(NamedTuple):
    """The objects found in an image, the surest first.

    Attributes:
      boxes: (top, left, bottom, right), within the image.
      labels: Their classes, from 0.
      scores: Their probabilities; 0 where fewer were found than there is room for.
    """

    boxes: Float[Array, "found 4"]
    labels: Int[Array, " found"]
    scores: Float[Array, " found"]


def suppress(
    boxes: Float[Array, "n 4"], scores: Float[Array, " n"], *, threshold: float = 0.45
) -> Bool[Array, " n"]:
    """Greedy non-maximum suppression.

    From the highest score down, a box is kept unless it overlaps one that was kept by
    more than the threshold.

    Args:
      boxes: Boxes (top, left, bottom, right).
      scores: Of each box; those that are not positive are not kept. Of equal scores the
        first box goes first.
      threshold: The largest intersection over union of two boxes that are kept.

    Returns:
      Which boxes are kept.

    Example:
      >>> boxes = jnp.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9]])
      >>> suppress(boxes, jnp.array([0.5, 0.6]))
      Array([False,  True], dtype=bool)
    """
    order = jnp.argsort(scores, descending=True, stable=True)
    overlap = intersection_over_union(boxes[order], boxes[order]) > threshold
    count = boxes.shape[0]
    follows = jnp.arange(count)

    def look_at(index, kept):
        loses = kept[index] & overlap[index] & (follows > index)
        return kept & ~loses

    kept = jax.lax.fori_loop(0, count, look_at, scores[order] > 0)
    return jnp.zeros(count, bool).at[order].set(kept)


def best_detections(
    probabilities: Float[Array, "anchors classes"],
    boxes: Float[Array, "anchors 4"],
    *,
    least_score: float = 0.01,
    threshold: float = 0.45,
    per_class: int = 100,
    maximum: int = 100,
) -> Detections:
    """The objects of an image, each class suppressed by itself.

    Args:
      probabilities: Of each class, without the background.
      boxes: The decoded boxes; cut to the image.
      least_score: Predictions below it are dropped.
      threshold: As for :func:`suppress`.
      per_class: Predictions of each class that suppression looks at, the surest.
      maximum: Objects that are returned, the surest of all classes.

    Returns:
      The objects, padded with scores of 0.

    Example:
      >>> boxes = jnp.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9]])
      >>> found = best_detections(jnp.array([[0.1, 0.7], [0.0, 0.8]]), boxes, maximum=2)
      >>> found.labels, found.scores
      (Array([1, 0], dtype=int32), Array([0.8, 0.1], dtype=float32))

    References:
      Liu et al., "SSD: single shot multibox detector", 2016, section 3.1, for the least
      score and the threshold.
    """
    boxes = jnp.clip(boxes, 0.0, 1.0)
    per_class = min(per_class, boxes.shape[0])

    def of_class(scores):
        best, which = jax.lax.top_k(scores, per_class)
        best = jnp.where(best >= least_score, best, 0.0)
        kept = suppress(boxes[which], best, threshold=threshold)
        return jnp.where(kept, best, 0.0), which

    scores, which = jax.vmap(of_class)(probabilities.T)
    room = maximum - scores.size
    if room > 0:
        scores = jnp.pad(scores.ravel(), (0, room))
        which = jnp.pad(which.ravel(), (0, room))
    best, position = jax.lax.top_k(scores.ravel(), maximum)
    labels = jnp.where(best > 0, position // per_class, 0).astype(jnp.int32)
    found = jnp.where(best[:, None] > 0, boxes[which.ravel()[position]], 0.0)
    return Detections(found, labels, best)
