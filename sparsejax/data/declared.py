"""Datasets that are not opened: only the shapes of their examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sparsejax.building import ConfigError, build, parameters, resolve
from sparsejax.data.pipeline import Dataset
from sparsejax.data.tokenizers import Bytes


class _Unopened(Sequence):
    """As many examples as anybody may ask for, of which none can be read."""

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, index: Any) -> Any:
        raise LookupError("this dataset has shapes only, it was not opened")


def declared(dataset: str | Mapping[str, Any]) -> Dataset:
    """Builds a dataset of the right shapes from what is known without its files.

    A dataset that is there, or embedded, is opened. For another the shapes are those
    that tfds declares for its name, with the ``image_size`` of the config where images
    differ in size; of text those of the config itself.

    Args:
      dataset: ``config.data`` without the fields that describe batches.

    Returns:
      The dataset; its examples cannot be read if it was not opened.

    Raises:
      ConfigError: the dataset cannot be opened, and tfds does not know its shapes.

    Example:
      >>> found = declared({"name": "imagenet2012", "data_dir": "/nowhere"})
      >>> found.input_shape, found.number_of_classes
      ((224, 224, 3), 1000)
    """
    try:
        return build("data", dataset, "sparsejax.data")
    except ConfigError as error:
        spec = {"name": dataset} if isinstance(dataset, str) else dict(dataset)
        known = _of_text(spec) or _of_images(spec)
        if known is None:
            raise error
    nothing = _Unopened()
    return Dataset(
        train=nothing,
        evaluation=nothing,
        train_transform=lambda example, rng: example,
        evaluation_transform=lambda example: example,
        **known,
    )


def _of_text(spec: dict[str, Any]) -> dict[str, Any] | None:
    function: Any = resolve("data", spec["name"], "sparsejax.data")
    if not {"context", "tokenizer"} <= {*parameters(function)}:
        return None
    settings = {**function.__kwdefaults__, **spec}
    tokenizer = Bytes()
    if settings["tokenizer"] == "bytes":
        size = tokenizer.vocabulary_size
    elif settings["tokenizer"] == "bpe":
        size = settings["vocabulary_size"]
    else:
        return None
    return {
        "number_of_classes": size,
        "input_shape": (settings["context"],),
        "input_dtype": np.int32,
        # That there is one says that this is text; it is not used.
        "tokenizer": tokenizer,
    }


def _of_images(spec: dict[str, Any]) -> dict[str, Any] | None:
    function: Any = resolve("data", spec["name"], "sparsejax.data")
    try:
        features: Any = tfds.builder(function.__name__).info.features
    except tfds.core.DatasetNotFoundError:
        return None
    if "image" not in features or "label" not in features:
        return None
    height, width, channels = features["image"].shape
    if "image_size" in parameters(function):
        height = width = spec.get("image_size", function.__kwdefaults__["image_size"])
    if None in (height, width, channels):
        return None
    return {
        "number_of_classes": features["label"].num_classes,
        "input_shape": (height, width, channels),
    }
