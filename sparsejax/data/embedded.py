"""Preparing the datasets that come with a library: at first use, without TensorFlow."""

import contextlib
import errno
import functools
import io
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from sparsejax.building import ConfigError
from sparsejax.data import pipeline


def prepared(
    builder: type[tfds.core.GeneratorBasedBuilder],
    data_dir: str | None,
    *,
    config: str | None = None,
) -> tfds.core.DatasetBuilder:
    """Opens a dataset of our own, and prepares it unless it is there.

    Two processes may do so at once, and one that is killed leaves nothing behind that
    is read.

    Args:
      builder: Generates the examples; images as ``PIL.Image``, since tfds encodes
        arrays with TensorFlow.
      data_dir: As for :func:`sparsejax.data.pipeline.data_directory`.
      config: A name for what this machine generates, if others generate something else.

    Returns:
      A builder of the prepared dataset, in the array_record format.

    Raises:
      ConfigError: If `data_dir` cannot be written to.
    """
    make = functools.partial(_builder, builder, config)
    target = Path(make(pipeline.data_directory(data_dir)).data_dir)
    if not _is_complete(target):
        _prepare(make, target)
    return tfds.builder_from_directory(target)


def _prepare(
    make: Callable[..., tfds.core.GeneratorBasedBuilder], target: Path
) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".preparing-", dir=target.parent))
    except OSError as error:
        raise ConfigError(
            f"config.data.data_dir: cannot write to {target.parent} "
            f"({error.strerror}); set config.data.data_dir or TFDS_DATA_DIR to a "
            "writable directory."
        ) from error
    try:
        own = make(scratch)
        # It prints bars and lines about a download, for what takes seconds.
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            own.download_and_prepare()
        _publish(Path(own.data_dir), target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _builder(
    builder: type[tfds.core.GeneratorBasedBuilder],
    config: str | None,
    data_dir: str | os.PathLike[str] | None,
) -> tfds.core.GeneratorBasedBuilder:
    options: dict[str, Any] = {"data_dir": data_dir, "file_format": "array_record"}
    if config is not None:
        options["config"] = tfds.core.BuilderConfig(
            name=config, version=builder.VERSION
        )
    return builder(**options)


def _is_complete(directory: Path) -> bool:
    # Directories appear here by one rename, complete; only something else can have
    # left one without its last-written file.
    return (directory / "dataset_info.json").is_file()


def _publish(prepared: Path, target: Path) -> None:
    """Renames the prepared directory into place, unless another process was first."""
    try:
        prepared.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _is_complete(target):
            shutil.rmtree(target)
            prepared.rename(target)
