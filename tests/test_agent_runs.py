"""Agents are trained by the same program as everything else, go on, and play."""

import json
import math
import re
import sys

import pytest
from test_train import final_arrays, rows

from sparsejax import configuration, play, topology_rows, train

pytest.importorskip("flashbax")
pytest.importorskip("gymnax")

# Eight of them: one for each of the simulated devices.
SMALL = [
    "--config.seeds=8",
    "--config.steps=200",
    "--config.updates_per_call=50",
    "--config.log_every=50",
    "--config.evaluate_every=100",
    "--config.checkpoint_every=100",
    "--config.evaluation_episodes=2",
    "--config.method.every=50",
    "--config.model.hidden=(16,16)",
    "--config.data.batch_size=16",
    "--config.data.learning_starts=64",
    "--config.data.replay_size=1024",
]
AGENTS = [
    name for name in configuration.available() if re.search(r"_(dqn|sac|ppo)_", name)
]


def command(folder, *options, config="rigl_dqn_cartpole"):
    return [f"--config={config}", f"--workdir={folder}", *SMALL, *options]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agents") / "run"
    assert train.main(command(folder)) == train.FINISHED
    return folder


def test_a_run_leaves_returns_activity_and_counts(finished):
    summary = json.loads((finished / "summary.json").read_text())
    final = summary["final"]
    assert summary["step"] == 200
    assert 1 <= final["episode_return"] <= 500
    assert len(final["episode_return_of_seed"]) == 8
    assert 0 <= final["dormant_ratio"] < 1 and 1 <= final["effective_rank"] <= 16
    # Of one agent: 4x16, 16x16 and 16x2 weights, a twentieth of them.
    size = sum(layer["size"] for layer in summary["layers"])
    active = sum(layer["active"] for layer in summary["layers"])
    assert (size, active) == (352, 18)
    assert summary["train"]["environment_steps"] == 64 + 200 * 4
    page = (finished / "report.html").read_text()
    assert "Episode return" in page and 'alt="returns"' in page


def test_an_agent_plays_and_compressed_does_as_well(finished, capsys, tmp_path):
    # The best of them looks at what it sees; others always push to one side.
    summary = json.loads((finished / "summary.json").read_text())
    returns = summary["final"]["episode_return_of_seed"]
    best = max(returns, key=returns.get)
    options = [f"--workdir={finished}", "--episodes=5", f"--agent={best}"]
    assert play.main(options) == play.DONE
    masked = capsys.readouterr()
    stored = tmp_path / "policy.safetensors"
    assert play.main([*options, "--compressed", f"--output={stored}"]) == play.DONE
    compressed = capsys.readouterr()
    assert masked.out == compressed.out and masked.out.count("episode ") == 5
    assert "an action takes" in masked.err and stored.stat().st_size > 0
    noisy = [*options, "--observation-noise=5.0"]
    assert play.main(noisy) == play.DONE
    assert capsys.readouterr().out != masked.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--agent=8"], "has 8 agents, counted from 0"),
        (["--episodes=0"], "--episodes=0"),
        (["--loud"], "--loud"),
    ],
)
def test_what_cannot_be_played_is_one_line(finished, options, message, capsys):
    assert play.main([f"--workdir={finished}", *options]) == play.MISUSED
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_an_interrupted_run_goes_on_bitwise(finished, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    real = topology_rows.write

    def interrupted(metrics, step, state):
        real(metrics, step, state)
        if step == 150:
            raise KeyboardInterrupt

    monkeypatch.setattr(topology_rows, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.main(command(folder))
    monkeypatch.undo()
    # From the checkpoint of step 100: replay, environments and keys are in it.
    assert train.main(command(folder)) == train.FINISHED
    assert rows(folder) == rows(finished)
    assert final_arrays(folder, 200) == final_arrays(finished, 200)


def test_an_environment_that_is_not_installed_is_one_line(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "gymnax", None)
    assert train.main(command(tmp_path / "run")) == train.MISUSED
    assert 'pip install "sparsejax[rl]"' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_every_config_runs_a_thousand_steps(name, tmp_path):
    options = [
        f"--config={name}",
        f"--workdir={tmp_path / 'run'}",
        "--config.seeds=8",
        "--config.steps=1000",
        "--config.updates_per_call=200",
        "--config.log_every=200",
        "--config.evaluate_every=1000",
        "--config.checkpoint_every=1000",
        "--config.evaluation_episodes=1",
        "--config.data.batch_size=16",
        "--config.model.hidden=(32,32)",
    ]
    if not name.startswith(("dense", "static")):
        options.append("--config.method.every=100")
    if "_ppo_" not in name:
        options.append("--config.data.learning_starts=256")
    assert train.main(options) == train.FINISHED
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert math.isfinite(summary["train"]["loss"])
    assert name.startswith("dense") or summary["sparsity"] >= 0.89
