"""Digit scenes: several real handwritten digits on a canvas, with their boxes.

A tfds builder of our own makes them of the digits that scikit-learn embeds; preparing
them takes seconds and needs no download.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from jaxtyping import Float, UInt8

from sparsejax.data import embedded, images, objects, pipeline
from sparsejax.data.digits import stored_digits

Box = tuple[int, int, int, int]

_SIDE = 64
_SCENES = {"train": 4_000, "test": 500}
_DIGITS = (1, 5)
# Heights of the 8x8 digits in a scene, and widths over heights; their ink takes less.
_HEIGHTS, _RATIOS = (14, 32), (0.75, 4 / 3)
# Of the smaller of two boxes.
_LARGEST_OVERLAP = 0.1
_PLACEMENTS = 20
# Fainter pixels than this belong to no box.
_INK = 48
_MAXIMUM = _DIGITS[1]
# Of the training scenes, in stored units.
_MEAN = np.array([28.5060], np.float32)
_DEVIATION = np.array([63.9187], np.float32)


class DigitScenes(tfds.core.GeneratorBasedBuilder):
    """4,000 scenes to train and 500 to test, each of one to five digits.

    Scenes to train show only digits that are in the training split of ``digits``, those
    to test only digits of its test split. A digit is resized to a height of 14 to 32
    pixels and a width of 3/4 to 4/3 of that, and its box is that of its ink. Scene
    ``i`` of a split is a function of ``i`` alone.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Scenes of several handwritten digits from scikit-learn.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(_SIDE, _SIDE, 1), dtype=np.uint8, encoding_format="png"
                    ),
                    "objects": tfds.features.Sequence(
                        {
                            "bbox": tfds.features.BBoxFeature(),
                            "label": tfds.features.ClassLabel(num_classes=10),
                        }
                    ),
                }
            ),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager
        return {split: self._generate_examples(split) for split in _SCENES}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        digits = [(pixels, label) for _, pixels, label in stored_digits(split)]
        for index in range(_SCENES[split]):
            rng = np.random.default_rng([list(_SCENES).index(split), index])
            canvas, boxes, labels = _scene(digits, rng)
            found = [
                {
                    "bbox": tfds.features.BBox(*(end / _SIDE for end in box)),
                    "label": label,
                }
                for box, label in zip(boxes, labels, strict=True)
            ]
            yield index, {"image": PIL.Image.fromarray(canvas), "objects": found}


def digit_scenes(
    *, data_dir: str | None = None, augment: bool = True
) -> pipeline.Dataset:
    """Scenes of one to five digits on 64x64 pixels, 4,000 to train and 500 to test.

    Prepared at first use. Images are standardised by the mean and standard deviation of
    all training pixels.

    Args:
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      augment: Train on random windows of the scenes, as SSD does: crops that overlap a
        digit, on a canvas up to twice as large. Digits are never mirrored.

    Returns:
      The dataset; image shape (64, 64, 1), 10 classes, five boxes with padding.

    Raises:
      ConfigError: If `data_dir` cannot be written to.

    Example:
      >>> digit_scenes(data_dir="/dev/null/datasets")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ...
      sparsejax.building.ConfigError: config.data.data_dir: cannot write to ...
    """
    builder = embedded.prepared(DigitScenes, data_dir)
    return pipeline.Dataset(
        train=_decoded(builder, "train"),
        evaluation=_decoded(builder, "test"),
        train_transform=partial(_train_example, augment=augment),
        evaluation_transform=_evaluation_example,
        number_of_classes=10,
        input_shape=(_SIDE, _SIDE, 1),
    )


def _scene(
    digits: list[tuple[UInt8[np.ndarray, "8 8"], int]], rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "h w"], list[Box], list[int]]:
    """Places digits one after the other, each where it hardly covers the earlier."""
    canvas = np.zeros((_SIDE, _SIDE), np.uint8)
    boxes: list[Box] = []
    labels: list[int] = []
    for _ in range(rng.integers(_DIGITS[0], _DIGITS[1] + 1)):
        pixels, label = digits[rng.integers(len(digits))]
        height = int(rng.integers(_HEIGHTS[0], _HEIGHTS[1] + 1))
        width = round(height * rng.uniform(*_RATIOS))
        resized = PIL.Image.fromarray(pixels).resize(
            (width, height), PIL.Image.Resampling.BICUBIC
        )
        glyph = _ink(np.asarray(resized))
        rows, columns = glyph.shape
        for _ in range(_PLACEMENTS):
            top = int(rng.integers(_SIDE - rows + 1))
            left = int(rng.integers(_SIDE - columns + 1))
            box = (top, left, top + rows, left + columns)
            if all(_overlap(box, other) <= _LARGEST_OVERLAP for other in boxes):
                place = canvas[top : top + rows, left : left + columns]
                np.maximum(place, glyph, out=place)
                boxes.append(box)
                labels.append(label)
                break
    return canvas, boxes, labels


def _ink(pixels: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "new_h new_w"]:
    rows, columns = (np.flatnonzero((pixels >= _INK).any(axis=i)) for i in (1, 0))
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _overlap(first: Box, second: Box) -> float:
    """The part of the smaller box that both cover."""
    height = min(first[2], second[2]) - max(first[0], second[0])
    width = min(first[3], second[3]) - max(first[1], second[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return max(height, 0) * max(width, 0) / min(areas)


def _decoded(builder: tfds.core.DatasetBuilder, split: str) -> list[pipeline.Example]:
    """Reads a split into memory: decoding costs more than a small network's step."""
    source = images.encoded_examples(builder, split)
    return [
        {
            "image": np.asarray(images.decoded(stored["image"], "L")),
            "objects": objects.stored_objects(stored["objects"]),
        }
        for stored in (source[index] for index in range(len(source)))
    ]


def _train_example(
    stored: pipeline.Example, rng: np.random.Generator, *, augment: bool
) -> pipeline.Example:
    if not augment:
        return _evaluation_example(stored)
    image, of_scene = PIL.Image.fromarray(stored["image"]), stored["objects"]
    window = objects.random_window(of_scene, rng, largest=2.0)
    pixels = objects.shown(image, window, size=_SIDE, fill=0)
    return _example(np.asarray(pixels), objects.in_window(of_scene, window))


def _evaluation_example(stored: pipeline.Example) -> pipeline.Example:
    return _example(stored["image"], stored["objects"])


def _example(
    pixels: UInt8[np.ndarray, "h w"], of_scene: objects.Objects
) -> pipeline.Example:
    return objects.example(
        pixels[..., None], of_scene, standardise=_standardised, maximum=_MAXIMUM
    )


def _standardised(pixels: UInt8[np.ndarray, "h w 1"]) -> Float[np.ndarray, "h w 1"]:
    return images.standardised(pixels, _MEAN, _DEVIATION)
