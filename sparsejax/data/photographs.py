"""What ImageNet and its subsets share: augmentation, evaluation, standardisation."""

import io
from functools import partial

import numpy as np
import PIL.Image

from sparsejax.building import ConfigError
from sparsejax.data import augmentation, images, pipeline, stock

#: Mean and standard deviation of ImageNet's training images, in units of pixels.
MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32) * 255


def dataset(
    name: str,
    *,
    data_dir: str | None,
    image_size: int,
    colour_jitter: float,
    manual: str | None = None,
) -> pipeline.Dataset:
    """A stock dataset of photographs with the splits ``train`` and ``validation``.

    Training: :func:`~sparsejax.data.augmentation.random_resized_crop`, mirrored half of
    the time, and :func:`~sparsejax.data.augmentation.colour_jittered` if asked for.
    Evaluation: :func:`~sparsejax.data.augmentation.central_crop`. Both standardised by
    ImageNet's mean and standard deviation.

    Args:
      name: The dataset's name in tfds, with ``/CONFIG`` if it has several.
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      image_size: Height and width of the images.
      colour_jitter: Strength of the colour jitter, in [0, 1]; 0 is none.
      manual: As for :func:`sparsejax.data.stock.classification`.

    Returns:
      The dataset.

    Raises:
      ConfigError: If an argument is out of range, or no prepared copy is found.
    """
    if image_size < 1:
        raise ConfigError(
            f"config.data.image_size = {image_size} is not positive; use 224."
        )
    if not 0 <= colour_jitter <= 1:
        raise ConfigError(
            f"config.data.colour_jitter = {colour_jitter} is not in [0, 1]; use 0 or "
            "0.4."
        )
    return stock.classification(
        name,
        data_dir=data_dir,
        evaluation_split="validation",
        train_transform=partial(
            train_example, size=image_size, colour_jitter=colour_jitter
        ),
        evaluation_transform=partial(evaluation_example, size=image_size),
        input_shape=(image_size, image_size, 3),
        manual=manual,
    )


def train_example(
    example: pipeline.Example,
    rng: np.random.Generator,
    *,
    size: int,
    colour_jitter: float = 0.0,
) -> pipeline.Example:
    """Decodes, augments and standardises a stored example.

    Args:
      example: ``image``, the bytes of a JPEG or PNG file, and ``label``.
      rng: Draws the augmentation.
      size: Height and width of the image.
      colour_jitter: As for :func:`dataset`.

    Returns:
      ``{"image": float32 [size, size, 3], "label": int32}``.
    """
    image = PIL.Image.open(io.BytesIO(example["image"]))
    image = augmentation.random_resized_crop(image, rng, size=size)
    image = augmentation.mirrored(image, rng)
    image = augmentation.colour_jittered(image, rng, strength=colour_jitter)
    return _standardised(image, example["label"])


def evaluation_example(example: pipeline.Example, *, size: int) -> pipeline.Example:
    """Decodes a stored example and standardises its central crop.

    Args:
      example: As for :func:`train_example`.
      size: Height and width of the image.

    Returns:
      As for :func:`train_example`.
    """
    image = PIL.Image.open(io.BytesIO(example["image"]))
    image = augmentation.central_crop(image, size=size)
    return _standardised(image, example["label"])


def _standardised(image: PIL.Image.Image, label: int) -> pipeline.Example:
    pixels = images.standardised(np.asarray(image), MEAN, DEVIATION)
    return {"image": pixels, "label": np.int32(label)}
