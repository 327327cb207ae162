"""The study experiments/sparse_vision: its command in small, and its stored numbers."""

import json
import pathlib
import subprocess

import pytest

from sparsejax import configuration

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / "experiments" / "sparse_vision"


@pytest.fixture
def study(monkeypatch, data_dir):
    """The modules of the study, imported as from the root of a clone."""
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments import records
    from experiments.sparse_vision import __main__, report, training

    names = {"main": __main__, "records": records, "report": report}
    return type("Study", (), {**names, "training": training})


def summary(command, score):
    """The summary of a run of 10 % of its weights, with what the study reads of it."""
    config, sparse = command.config, command.config.method.name != "dense"
    scores = {"average_precision_50": score, "mean_average_precision": score / 2}
    return {
        "seed": config.seed,
        "step": config.steps,
        "final": scores if config.task == "detect" else {"accuracy": score},
        "sparsity": 0.9 if sparse else 0.0,
        "seconds": 100.0,
        "cost": {
            "active_parameters": 1_000 if sparse else 8_000,
            "sparse_flops": 2_000 if sparse else 16_000,
            "ratio": 0.125 if sparse else 1.0,
            "stored_bytes": {"csr": 8_000 if sparse else 32_000},
        },
    }


def test_command_stores_and_goes_on(study, tmp_path, monkeypatch):
    ran = []

    def fake(arguments, *, cwd, check):
        assert cwd == ROOT and check
        assert arguments[1:3] == ["-m", "sparsejax.train"]
        command = configuration.parse(arguments[3:])
        ran.append((command.name, command.config.seed))
        assert command.config.steps == 150
        assert command.config.learning_rate_schedule.warmup_steps in (7, 10)
        command.workdir.mkdir(parents=True)
        text = json.dumps(summary(command, 0.5 + 0.01 * len(ran)))
        (command.workdir / "summary.json").write_text(text)

    monkeypatch.setattr(study.training.subprocess, "run", fake)
    small = ["--steps", "150", "--output", str(tmp_path)]
    study.main.main([*small, "--seeds", "1"])
    names = list(study.training.CONFIGS)
    assert ran == [(name, 0) for name in names]
    study.main.main([*small, "--seeds", "3"])
    # What is there is not trained again; seed by seed.
    assert ran[4:] == [(name, seed) for seed in (1, 2) for name in names]
    rows = study.records.read(tmp_path / "results.csv", study.training.Row)
    assert [row.score for row in rows[:4]] == [0.51, 0.52, 0.53, 0.54]
    assert rows[2].average_precision == 0.265
    table = (tmp_path / "table.md").read_text()
    # Of seeds 1 % apart at four a round: 51, 55, 59; 4.303 * 4 / sqrt(3) is 9.9.
    assert "| dense | 55.0 ± 9.9 | 8,000 | 16,000 | 32,000 |" in table
    assert "| RigL, 90 % sparse | 56.0 ± 9.9 | 1,000 | 2,000 (12.5 %) | 8,000" in table
    assert "| difference, seed by seed | +1.0 ± 0.0 | +0.5 ± 0.0 |" in table
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_configs_have_the_steps_that_the_study_knows(study):
    for name, own in study.training.CONFIGS.items():
        config = configuration.load(name)
        warm_up = config.learning_rate_schedule.warmup_steps
        assert (config.steps, warm_up) == (own.steps, own.warmup_steps)


def test_a_failed_run_ends_the_study(study, tmp_path):
    with pytest.raises(subprocess.CalledProcessError):
        study.training.train("rigl_mobilenet_v1", 0, -1, tmp_path)


@pytest.mark.slow
def test_a_network_trains(study, tmp_path):
    row = study.training.train("rigl_mobilenet_v1", 0, 80, tmp_path)
    assert (row.seed, row.steps) == (0, 80)
    assert row.score > 0.2 and row.sparsity == pytest.approx(0.9, abs=1e-4)
    assert row.flops_ratio < 0.5


def test_stored_numbers_agree(study):
    """results.csv, table.md and the README tell the same."""
    rows = study.records.read(FOLDER / "results.csv", study.training.Row)
    configs = study.training.CONFIGS
    seeds = 1 + max(row.seed for row in rows)
    assert seeds > 1 and sorted((row.config, row.seed) for row in rows) == sorted(
        (name, seed) for name in configs for seed in range(seeds)
    )
    assert all(row.steps == configs[row.config].steps for row in rows)
    text = study.report.tables(rows)
    assert text == (FOLDER / "table.md").read_text()
    readme = (FOLDER / "README.md").read_text()
    assert all(part.strip() in readme for part in text.split("\n\n"))
