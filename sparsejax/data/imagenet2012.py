"""ImageNet (ILSVRC 2012): 1,281,167 images to train, 50,000 to evaluate."""

import math
from functools import partial

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from sparsejax.building import ConfigError
from sparsejax.data import pipeline

# The usual statistics of the training images, in units of pixels.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32) * 255

_CROP_AREA = (0.08, 1.0)
_CROP_RATIO = (3 / 4, 4 / 3)
_CROP_ATTEMPTS = 10

_PREPARE = (
    'pip install "sparsejax[prepare]"; download ILSVRC2012_img_train.tar and '
    "ILSVRC2012_img_val.tar from image-net.org into {downloads}; "
    "python -c \"import tensorflow_datasets as tfds; tfds.builder('imagenet2012', "
    "data_dir='{data_dir}', file_format='array_record').download_and_prepare()\""
)


def imagenet2012(
    *, data_dir: str | None = None, image_size: int = 224
) -> pipeline.Dataset:
    """ImageNet with the usual augmentation, from a prepared array_record copy.

    Training: a crop of 8 % to 100 % of the area with an aspect ratio of 3/4 to 4/3,
    resized, and mirrored half of the time. Evaluation: the shorter side resized to 8/7
    of `image_size` (256 for 224), then the central crop. Both bilinear with
    antialiasing, and standardised by ImageNet's mean and standard deviation.

    Args:
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      image_size: Height and width of the images.

    Returns:
      The dataset; image shape (image_size, image_size, 3), 1000 classes.

    Raises:
      ConfigError: If no prepared copy is found; the message says where it looked, and
        how to prepare one.

    Example:
      >>> imagenet2012(data_dir="/nowhere")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ...
      sparsejax.building.ConfigError: config.data.name = 'imagenet2012': not ...
    """
    if image_size < 1:
        raise ConfigError(
            f"config.data.image_size = {image_size} is not positive; use 224."
        )
    builder = _prepared(pipeline.data_directory(data_dir))
    return pipeline.Dataset(
        train=pipeline.encoded_examples(builder, "train"),
        evaluation=pipeline.encoded_examples(builder, "validation"),
        train_transform=partial(_train_example, size=image_size),
        evaluation_transform=partial(_evaluation_example, size=image_size),
        number_of_classes=1000,
        image_shape=(image_size, image_size, 3),
    )


def _prepared(data_dir: str | None) -> tfds.core.DatasetBuilder:
    builder = tfds.builder("imagenet2012", data_dir=data_dir)
    looked_in = builder.data_dir
    if not builder.info.splits:
        root = builder.data_dir.split("/imagenet2012/")[0]
        how = _PREPARE.format(data_dir=root, downloads=f"{root}/downloads/manual")
        raise ConfigError(
            f"config.data.name = 'imagenet2012': not prepared in {looked_in}; set "
            f"config.data.data_dir or TFDS_DATA_DIR, or prepare it: {how}"
        )
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise ConfigError(
            f"config.data.name = 'imagenet2012': prepared in {looked_in} as "
            f"{builder.info.file_format}, which only TensorFlow reads; convert it: "
            'pip install "sparsejax[prepare]"; tfds convert_format '
            f"--dataset_dir={looked_in} --out_file_format=array_record --out_path=..."
        )
    return builder


def _train_example(
    example: pipeline.Example, rng: np.random.Generator, *, size: int
) -> pipeline.Example:
    image = pipeline.decoded(example["image"], "RGB")
    box = _random_crop(image.size, rng)
    image = image.resize((size, size), PIL.Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(image)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return _standardised(pixels, example["label"])


def _evaluation_example(example: pipeline.Example, *, size: int) -> pipeline.Example:
    image = pipeline.decoded(example["image"], "RGB")
    shorter = round(size * 8 / 7)
    scale = shorter / min(image.size)
    width, height = (max(shorter, round(side * scale)) for side in image.size)
    image = image.resize((width, height), PIL.Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    image = image.crop((left, top, left + size, top + size))
    return _standardised(np.asarray(image), example["label"])


def _standardised(pixels: np.ndarray, label: int) -> pipeline.Example:
    image = pipeline.standardised(pixels, _MEAN, _DEVIATION)
    return {"image": image, "label": np.int32(label)}


def _random_crop(
    size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draws a box (left, top, right, bottom) as Szegedy et al. (2015) do.

    When no attempt fits, the box is the central one of the nearest allowed ratio.
    """
    image_width, image_height = size
    for _ in range(_CROP_ATTEMPTS):
        area = image_width * image_height * rng.uniform(*_CROP_AREA)
        ratio = math.exp(rng.uniform(*np.log(_CROP_RATIO)))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= image_width and 0 < height <= image_height:
            left = int(rng.integers(image_width - width + 1))
            top = int(rng.integers(image_height - height + 1))
            return left, top, left + width, top + height
    smallest, largest = _CROP_RATIO
    width = min(image_width, max(1, round(image_height * largest)))
    height = min(image_height, max(1, round(image_width / smallest)))
    left, top = (image_width - width) // 2, (image_height - height) // 2
    return left, top, left + width, top + height
