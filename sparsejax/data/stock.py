"""Stock datasets of tfds: opened where they were prepared, else the way to prepare."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sparsejax.building import ConfigError
from sparsejax.data import images, pipeline


def classification(
    name: str,
    *,
    data_dir: str | None,
    evaluation_split: str,
    train_transform: Callable[
        [pipeline.Example, np.random.Generator], pipeline.Example
    ],
    evaluation_transform: Callable[[pipeline.Example], pipeline.Example],
    input_shape: tuple[int, int, int],
    manual: str | None = None,
) -> pipeline.Dataset:
    """Images with one label each, from a dataset of tfds that was prepared.

    Args:
      name: The dataset's name in tfds, with ``/CONFIG`` if it has several.
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      evaluation_split: The split that accuracy is measured on; ``"train"`` is trained
        on.
      train_transform: As in :class:`sparsejax.data.pipeline.Dataset`, of examples with
        ``image``, the bytes of a file, and ``label``.
      evaluation_transform: The same in evaluation.
      input_shape: Height, width and channels of a transformed image.
      manual: For a dataset that cannot be downloaded freely: what to download.

    Returns:
      The dataset; images stay encoded until they are transformed.

    Raises:
      ConfigError: As for :func:`prepared`.
    """
    builder = prepared(name, data_dir=data_dir, manual=manual)
    features: Any = builder.info.features
    return pipeline.Dataset(
        train=images.encoded_examples(builder, "train"),
        evaluation=images.encoded_examples(builder, evaluation_split),
        train_transform=train_transform,
        evaluation_transform=evaluation_transform,
        number_of_classes=features["label"].num_classes,
        input_shape=input_shape,
    )


def prepared(
    name: str, *, data_dir: str | None = None, manual: str | None = None
) -> tfds.core.DatasetBuilder:
    """Opens a dataset of tfds that was prepared in the array_record format.

    Args:
      name: As for :func:`classification`.
      data_dir: As for :func:`classification`.
      manual: As for :func:`classification`.

    Returns:
      The builder.

    Raises:
      ConfigError: If no prepared copy is found, or it is in a format that only
        TensorFlow reads; the message says where it looked, and how to prepare one.

    Example:
      >>> prepared("mnist", data_dir="/nowhere")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ...
      sparsejax.building.ConfigError: config.data.name = 'mnist': not prepared in ...
    """
    root = pathlib.Path(pipeline.data_directory(data_dir) or "~/tensorflow_datasets")
    # A shell expands no tilde within an argument of the command below.
    root = root.expanduser()
    looked_in = root / name
    field = f"config.data.name = {name.partition('/')[0]!r}"
    # Not by its name: some of the classes of tfds import TensorFlow.
    versions = sorted(
        looked_in.glob("*/dataset_info.json"),
        key=lambda file: [int(part) for part in file.parent.name.split(".")],
    )
    if not versions:
        first = f"{manual} into {root}/downloads/manual; " if manual else ""
        raise ConfigError(
            f"{field}: not prepared in {looked_in}; set config.data.data_dir or "
            f"TFDS_DATA_DIR, or prepare it: {first}"
            'pip install "sparsejax[prepare]"; '
            f"python scripts/prepare_data.py {name} --data_dir={root}"
        )
    builder = tfds.builder_from_directory(versions[-1].parent)
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise ConfigError(
            f"{field}: prepared in {builder.data_dir} as {builder.info.file_format}, "
            'which only TensorFlow reads; convert it: pip install "sparsejax[prepare]" '
            f"and tfds convert_format --dataset_dir={builder.data_dir} "
            "--out_file_format=array_record --out_path=..."
        )
    return builder
