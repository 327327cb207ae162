"""Text as numbers and back: bytes, or pairs of them that a corpus taught (BPE).

Byte-pair encoding is Sennrich et al., 2016, on bytes as in GPT-2; the library
`tokenizers` does it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Int

from sparsejax.building import ConfigError
from sparsejax.extras import require

_BOUNDARY = "<|endoftext|>"


class Tokenizer(Protocol):
    """What a task needs of one.

    Attributes:
      name: Such as ``"bytes"``; says with the corpus what the tokens are.
      vocabulary_size: Tokens are 0 to this, exclusive.
      boundary: The token before every document.
      byte_lengths: For every token how many bytes of text it stands for; 0 for the
        boundary.
    """

    name: str
    vocabulary_size: int
    boundary: int
    byte_lengths: Int[np.ndarray, " vocabulary"]

    def encode(self, documents: Sequence[bytes]) -> list[Int[np.ndarray, " tokens"]]:
        """The tokens of every document, without boundaries."""
        ...

    def decode(self, tokens: Iterable[int]) -> bytes:
        """The text of some tokens; boundaries have none."""
        ...


class Bytes:
    """Every byte is a token; token 256 is the boundary.

    Example:
      >>> tokenizer = Bytes()
      >>> tokenizer.encode([b"hi"])[0].tolist(), tokenizer.decode([256, 104, 105])
      ([104, 105], b'hi')
    """

    name = "bytes"
    vocabulary_size = 257
    boundary = 256
    byte_lengths = np.append(np.ones(256, np.int32), np.int32(0))

    def encode(self, documents: Sequence[bytes]) -> list[Int[np.ndarray, " tokens"]]:
        """The bytes of every document."""
        return [np.frombuffer(one, np.uint8).astype(np.int32) for one in documents]

    def decode(self, tokens: Iterable[int]) -> bytes:
        """The bytes among the tokens."""
        return bytes(token for token in tokens if token < 256)


class BytePairs:
    """Byte-pair encoding as a ``tokenizer.json`` of the library `tokenizers` says.

    Args:
      path: The file; of bytes, as GPT-2's and `trained`'s are.
      boundary: The text of the token between documents.

    Raises:
      ConfigError: The file cannot be read, or lacks the boundary.
    """

    def __init__(self, path: str | os.PathLike[str], boundary: str = _BOUNDARY):
        library = require("tokenizers", extra="train")
        try:
            text = pathlib.Path(path).read_text()
            self._tokenizer = library.Tokenizer.from_str(text)
        # The library raises plain exceptions.
        except Exception as error:
            raise ConfigError(
                f"config.data.tokenizer: {path} cannot be read ({error}); give the "
                "tokenizer.json of the library tokenizers, 'bytes' or 'bpe'."
            ) from error
        found = self._tokenizer.token_to_id(boundary)
        if found is None:
            raise ConfigError(
                f"config.data.tokenizer: {path} has no token {boundary!r} to stand "
                "between documents."
            )
        self.boundary: int = found
        self.vocabulary_size: int = self._tokenizer.get_vocab_size()
        self.name = f"bpe{self.vocabulary_size}"
        written = map(self._tokenizer.id_to_token, range(self.vocabulary_size))
        try:
            self._bytes = [_bytes_of(token or "") for token in written]
        except KeyError as error:
            raise ConfigError(
                f"config.data.tokenizer: {path} has tokens that are not of bytes "
                f"({error} in one); give one of the kind of GPT-2's."
            ) from error
        self._bytes[found] = b""
        self.byte_lengths = np.array([*map(len, self._bytes)], np.int32)

    def encode(self, documents: Sequence[bytes]) -> list[Int[np.ndarray, " tokens"]]:
        """The tokens of every document, which has to be UTF-8."""
        texts = [one.decode("utf-8", errors="replace") for one in documents]
        found = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return [np.array(one.ids, np.int32) for one in found]

    def decode(self, tokens: Iterable[int]) -> bytes:
        """The bytes of the tokens, which may begin or end within a character."""
        return b"".join(self._bytes[int(token)] for token in tokens)


def _characters() -> dict[str, int]:
    """How bytes are written in tokens: as themselves, or from U+0100 on in order."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    return {
        **{chr(byte): byte for byte in printed},
        **{chr(256 + place): byte for place, byte in enumerate(others)},
    }


_BYTES = _characters()


def _bytes_of(token: str) -> bytes:
    return bytes(_BYTES[character] for character in token)


def train_byte_pairs(
    documents: Iterable[bytes], vocabulary_size: int, path: pathlib.Path
) -> None:
    """Learns a vocabulary from documents and writes its ``tokenizer.json``.

    Args:
      documents: In UTF-8.
      vocabulary_size: Tokens, the 256 bytes and the boundary among them.
      path: Where to; written whole or not at all.

    Raises:
      ConfigError: The vocabulary is too small, or the file cannot be written.
    """
    if vocabulary_size < 257:
        raise ConfigError(
            f"config.data.vocabulary_size = {vocabulary_size}: use at least 257, for "
            "the bytes and the boundary between documents."
        )
    library = require("tokenizers", extra="train")
    require("tokenizers.models", extra="train")
    tokenizer = library.Tokenizer(library.models.BPE())
    bytewise = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = bytewise
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[_BOUNDARY],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (one.decode("utf-8", errors="replace") for one in documents)
    tokenizer.train_from_iterator(texts, trainer)
    write_whole(path, json.dumps(json.loads(tokenizer.to_str())).encode())


def write_whole(path: pathlib.Path, contents: bytes) -> None:
    """Writes a file in one go, so that no other process reads half of it."""
    try:
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(contents)
            os.replace(scratch, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(scratch)
    except OSError as error:
        raise ConfigError(
            f"config.data.data_dir: cannot write {path} ({error.strerror}); set "
            "config.data.data_dir or TFDS_DATA_DIR to a writable directory."
        ) from error


def tokenizer_of(
    name: str,
    *,
    documents: Iterable[bytes],
    folder: pathlib.Path,
    vocabulary_size: int,
) -> Tokenizer:
    """The tokenizer that a config names.

    Args:
      name: ``"bytes"``; ``"bpe"``, which is learned from the documents at its first
        use; or the path of a ``tokenizer.json``.
      documents: To learn from.
      folder: Where what was learned is kept.
      vocabulary_size: Of ``"bpe"``.

    Returns:
      The tokenizer.

    Raises:
      ConfigError: As `BytePairs` and `train_byte_pairs`.

    Example:
      >>> tokenizer_of("bytes", documents=[], folder=pathlib.Path(),
      ...              vocabulary_size=0).vocabulary_size
      257
    """
    if name == "bytes":
        return Bytes()
    if name != "bpe":
        return BytePairs(name)
    path = folder / f"tokenizer-bpe{vocabulary_size}.json"
    if not path.is_file():
        train_byte_pairs(documents, vocabulary_size, path)
    return BytePairs(path)
