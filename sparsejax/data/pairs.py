"""Pairs of texts: the first is read in both directions, the second predicted.

Liu et al., 2018, "Generating Wikipedia by summarizing long sequences"; Raffel et al.,
2020, "Exploring the limits of transfer learning" (the prefix language model).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from sparsejax.data import pipeline, text
from sparsejax.data.tokenizers import Tokenizer


def row(
    example: pipeline.Example,
    rng: np.random.Generator | None = None,
    *,
    source: str,
    target: str,
    context: int,
    tokenizer: Tokenizer,
) -> pipeline.Example:
    """A pair as a row: a boundary, the source, a boundary, the target, a boundary.

    Args:
      example: With both texts.
      rng: Not used: a pair has no random part.
      source: Where the first text is.
      target: Where the second is; what is longer than half of the row is cut off.
      context: Tokens in the row; the source is cut to what the target leaves.
      tokenizer: Of both.

    Returns:
      As :func:`sparsejax.data.text.row`; ``prefix`` is true up to the second boundary,
      and only what follows it has weight. Padding is a segment of its own.

    Example:
      >>> from sparsejax.data.tokenizers import Bytes
      >>> found = row({"a": b"xy", "b": b"z"}, source="a", target="b", context=6,
      ...             tokenizer=Bytes())
      >>> found["tokens"].tolist(), found["prefix"].astype(int).tolist()
      ([256, 120, 121, 256, 122, 256], [1, 1, 1, 1, 0, 0])
      >>> found["target_weights"].tolist()
      [0.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    """
    del rng
    texts = [text.as_bytes(example[field]) for field in (source, target)]
    first, second = tokenizer.encode(texts)
    second = second[: context // 2]
    first = first[: max(context - 2 - len(second), 0)]
    joined = text.packed([first, second], tokenizer.boundary)
    shown, used = len(first) + 2, len(joined) - 1
    missing = context + 1 - len(joined)
    window = np.pad(joined, (0, missing), constant_values=tokenizer.boundary)
    tokens, targets = window[:-1], window[1:]
    places = np.arange(context, dtype=np.int32)
    weights = ((places >= shown - 1) & (places < used)).astype(np.float32)
    return {
        "tokens": tokens,
        "targets": targets,
        "segments": (places < used).astype(np.int32),
        "positions": places,
        "prefix": places < shown,
        "target_weights": weights,
        "target_bytes": (tokenizer.byte_lengths[targets] * weights).astype(np.float32),
    }


def dataset(
    train: pipeline.Source,
    evaluation: pipeline.Source,
    *,
    source: str,
    target: str,
    context: int,
    tokenizer: Tokenizer,
    **described: Any,
) -> pipeline.Dataset:
    """A dataset of pairs.

    Args:
      train: Examples with both texts.
      evaluation: Held-out ones.
      source: As for `row`.
      target: As for `row`.
      context: As for `row`.
      tokenizer: As for `row`.
      **described: Other fields of :class:`sparsejax.data.pipeline.Dataset`.

    Returns:
      The dataset.
    """
    return text.dataset(
        train,
        evaluation,
        context=context,
        tokenizer=tokenizer,
        make_row=partial(row, source=source, target=target),
        **described,
    )
