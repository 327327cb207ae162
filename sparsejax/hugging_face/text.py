"""Text as the tokens of a checkpoint, in windows to calibrate and to evaluate by."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from sparsejax.extras import require

__all__ = ["Windows", "read_pieces", "tokenized", "windows"]

_PER_TOKEN = 8
"""Characters of a piece for each token in a window: about two windows of prose."""

_SHARES = 20
"""Texts that are shorter than so many pieces have shorter pieces."""


class Windows(NamedTuple):
    """Tokens of two disjoint parts of a text, each ``[windows, length]``.

    Attributes:
      calibration: what is pruned by.
      held_out: what the network is evaluated by.
    """

    calibration: Int[np.ndarray, "_ length"]
    held_out: Int[np.ndarray, "_ length"]


def read_pieces(path: pathlib.Path, length: int) -> list[str]:
    """Cuts a text file, or all those in a folder, into pieces at ends of lines.

    Args:
      path: of the file or the folder.
      length: tokens in a window, of which a piece has some.

    Raises:
      ValueError: there is no text in it, or it is not UTF-8; one line.
    """
    files = (
        sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    )
    try:
        texts = [file.read_text(encoding="utf-8") for file in files]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not text in UTF-8 ({error}); give a file of plain text."
        ) from error
    total = sum(map(len, texts))
    size = max(min(_PER_TOKEN * length, total // _SHARES), 1)
    pieces = [piece for text in texts for piece in _cut(text, size)]
    if not pieces:
        raise ValueError(f"{path} has no text in it; give a file that has.")
    return pieces


def _cut(text: str, size: int) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start + size)
        end = len(text) if end < 0 else end + 1
        # A line may be as long as a book.
        end = min(end, start + 2 * size)
        yield text[start:end]
        start = end


def tokenized(
    folder: pathlib.Path, vocabulary: int, pieces: Iterable[str]
) -> Iterator[Int[np.ndarray, " _"]]:
    """The tokens of every piece, by the ``tokenizer.json`` of a checkpoint.

    Without one, text is its bytes if the vocabulary is of them: 256, and perhaps one
    more for the beginning of a document.

    Raises:
      ValueError: neither is so, or a token is not in the vocabulary.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        if vocabulary not in (256, 257):
            raise ValueError(
                f"{folder} has no tokenizer.json, and its vocabulary of {vocabulary} "
                "tokens is not that of bytes; write one beside it: AutoTokenizer."
                "from_pretrained(NAME).save_pretrained(FOLDER) of transformers."
            )
        for piece in pieces:
            yield np.frombuffer(piece.encode(), np.uint8).astype(np.int32)
        return
    library = require("tokenizers", extra="train")
    try:
        tokenizer = library.Tokenizer.from_str(file.read_text(encoding="utf-8"))
    # The library raises plain exceptions.
    except Exception as error:
        raise ValueError(
            f"{file} cannot be read ({error}); download it again."
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for piece in pieces:
        found = np.asarray(tokenizer.encode(piece, add_special_tokens=False).ids)
        if found.size and found.max() >= vocabulary:
            raise ValueError(
                f"{file} makes token {found.max()}, which a vocabulary of {vocabulary} "
                "does not have; take the tokenizer of the same checkpoint."
            )
        yield found.astype(np.int32)


def windows(
    folder: pathlib.Path,
    vocabulary: int,
    calibration: list[str] | None,
    held_out: list[str] | None,
    *,
    length: int,
    samples: int,
    evaluation_samples: int,
    seed: int,
) -> Windows:
    """Draws windows of a text at random, and others of a part that is held out.

    Args:
      folder: with the tokenizer.
      vocabulary: of the network.
      calibration: pieces of text; None if there is only one to evaluate by.
      held_out: pieces of another text; None for a tenth of the first one.
      length: tokens in a window.
      samples: windows to calibrate by; 0 for none.
      evaluation_samples: the most windows to evaluate by.
      seed: of the draw.

    Returns:
      The windows, of which there may be fewer than asked for.

    Raises:
      ValueError: a text is too short for a single window, or as `tokenized`.
    """
    random = np.random.default_rng(seed)
    given = calibration or []
    pieces = [given[i] for i in random.permutation(len(given))]
    if held_out is None:
        kept = max(len(pieces) // 10, 1)
        held_out, pieces = pieces[:kept], pieces[kept:]

    def cut(what: str, pieces: list[str], count: int) -> Int[np.ndarray, "_ length"]:
        found, size = [], 0
        if count == 0:
            return np.zeros((0, length), np.int32)
        for tokens in tokenized(folder, vocabulary, pieces):
            found.append(tokens)
            size += len(tokens)
            if size >= count * length:
                break
        rows = min(size // length, count)
        if rows == 0:
            raise ValueError(
                f"{what} is too short: {size} tokens, less than a window of {length}; "
                "give more text, or shorter windows."
            )
        return np.concatenate(found)[: rows * length].reshape(rows, length)

    return Windows(
        cut("the calibration text", pieces, samples),
        cut("the held-out text", held_out, evaluation_samples),
    )
