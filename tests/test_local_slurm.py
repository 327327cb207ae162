"""Sweeps on a real Slurm, which scripts/local_slurm.sh starts on this machine."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from test_sweep import start, table

from sparsejax import metrics, sweep

SCRIPT = sweep.__file__.replace("sparsejax/sweep.py", "scripts/local_slurm.sh")
LONG = [
    "--config.steps=2000",
    "--config.method.stop=1500",
    "--config.evaluate_every=1000",
    "--config.checkpoint_every=100",
    "--vary",
    "seed=0",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("apt-get") is None,
        reason="Slurm is installed by apt-get, and runs as root",
    ),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A Slurm of our own, unless one that the script has started runs already."""
    pytest.importorskip("submitit")
    known = dict(os.environ)
    if subprocess.run(["bash", SCRIPT, "status"], capture_output=True).returncode:
        known["SPARSEJAX_SLURM"] = str(tmp_path_factory.mktemp("slurm"))
    begun = subprocess.run(
        ["bash", SCRIPT, "start"], env=known, capture_output=True, text=True
    )
    assert begun.returncode == 0, begun.stderr
    with pytest.MonkeyPatch.context() as patch:
        # The runs share what they compile.
        patch.delenv("XLA_FLAGS")  # the tests' eight devices
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("jax")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        configuration = begun.stdout.strip().partition("SLURM_CONF=")[2]
        patch.setenv("SLURM_CONF", configuration)
        yield
    if "SPARSEJAX_SLURM" in known and "SPARSEJAX_SLURM" not in os.environ:
        subprocess.run(["bash", SCRIPT, "stop"], env=known, check=True)


def rows(folder):
    """The metrics without what depends on the clock."""
    return [
        {k: v for k, v in row.items() if k not in metrics.WALL_CLOCK_FIELDS}
        for row in metrics.read(folder / "metrics.jsonl")
    ]


def wait_for(folder, pattern, seconds=200):
    end = time.monotonic() + seconds
    while not list(folder.glob(pattern)) and time.monotonic() < end:
        time.sleep(0.1)
    assert list(folder.glob(pattern))


@pytest.fixture(scope="module")
def undisturbed(slurm, tmp_path_factory, data_dir):
    """What the long run comes to if nobody disturbs it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "sweep"
    process = start(folder, *LONG, "--launcher=debug")
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    (run,) = folder.glob("*/metrics.jsonl")
    return rows(run.parent)


def only_run(folder):
    ((name, job),) = json.loads((folder / "sweep.json").read_text())["jobs"].items()
    return folder / name, job[1]


def test_an_array_of_six_runs(slurm, tmp_path, data_dir):
    folder = tmp_path / "sweep"
    varied = ["--vary", "method.sparsity=0.9,0.95", "--vary", "seed=0..2"]
    options = ["--launcher=slurm", "--time=30", "--cpus=1"]
    process = start(folder, *varied, *options)
    output = process.communicate(timeout=550)[0]
    assert process.returncode == 0, output
    found = table(folder)
    assert len(found) == 6
    assert {row["finished"] for row in found.values()} == {"True"}
    # One array, and submitit's record of each of its jobs.
    jobs = {path.name.split("_")[0] for path in (folder / "jobs").glob("*_log.out")}
    assert len(jobs) == 1


def test_a_preempted_run_is_put_back_into_the_queue_and_resumed(
    slurm, tmp_path, undisturbed
):
    folder = tmp_path / "sweep"
    process = start(folder, *LONG, "--launcher=slurm")
    wait_for(folder, "*/checkpoints/300")
    run, job = only_run(folder)
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    output = process.communicate(timeout=500)[0]
    assert process.returncode == 0, output
    log = (run / "train.log").read_text()
    assert "SIGTERM: saved step" in log
    assert log.count("going on from the checkpoint of step") == 1
    (printed,) = (folder / "jobs").glob(f"{job}_0_log.out")
    assert "Requeued job" in printed.read_text()
    assert rows(run) == undisturbed


def test_killed_processes_are_started_again_where_they_were(
    slurm, tmp_path, undisturbed
):
    folder = tmp_path / "sweep"
    process = start(folder, *LONG, "--launcher=slurm")
    wait_for(folder, "*/checkpoints/300")
    run, _ = only_run(folder)
    killed = ["pgrep", "-f", f"sparsejax.train.*{run.name}"]
    for pid in subprocess.run(killed, capture_output=True, text=True).stdout.split():
        os.kill(int(pid), signal.SIGKILL)
    output = process.communicate(timeout=500)[0]
    assert process.returncode == 0, output
    log = (run / "train.log").read_text()
    assert "exit code -9; retry 1 of 2" in log
    assert "going on from the checkpoint of step" in log
    assert rows(run) == undisturbed
