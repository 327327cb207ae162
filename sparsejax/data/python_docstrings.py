"""Functions of Python's standard library and what their docstrings begin with."""

import ast
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from sparsejax.data import embedded, pairs, pipeline, text
from sparsejax.data.python_standard_library import (
    config,
    is_held_out,
    source_files,
    stored,
)
from sparsejax.data.tokenizers import Bytes


class PythonDocstrings(tfds.core.GeneratorBasedBuilder):
    """Functions without their docstrings, and the docstrings' first lines.

    Split by files, as `sparsejax.data.python_standard_library`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Functions of the Python standard library, summarised.",
            features=tfds.features.FeaturesDict(
                {"function": tfds.features.Text(), "summary": tfds.features.Text()}
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
            if is_held_out(path) != (split == "validation"):
                continue
            for index, (function, summary) in enumerate(summarised(contents.decode())):
                example = {"function": function, "summary": summary}
                yield f"{path}:{index}", example


def summarised(source: str) -> Iterator[tuple[str, str]]:
    """The functions of a file that have docstrings.

    Args:
      source: The file.

    Yields:
      A function without its docstring, and the docstring's first line.

    Example:
      >>> source = 'def double(x):\\n    "Twice as much."\\n    return 2 * x\\n'
      >>> [*summarised(source)]
      [('def double(x):\\n    return 2 * x', 'Twice as much.')]
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        summary = (ast.get_docstring(node) or "").strip().partition("\n")[0]
        if summary and len(node.body) > 1:
            node.body = node.body[1:]
            yield ast.unparse(node), summary


def python_docstrings(
    *,
    data_dir: str | None = None,
    context: int = 256,
    evaluation_pairs: int | None = None,
) -> pipeline.Dataset:
    """Functions to summarise, by bytes: the prefix is the code, the rest its docstring.

    Args:
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      context: Bytes that function and summary have in all; long functions are cut.
      evaluation_pairs: How many held-out functions to evaluate on; default all.

    Returns:
      The dataset, as of :func:`sparsejax.data.pairs.dataset`.

    Raises:
      ConfigError: If `data_dir` cannot be written to, or an argument is out of range.
    """
    text.check_rows(context, evaluation_pairs)
    name = config()
    builder = embedded.prepared(PythonDocstrings, data_dir, config=name)
    train, held_out = ([*stored(builder, s)] for s in ("train", "validation"))
    return pairs.dataset(
        train,
        held_out[:evaluation_pairs],
        source="function",
        target="summary",
        context=context,
        tokenizer=Bytes(),
        identity=f"functions of {name}",
    )
