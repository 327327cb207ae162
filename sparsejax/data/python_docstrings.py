"""Functions of Python's standard library and what their docstrings begin with."""

import ast
from collections.abc import Iterator
from typing import Any

from sparsejax.data import embedded, pairs, pipeline, text
from sparsejax.data.python_standard_library import OfSourceFiles, config, stored
from sparsejax.data.tokenizers import Bytes


class PythonDocstrings(OfSourceFiles):
    """Functions without their docstrings, and the docstrings' first lines."""

    description = "Functions of the Python standard library, summarised."
    texts = ("function", "summary")

    def examples(
        self, path: str, contents: bytes
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """The functions of a file that have docstrings."""
        for index, (function, summary) in enumerate(summarised(contents.decode())):
            yield f"{path}:{index}", {"function": function, "summary": summary}


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
