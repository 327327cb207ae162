"""Figures of what a network makes of a few examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sparsejax.extras import require
from sparsejax.plot_style import DROPPED, EVALUATION, FULL, GROWN, PAPER, drawn

# Detections that are less sure than this would hide the others.
_LEAST_SCORE = 0.5
# Boxes overlap a detection of the same class by that if it is right.
_OVERLAP = 0.5


def detections(samples: Mapping[str, np.ndarray]) -> Any:
    """Draws images twice: above with the true boxes, below with those that were found.

    Args:
      samples: What the detection task gives: ``image``, ``boxes``, ``labels``,
        ``valid``, ``found_boxes``, ``found_labels``, ``scores``, ``class_names``.

    Returns:
      A `matplotlib.figure.Figure`; None when the samples are of another kind.
    """
    if str(samples.get("kind")) != "detections":
        return None
    names = samples["class_names"].tolist()
    patches = require("matplotlib.patches", extra="train")

    def name(label):
        return names[label] if names else str(label)

    def outline(axes, image, box, text, colour):
        height, width = image.shape[:2]
        top, left, bottom, right = box * [height, width, height, width] - 0.5
        corner, size = (left, top), (right - left, bottom - top)
        axes.add_patch(
            patches.Rectangle(
                corner, *size, fill=False, edgecolor=colour, linewidth=1.4
            )
        )
        axes.annotate(
            text,
            corner,
            xytext=(0, 1.5),
            textcoords="offset points",
            color=PAPER,
            fontsize=7.4,
            va="bottom",
            annotation_clip=False,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.1},
        )

    def draw(figure):
        count = len(samples["image"])
        rows = figure.subplots(2, count, squeeze=False)
        for i, (above, below) in enumerate(rows.T):
            image = _displayed(samples["image"][i])
            for axes in (above, below):
                axes.imshow(image, cmap="gray", vmin=0, vmax=1)
                axes.set(xticks=[], yticks=[])
                axes.grid(False)
                axes.spines[:].set_visible(False)
            valid = samples["valid"][i]
            truth, labels = samples["boxes"][i][valid], samples["labels"][i][valid]
            for box, label in zip(truth, labels, strict=True):
                outline(above, image, box, name(label), EVALUATION)
            sure = samples["scores"][i] >= _LEAST_SCORE
            found, classes = samples["found_boxes"][i], samples["found_labels"][i]
            for j in np.flatnonzero(sure):
                right = _is_right(found[j], classes[j], truth, labels)
                text = f"{name(classes[j])} {samples['scores'][i][j]:.2f}"
                outline(below, image, found[j], text, GROWN if right else DROPPED)
        rows[0, 0].set_ylabel("truth")
        rows[1, 0].set_ylabel(f"found, sure by {_LEAST_SCORE:.0%} or more")
        figure.suptitle(
            "Evaluation images: what they show, and what was found "
            "(green: right, red: wrong)",
            x=0.005,
            ha="left",
            fontsize=10.8,
            weight="bold",
        )

    return drawn(FULL, 0.9 + 2 * FULL / len(samples["image"]), draw)


def _displayed(image: np.ndarray) -> np.ndarray:
    """A standardised image in [0, 1]; one channel becomes a grey image."""
    low, high = image.min(), image.max()
    scaled = (image - low) / max(high - low, 1e-6)
    return scaled[..., 0] if scaled.shape[-1] == 1 else scaled


def _is_right(
    box: np.ndarray, label: int, truth: np.ndarray, labels: np.ndarray
) -> bool:
    for other in truth[labels == label]:
        sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
        shared = np.maximum(sides, 0).prod()
        areas = (box[2:] - box[:2]).prod() + (other[2:] - other[:2]).prod()
        if shared >= _OVERLAP * (areas - shared):
            return True
    return False
