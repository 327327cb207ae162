"""The scripts of Slurm jobs, on a real Slurm that scripts/local_slurm.sh starts."""

import os
import pathlib
import re
import subprocess
import sys
import time

import pytest
from test_local_slurm import pytestmark, slurm, wait_for
from test_many_processes import assert_same_run, finish, options, start

ROOT = pathlib.Path(__file__).resolve().parent.parent
JOBS = sorted(path.stem for path in (ROOT / "scripts/slurm").glob("[!t]*.sh"))

__all__ = ["pytestmark", "slurm"]

# One machine with two cores and no GPU, in place of nodes full of them.
HERE = ["--nodes=1", "--cpus-per-task=1", "--gpus-per-node=0", "--mem=0", "--time=30"]
TWO = "--ntasks-per-node=2"


def submit(kind, arguments, folder, *more):
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
    }
    output = f"--output={folder}/slurm-%j.out"
    script = ROOT / "scripts" / "slurm" / f"{kind}.sh"
    said = subprocess.run(
        ["sbatch", "--parsable", *HERE, *more, output, script, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return said.stdout.strip()


def wait_for_end(job, folder, seconds=300):
    end = time.monotonic() + seconds
    while subprocess.run(
        ["squeue", "--noheader", f"--job={job}"], capture_output=True, text=True
    ).stdout.strip():
        log = folder / f"slurm-{job}.out"
        assert time.monotonic() < end, log.read_text() if log.exists() else "no log"
        time.sleep(0.5)
    return (folder / f"slurm-{job}.out").read_text()


@pytest.mark.parametrize("how", ["killed", "preempted"])
def test_a_job_of_two_processes_resumes_bitwise(how, slurm, tmp_path, data_dir):
    folder, whole = tmp_path / "job", tmp_path / "whole"
    more = ["--config.steps=300", "--config.evaluate_every=100", "--config.mesh.fsdp=1"]
    arguments = [*options("classify", folder, data_dir), *more]
    job = submit("language", arguments, tmp_path, TWO)
    wait_for(folder, "checkpoints/20")
    if how == "killed":
        found = subprocess.run(
            ["pgrep", "-f", f"^{sys.executable} .*{folder}.*"],
            capture_output=True,
            text=True,
        ).stdout.split()
        trained = [pid for pid in found if _is_supervised(pid)]
        assert len(trained) == 2
        os.kill(int(trained[1]), 9)
    else:
        subprocess.run(["scancel", "--signal=TERM", job], check=True)
    log = wait_for_end(job, tmp_path)
    code = 76 if how == "killed" else 75
    assert f"exit code {code}: back into the queue" in log
    if how == "killed":
        assert re.search(r"process [01] of 2, on \S+, was killed by SIGKILL", log)
    assert log.count("going on from the checkpoint of step") == 1
    assert "finished: " in log
    codes, said = finish(start([*options("classify", whole, data_dir), *more], 2))
    assert codes == [0, 0], "\n".join(said)
    assert_same_run(folder, whole)


def _is_supervised(pid):
    parent = re.search(
        r"PPid:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()
    )
    command = pathlib.Path(f"/proc/{parent[1]}/cmdline").read_text()
    return "sparsejax.train" in command


@pytest.mark.parametrize("kind", JOBS)
def test_a_mistake_ends_the_job_with_its_line(kind, slurm, tmp_path):
    job = submit(kind, ["--config=rigl_mpl"], tmp_path)
    log = wait_for_end(job, tmp_path)
    assert "did you mean" in log
    assert "back into the queue" not in log
