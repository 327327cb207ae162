"""A sweep from its command line: mistakes, and real runs started in every way."""

import csv
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from sparsejax import sweep

ROOT = pathlib.Path(sweep.__file__).resolve().parent.parent
SMALL = [
    "--config=rigl_mlp",
    "--config.steps=40",
    "--config.method.every=5",
    "--config.evaluate_every=10",
    "--config.checkpoint_every=10",
]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--vary", "seed=0"], "--config is missing"),
        ([*SMALL, "--launcher=slrum"], "--launcher=slrum: use one of local, slurm"),
        ([*SMALL, "--wrkers=2"], "--wrkers=2: unknown argument (did you mean --worker"),
        ([*SMALL, "--workers=0"], "--workers: '0': give a whole number >= 1"),
        ([*SMALL, "--time=soon"], "--time: 'soon': give minutes"),
        ([*SMALL, "--time=0:02:00"], "--time=2: give at least 5 minutes"),
        ([*SMALL, "--partition=gpu"], "--partition is for --launcher=slurm"),
        ([*SMALL, "--launcher=debug", "--workers=2"], "--workers: --launcher=debug"),
        ([*SMALL, "--vary", "seed=0,x"], "--vary seed=x: config.seed"),
        ([*SMALL, "--vary"], "--vary: expected one argument"),
    ],
)
def test_mistakes_are_one_line_and_start_nothing(
    arguments, expected, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert sweep.main(arguments) == sweep.MISUSED
    error = capsys.readouterr().err
    assert error.startswith("sparsejax.sweep: ") and error.count("\n") == 1
    assert expected in error
    assert not list(tmp_path.iterdir())


def test_help_helps(capsys):
    assert sweep.main(["--help"]) == 0
    text = capsys.readouterr().out
    for part in ("--vary", "--launcher", "Exit codes", "rigl_mlp"):
        assert part in text
    assert sweep.main([]) == sweep.MISUSED


def test_the_list_starts_nothing(tmp_path, capsys):
    folder = tmp_path / "sweep"
    assert sweep.main([*SMALL, "--list", f"--workdir={folder}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 15
    assert lines[0].split()[:2] == ["to", "start"]
    assert not folder.exists()


def test_a_directory_of_another_config_is_left_alone(tmp_path, capsys):
    command = [*SMALL, "--vary", "seed=0", f"--workdir={tmp_path}"]
    (trial,) = sweep.plan.expand("rigl_mlp", ["seed=0"], SMALL[1:])
    (tmp_path / trial.name).mkdir()
    (tmp_path / trial.name / "config.json").write_text('{"seed": 1}')
    assert sweep.main([*command, "--launcher=debug"]) == sweep.MISUSED
    assert "holds a run of another config" in capsys.readouterr().err


def start(folder, *more, **options):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
    command = [sys.executable, "-m", "sparsejax.sweep", *SMALL, *more]
    return subprocess.Popen(
        [*command, f"--workdir={folder}"],
        env=environment,
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def table(folder):
    """What each run came to, without what depends on the clock."""
    with open(folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        row["run"]: {k: v for k, v in row.items() if k not in ("seconds", "joules")}
        for row in rows
    }


@pytest.mark.slow
def test_every_launcher_comes_to_the_same_and_again_is_free(tmp_path, data_dir):
    pytest.importorskip("submitit")
    folders = [tmp_path / name for name in ("debug", "local")]
    options = (["--launcher=debug"], ["--launcher=local", "--workers=2"])
    for folder, launcher in zip(folders, options, strict=True):
        process = start(folder, "--vary", "seed=0..1", *launcher)
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output
        assert (folder / "sweep.html").exists()
    assert table(folders[0]) == table(folders[1])
    assert len(table(folders[0])) == 2
    began = time.monotonic()
    process = start(folders[1], "--vary", "seed=0..1")
    output = process.communicate(timeout=100)[0]
    assert process.returncode == 0
    assert "2 finished before" in output
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_interrupted_locally_it_saves_and_goes_on(tmp_path, data_dir):
    pytest.importorskip("submitit")
    folder = tmp_path / "sweep"
    longer = ["--config.steps=20000", "--config.method.stop=30", "--vary", "seed=0"]
    process = start(folder, *longer, start_new_session=True)
    end = time.monotonic() + 200
    while not list(folder.glob("*/checkpoints/10")) and time.monotonic() < end:
        time.sleep(0.1)
    # As Ctrl-C does, to all processes of the terminal.
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=150)[0]
    assert process.returncode == sweep.INTERRUPTED, output
    (log,) = folder.glob("*/train.log")
    assert "saved step" in log.read_text()
    assert not list(folder.glob("*/summary.json"))
