"""Text: tokens, rows that are packed, and the corpora that come with Python."""

import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from sparsejax.building import ConfigError, build
from sparsejax.data import (
    pairs,
    pipeline,
    python_standard_library,
    text,
    tokenizers,
)

DOCUMENTS = [b"def f(x):\n    return x\n", "caf\u00e9 = 'x'\n".encode(), b"\n\n"] * 20


@pytest.fixture(scope="module")
def byte_pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizers.train_byte_pairs(DOCUMENTS, 280, path)
    return tokenizers.BytePairs(path)


@pytest.fixture(params=["bytes", "byte pairs"])
def tokenizer(request, byte_pairs):
    return tokenizers.Bytes() if request.param == "bytes" else byte_pairs


def test_tokens_stand_for_exactly_their_text(tokenizer):
    for document, tokens in zip(DOCUMENTS, tokenizer.encode(DOCUMENTS), strict=True):
        assert tokenizer.decode(tokens) == document
        assert tokenizer.byte_lengths[tokens].sum() == len(document)
        assert tokens.max() < tokenizer.vocabulary_size
        assert tokenizer.boundary not in tokens


def test_pairs_of_bytes_are_fewer_than_bytes(byte_pairs):
    # The few documents have no more pairs to learn.
    assert 270 < byte_pairs.vocabulary_size <= 280
    assert byte_pairs.byte_lengths.max() > 4
    every = byte_pairs.encode([bytes(range(128))])[0]
    assert byte_pairs.decode(every) == bytes(range(128))
    assert len(byte_pairs.encode(DOCUMENTS)[0]) < len(DOCUMENTS[0]) / 2


@pytest.mark.parametrize("context", [5, 8, 1_000])
def test_rows_cover_every_token_once(tokenizer, context):
    stream = text.stream(DOCUMENTS, tokenizer)
    rows = text.Rows(stream, context)
    found = [text.row(one, context=context, tokenizer=tokenizer) for one in _all(rows)]
    weights = np.concatenate([row["target_weights"] for row in found]) > 0
    targets = np.concatenate([row["targets"] for row in found])[weights]
    np.testing.assert_array_equal(targets, stream[1:])
    size = sum(row["target_bytes"].sum() for row in found)
    assert size == sum(map(len, DOCUMENTS))


def test_training_windows_reach_everywhere():
    stream = np.arange(64, dtype=np.int32)
    rows = text.Rows(stream, 8, spare=7)
    rng = np.random.default_rng(0)
    transform = {"context": 8, "tokenizer": tokenizers.Bytes()}
    windows = [text.row(one, rng, **transform) for one in [*_all(rows)] * 200]
    for row in windows:
        np.testing.assert_array_equal(row["targets"], row["tokens"] + 1)
        assert row["target_weights"].all()
    starts = {int(row["tokens"][0]) for row in windows}
    assert starts == {*range(56)}


def test_positions_count_from_the_beginning_of_each_document():
    tokens = np.array([7, 8, 256, 1, 2, 256, 256, 3, 4])
    row = text.row({"tokens": tokens}, context=8, tokenizer=tokenizers.Bytes())
    assert row["segments"].tolist() == [0, 0, 1, 1, 1, 2, 3, 3]
    assert row["positions"].tolist() == [0, 1, 0, 1, 2, 0, 0, 1]


def test_stored_documents_fill_rows():
    source = [{"text": bytes([65 + i]) * (3 + 40 * (i == 2))} for i in range(6)]
    tokenizer = tokenizers.Bytes()
    rows = text.Documents(source, "text", tokenizer, 16, every=2)
    assert len(rows) == 3
    seen = set()
    for index in range(3):
        for seed in range(30):
            rng = np.random.default_rng(seed)
            row = text.row(rows[index], rng, context=16, tokenizer=tokenizer)
            assert row["target_weights"].all()
            seen |= {*row["tokens"].tolist()}
    assert seen >= {65, 66, 67, 68, 69, 70}


def test_pairs_have_weight_on_the_second_text_alone():
    examples = [{"a": b"x" * 50, "b": b"y" * 50}, {"a": b"", "b": b"yy"}]
    tokenizer = tokenizers.Bytes()
    options = {"source": "a", "target": "b", "context": 16, "tokenizer": tokenizer}
    long, short = (pairs.row(one, **options) for one in examples)
    assert tokenizer.decode(long["tokens"]) == b"x" * 6 + b"y" * 8
    assert long["target_weights"].sum() == 9
    assert long["target_bytes"].sum() == 8
    assert long["prefix"].sum() == 8
    assert short["target_weights"].sum() == 3
    kept = short["target_weights"] > 0
    assert tokenizer.decode(short["targets"][kept]) == b"yy"
    assert (short["segments"][~kept & ~short["prefix"]] == 0).all()


