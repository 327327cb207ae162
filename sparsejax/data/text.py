"""From documents to rows of tokens, packed: one document after the other."""

from __future__ import annotations

import gzip
import io
import pathlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Int

from sparsejax.building import ConfigError
from sparsejax.data import pipeline
from sparsejax.data.tokenizers import Tokenizer, write_whole


def packed(
    tokens: Sequence[Int[np.ndarray, " _"]], boundary: int
) -> Int[np.ndarray, " tokens"]:
    """All documents one after the other, a boundary before each.

    Args:
      tokens: Of every document.
      boundary: The token to put before.

    Returns:
      The stream, which ends with a boundary.

    Example:
      >>> packed([np.array([1, 2]), np.array([3])], 9).tolist()
      [9, 1, 2, 9, 3, 9]
    """
    mark = np.array([boundary], np.int32)
    pieces = [piece for one in tokens for piece in (mark, one)]
    return np.concatenate([*pieces, mark]).astype(np.int32)


def stream(
    documents: Sequence[bytes],
    tokenizer: Tokenizer,
    *,
    folder: pathlib.Path | None = None,
    name: str = "",
) -> Int[np.ndarray, " tokens"]:
    """The packed tokens of documents, which are kept in a file if that is asked for.

    Args:
      documents: In UTF-8.
      tokenizer: Makes tokens of them.
      folder: Where to keep them, None for nowhere; of these documents and this
        tokenizer alone.
      name: Of the documents, for the file.

    Returns:
      As of `packed`.

    Raises:
      ConfigError: The file cannot be written.
    """
    if folder is None:
        return packed(tokenizer.encode(documents), tokenizer.boundary)
    path = folder / f"{name}-{tokenizer.name}.npy"
    if not path.is_file():
        found = packed(tokenizer.encode(documents), tokenizer.boundary)
        buffer = io.BytesIO()
        np.save(buffer, found)
        write_whole(path, buffer.getvalue())
    return np.load(path)


class Rows:
    """A stream of tokens, cut into rows.

    Args:
      stream: Of `packed`.
      context: Tokens that a network reads at once; a row has one more, the target of
        the last.
      spare: How many more an example has, for a window that is moved at random.
      most: How many rows there are at the most; default: as many as the stream has.
    """

    def __init__(
        self,
        stream: Int[np.ndarray, " _"],
        context: int,
        *,
        spare: int = 0,
        most: int | None = None,
    ):
        self._stream, self._context, self._spare = stream, context, spare
        targets = len(stream) - 1 - spare
        # Without spare tokens the last row may be short.
        size = targets // context if spare else -(-targets // context)
        self._size = max(size if most is None else min(size, most), 0)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> pipeline.Example:
        start = index * self._context
        return {"tokens": self._stream[start : start + self._context + 1 + self._spare]}


class Documents:
    """Rows that are read from stored documents, for corpora larger than the memory.

    A row is a random part of a few documents, one after the other, with as many more
    as it takes to fill it.

    Args:
      source: Examples with the bytes of a text.
      field: Where they are in an example.
      tokenizer: Makes tokens of them.
      context: As for `Rows`.
      every: A row begins at every so many documents: about as many as fill one.
    """

    def __init__(
        self,
        source: pipeline.Source,
        field: str,
        tokenizer: Tokenizer,
        context: int,
        every: int,
    ):
        self._source, self._field, self._tokenizer = source, field, tokenizer
        self._context, self._every = context, every

    def __len__(self) -> int:
        return len(self._source) // self._every

    def __getitem__(self, index: int) -> pipeline.Example:
        first, pieces, size = index * self._every, [], 0
        position = first
        # All that come before the next row's first, so that every document is read.
        while size < self._context + 1 or position < first + self._every:
            text = self._source[position % len(self._source)][self._field]
            [tokens] = self._tokenizer.encode([as_bytes(text)])
            pieces.append(tokens)
            size += len(tokens) + 1
            position += 1
        return {"tokens": packed(pieces, self._tokenizer.boundary)}


