"""The studies of experiments/: their commands in small, and their stored numbers."""

import importlib
import pathlib

import jax
import numpy as np
import pytest
from scipy import stats

import sparsejax as sj
from sparsejax import configuration
from sparsejax.data.pipeline import evaluation_batches, train_iterator

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / "experiments" / "digits_methods"


@pytest.fixture
def study(monkeypatch, data_dir):
    """The modules of the study, imported as from the root of a clone."""
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments import records
    from experiments.digits_methods import (
        __main__,
        orderings,
        results,
        settings,
        tables,
        training,
    )

    modules = (orderings, records, results, settings, tables, training)
    named = {module.__name__.rpartition(".")[2]: module for module in modules}
    return type("Study", (), {**named, "main": __main__})


def test_command_trains_stores_and_goes_on(study, tmp_path, capsys, monkeypatch):
    small = ["--steps", "60", "--sparsities", "0.9", "--output", str(tmp_path)]
    study.main.main([*small, "--seeds", "2", "--methods", "dense", "rigl"])
    rows = study.records.read(tmp_path / "results.csv", study.results.Row)
    assert [row[:5] for row in rows] == [
        ("dense", 0.0, 60, 0, 25_856),
        ("dense", 0.0, 60, 1, 25_856),
        ("rigl", 0.9, 60, 0, 2_586),
        ("rigl", 0.9, 60, 1, 2_586),
    ]
    assert all(row.accuracy > 0.5 for row in rows)
    assert rows[2].accuracy != rows[3].accuracy
    table = (tmp_path / "table.md").read_text()
    assert "| RigL |" in table and "| dense - RigL |" in table
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")

    # What is there is not trained again: of three seeds only the third.
    trained = []
    outcome = study.training.Outcome(0.75, 2_586)

    def recorded(config, seeds):
        trained.append((config.method.name, seeds))
        return [outcome] * len(seeds)

    monkeypatch.setattr(study.main, "train", recorded)
    capsys.readouterr()
    study.main.main([*small, "--seeds", "3", "--methods", "rigl"])
    assert trained == [("rigl", [2])]
    study.main.main([*small, "--seeds", "3", "--methods", "rigl"])
    assert trained == [("rigl", [2])]
    assert "already in" in capsys.readouterr().out
    assert study.records.read(tmp_path / "results.csv", study.results.Row)[:4] == rows


@pytest.mark.slow
def test_seed_is_the_run_of_the_command_line(study):
    """Replica ``i`` is what ``sparsejax.train --config.seed=i`` trains."""
    config = study.settings.configure("set", 0.95, 40)
    task = study.training.classify(config)
    order = study.training.batch_positions(len(task.dataset.train), 128, 15, [3, 5])
    batches = train_iterator(task.dataset, batch_size=128, seed=5)
    for positions, batch in zip(order[:, 1], batches, strict=False):
        labels = [task.dataset.train[position]["label"] for position in positions]
        assert labels == batch["label"].tolist()

    replicas = study.training.train(config, [3, 5])
    iterator = train_iterator(task.dataset, batch_size=128, seed=5)
    state = jax.jit(task.initialise)(jax.random.key(5))
    step = jax.jit(task.train_step)
    for _ in range(40):
        state, _ = step(state, next(iterator))
    [batch] = evaluation_batches(task.dataset, batch_size=360)
    correct = float(task.evaluation_step(state, batch)["correct"])
    active = sum(count for count, _ in sj.counts(state.optimizer_state).values())
    assert replicas[1].active == active
    # Batched products round otherwise, and that may tip one borderline example.
    assert abs(360 * replicas[1].accuracy - correct) <= 4


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--seeds", "0"], "--seeds: 0"),
        (["--steps", "3"], "--steps: 3"),
        (["--sparsities", "0.9", "1"], "--sparsities: 1:"),
        (["--methods", "rigle"], "'rigle'"),
    ],
)
def test_bad_options_are_named(study, tmp_path, capsys, arguments, named):
    with pytest.raises(SystemExit) as raised:
        study.main.main([*arguments, "--output", str(tmp_path / "new")])
    assert raised.value.code == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_interval_is_students(study):
    cell = study.tables.Cell("rigl", 0.9, 10, (90.0, 92.0, 97.0))
    low, high = stats.t.interval(
        0.95, 2, loc=cell.mean, scale=stats.sem(cell.accuracies)
    )
    np.testing.assert_allclose(2 * cell.interval.half_width, high - low)
    assert cell.mean == 93.0


def test_cells_that_miss_the_budget_say_so(study):
    rows = [
        study.results.Row(method, 0.9, 10, seed, active, 0.5)
        for method, active in (("set", 10), ("rigl", 10), ("srigl", 8))
        for seed in range(2)
    ]
    rows[-1] = rows[-1]._replace(active=9)
    head, _, *lines = study.tables.accuracy_table(study.tables.cells(rows)).splitlines()
    assert "90 % (10 weights)" in head
    assert [line.count("(") for line in lines] == [0, 0, 1]
    assert "(8.5)" in lines[-1]


def test_file_with_other_columns_is_refused(study, tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="delete it or choose another --output"):
        study.records.read(path, study.results.Row)


def test_stored_numbers_agree(study):
    """results.csv, table.md and the README tell the same, for all that is promised."""
    rows = study.records.read(FOLDER / "results.csv", study.results.Row)
    cells = study.tables.cells([row for row in rows if row.seed < 10])
    settings = study.settings.SETTINGS
    assert [cell[:2] for cell in cells if cell.method in settings] == [
        (name, sparsity)
        for name, setting in settings.items()
        for sparsity in setting.sparsities
    ]
    budgets = {0.0: 25_856, 0.9: 2_586, 0.95: 1_293, 0.98: 517}
    for cell in cells:
        name = configuration.load(settings[cell.method].config).method.name
        card = importlib.import_module(f"sparsejax.methods.{name}").CARD
        # The sparsity of neuron pruning is a share of the neurons.
        exact = card.budget != "bounded" and name != "neuron_pruning"
        if exact and cell.sparsity in budgets:
            assert cell.active == budgets[cell.sparsity], cell[:3]
    assert all(len(cell.accuracies) == 10 for cell in cells)
    assert {row.steps for row in rows} == {2_000}

    sparsest = [cell for cell in cells if cell.sparsity in (0.0, 0.98)]
    more = study.tables.cells([row for row in rows if row.seed >= 10])
    accuracy, neighbours = study.tables.accuracy_table, study.tables.neighbour_table
    table = (FOLDER / "table.md").read_text()
    readme = (FOLDER / "README.md").read_text()
    for part in (accuracy(cells), neighbours(sparsest)):
        assert part in table
        assert part in readme
    for part in (accuracy(more), neighbours(more)):
        assert part in readme
