"""What the datasets of small images share: crops, mirroring, images kept in memory."""

from functools import partial
from typing import Any

import numpy as np

from sparsejax.building import ConfigError
from sparsejax.data import augmentation, images, pipeline, stock


def dataset(
    name: str,
    *,
    data_dir: str | None,
    input_shape: tuple[int, int, int],
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
    border: int = 0,
    padding: str = "symmetric",
    mirrors: bool = False,
) -> pipeline.Dataset:
    """A stock dataset of small images with the splits ``train`` and ``test``.

    Args:
      name: The dataset's name in tfds.
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      input_shape: Height, width and channels of the images.
      statistics: Mean and standard deviation of the training images by channel, in
        units of the whole range.
      border: Training images are
        :func:`~sparsejax.data.augmentation.padded_crop` with a border of so many
        pixels; 0 is none.
      padding: How the border is filled: ``"symmetric"`` or ``"zero"``.
      mirrors: Whether half of the training images are mirrored.

    Returns:
      The dataset.

    Raises:
      ConfigError: If the padding is unknown, or no prepared copy is found.
    """
    if padding not in augmentation.PADDINGS:
        raise ConfigError(
            f"config.data.padding = {padding!r}: use one of "
            f"{', '.join(map(repr, augmentation.PADDINGS))}."
        )
    mean, deviation = (np.array(values, np.float32) * 255 for values in statistics)
    evaluation_transform = partial(_evaluation_example, mean=mean, deviation=deviation)
    stored = stock.classification(
        name,
        data_dir=data_dir,
        evaluation_split="test",
        train_transform=partial(
            _train_example,
            border=border,
            padding=padding,
            mirrors=mirrors,
            transform=evaluation_transform,
        ),
        evaluation_transform=evaluation_transform,
        input_shape=input_shape,
    )
    mode = "L" if input_shape[2] == 1 else "RGB"
    return stored._replace(
        train=Decoded(stored.train, mode),
        evaluation=Decoded(stored.evaluation, mode),
    )


class Decoded:
    """Examples whose images are decoded when they are read first, and kept.

    Decoding costs as much as everything else that is done to a small image. Worker
    processes each keep what they have read themselves.

    Args:
      source: Examples with encoded images.
      mode: PIL's name of the pixel format.
    """

    def __init__(self, source: pipeline.Source, mode: str):
        self._source, self._mode = source, mode
        self._known: dict[int, pipeline.Example] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> pipeline.Example:
        found = self._known.get(index)
        if found is None:
            example = self._source[index]
            image = np.asarray(images.decoded(example["image"], self._mode))
            if image.ndim == 2:
                image = image[..., None]
            found = {"image": image, "label": np.int32(example["label"])}
            self._known[index] = found
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": {}}


def _train_example(
    example: pipeline.Example,
    rng: np.random.Generator,
    *,
    border: int,
    padding: str,
    mirrors: bool,
    transform: Any,
) -> pipeline.Example:
    image = example["image"]
    if border:
        image = augmentation.padded_crop(image, rng, border=border, padding=padding)
    if mirrors and rng.random() < 0.5:
        image = image[:, ::-1]
    return transform({"image": image, "label": example["label"]})


def _evaluation_example(
    example: pipeline.Example, *, mean: np.ndarray, deviation: np.ndarray
) -> pipeline.Example:
    image = images.standardised(example["image"], mean, deviation)
    return {"image": image, "label": example["label"]}