def row(
    example: pipeline.Example,
    rng: np.random.Generator | None = None,
    *,
    context: int,
    tokenizer: Tokenizer,
) -> pipeline.Example:
    """What a network learns from a stretch of packed tokens.

    Args:
      example: With ``tokens``: at least one, and in training at least ``context + 1``.
      rng: Draws where the window begins; None for the beginning.
      context: Tokens in the row.
      tokenizer: Where documents begin, and how long tokens are.

    Returns:
      Arrays of ``context`` numbers: ``tokens``, and the ``targets`` that follow each;
      ``segments``, the number of the document in the row, and ``positions`` in it;
      ``target_weights``, 0 for padding; and ``target_bytes`` that each stands for.

    Example:
      >>> from sparsejax.data.tokenizers import Bytes
      >>> found = row({"tokens": np.array([256, 65, 256, 66])}, context=4,
      ...             tokenizer=Bytes())
      >>> found["segments"].tolist(), found["positions"].tolist()
      ([1, 1, 2, 2], [0, 1, 0, 1])
      >>> found["targets"].tolist(), found["target_weights"].tolist()
      ([65, 256, 66, 256], [1.0, 1.0, 1.0, 0.0])
    """
    stretch = example["tokens"]
    start = 0
    if rng is not None:
        start = int(rng.integers(0, max(len(stretch) - context, 1)))
    window = stretch[start : start + context + 1]
    missing = context + 1 - len(window)
    boundary = tokenizer.boundary
    window = np.pad(window, (0, missing), constant_values=boundary).astype(np.int32)
    tokens, targets = window[:-1], window[1:]
    begins = tokens == boundary
    places = np.arange(context, dtype=np.int32)
    weights = np.ones(context, np.float32)
    weights[context - missing :] = 0
    return {
        "tokens": tokens,
        "targets": targets,
        "segments": np.cumsum(begins, dtype=np.int32),
        "positions": places - np.maximum.accumulate(np.where(begins, places, 0)),
        "target_weights": weights,
        "target_bytes": (tokenizer.byte_lengths[targets] * weights).astype(np.float32),
    }


def references(
    training: Sequence[bytes], held_out: Sequence[bytes]
) -> dict[str, float]:
    """Bits per byte of the held-out documents that need no network.

    Args:
      training: Documents whose bytes are counted.
      held_out: Documents to compress.

    Returns:
      ``unigram_bits_per_byte``: each byte by its frequency in training.
      ``gzip_bits_per_byte``: all documents in one file, compressed as far as gzip does.

    Example:
      >>> found = references([b"ab" * 50], [b"ab" * 100])
      >>> 1 < found["unigram_bits_per_byte"] < 5, found["gzip_bits_per_byte"] < 2
      (True, True)
    """
    text = b"".join(held_out)
    counts = np.ones(256)
    for one in training:
        counts += np.bincount(np.frombuffer(one, np.uint8), minlength=256)
    held = np.bincount(np.frombuffer(text, np.uint8), minlength=256)
    bits = -(held * np.log2(counts / counts.sum())).sum()
    size = max(len(text), 1)
    return {
        "unigram_bits_per_byte": float(bits / size),
        "gzip_bits_per_byte": 8 * len(gzip.compress(text, 9)) / size,
    }


def as_bytes(text: Any) -> bytes:
    """A text as tfds reads it: bytes already, or a string."""
    return text.encode() if isinstance(text, str) else bytes(text)


def dataset(
    train: pipeline.Source,
    evaluation: pipeline.Source,
    *,
    context: int,
    tokenizer: Tokenizer,
    make_row: Callable[..., pipeline.Example] = row,
    **described: Any,
) -> pipeline.Dataset:
    """A dataset of rows of tokens.

    Args:
      train: Stretches of tokens to draw windows from.
      evaluation: Rows, one after the other.
      context: Tokens that a network reads at once.
      tokenizer: Of the tokens.
      make_row: Makes a row of an example, as :func:`row`.
      **described: Other fields of :class:`sparsejax.data.pipeline.Dataset`.

    Returns:
      The dataset.
    """
    transform = partial(make_row, context=context, tokenizer=tokenizer)
    return pipeline.Dataset(
        train=train,
        evaluation=evaluation,
        train_transform=transform,
        evaluation_transform=transform,
        number_of_classes=tokenizer.vocabulary_size,
        input_shape=(context,),
        input_dtype=np.int32,
        tokenizer=tokenizer,
        **described,
    )


def check_rows(context: int, evaluation_rows: int | None) -> None:
    """Raises unless there are rows, and tokens in them."""
    if context < 2:
        raise ConfigError(f"config.data.context = {context}: use at least 2, or 256.")
    if evaluation_rows is not None and evaluation_rows < 1:
        raise ConfigError(
            f"config.data.evaluation_rows = {evaluation_rows}: use at least 1, or None "
            "for all."
        )
