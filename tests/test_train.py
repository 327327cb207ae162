import errno
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.experimental.compilation_cache import compilation_cache

import sparsejax as sj
from sparsejax import metrics, train, workdir

ROOT = pathlib.Path(train.__file__).resolve().parent.parent

SMALL = [
    "--config=rigl_mlp",
    "--config.steps=40",
    "--config.method.every=5",
    "--config.log_every=5",
    "--config.evaluate_every=10",
    "--config.checkpoint_every=10",
]


def small(folder, *overrides):
    return [*SMALL, f"--workdir={folder}", *overrides]


def rows(folder):
    """The metrics without what depends on the clock."""
    return [
        {k: v for k, v in row.items() if k not in metrics.WALL_CLOCK_FIELDS}
        for row in metrics.read(folder / "metrics.jsonl")
    ]


def final_arrays(folder, step=40):
    """Every array of the checkpoint of a step: parameters, masks, statistics, keys."""
    path = (folder / "checkpoints" / str(step) / "state").resolve()
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(path)
    return {
        "/".join(map(str, path)): np.asarray(leaf).tobytes()
        for path, leaf in _leaves(tree)
    }


def _leaves(tree, path=()):
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, list | tuple):
        items = enumerate(tree)
    else:
        if tree is not None:
            is_key = jax.dtypes.issubdtype(tree.dtype, jax.dtypes.prng_key)
            yield path, jax.random.key_data(tree) if is_key else tree
        return
    for name, child in items:
        yield from _leaves(child, (*path, name))


def assert_same_run(left, right, step=40):
    assert rows(left) == rows(right)
    a, b = final_arrays(left, step), final_arrays(right, step)
    assert len(a) > 20
    assert any("masks" in name for name in a)
    assert a == b


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """The runs of this file share what they compile, also those in subprocesses."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            jax.config.update(name, value)
            patch.setenv(name.upper(), str(value))
        compilation_cache.reset_cache()
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
    """A run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert train.main(small(folder)) == train.FINISHED
    return folder


def test_a_run_leaves_everything_that_is_promised(finished):
    for name in ("config.json", "report.html", "tensorboard", "checkpoints", "plots"):
        assert (finished / name).exists()
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["step"] == 40
    assert summary["seed"] == 0
    active = sum(layer["active"] for layer in summary["layers"])
    # 25,856 weights at 95 %: 1,292.8.
    assert active == 1293
    assert summary["cost"]["sparse_macs"] == active
    assert summary["final"]["accuracy"] > 0.3
    assert summary["versions"]["jax"]
    assert summary["seconds"] > 0
    assert "--config=rigl_mlp" in summary["command"]
    checkpoints = {p.name for p in (finished / "checkpoints").iterdir() if p.is_dir()}
    assert checkpoints == {"20", "30", "40"}


def test_metrics_have_each_row_once_and_in_order(finished):
    found = rows(finished)
    steps = {
        kind: [row["step"] for row in found if row["kind"] == kind]
        for kind in ("train", "evaluation", "topology")
    }
    assert steps["train"] == [5, 10, 15, 20, 25, 30, 35, 40]
    assert steps["evaluation"] == [10, 20, 30, 40]
    # Moves are made by updates 5, 10, ... 25 (counted from 0), so seen one step later.
    assert steps["topology"] == [0, 10, 15, 20, 25, 30]
    moves = [row["moves"] for row in found if row["kind"] == "topology"]
    assert moves == [0, 1, 2, 3, 4, 5]
    explored = [
        row["exploration"]["hidden0/kernel"] for row in found if "exploration" in row
    ]
    assert explored == sorted(explored)
    assert explored[-1] > explored[0]
    losses = [row["loss"] for row in found if row["kind"] == "train"]
    assert losses[-1] < losses[0]


def test_a_finished_run_says_so_and_changes_nothing(finished, capsys):
    before = (finished / "metrics.jsonl").read_bytes()
    assert train.main(small(finished)) == train.FINISHED
    shown = capsys.readouterr().out
    assert "is finished (step 40)" in shown
    assert "To start again" in shown
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_another_config_in_the_same_workdir_is_refused(finished, capsys):
    overrides = ["--config.seed=1", "--config.method.sparsity=0.9"]
    assert train.main(small(finished, *overrides)) == train.MISUSED
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "method.sparsity: 0.95 -> 0.9; seed: 0 -> 1" in error


def test_two_processes_in_one_workdir_are_refused(finished, capsys):
    with workdir.locked(finished):
        assert train.main(small(finished)) == train.MISUSED
    assert "another process is running in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
    ids=["terminate", "interrupt"],
)
def test_a_signal_saves_and_the_same_command_goes_on(
    finished, tmp_path, monkeypatch, capsys, number
):
    write = metrics.MetricsWriter.write

    def write_and_signal(self, step, kind, values):
        write(self, step, kind, values)
        if step == 15 and kind == "train":
            os.kill(os.getpid(), number)

    monkeypatch.setattr(metrics.MetricsWriter, "write", write_and_signal)
    folder = tmp_path / "run"
    assert train.main(small(folder)) == train.INTERRUPTED == 75
    assert f"{number.name}: saved step 15 of 40" in capsys.readouterr().out
    assert not (folder / "summary.json").exists()
    monkeypatch.undo()
    assert train.main(small(folder)) == train.FINISHED
    assert "going on from the checkpoint of step 15" in capsys.readouterr().out
    assert_same_run(folder, finished)


