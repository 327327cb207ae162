"""The study experiments/federated_digits: messages, averaging, its stored numbers."""

import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / "experiments" / "federated_digits"


@pytest.fixture
def study(monkeypatch, data_dir):
    """The modules of the study, imported as from the root of a clone."""
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments import records
    from experiments.federated_digits import __main__, federation, messages, tables

    modules = {"records": records, "federation": federation, "messages": messages}
    return type("Study", (), {**modules, "tables": tables, "main": __main__})


def leaves(density, seed=0):
    random = np.random.default_rng(seed)
    mask = random.random((30, 50)) < density
    kernel = np.where(mask, random.normal(size=(30, 50)), 0).astype(np.float32)
    bias = random.normal(size=50).astype(np.float32)
    return {"a/kernel": kernel, "a/bias": bias}, {"a/kernel": mask}


@pytest.mark.parametrize("density", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("told", [False, True])
def test_messages_arrive_and_have_their_sizes(study, density, told):
    values, masks = leaves(density)
    known = masks if told else {}
    message = study.messages.encode(values, masks, known)
    count = int(masks["a/kernel"].sum())
    # One bit for each of 1,500 weights, or two bytes for each that is there.
    mask_bytes = 0 if told else min(188, 4 + 2 * count)
    assert len(message) == 2 + 4 * 50 + mask_bytes + 4 * count
    shapes = {path: value.shape for path, value in values.items()}
    found, found_masks = study.messages.decode(message, shapes, known)
    for path, value in values.items():
        np.testing.assert_array_equal(found[path], value)
    assert found_masks.keys() == masks.keys()
    np.testing.assert_array_equal(found_masks["a/kernel"], masks["a/kernel"])


def test_a_weight_is_averaged_over_those_who_hold_it(study):
    held = [np.array([True, True, False]), np.array([True, False, False])]
    values = [np.array([1.0, 2.0, 0.0]), np.array([5.0, 0.0, 0.0])]
    replies = [
        ({"w": value, "b": value}, {"w": mask})
        for value, mask in zip(values, held, strict=True)
    ]
    found = study.federation.average(replies, np.array([3.0, 1.0]))
    assert found["w"].tolist() == [2.0, 2.0, 0.0]
    assert found["b"].tolist() == [2.0, 1.5, 0.0]


def test_every_example_has_one_client(study):
    labels = np.repeat(np.arange(10), 100)
    parts = study.federation.shards(labels, 5, np.random.default_rng(0))
    assert sorted(np.concatenate(parts).tolist()) == list(range(1000))
    shares = np.array([np.bincount(labels[p], minlength=10) / 100 for p in parts])
    assert shares.max() > 0.5, "the split is not uneven"


@pytest.mark.parametrize("method", ["static", "rigl"])
def test_a_short_federation_keeps_its_count(study, method):
    setting = study.federation.Setting(method, 0.9, 2, clients=3, local_steps=4)
    outcome = study.federation.federate(setting, seed=0)
    assert outcome.active == 2_586
    # 266 biases, 6 leaves, two of three masks or (static) none after the first round.
    least = 4 * (2_586 + 266) + 6
    assert outcome.upload >= least
    assert (outcome.upload == least) == (method == "static")
    assert least < outcome.download < 1.5 * least


def test_stored_numbers_agree(study):
    """results.csv, table.md and the README tell the same."""
    rows = study.records.read(FOLDER / "results.csv", study.tables.Row)
    assert len(rows) == 45 and {row.rounds for row in rows} == {40}
    table = study.tables.table(study.tables.cells(rows))
    assert table in (FOLDER / "table.md").read_text()
    assert table in (FOLDER / "README.md").read_text()
