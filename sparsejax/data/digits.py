"""Digits: the 1,797 handwritten digits of 8x8 pixels that scikit-learn embeds.

A tfds builder of our own stores them as tfds stores every dataset; preparing it takes
a second and needs no download.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import PIL.Image
import sklearn.datasets
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from sparsejax.building import ConfigError
from sparsejax.data import embedded, images, pipeline

_TEST_EVERY = 5
_PIXEL_SCALE = 15
# Of the 1,437 training images, in stored units.
_MEAN = np.array([73.3811], np.float32)
_DEVIATION = np.array([90.2921], np.float32)


class Digits(tfds.core.GeneratorBasedBuilder):
    """The digits of scikit-learn, split into 1,437 to train and 360 to test.

    The split is fixed: with the examples sorted by label (a stable sort, so otherwise
    in scikit-learn's order), the first and every fifth after it are the test examples.
    Each class has its share to within one example. Pixels are scikit-learn's 0 to 16
    times 15.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of 8x8 pixels, from scikit-learn.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(8, 8, 1), dtype=np.uint8, encoding_format="png"
                    ),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, pixels, label in stored_digits(split):
            # A PIL image is encoded without TensorFlow, an array is not.
            yield index, {"image": PIL.Image.fromarray(pixels), "label": label}


def stored_digits(split: str) -> list[tuple[int, UInt8[np.ndarray, "8 8"], int]]:
    """The digits of a split: their indices in scikit-learn, their pixels and labels.

    Args:
      split: ``"train"`` or ``"test"``.

    Returns:
      The digits in scikit-learn's order.

    Example:
      >>> index, pixels, label = stored_digits("test")[0]
      >>> index, pixels.shape, label
      (0, (8, 8), 0)
    """
    loaded: Any = sklearn.datasets.load_digits(return_X_y=True)
    pixels, labels = loaded
    scaled = (pixels * _PIXEL_SCALE).astype(np.uint8).reshape(-1, 8, 8)
    order = np.argsort(labels, kind="stable")
    is_test = np.arange(len(order)) % _TEST_EVERY == 0
    chosen = np.sort(order[is_test == (split == "test")])
    return [(index, scaled[index], int(labels[index])) for index in chosen.tolist()]


def digits(*, data_dir: str | None = None, shift: int = 0) -> pipeline.Dataset:
    """Handwritten digits of 8x8 pixels, 1,437 to train and 360 to test.

    Prepared at first use; two processes may do so at once, and one that was killed
    leaves nothing behind that is read. Images are standardised by the mean and standard
    deviation of all training pixels.

    Args:
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      shift: Training images are moved by up to this many pixels along each axis, at
        random; 0 leaves them as they are.

    Returns:
      The dataset; image shape (8, 8, 1), 10 classes.

    Raises:
      ConfigError: If `data_dir` cannot be written to, or `shift` is not in [0, 8).

    Example:
      >>> import tempfile
      >>> dataset = digits(data_dir=tempfile.mkdtemp())
      >>> len(dataset.train), len(dataset.evaluation)
      (1437, 360)
    """
    if not 0 <= shift < 8:
        raise ConfigError(f"config.data.shift = {shift} is not in [0, 8); use 0 or 1.")
    builder = embedded.prepared(Digits, data_dir)
    return pipeline.Dataset(
        train=_decoded(builder, "train"),
        evaluation=_decoded(builder, "test"),
        train_transform=partial(_train_example, shift=shift),
        evaluation_transform=_evaluation_example,
        number_of_classes=10,
        input_shape=(8, 8, 1),
    )


def _decoded(builder: tfds.core.DatasetBuilder, split: str) -> list[pipeline.Example]:
    """Reads a split into memory: decoding costs more than a small network's step."""
    source = images.encoded_examples(builder, split)
    return [
        {
            "image": np.asarray(images.decoded(example["image"], "L"))[..., None],
            "label": example["label"],
        }
        for example in (source[index] for index in range(len(source)))
    ]


def _evaluation_example(example: pipeline.Example) -> pipeline.Example:
    image = images.standardised(example["image"], _MEAN, _DEVIATION)
    return {"image": image, "label": np.int32(example["label"])}


def _train_example(
    example: pipeline.Example, rng: np.random.Generator, *, shift: int
) -> pipeline.Example:
    image = example["image"]
    if shift:
        down, right = rng.integers(0, 2 * shift + 1, size=2)
        padded = np.pad(image, ((shift, shift), (shift, shift), (0, 0)))
        image = padded[down : down + 8, right : right + 8]
    return _evaluation_example({"image": image, "label": example["label"]})
