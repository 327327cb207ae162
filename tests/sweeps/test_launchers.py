import stat

import pytest

from sparsejax.building import ConfigError
from sparsejax.sweeps import launchers

pytest.importorskip("submitit")


def program(folder, name, text):
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    program(tmp_path, "srun", "true")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return launchers.Slurm(tmp_path / "jobs", {"time": 5}, "test")


def test_states_are_read_from_the_queue_of_a_cluster_without_accounting(
    slurm, tmp_path
):
    lines = r"7_0 RUNNING\n7_1 PENDING\n7_2 CANCELLED\n8 COMPLETED\n9 NODE_FAIL\n"
    program(tmp_path, "squeue", f"printf '{lines}'")
    jobs = ["7_0", "7_1", "7_2", "7_3", "8", "9"]
    expected = ["running", "waiting", "cancelled", "ended", "ended", "ended"]
    assert slurm.states(jobs) == dict(zip(jobs, expected, strict=True))


def test_a_queue_that_does_not_answer_changes_nothing(slurm, tmp_path):
    program(tmp_path, "squeue", "echo 7 RUNNING")
    assert slurm.states(["7"]) == {"7": "running"}
    program(tmp_path, "squeue", "echo Unable to contact slurm controller >&2; exit 1")
    assert slurm.states(["7", "8"]) == {"7": "running", "8": "waiting"}
    program(tmp_path, "squeue", "echo Invalid job id specified >&2; exit 1")
    assert slurm.states(["7"]) == {"7": "ended"}


def test_what_sbatch_refuses_is_one_line(slurm, tmp_path):
    program(tmp_path, "sbatch", "echo sbatch: error: invalid partition x >&2; exit 1")
    with pytest.raises(ConfigError, match=r"invalid partition x.*check --partition"):
        slurm.submit([launchers.Job((), tmp_path, 0)])


def test_without_a_cluster_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no srun and sbatch"):
        launchers.Slurm(tmp_path, {}, "test")
