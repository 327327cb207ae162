"""The loss of a detector: classes with hard negatives, and the offsets of boxes."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from sparsejax.detection.matching import Targets

__all__ = ["Losses", "detection_losses", "hard_negatives"]


class Losses(NamedTuple):
    """The two terms of each image's loss, summed over its anchors.

    Attributes:
      classification: Cross-entropy of its objects and of the hardest background.
      localisation: Smooth L1 of its objects' offsets.
      objects: How many anchors are matched, which both terms are divided by.
    """

    classification: Float[Array, " batch"]
    localisation: Float[Array, " batch"]
    objects: Int[Array, " batch"]

    def mean(self) -> Float[Array, ""]:
        """The loss of the batch, per matched anchor in it."""
        total = self.classification.sum() + self.localisation.sum()
        return total / jnp.maximum(self.objects.sum(), 1)


def detection_losses(
    logits: Float[Array, "batch anchors classes"],
    offsets: Float[Array, "batch anchors 4"],
    truth: Targets,
    *,
    negatives: float = 3.0,
) -> Losses:
    """SSD's loss.

    The cross-entropy of the softmax over all classes and the background, for every
    matched anchor and, of the others in its image, the few with the largest loss; and
    the smooth L1 loss ``sum_i h(d_i)`` of the matched anchors' offsets, where ``h(d) =
    d^2 / 2`` up to ``|d| = 1`` and ``|d| - 1/2`` beyond.

    Args:
      logits: Of the background, then of each class.
      offsets: As predicted, see :func:`sparsejax.detection.boxes.encode`.
      truth: Labels and offsets of each image's anchors, with a leading batch axis.
      negatives: Background anchors that count, for each matched one.

    Returns:
      Both terms of each image.

    Example:
      >>> truth = Targets(jnp.array([[1, 0]]), jnp.zeros((1, 2, 4)))
      >>> losses = detection_losses(
      ...     jnp.zeros((1, 2, 2)), jnp.full((1, 2, 4), 0.5), truth)
      >>> losses.classification.round(4), losses.localisation
      (Array([1.3863], dtype=float32), Array([0.5], dtype=float32))

    References:
      Liu et al., "SSD: single shot multibox detector", 2016, equations 1 to 3, with
      both terms weighted alike.
    """
    is_object = truth.labels > 0
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, truth.labels)
    counted = is_object | hard_negatives(entropy, is_object, ratio=negatives)
    distance = optax.huber_loss(offsets, truth.offsets).sum(axis=-1)
    return Losses(
        jnp.where(counted, entropy, 0.0).sum(axis=-1),
        jnp.where(is_object, distance, 0.0).sum(axis=-1),
        is_object.sum(axis=-1, dtype=jnp.int32),
    )


def hard_negatives(
    losses: Float[Array, "batch anchors"],
    is_object: Bool[Array, "batch anchors"],
    *,
    ratio: float = 3.0,
) -> Bool[Array, "batch anchors"]:
    """Chooses the background anchors of the largest loss in each image.

    Args:
      losses: Of every anchor.
      is_object: Which anchors are matched to an object.
      ratio: How many are chosen for each matched anchor of the image; of an image
        without objects none is.

    Returns:
      The chosen anchors; exactly as many also where losses are equal, then the first.

    Example:
      >>> losses = jnp.array([[9.0, 1.0, 3.0, 2.0]])
      >>> hard_negatives(losses, losses > 8, ratio=2.0)
      Array([[False, False,  True,  True]], dtype=bool)
    """
    background = jnp.where(is_object, -jnp.inf, losses)
    order = jnp.argsort(background, axis=-1, descending=True, stable=True)
    rank = jnp.argsort(order, axis=-1)
    objects = is_object.sum(axis=-1, keepdims=True)
    return ~is_object & (rank < jnp.round(ratio * objects).astype(jnp.int32))
