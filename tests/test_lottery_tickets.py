"""The study experiments/lottery_tickets: in small, resumed, and its stored numbers."""

import functools
import pathlib
from collections import Counter

import jax
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / "experiments" / "lottery_tickets"
SMALL = ["--steps", "24", "--rewind-step", "4", "--seeds", "2"]


@pytest.fixture
def study(monkeypatch, data_dir):
    """The modules of the study, imported as from the root of a clone."""
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments import records
    from experiments.lottery_tickets import __main__, rounds, settings, tables, training

    # Programs are compiled once for all tests.
    compiled = functools.partial(trainer_of, training.trainer)
    monkeypatch.setattr(rounds, "trainer", compiled)
    modules = {"records": records, "settings": settings, "tables": tables}
    modules |= {"rounds": rounds, "training": training, "trainer": compiled}
    return type("Study", (), {**modules, "main": __main__})


@functools.cache
def trainer_of(trainer, settings):
    return trainer(settings)


def stored(folder):
    """All arrays of all rounds."""
    found = {}
    for path in sorted((folder / "rounds").iterdir()):
        with np.load(path) as arrays:
            found |= {(path.name, name): arrays[name] for name in arrays.files}
    return found


@pytest.mark.slow
def test_a_study_that_was_stopped_ends_in_the_same_bits(study, tmp_path, monkeypatch):
    whole, parts = (["--output", str(tmp_path / name)] for name in ("whole", "parts"))
    study.main.main([*SMALL, "--rounds", "2", *whole])
    study.main.main([*SMALL, "--rounds", "1", *parts])
    # Killed in the second round, after one of its branches.
    trained = study.rounds.storage.write

    def killed(path, tree):
        if path.name == "rate02.npz":
            raise KeyboardInterrupt
        trained(path, tree)

    with monkeypatch.context() as patched:
        patched.setattr(study.rounds.storage, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            study.main.main([*SMALL, "--rounds", "2", *parts])
    study.main.main([*SMALL, "--rounds", "2", *parts])

    first, second = stored(tmp_path / "whole"), stored(tmp_path / "parts")
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
    for name in ("results.csv", "table.md"):
        texts = [(tmp_path / part / name).read_text() for part in ("whole", "parts")]
        assert texts[0] == texts[1]
    assert (tmp_path / "whole" / "plot.png").read_bytes().startswith(b"\x89PNG")
    check_rounds(study, first)

    # Rounds of other settings are not mixed in.
    with pytest.raises(SystemExit):
        study.main.main([*SMALL, "--fraction", "0.3", *whole])


def check_rounds(study, arrays):
    """Exact nested masks; survivors as they were; the control's masks."""

    def masks(name, layer):
        return arrays[f"{name}.npz", f"masks/{layer}/kernel"]

    for layer, counts in {
        "hidden0": (8192, 6554, 5243),
        "hidden1": (16384, 13107, 10486),
        "head": (1280, 1152, 1037),
    }.items():
        assert (masks("dense", layer).sum((1, 2)) == counts[0]).all()
        for branch in study.settings.BRANCHES:
            before = masks("dense", layer)
            for number in (1, 2):
                kept = masks(f"{branch}{number:02}", layer)
                assert (kept.sum((1, 2)) == counts[number]).all()
                assert not (kept & ~before).any()
                before = kept
        same = masks("random02", layer) == masks("weights02", layer)
        assert same.all()
        trained = arrays["weights02.npz", f"point/params/{layer}/kernel"]
        assert (trained[~masks("weights02", layer)] == 0).all()


def test_every_branch_begins_where_it_says(study):
    settings = study.settings.Settings(2, 24, 4, 0.2, 0.1)
    early = study.training.Point({"kernel": np.full((2, 3), 1.0)}, {"mean": 1.0})
    trained = study.training.Point({"kernel": np.full((2, 3), 9.0)}, {"mean": 9.0})
    before = study.rounds.Round(trained, None, np.zeros(2))

    def begin(branch):
        return study.rounds._begin(branch, None, before, early, None, 1, settings)

    assert begin("weights") == (early, 4)
    point, step = begin("rate")
    assert step == 4 and point.params is trained.params
    assert point.model_state == {"mean": 1.0}, "statistics are rewound, too"


def test_training_from_the_rewound_point_is_the_dense_training(study):
    """With all weights kept and statistics that begin at step 0 nothing differs."""
    functions = study.trainer(study.settings.Settings(2, 24, 4, 0.2, 0.1))
    initial = functions.initial(0)
    masks = study.training.dense_masks(initial.params)
    _, dense = functions.dense(initial)
    again = functions.sparse(initial, masks, 0)
    jax.tree.map(np.testing.assert_array_equal, dense, again)
    drawn = functions.initial(1)
    kernels = [point.params["hidden0"]["kernel"] for point in (initial, drawn)]
    assert not (kernels[0] == kernels[1]).any()


def test_pruning_keeps_the_largest_of_each_layer(study):
    settings = study.settings.Settings(1, 2, 0, 0.5, 0.25)
    params = {
        "head": {"kernel": np.array([[[1.0, -4.0, 2.0, 3.0]]], np.float32)},
        "hidden0": {
            "bias": np.ones((1, 2), np.float32),
            "kernel": np.array([[[0.1, -0.4], [0.3, 0.2]]], np.float32),
        },
    }
    masks = study.training.dense_masks(params)
    assert masks["hidden0"]["bias"] is None
    kept = study.training.prune(params, masks, 1, settings)
    np.testing.assert_array_equal(kept["head"]["kernel"], [[[0, 1, 1, 1]]])
    np.testing.assert_array_equal(kept["hidden0"]["kernel"], [[[0, 1], [1, 0]]])
    assert study.training.active(kept) == [(5, 8)]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--seeds", "0"], "--seeds: 0"),
        (["--rounds", "0"], "--rounds: 0"),
        (["--rewind-step", "400"], "--rewind-step 400"),
        (["--output-fraction", "1"], "--output-fraction: 1:"),
    ],
)
def test_bad_options_are_named(study, tmp_path, capsys, arguments, named):
    with pytest.raises(SystemExit) as raised:
        study.main.main([*arguments, "--output", str(tmp_path / "new")])
    assert raised.value.code == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_stored_numbers_agree(study):
    """results.csv, table.md and the README tell the same."""
    rows = study.records.read(FOLDER / "results.csv", study.settings.Row)
    cells = Counter((row.branch, row.number) for row in rows)
    branches = tuple(study.settings.BRANCHES)
    assert set(cells) == {("dense", 0)} | {
        (branch, number) for branch in branches for number in range(1, 17)
    }
    assert set(cells.values()) == {10}
    readme = (FOLDER / "README.md").read_text()
    table = (FOLDER / "table.md").read_text()
    accuracy = study.tables.accuracy_table(rows)
    last = study.tables.difference_table(rows, 16)
    assert accuracy in readme and accuracy in table
    assert last in readme and last in table
    assert study.tables.difference_table(rows, 10) in readme
    # The density after each round is .8^r, the output layer's .9^r.
    settings = study.settings.Settings(10, 400, 20, 0.2, 0.1)
    sizes = {"hidden0/kernel": 8192, "hidden1/kernel": 16384, "head/kernel": 1280}
    for row in rows:
        counts = [settings.count(*layer, row.number) for layer in sizes.items()]
        assert row.active == sum(counts) and row.weights == 25_856


def test_the_golden_densities(study):
    settings = study.settings.Settings(1, 2, 0, 0.2, 0.1)
    shares = [settings.count("hidden0", 10_000, r) / 10_000 for r in range(1, 12)]
    assert shares == [
        0.8, 0.64, 0.512, 0.4096, 0.3277, 0.2621, 0.2097, 0.1678, 0.1342, 0.1074, 0.0859
    ]  # fmt: skip
