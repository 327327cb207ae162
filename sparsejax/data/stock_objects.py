"""What the stock detection datasets share: photographs with boxes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float, UInt8

from sparsejax.building import ConfigError
from sparsejax.data import images, objects, pipeline

# The usual statistics of ImageNet, in units of pixels.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32) * 255
# What is seen beyond the image is of the mean's colour.
_FILL = (124, 116, 104)


#: Boxes of an image that there is room for.
MAXIMUM = 100


class Joined:
    """Several sources, one after the other, as one.

    Args:
      sources: The sources.
    """

    def __init__(self, sources: Sequence[pipeline.Source]):
        self._sources = sources

    def __len__(self) -> int:
        return sum(map(len, self._sources))

    def __getitem__(self, index: int) -> pipeline.Example:
        for source in self._sources:
            if index < len(source):
                return source[index]
            index -= len(source)
        raise IndexError(index)


def check_image_size(image_size: int) -> None:
    """Raises unless images of this size can be detected on.

    Args:
      image_size: Height and width of the images.

    Raises:
      ConfigError: If it is less than 32.
    """
    if image_size < 32:
        raise ConfigError(
            f"config.data.image_size = {image_size} is below 32; use 320."
        )


def class_names(builder: tfds.core.DatasetBuilder) -> list[str]:
    """What the labels of a prepared dataset mean.

    Args:
      builder: As :func:`sparsejax.data.stock.prepared` returns it.

    Returns:
      The names in the order of the labels.
    """
    features: Any = builder.info.features
    return features["objects"]["label"].names


def train_example(
    stored: pipeline.Example,
    rng: np.random.Generator,
    *,
    size: int,
    ignored: str,
    trains_on_ignored: bool,
) -> pipeline.Example:
    """A random window of a photograph, half of the time mirrored, as SSD trains on it.

    Args:
      stored: The example as it is stored.
      rng: Draws the window.
      size: Height and width of the result.
      ignored: The field of an object that says that an evaluation ignores it.
      trains_on_ignored: Whether such objects are trained on.

    Returns:
      The example of a batch; of more boxes than there is room for, the first.
    """
    of_image = objects.stored_objects(stored["objects"], ignored=ignored)
    if not trains_on_ignored:
        of_image = of_image.only(~of_image.ignored)
    image = images.decoded(stored["image"], "RGB")
    window = objects.random_window(of_image, rng)
    pixels = np.asarray(objects.shown(image, window, size=size, fill=_FILL))
    seen = objects.in_window(of_image, window)
    if rng.random() < 0.5:
        pixels, seen = pixels[:, ::-1], objects.mirrored(seen)
    seen = seen.only(np.arange(len(seen.labels)) < MAXIMUM)
    return objects.example(pixels, seen, standardise=_standardised, maximum=MAXIMUM)


def evaluation_example(
    stored: pipeline.Example, *, size: int, ignored: str
) -> pipeline.Example:
    """The whole photograph, resized to a square, with all its boxes.

    Args:
      stored: The example as it is stored.
      size: Height and width of the result.
      ignored: The field of an object that says that an evaluation ignores it.

    Returns:
      The example of a batch.

    Raises:
      ValueError: If there are more boxes than room for them.
    """
    of_image = objects.stored_objects(stored["objects"], ignored=ignored)
    image = images.decoded(stored["image"], "RGB")
    pixels = objects.shown(image, objects.WHOLE, size=size, fill=_FILL)
    return objects.example(
        np.asarray(pixels), of_image, standardise=_standardised, maximum=MAXIMUM
    )


def _standardised(pixels: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    return images.standardised(pixels, _MEAN, _DEVIATION)
