"""The study of always-sparse training: its command in small, and its stored numbers."""

import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / "experiments" / "always_sparse"


@pytest.fixture
def study(monkeypatch, data_dir):
    """The modules of the study, imported as from the root of a clone."""
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments import records
    from experiments.always_sparse import __main__, report, training

    names = {"main": __main__, "records": records, "report": report}
    return type("Study", (), {**names, "training": training})


@pytest.mark.slow
def test_command_trains_stores_and_goes_on(study, tmp_path, capsys, monkeypatch):
    # In this process: what a process costs is measured, not tested.
    monkeypatch.setattr(study.main, "_alone", study.training.train)
    small = ["--steps", "40", "--seeds", "1", "--output", str(tmp_path)]
    command = [*small, "--wide", "128", "--narrow", "64"]
    study.main.main(command)
    rows = study.records.read(tmp_path / "results.csv", study.training.Row)
    assert [(row.kind, row.width, row.weights) for row in rows] == [
        ("compressed", 128, 8_192),
        ("compressed", 64, 4_096),
        ("masked", 64, 4_096),
    ]
    assert all(row.accuracy > 0.2 and row.step > 0 and row.move > 0 for row in rows)
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    monkeypatch.setattr(study.main, "_alone", None)
    study.main.main(command)
    assert "written to" in capsys.readouterr().out


def test_stored_numbers_agree(study):
    rows = study.records.read(FOLDER / "results.csv", study.training.Row)
    wide, narrow = study.main.WIDE, study.main.NARROW
    text = study.report.tables(rows, wide, narrow)
    assert text == (FOLDER / "table.md").read_text()
    readme = (FOLDER / "README.md").read_text()
    assert all(part.strip() in readme for part in text.split("\n\n"))
    assert max(row.peak for row in rows if row.width == 65_536) < 2 * 2**30
