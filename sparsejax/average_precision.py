"""Mean average precision of detections, by the evaluator of COCO itself."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sparsejax.extras import require

_HALF = 0.5


class EvaluatedImage(NamedTuple):
    """What an image shows, and what was found in it; boxes in any unit.

    Attributes:
      boxes: The true boxes (top, left, bottom, right).
      labels: Their classes.
      ignored: Those that are neither asked for nor held against a detector.
      found_boxes: The boxes that were found.
      found_labels: Their classes.
      scores: How sure the detector is of each.
    """

    boxes: Float[np.ndarray, "objects 4"]
    labels: Int[np.ndarray, " objects"]
    ignored: Bool[np.ndarray, " objects"]
    found_boxes: Float[np.ndarray, "found 4"]
    found_labels: Int[np.ndarray, " found"]
    scores: Float[np.ndarray, " found"]


def average_precision(
    images: Sequence[EvaluatedImage], *, maximum: int = 100
) -> dict[str, float]:
    """COCO's metrics over boxes of all sizes.

    The precision, averaged over 101 levels of recall and over the classes, where a
    detection is right if its intersection over union with an object that no surer one
    has taken is at least a threshold.

    Args:
      images: All that are evaluated.
      maximum: Detections of an image and class that count, the surest.

    Returns:
      ``mean_average_precision``, the mean over the thresholds 0.5, 0.55, ..., 0.95, and
      ``average_precision_50``, that of 0.5 alone; in [0, 1].

    Raises:
      ImportError: If pycocotools is not installed.
      ValueError: If no image has an object.

    Example:
      >>> box, label = np.array([[0.1, 0.1, 0.5, 0.6]]), np.array([3])
      >>> image = EvaluatedImage(
      ...     box, label, np.array([False]), box, label, np.array([0.9]))
      >>> {name: round(value, 6) for name, value in average_precision([image]).items()}
      {'mean_average_precision': 1.0, 'average_precision_50': 1.0}

    References:
      Lin et al., "Microsoft COCO: common objects in context", 2014; computed by
      pycocotools. Objects are ignored as COCO's crowds are: any number of detections
      may lie in one.
    """
    coco = require("pycocotools.coco", extra="train")
    cocoeval = require("pycocotools.cocoeval", extra="train")
    annotations = [a for i, image in enumerate(images) for a in _annotations(i, image)]
    if all(annotation["iscrowd"] for annotation in annotations):
        raise ValueError("images: none has an object, so that no precision is defined.")
    for index, annotation in enumerate(annotations):
        # The evaluator takes an id of 0 for no match.
        annotation["id"] = index + 1
    results = [
        result for i, image in enumerate(images) for result in _results(i, image)
    ]
    if not results:
        return {"mean_average_precision": 0.0, "average_precision_50": 0.0}
    classes = {annotation["category_id"] for annotation in annotations}
    classes |= {result["category_id"] for result in results}
    # It reports on standard output, in lines of its own.
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": index} for index in range(len(images))],
            "categories": [{"id": label} for label in sorted(classes)],
            "annotations": annotations,
        }
        truth.createIndex()
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.params.maxDets = [maximum]
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.evaluate()
        evaluation.accumulate()
    # Thresholds, recalls, classes; -1 for classes that no image shows.
    precision = evaluation.eval["precision"][..., 0, 0]
    at_half = precision[np.isclose(evaluation.params.iouThrs, _HALF)]
    return {
        "mean_average_precision": float(precision[precision > -1].mean()),
        "average_precision_50": float(at_half[at_half > -1].mean()),
    }


def _annotations(index: int, image: EvaluatedImage) -> list[dict[str, Any]]:
    return [
        {
            "image_id": index,
            "category_id": int(label),
            "bbox": _corner_and_size(box),
            "area": float((box[2:] - box[:2]).prod()),
            "iscrowd": int(ignored),
        }
        for box, label, ignored in zip(
            image.boxes, image.labels, image.ignored, strict=True
        )
    ]


def _results(index: int, image: EvaluatedImage) -> list[dict[str, Any]]:
    return [
        {
            "image_id": index,
            "category_id": int(label),
            "bbox": _corner_and_size(box),
            "score": float(score),
        }
        for box, label, score in zip(
            image.found_boxes, image.found_labels, image.scores, strict=True
        )
    ]


def _corner_and_size(box: Float[np.ndarray, "4"]) -> list[float]:
    top, left, bottom, right = box.tolist()
    return [left, top, right - left, bottom - top]
