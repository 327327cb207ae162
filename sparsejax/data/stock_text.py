"""Corpora of tfds that were prepared: documents to model, and pairs to translate."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sparsejax.building import ConfigError
from sparsejax.data import pairs, pipeline, stock, text, tokenizers
from sparsejax.data.opening import open_split

# How many documents a vocabulary is learned from, and a row's share of them estimated.
_TAUGHT, _SAMPLED = 20_000, 256


def corpus(
    name: str,
    *,
    field: str = "text",
    evaluation_split: str,
    data_dir: str | None,
    context: int,
    tokenizer: str,
    vocabulary_size: int,
    evaluation_documents: int,
) -> pipeline.Dataset:
    """Documents of a prepared dataset, packed into rows of tokens.

    Args:
      name: The dataset's name in tfds, with ``/CONFIG`` if it has several.
      field: Where a document is in an example.
      evaluation_split: Held out; ``"train"`` is trained on.
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      context: Tokens that a network reads at once.
      tokenizer: As for :func:`sparsejax.data.tokenizers.tokenizer_of`.
      vocabulary_size: Of ``tokenizer="bpe"``, learned from 20,000 documents.
      evaluation_documents: How many held-out documents to evaluate on, the first ones.

    Returns:
      The dataset, as of :func:`sparsejax.data.text.dataset`.

    Raises:
      ConfigError: As for :func:`sparsejax.data.stock.prepared`, or an argument is out
        of range.
    """
    text.check_rows(context, evaluation_documents)
    builder, train, held_out = _opened(name, evaluation_split, data_dir)
    taught = (text.as_bytes(one[field]) for one in _first(train, _TAUGHT))
    chosen = tokenizers.tokenizer_of(
        tokenizer,
        documents=taught,
        folder=pathlib.Path(builder.data_dir),
        vocabulary_size=vocabulary_size,
    )
    documents = [
        text.as_bytes(one[field]) for one in _first(held_out, evaluation_documents)
    ]
    sample = [text.as_bytes(one[field]) for one in _first(train, _SAMPLED)]
    length = float(np.mean([len(one) + 1 for one in chosen.encode(sample)]))
    return text.dataset(
        text.Documents(
            train, field, chosen, context, every=max(int(context / length), 1)
        ),
        text.Rows(text.stream(documents, chosen), context),
        context=context,
        tokenizer=chosen,
        references=text.references(sample, documents),
        identity=f"{builder.info.full_name}, {len(documents):,} documents held out",
    )


def translations(
    name: str,
    *,
    source: str,
    target: str,
    evaluation_split: str,
    data_dir: str | None,
    context: int,
    tokenizer: str,
    vocabulary_size: int,
    evaluation_pairs: int,
) -> pipeline.Dataset:
    """Pairs of texts of a prepared dataset: the second is to follow from the first.

    Args:
      name: As for `corpus`.
      source: Where the first text is in an example.
      target: Where the second is.
      evaluation_split: As for `corpus`.
      data_dir: As for `corpus`.
      context: Tokens that both texts have in all; longer ones are cut.
      tokenizer: As for `corpus`.
      vocabulary_size: As for `corpus`.
      evaluation_pairs: How many held-out pairs to evaluate on, the first ones.

    Returns:
      The dataset, as of :func:`sparsejax.data.pairs.dataset`.

    Raises:
      ConfigError: As for `corpus`.
    """
    text.check_rows(context, evaluation_pairs)
    builder, train, held_out = _opened(name, evaluation_split, data_dir)
    taught = (
        text.as_bytes(one[field])
        for one in _first(train, _TAUGHT // 2)
        for field in (source, target)
    )
    chosen = tokenizers.tokenizer_of(
        tokenizer,
        documents=taught,
        folder=pathlib.Path(builder.data_dir),
        vocabulary_size=vocabulary_size,
    )
    return pairs.dataset(
        train,
        [*_first(held_out, evaluation_pairs)],
        source=source,
        target=target,
        context=context,
        tokenizer=chosen,
        identity=builder.info.full_name,
    )


def _opened(
    name: str, evaluation_split: str, data_dir: str | None
) -> tuple[tfds.core.DatasetBuilder, Any, Any]:
    builder = stock.prepared(name, data_dir=data_dir)
    splits: Any = builder.info.splits
    for split in ("train", evaluation_split):
        if split not in splits:
            raise ConfigError(
                f"config.data.name: {builder.data_dir} has no split {split!r}, only "
                f"{', '.join(splits)}; prepare all of them."
            )
    return builder, open_split(builder, "train"), open_split(builder, evaluation_split)


def _first(source: pipeline.Source | Sequence[Any], count: int) -> Iterator[Any]:
    return (source[index] for index in range(min(count, len(source))))