def test_a_damaged_newest_checkpoint_falls_back(
    finished, tmp_path, monkeypatch, capsys
):
    def stop(self, step, kind, values):
        write(self, step, kind, values)
        if step == 35:
            raise KeyboardInterrupt

    write = metrics.MetricsWriter.write
    monkeypatch.setattr(metrics.MetricsWriter, "write", stop)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train.main(small(folder))
    monkeypatch.undo()
    newest = folder / "checkpoints" / "30" / "state"
    for file in newest.rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            os.truncate(file, file.stat().st_size // 2)
    assert train.main(small(folder)) == train.FINISHED
    shown = capsys.readouterr().out
    assert "checkpoint of step 30 is damaged" in shown
    assert "going on from the checkpoint of step 20" in shown
    assert_same_run(folder, finished)


def test_a_loss_that_is_not_finite_stops_with_step_and_layer(
    tmp_path, capsys, data_dir
):
    explode = [
        "--config.optimizer.name=sgd",
        "--config.optimizer.learning_rate=1e7",
        "--config.checkpoint_every=1",
        "--config.keep_checkpoints=50",
    ]
    folder = tmp_path / "run"
    assert train.main(small(folder, *explode)) == train.DIVERGED
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "loss = " in error
    assert "kernel" in error
    assert "learning_rate" in error
    stopped = int(error.split("step ")[1].split(":")[0])
    last = max(int(p.name) for p in (folder / "checkpoints").iterdir() if p.is_dir())
    assert last == stopped - 1
    kept = final_arrays(folder, last)
    params = [value for name, value in kept.items() if name.startswith("params")]
    assert params
    assert all(np.isfinite(np.frombuffer(value, np.float32)).all() for value in params)


def dense_again(inner, *, sparsity, seed):
    """Wrapped in the wrong order: what comes after the method moves every weight."""
    method = sj.static(inner, sparsity=sparsity, seed=seed)
    return optax.chain(method, optax.add_decayed_weights(1e-3), _noise())


def _noise():
    def update(updates, state, params=None):
        return jax.tree.map(lambda u: u + 1e-3, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def test_a_wrong_order_is_caught_at_the_first_evaluation(
    tmp_path, capsys, monkeypatch, data_dir
):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "wrongly_wrapped.py").write_text(
        "from sparsejax import recipes\n"
        "def get_config():\n"
        "    config = recipes.mlp('static')\n"
        "    config.steps = 20\n"
        "    config.evaluate_every = 4\n"
        f"    config.method = {{'name': '{__name__}.dense_again', 'sparsity': 0.9}}\n"
        "    return config\n"
    )
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    arguments = [f"--config={tmp_path}/wrongly_wrapped.py", f"--workdir={tmp_path}/run"]
    assert train.main(arguments) == train.NOT_SPARSE
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "step 4: " in error
    assert "kernel" in error
    assert "chained" in error


def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(
    tmp_path, capsys, monkeypatch, data_dir
):
    save = ocp.CheckpointManager.save

    def full(self, step, *args, **kwargs):
        if step > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(self, step, *args, **kwargs)

    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    assert train.main(small(tmp_path / "run")) == train.FILE_ERROR
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "No space left" in error
    assert "step 10 is kept" in error


def launch(folder, *overrides):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "sparsejax.train", *small(folder, *overrides)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


# As many rows as a run of `small` has to write before it is killed.
@pytest.mark.slow
@pytest.mark.parametrize("lines", [9, None], ids=["fixed", "random"])
def test_a_killed_run_resumes_bitwise(tmp_path, data_dir, lines):
    overrides = ["--config.log_every=1"]
    if lines is None:
        lines = int(np.random.default_rng().integers(2, 45))
    whole = launch(tmp_path / "whole", *overrides)
    folder = tmp_path / "killed"
    killed = launch(folder, *overrides)
    file = folder / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while killed.poll() is None and time.monotonic() < deadline:
        if file.exists() and len(file.read_bytes().splitlines()) >= lines:
            killed.kill()
        time.sleep(0.001)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, f"killed at {lines} rows: too late"
    again = launch(folder, *overrides)
    assert again.wait(timeout=240) == train.FINISHED, again.communicate()[0]
    assert whole.wait(timeout=240) == train.FINISHED, whole.communicate()[0]
    assert_same_run(folder, tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted as root")
def test_a_disk_that_fills_up_loses_nothing_and_the_run_goes_on(
    finished, tmp_path, data_dir, capsys
):
    small_disk = tmp_path / "disk"
    small_disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small_disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        often = ["--config.keep_checkpoints=1000", "--config.checkpoint_every=2"]
        command = small(small_disk / "run", *often)
        assert train.main(command) == train.FILE_ERROR
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "cannot save the checkpoint of step" in error
        assert "is kept); free some space" in error
        grow = ["mount", "-o", "remount,size=100m", str(small_disk)]
        subprocess.run(grow, check=True)
        assert train.main(command) == train.FINISHED
        assert "going on from the checkpoint of step" in capsys.readouterr().out
        assert_same_run(small_disk / "run", finished)
    finally:
        subprocess.run(["umount", "-l", str(small_disk)], check=True)


@pytest.mark.slow
def test_a_device_with_too_little_memory_is_one_line(tmp_path, data_dir):
    arguments = small(tmp_path / "run", "--config.model.hidden=(30000,30000)")
    program = shlex.join([sys.executable, "-m", "sparsejax.train", *arguments])
    ended = subprocess.run(
        ["bash", "-c", f"ulimit -v 9000000; exec {program}"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == train.NO_MEMORY, ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "too little memory" in ended.stderr
    assert "lower config.data.batch_size" in ended.stderr
