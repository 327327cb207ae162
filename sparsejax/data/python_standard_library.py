"""The source of Python's standard library, which every Python brings: 10 MB of text.

A tfds builder of our own stores it as tfds stores every dataset; preparing it takes
seconds and needs no download.
"""

import abc
import functools
import hashlib
import pathlib
import sys
import sysconfig
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from sparsejax.data import embedded, pipeline, text, tokenizers
from sparsejax.data.opening import open_split
from sparsejax.data.pipeline import Example

_LEFT_OUT = {
    "__pycache__",
    "dist-packages",
    "encodings",
    "idle_test",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
}
_HELD_OUT_EVERY = 16


@functools.cache
def source_files() -> dict[str, bytes]:
    """The library's files: path in it to contents, sorted, each contents once.

    Left out are tests, tables of encodings and help, and what is not UTF-8.

    Returns:
      The files.

    Example:
      >>> b"namedtuple" in source_files()["collections/__init__.py"]
      True
    """
    root = pathlib.Path(sysconfig.get_paths()["stdlib"])
    found, seen = {}, set()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if _LEFT_OUT & set(relative.parts):
            continue
        contents = path.read_bytes()
        digest = hashlib.sha256(contents.strip()).digest()
        if digest in seen or not _is_text(contents):
            continue
        seen.add(digest)
        found[relative.as_posix()] = contents
    return found


def corpus_hash() -> str:
    """Says which source this is: it differs between versions of Python.

    Returns:
      Eight hexadecimal digits.

    Example:
      >>> len(corpus_hash())
      8
    """
    digest = hashlib.sha256()
    for path, contents in source_files().items():
        digest.update(path.encode() + b"\0" + contents + b"\0")
    return digest.hexdigest()[:8]


def config() -> str:
    """The name of the corpus of this Python, such as ``python3.11.7-c04c32a9``.

    Returns:
      Its version and `corpus_hash`.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    return f"python{version}-{corpus_hash()}"


class OfSourceFiles(tfds.core.GeneratorBasedBuilder):
    """What is made of the files, split by the hash of their paths: one of 16 held out.

    The config is named by Python's version and the hash of all files.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    description: str
    texts: tuple[str, ...]
    """The fields of an example."""

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.description,
            features=tfds.features.FeaturesDict(
                {name: tfds.features.Text() for name in self.texts}
            ),
            homepage="https://docs.python.org/3/library/",
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        del dl_manager
        return {
            split: self._generate_examples(split) for split in ("train", "validation")
        }

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for path, contents in source_files().items():
            if is_held_out(path) == (split == "validation"):
                yield from self.examples(path, contents)

    @abc.abstractmethod
    def examples(
        self, path: str, contents: bytes
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """The examples that a file gives, with a key for each."""


class PythonStandardLibrary(OfSourceFiles):
    """The files themselves."""

    description = "Source files of the Python standard library."
    texts = ("path", "text")

    def examples(
        self, path: str, contents: bytes
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """The file."""
        yield path, {"path": path, "text": contents}


def python_standard_library(
    *,
    data_dir: str | None = None,
    context: int = 128,
    tokenizer: str = "bytes",
    vocabulary_size: int = 4096,
    evaluation_rows: int | None = None,
) -> pipeline.Dataset:
    """Python source: about 9 MB to train on, and 0.6 MB of other files held out.

    Documents are packed, a boundary before each. Training windows begin anywhere;
    evaluation rows cover all held-out text once, without the text before the row.

    Args:
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      context: Tokens that a network reads at once.
      tokenizer: As for :func:`sparsejax.data.tokenizers.tokenizer_of`.
      vocabulary_size: Of ``tokenizer="bpe"``.
      evaluation_rows: Evaluate on the first so many rows only, in a hurry.

    Returns:
      The dataset, as of :func:`sparsejax.data.text.dataset`; ``identity`` has the hash
      of the files, ``references`` the bits per byte of unigrams and gzip.

    Raises:
      ConfigError: If `data_dir` cannot be written to, or an argument is out of range.

    Example:
      >>> import tempfile
      >>> dataset = python_standard_library(data_dir=tempfile.mkdtemp(), context=64)
      >>> dataset.number_of_classes, dataset.evaluation[0]["tokens"].shape
      (257, (65,))
    """
    text.check_rows(context, evaluation_rows)
    name = config()
    builder = embedded.prepared(PythonStandardLibrary, data_dir, config=name)
    training, held_out = (
        [example["text"] for example in stored(builder, split)]
        for split in ("train", "validation")
    )
    chosen = tokenizers.tokenizer_of(
        tokenizer,
        documents=training,
        folder=pathlib.Path(builder.data_dir),
        vocabulary_size=vocabulary_size,
    )
    folder = pathlib.Path(builder.data_dir)
    # Learned pairs take seconds to find, and belong to these files.
    kept = folder if tokenizer == "bpe" else None
    streams = {
        split: text.stream(documents, chosen, folder=kept, name=split)
        for split, documents in (("train", training), ("validation", held_out))
    }
    return text.dataset(
        text.Rows(streams["train"], context, spare=context - 1),
        text.Rows(streams["validation"], context, most=evaluation_rows),
        context=context,
        tokenizer=chosen,
        references=text.references(training, held_out),
        identity=f"source of {name}",
    )


def stored(builder: tfds.core.DatasetBuilder, split: str) -> Iterator[Example]:
    """All examples of a prepared split, one after the other."""
    source = open_split(builder, split)
    return (source[index] for index in range(len(source)))


def is_held_out(path: str) -> bool:
    """Whether a file is one of those to evaluate on."""
    return hashlib.sha256(path.encode()).digest()[0] % _HELD_OUT_EVERY == 0


def _is_text(contents: bytes) -> bool:
    try:
        contents.decode()
    except UnicodeDecodeError:
        return False
    return bool(contents.strip())
