"""The study of sparse agents: its command in small, and what is stored of it."""

import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / "experiments" / "sparse_rl"


@pytest.fixture
def study(monkeypatch):
    """The modules of the study, imported as from the root of a clone."""
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments import records
    from experiments.sparse_rl import __main__, report, settings, training

    modules = (records, report, settings, training)
    named = {module.__name__.rpartition(".")[2]: module for module in modules}
    return type("Study", (), {**named, "main": __main__})


def pretended(command, cwd, check):
    """What a run would leave, its returns given by its config and its seeds."""
    del cwd
    assert check
    options = dict(part.removeprefix("--").split("=", 1) for part in command[3:])
    folder = pathlib.Path(options["workdir"])
    folder.mkdir(parents=True)
    seeds, steps = int(options["config.seeds"]), int(options["config.steps"])
    best = 10 if options["config"].startswith("dense") else 5
    best -= 8 * ("config.model.hidden" in options)
    rows = [
        {
            "kind": "evaluation",
            "step": step,
            "episode_return_of_seed": {
                str(seed): float(best * (step == steps) + seed / 10)
                for seed in range(seeds)
            },
        }
        for step in (steps // 2, steps)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines)
    summary = {
        "step": steps,
        "cost": {"active_parameters": 7},
        "sparsity": 0.5,
        "seconds": 1.0,
    }
    (folder / "summary.json").write_text(json.dumps(summary))


def test_command_trains_what_is_missing(study, tmp_path, monkeypatch, capsys):
    called = []

    def run(command, **options):
        called.append(command)
        pretended(command, **options)

    monkeypatch.setattr(study.training.subprocess, "run", run)
    options = ["--problems", "breakout", "--updates", "1000", "--seeds", "4"]
    options += ["--output", str(tmp_path)]
    study.main.main([*options, "--arms", "dense", "small_dense"])
    assert len(called) == 2 and "--config.model.hidden=(8, 8)" in called[1]
    study.main.main([*options, "--arms", "dense", "small_dense", "static"])
    assert len(called) == 3, "what is there is not trained again"
    rows = study.records.read(tmp_path / "results.csv", study.training.Row)
    # The last tenth of two evaluations is the last one.
    scores = [row.score for row in rows if row.arm == "dense"]
    assert scores == pytest.approx([10, 10.1, 10.2, 10.3])
    text = (tmp_path / "table.md").read_text()
    assert "| dense above static | 1.00 | 1.00 to 1.00 | held |" in text
    assert "| static above small dense | 1.00 | 1.00 to 1.00 | held |" in text
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    assert text in capsys.readouterr().out


def test_small_dense_networks_are_about_as_large_as_sparse_ones(study):
    from sparsejax import configuration

    for problem in study.settings.PROBLEMS.values():
        config = configuration.load(f"rigl_{problem.config}")
        kept = 1 - config.method.sparsity
        hidden, small = config.model.hidden, problem.small
        inputs, outputs = {
            "dqn_breakout": (400, 3),
            "sac_pendulum": (4, 1),
            "sac_halfcheetah": (23, 1),
            "sac_ant": (35, 1),
        }[problem.config]

        def weights(widths, inputs=inputs, outputs=outputs):
            first, second = widths
            return inputs * first + first * second + second * outputs

        ratio = weights(small) / (kept * weights(hidden))
        assert ratio == pytest.approx(1, abs=0.1), problem


@pytest.mark.slow
def test_stored_numbers_agree(study):
    """results.csv, table.md and the README tell the same."""
    rows = study.records.read(FOLDER / "results.csv", study.training.Row)
    assert {row.arm for row in rows} == set(study.settings.ARMS)
    assert all(sum(r.arm == arm for r in rows) >= 8 for arm in study.settings.ARMS)
    text = study.report.tables(rows)
    assert text == (FOLDER / "table.md").read_text()
    readme = (FOLDER / "README.md").read_text()
    assert all(part.strip() in readme for part in text.split("\n\n"))
