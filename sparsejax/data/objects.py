"""Images with the boxes of their objects: windows of them, and padding to one shape.

A window is a box (top, left, bottom, right) in fractions of the image, which may reach
beyond it: what it shows becomes the new image. Every augmentation is a choice of a
window, so that an image is resampled only once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from jaxtyping import Bool, Float, Int

from sparsejax.data.pipeline import Example

Window = tuple[float, float, float, float]

WHOLE: Window = (0.0, 0.0, 1.0, 1.0)

# A crop overlaps one object by at least that, 0 stands for any crop, None for no crop.
_LEAST_OVERLAPS = (None, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
_CROP_SIDES = (0.3, 1.0)
_CROP_RATIOS = (0.5, 2.0)
_CROP_ATTEMPTS = 40


class Objects(NamedTuple):
    """The objects of one image.

    Attributes:
      boxes: (top, left, bottom, right), fractions of the image.
      labels: Their classes, from 0.
      ignored: Those that an evaluation neither asks for nor holds against a detector:
        crowds, and what is hard to recognise.
    """

    boxes: Float[np.ndarray, "objects 4"]
    labels: Int[np.ndarray, " objects"]
    ignored: Bool[np.ndarray, " objects"]

    def only(self, chosen: Bool[np.ndarray, " objects"]) -> Objects:
        """These objects without the others."""
        return Objects(*(array[chosen] for array in self))


def stored_objects(
    stored: Mapping[str, Sequence[Any]], *, ignored: str | None = None
) -> Objects:
    """The objects of an image as tfds stores them in all its detection datasets.

    Args:
      stored: ``bbox`` and ``label``, each a sequence over the objects.
      ignored: The field that says which an evaluation ignores; by default none.

    Returns:
      The objects.

    Example:
      >>> stored_objects({"bbox": [[0.0, 0.0, 0.5, 1.0]], "label": [3]}).labels
      array([3], dtype=int32)
    """
    labels = np.array(stored["label"], np.int32)
    return Objects(
        np.array(stored["bbox"], np.float32).reshape(-1, 4),
        labels,
        np.array(stored[ignored], bool) if ignored else np.zeros(labels.shape, bool),
    )


def in_window(objects: Objects, window: Window) -> Objects:
    """The objects whose centre a window shows, cut to it and in its coordinates.

    Args:
      objects: Those of the whole image.
      window: What is shown.

    Returns:
      The objects that remain.

    Example:
      >>> one = Objects(np.array([[0.2, 0.2, 0.6, 0.6]]), np.array([3]), np.array([0]))
      >>> in_window(one, (0.0, 0.0, 0.5, 1.0)).boxes
      array([[0.4, 0.2, 1. , 0.6]], dtype=float32)
      >>> len(in_window(one, (0.5, 0.0, 1.0, 1.0)).labels)
      0
    """
    corner, extent = np.array(window[:2]), np.subtract(window[2:], window[:2])
    boxes = (objects.boxes.reshape(-1, 2, 2) - corner) / extent
    centres = boxes.mean(axis=1)
    inside = ((centres > 0) & (centres < 1)).all(axis=1)
    cut = np.clip(boxes, 0, 1).reshape(-1, 4).astype(np.float32)
    return objects._replace(boxes=cut).only(inside)


def mirrored(objects: Objects) -> Objects:
    """The objects of the image seen in a mirror.

    Args:
      objects: Those of the image.

    Returns:
      The same, left and right exchanged.

    Example:
      >>> one = Objects(np.array([[0.0, 0.25, 1.0, 0.5]]), np.array([3]), np.array([0]))
      >>> mirrored(one).boxes
      array([[0.  , 0.5 , 1.  , 0.75]])
    """
    top, left, bottom, right = objects.boxes.T
    return objects._replace(boxes=np.stack([top, 1 - right, bottom, 1 - left], axis=1))


def random_window(
    objects: Objects, rng: np.random.Generator, *, largest: float = 4.0
) -> Window:
    """Draws what SSD trains on: a crop of an image on a canvas that may be larger.

    Half of the time the image lies somewhere on a canvas of 1 to `largest` times its
    sides, otherwise it is the canvas. Of that it is a random :func:`crop`.

    Args:
      objects: Those of the image.
      rng: Draws the window.
      largest: How many times as long the canvas can be as the image.

    Returns:
      The window, in fractions of the image.

    References:
      Liu et al., "SSD: single shot multibox detector", 2016, sections 2.2 and 3.6.
    """
    top, left, side = 0.0, 0.0, 1.0
    if rng.random() < 0.5:
        side = rng.uniform(1, largest)
        top, left = -rng.uniform(0, side - 1, size=2)
    canvas = (top, left, top + side, left + side)
    within = crop(in_window(objects, canvas), rng)
    return (
        top + side * within[0],
        left + side * within[1],
        top + side * within[2],
        left + side * within[3],
    )


def crop(objects: Objects, rng: np.random.Generator) -> Window:
    """A window within the image that overlaps an object by at least a random amount.

    Its sides are 0.3 to 1 of the image's, the one at most twice the other; it shows the
    centre of at least one object.

    Args:
      objects: Those of the image.
      rng: Draws it.

    Returns:
      The window; of an image without objects, and sometimes of others, all of it.

    References:
      Liu et al., "SSD: single shot multibox detector", 2016, section 2.2; the least
      overlaps, sides and attempts are those of torchvision's ``RandomIoUCrop``.
    """
    if not len(objects.labels):
        return WHOLE
    while True:
        least = _LEAST_OVERLAPS[rng.integers(len(_LEAST_OVERLAPS))]
        if least is None:
            return WHOLE
        for _ in range(_CROP_ATTEMPTS):
            height, width = rng.uniform(*_CROP_SIDES, size=2)
            if not _CROP_RATIOS[0] <= width / height <= _CROP_RATIOS[1]:
                continue
            top, left = rng.uniform(0, 1 - height), rng.uniform(0, 1 - width)
            window = (top, left, top + height, left + width)
            shown = len(in_window(objects, window).labels)
            if shown and _overlaps(objects.boxes, window).max() >= least:
                return window


def shown(
    image: PIL.Image.Image,
    window: Window,
    *,
    size: int,
    fill: int | tuple[int, int, int],
) -> PIL.Image.Image:
    """Resizes what a window shows to a square, bilinearly with antialiasing.

    Args:
      image: The whole image.
      window: What is shown of it.
      size: Height and width of the result.
      fill: The colour beyond the image: a grey, or red, green and blue.

    Returns:
      The resized image.

    Example:
      >>> image = PIL.Image.new("L", (6, 4), 255)
      >>> window = (0.0, 0.0, 2.0, 2.0)
      >>> np.asarray(shown(image, window, size=4, fill=9))[0].tolist()
      [255, 255, 9, 9]
    """
    top, left, bottom, right = window
    rows, columns = size / (bottom - top), size / (right - left)
    within = (max(top, 0.0), max(left, 0.0), min(bottom, 1.0), min(right, 1.0))
    # Where the part that the image covers lands, in whole pixels.
    first = (round((within[0] - top) * rows), round((within[1] - left) * columns))
    last = (round((within[2] - top) * rows), round((within[3] - left) * columns))
    height, width = max(last[0] - first[0], 1), max(last[1] - first[1], 1)
    part = image.resize(
        (width, height),
        PIL.Image.Resampling.BILINEAR,
        box=(
            within[1] * image.width,
            within[0] * image.height,
            within[3] * image.width,
            within[2] * image.height,
        ),
    )
    if (width, height) == (size, size):
        return part
    whole = PIL.Image.new(image.mode, (size, size), fill)
    whole.paste(part, (first[1], first[0]))
    return whole


def example(
    pixels: np.ndarray,
    objects: Objects,
    *,
    standardise: Callable[[np.ndarray], np.ndarray],
    maximum: int,
) -> Example:
    """An example of a batch: its objects padded to one shape.

    Args:
      pixels: The image [h, w, c] as it was decoded.
      objects: Its objects.
      standardise: Makes the network's input of the pixels.
      maximum: Objects that there is room for.

    Returns:
      ``image``, ``boxes`` [maximum, 4], ``labels``, ``valid`` and ``ignored``, each
      [maximum].

    Raises:
      ValueError: If there are more objects than room for them.
    """
    count = len(objects.labels)
    if count > maximum:
        raise ValueError(
            f"objects: an image has {count}, but there is room for {maximum}; the "
            "dataset's file must make more."
        )
    boxes = np.zeros((maximum, 4), np.float32)
    boxes[:count] = objects.boxes
    labels = np.zeros(maximum, np.int32)
    labels[:count] = objects.labels
    ignored = np.zeros(maximum, bool)
    ignored[:count] = objects.ignored
    return {
        "image": standardise(pixels),
        "boxes": boxes,
        "labels": labels,
        "valid": np.arange(maximum) < count,
        "ignored": ignored,
    }


def _overlaps(
    boxes: Float[np.ndarray, "objects 4"], window: Window
) -> Float[np.ndarray, " objects"]:
    """The intersection over union of each box with the window."""
    corners, other = boxes.reshape(-1, 2, 2), np.reshape(window, (2, 2))
    starts = np.maximum(corners[:, 0], other[0])
    shared = np.maximum(np.minimum(corners[:, 1], other[1]) - starts, 0).prod(axis=1)
    areas = (corners[:, 1] - corners[:, 0]).prod(axis=1)
    union = areas + (other[1] - other[0]).prod() - shared
    return shared / np.maximum(union, 1e-12)