class TestStandardLibrary:
    def test_files_are_held_out_whole(self, data_dir):
        dataset = build(
            "data",
            {"name": "python_standard_library", "data_dir": data_dir, "context": 64},
            "sparsejax.data",
        )
        files = python_standard_library.source_files()
        held = [c for p, c in files.items() if python_standard_library.is_held_out(p)]
        assert 0.02 < len(held) / len(files) < 0.12
        size = sum(
            dataset.evaluation_transform(one)["target_bytes"].sum()
            for one in _all(dataset.evaluation)
        )
        assert size == sum(map(len, held))
        assert 1.5 < dataset.references["gzip_bits_per_byte"] < 2.5
        assert 4 < dataset.references["unigram_bits_per_byte"] < 5
        assert python_standard_library.corpus_hash() in dataset.identity

    def test_no_file_is_there_twice(self):
        contents = [*python_standard_library.source_files().values()]
        assert len({*contents}) == len(contents)
        paths = python_standard_library.source_files()
        assert not any("test" in path.split("/") for path in paths)

    def test_functions_are_summarised(self, tmp_path, monkeypatch):
        some = dict([*python_standard_library.source_files().items()][:60])
        monkeypatch.setattr(python_standard_library, "source_files", lambda: some)
        spec = {"name": "python_docstrings", "data_dir": str(tmp_path), "context": 96}
        dataset = build("data", spec, "sparsejax.data")
        example = dataset.evaluation[0]
        assert example["summary"] not in example["function"]
        batch = next(pipeline.train_iterator(dataset, batch_size=4, seed=0))
        assert batch["prefix"].shape == (4, 96)
        assert (batch["target_weights"].sum(axis=1) > 1).all()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Stock datasets with the features, the names and the splits of the real ones."""
    directory = str(tmp_path_factory.mktemp("stock_text"))
    word = tfds.features.Text()
    made = {
        "lm1b": ("1.1.0", {"text": word}, "test", None),
        "c4": ("3.1.0", {"text": word, "url": word}, "validation", "en"),
        "cnn_dailymail": (
            "3.4.0",
            {"article": word, "highlights": word, "id": word},
            "validation",
            None,
        ),
        "wmt14_translate": (
            "1.0.0",
            {"de": word, "en": word},
            "validation",
            "de-en",
        ),
    }
    for name, (version, features, split, config) in made.items():
        _prepare(name, version, features, split, config, directory)
    return directory


def _prepare(stored, version, features, held_out, config, directory):
    with tfds.core.registered.skip_registration():

        class Few(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version(version)
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

            def _info(self):
                kinds = tfds.features.FeaturesDict(features)
                return tfds.core.DatasetInfo(builder=self, features=kinds)

            def _split_generators(self, dl_manager):
                return {
                    "train": self._generate_examples(30),
                    held_out: self._generate_examples(7),
                }

            def _generate_examples(self, count):
                for index in range(count):
                    yield index, {k: f"{k} of {index}. " * 3 for k in features}

    Few.name = stored
    options = {"config": config} if config else {}
    Few(
        data_dir=directory, file_format="array_record", **options
    ).download_and_prepare()


STOCK = {
    "lm1b": {"evaluation_documents": 5},
    "c4": {"evaluation_documents": 5},
    "cnn_dailymail": {"evaluation_pairs": 5},
    "wmt": {"evaluation_pairs": 5},
}


@pytest.mark.parametrize("name", STOCK)
def test_stock_text_gives_batches(name, prepared):
    spec = {"name": name, "data_dir": prepared, "context": 48}
    spec |= {"vocabulary_size": 300, **STOCK[name]}
    dataset = build("data", spec, "sparsejax.data")
    iterator = pipeline.train_iterator(dataset, batch_size=4, seed=0)
    batch, position = next(iterator), iterator.get_state()
    again = next(iterator)
    assert batch["tokens"].shape == (4, 48)
    assert batch["tokens"].max() < dataset.number_of_classes <= 300
    iterator.set_state(position)
    np.testing.assert_array_equal(next(iterator)["tokens"], again["tokens"])
    weights = [
        b["target_weights"].sum()
        for b in pipeline.evaluation_batches(dataset, batch_size=4)
    ]
    assert sum(weights) > 20
    if name == "wmt":
        row = dataset.evaluation_transform(dataset.evaluation[0])
        shown = dataset.tokenizer.decode(row["tokens"][row["prefix"]])
        assert re.fullmatch(rb"(en of \d\. ){3}", shown)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"context": 1}, "config.data.context = 1"),
        ({"evaluation_rows": 0}, "config.data.evaluation_rows = 0"),
        ({"tokenizer": "/nowhere.json"}, "config.data.tokenizer: /nowhere.json cannot"),
        (
            {"tokenizer": "bpe", "vocabulary_size": 100},
            "config.data.vocabulary_size = 100: use at least 257",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, message, data_dir):
    spec = {"name": "python_standard_library", "data_dir": data_dir, **arguments}
    with pytest.raises(ConfigError, match=message):
        build("data", spec, "sparsejax.data")


def test_a_language_that_is_not_in_the_pair_is_named():
    with pytest.raises(ConfigError, match=r"config.data.source = 'fr'"):
        build("data", {"name": "wmt", "source": "fr"}, "sparsejax.data")


def _all(source):
    return (source[index] for index in range(len(source)))
