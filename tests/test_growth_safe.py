"""The study experiments/growth_safe: its command in small, and its stored numbers."""

import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / "experiments" / "growth_safe"


@pytest.fixture
def study(monkeypatch, data_dir):
    """The modules of the study, imported as from the root of a clone."""
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments import records
    from experiments.growth_safe import __main__, settings, tables

    modules = {"records": records, "settings": settings, "tables": tables}
    return type("Study", (), {**modules, "main": __main__})


def test_command_stores_and_goes_on(study, tmp_path, monkeypatch):
    trained = []

    def fake(config, seeds):
        trained.append((config.method.every, config.optimizer.to_dict(), seeds))
        accuracy = 0.9 + 0.001 * len(trained)
        return [Outcome(accuracy + 0.01 * seed, 517) for seed in seeds]

    from experiments.digits_methods.training import Outcome

    monkeypatch.setattr(study.main, "train", fake)
    small = ["--steps", "40", "--every", "5", "--methods", "rigl"]
    study.main.main([*small, "--seeds", "2", "--output", str(tmp_path)])
    rows = study.records.read(tmp_path / "results.csv", study.settings.Row)
    assert [(row.optimizer, row.seed, row.active) for row in rows] == [
        (optimizer, seed, 517)
        for optimizer in ("adam", "ages", "warm-up")
        for seed in (0, 1)
    ]
    assert [row.accuracy for row in rows[:3]] == [0.901, 0.911, 0.902]
    assert "| RigL, 98 %, every 5, 0.003 |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    # What is there is not trained again.
    study.main.main([*small, "--seeds", "3", "--output", str(tmp_path)])
    assert [seeds for _, _, seeds in trained] == [[0, 1]] * 3 + [[2]] * 3


@pytest.mark.slow
def test_a_cell_trains(study):
    cell = study.settings.Cell("rigl", 0.98, 5, "warm-up", 0.003, 20)
    outcomes = study.main.train(study.settings.configure(cell), [0, 1])
    assert [outcome.active for outcome in outcomes] == [517, 517]


def test_optimizers_are_what_they_are_called(study):
    cell = study.settings.Cell("set", 0.98, 10, "warm-up", 0.01, 100)
    config = study.settings.configure(cell)
    assert config.optimizer.name == "sparsejax.optim.adam"
    assert config.optimizer.warm_up == config.method.every == 10
    assert config.optimizer.learning_rate == 0.01
    stock = study.settings.configure(cell._replace(optimizer="adam"))
    assert stock.optimizer.name == "adam"


def test_stored_numbers_agree(study):
    """results.csv, table.md and the README tell the same."""
    rows = study.records.read(FOLDER / "results.csv", study.settings.Row)
    readme = (FOLDER / "README.md").read_text()
    stored = (FOLDER / "table.md").read_text()
    default = [r for r in rows if r.sparsity == 0.98 and r.learning_rate == 0.003]
    larger = [row for row in rows if row.learning_rate == 0.01]
    denser = [row for row in rows if row.sparsity == 0.95]
    assert len(default) == 120 and len(larger) == len(denser) == 60
    assert len(rows) == 240 and {row.steps for row in rows} == {2_000}
    for part in (default, larger, denser):
        for table in (study.tables.accuracy_table, study.tables.difference_table):
            assert table(part) in readme
            assert part is not default or table(part) in stored
