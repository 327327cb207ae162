"""Processes that end together; what they run here is a few lines of Python."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from sparsejax.building import ConfigError
from sparsejax.process_groups import Group, find_group
from sparsejax.supervising import LOST

SUPERVISOR = """
import sys
from sparsejax.process_groups import Group
from sparsejax.supervising import supervise
address, count, index, program = sys.argv[1:]
group = Group(address, int(count), int(index))
sys.exit(supervise(group, [sys.executable, "-c", program], "tests"))
"""

# What each is to do comes after these lines; `index` says which one it is.
CHILD = """
import json, os, signal, sys, time
coordinator, count, index, hosts = json.loads(os.environ["SPARSEJAX_MEMBER"])
print(json.dumps([os.getpid(), coordinator, count, index, hosts]), flush=True)
"""


def runs(pid):
    """Whether there is such a process, and not only its entry in a table."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] not in "ZX"
    except OSError:
        return False


class Running:
    """Supervised processes, with the process id and the words of each one's child."""

    def __init__(self, *programs):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        self.processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-c", SUPERVISOR, address),
                    *(str(len(programs)), str(index), CHILD + program),
                ],
                env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index, program in enumerate(programs)
        ]
        self.words = [json.loads(one.stdout.readline()) for one in self.processes]

    def end(self):
        """Exit codes and what was said on standard error."""
        found = [one.communicate(timeout=60)[1] for one in self.processes]
        end = time.monotonic() + 10
        while any(runs(pid) for pid, *_ in self.words):
            assert time.monotonic() < end
            time.sleep(0.05)
        return [one.returncode for one in self.processes], found


SLEEP = "time.sleep(100)"


def test_all_know_each_other_and_end_well():
    running = Running("", "time.sleep(.5)", "")
    coordinators = {words[1] for words in running.words}
    assert len(coordinators) == 1
    host = socket.gethostname()
    assert [words[2:] for words in running.words] == [
        [3, index, [host] * 3] for index in range(3)
    ]
    assert running.end() == ([0, 0, 0], ["", "", ""])


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_when_one_is_killed_all_say_which_and_end(victim):
    running = Running(SLEEP, SLEEP, SLEEP)
    os.kill(running.words[victim][0], signal.SIGKILL)
    began = time.monotonic()
    codes, said = running.end()
    assert time.monotonic() - began < 20
    assert codes == [LOST] * 3
    killed = f"process {victim} of 3, on {socket.gethostname()}, was killed by SIGKILL"
    assert all(one.count("\n") == 1 and killed in one for one in said)


@pytest.mark.slow
def test_a_lost_host_is_named():
    running = Running(SLEEP, SLEEP)
    running.processes[0].kill()
    codes, said = running.end()
    assert codes == [-signal.SIGKILL, LOST]
    assert "process 0 of 2" in said[1]
    assert "cannot be reached any more" in said[1]


def test_what_one_fails_with_is_the_exit_code_of_all():
    full = "time.sleep(1.5); print('disk full', file=sys.stderr); sys.exit(74)"
    running = Running(SLEEP, full)
    codes, said = running.end()
    assert codes == [74, 74]
    assert "process 1 of 2" in said[0]
    assert "has ended with exit code 74, and said why" in said[0]
    assert said[1] == "disk full\n"


@pytest.mark.slow
def test_what_follows_from_a_failure_is_not_taken_for_it(tmp_path):
    # jax aborts processes that have lost another one, maybe before the news is there.
    file = str(tmp_path / "dying")
    first = f"time.sleep(2); open({file!r}, 'w'); os.kill(os.getpid(), signal.SIGKILL)"
    second = f"while not os.path.exists({file!r}): pass\nos.abort()"
    running = Running(first, second)
    codes, said = running.end()
    assert codes == [LOST, LOST]
    assert all("process 0 of 2" in one and "SIGKILL" in one for one in said)


@pytest.mark.slow
def test_a_defect_is_the_exit_code_of_all():
    running = Running(SLEEP, SLEEP, "time.sleep(1.5); raise ValueError('a defect')")
    codes, said = running.end()
    assert codes == [1, 1, 1]
    assert all("process 2 of 3" in one and "exit code 1" in one for one in said[:2])
    assert "a defect" in said[2]


def test_being_asked_to_stop_is_handed_on():
    stop = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); time.sleep(100)"
    running = Running(stop, stop)
    time.sleep(0.5)
    for one in running.processes:
        one.send_signal(signal.SIGTERM)
    assert running.end() == ([75, 75], ["", ""])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("node0:1", None, 0), "--num_processes is missing"),
        ((None, 2, None), "--coordinator_address and --process_id is missing"),
        (("node0", 2, 0), "--coordinator_address=node0: give the host"),
        (("node0:99999", 2, 0), "--coordinator_address=node0:99999: give the host"),
        (("node0:1", 2, 2), "--process_id=2 of --num_processes=2: give one from 0 to"),
    ],
)
def test_a_flag_that_is_missing_or_out_of_range_is_named(given, message):
    with pytest.raises(ConfigError, match=message):
        find_group(*given, {})


def test_a_step_of_slurm_with_several_tasks_is_a_group(tmp_path, monkeypatch):
    fake = tmp_path / "scontrol"
    fake.write_text('#!/bin/sh\n[ "$3" = "node[3-4]" ] && echo node3 && echo node4\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    environment = {
        "SLURM_JOB_ID": "1234",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "1",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "node[3-4]",
    }
    assert find_group(None, None, None, environment) == Group("node3:59744", 2, 1)
    alone = {**environment, "SLURM_STEP_NUM_TASKS": "1"}
    assert find_group(None, None, None, alone) is None


@pytest.mark.slow
def test_two_that_say_they_are_the_same_are_told():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    program = SUPERVISOR.replace(
        "sys.exit(supervise",
        "from sparsejax.building import ConfigError\ntry: (supervise",
    )
    program += "except ConfigError as error: sys.exit(str(error))\n"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, address, "3", index, "pass"],
            env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in ("0", "1", "1")
    ]
    said = [one.communicate(timeout=60)[1] for one in processes]
    assert "process 1 of 3 came from" in said[0]
    assert all("has not let this one in, process 1 of 3" in one for one in said[1:])
