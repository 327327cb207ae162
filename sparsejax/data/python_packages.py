"""Pieces of Python's standard library, to be told by the package that they are of."""

import collections
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from sparsejax.data import embedded, pipeline, text
from sparsejax.data.python_standard_library import PythonStandardLibrary, config, stored

_PADDING = 256


class _Pieces:
    """Pieces of files by their index, each with the number of its file's package."""

    def __init__(self, files: Sequence[tuple[bytes, int]], context: int):
        self._files, self._context = files, context
        self._starts = [
            (number, start)
            for number, (contents, _) in enumerate(files)
            for start in range(0, len(contents), context)
        ]

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> pipeline.Example:
        number, start = self._starts[index]
        contents, label = self._files[number]
        return {"text": contents, "start": start, "label": label}


def python_packages(
    *, data_dir: str | None = None, context: int = 256, fewest_files: int = 12
) -> pipeline.Dataset:
    """Bytes of Python files, and the package of each: asyncio, email, idlelib, ....

    Files are held out as in `sparsejax.data.python_standard_library`. Training pieces
    begin anywhere; evaluation pieces cover every held-out file once.

    Args:
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      context: Bytes of a piece; shorter ones are padded by token 256.
      fewest_files: Packages of fewer files are left out.

    Returns:
      The dataset; an example has ``tokens`` and ``label``.

    Raises:
      ConfigError: If `data_dir` cannot be written to, or an argument is out of range.

    Example:
      >>> import tempfile
      >>> dataset = python_packages(data_dir=tempfile.mkdtemp())
      >>> "asyncio" in dataset.class_names
      True
    """
    text.check_rows(context, None)
    name = config()
    builder = embedded.prepared(PythonStandardLibrary, data_dir, config=name)
    found = {
        split: [
            (example["path"].decode().split("/")[0], example["text"])
            for example in stored(builder, split)
            if b"/" in example["path"]
        ]
        for split in ("train", "validation")
    }
    counts = collections.Counter(package for package, _ in found["train"])
    packages = sorted(name for name, count in counts.items() if count >= fewest_files)
    labels = {package: label for label, package in enumerate(packages)}
    pieces = {
        split: _Pieces(
            [(contents, labels[name]) for name, contents in files if name in labels],
            context,
        )
        for split, files in found.items()
    }
    transform = partial(_example, context=context)
    return pipeline.Dataset(
        train=pieces["train"],
        evaluation=pieces["validation"],
        train_transform=transform,
        evaluation_transform=transform,
        number_of_classes=len(packages),
        input_shape=(context,),
        class_names=packages,
        input_dtype=np.int32,
        input_name="tokens",
        identity=f"packages of {name}",
    )


def _example(
    example: pipeline.Example, rng: np.random.Generator | None = None, *, context: int
) -> dict[str, Any]:
    start = example["start"]
    if rng is not None:
        start = int(rng.integers(0, max(len(example["text"]) - context, 0) + 1))
    piece = np.frombuffer(example["text"][start : start + context], np.uint8)
    tokens = np.full(context, _PADDING, np.int32)
    tokens[: len(piece)] = piece
    return {"tokens": tokens, "label": np.int32(example["label"])}
