"""Two processes that train one network: the same as one, also when one is killed.

They have two devices in all: sums over more of them are made in another order by other
numbers of processes, and round differently.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from test_train import rows

import sparsejax as sj
from sparsejax import train
from sparsejax.restoring import restored
from sparsejax.supervising import LOST

pytestmark = pytest.mark.slow

CONFIGS = {
    "classify": ["--config=rigl_mlp", "--config.method.stop=45"],
    "language_model": [
        "--config=srigl_transformer",
        "--config.data.context=32",
        "--config.data.batch_size=8",
        "--config.data.evaluation_rows=8",
        "--config.model.layers=2",
        "--config.model.width=64",
        "--config.mesh.fsdp=2",
        "--config.learning_rate_schedule.warmup_steps=1",
    ],
    "detect": [
        "--config=rigl_ssd_mobilenet_v1",
        "--config.data.batch_size=4",
        "--config.learning_rate_schedule.warmup_steps=1",
    ],
    "agents": [
        "--config=rigl_dqn_cartpole",
        "--config.seeds=4",
        "--config.updates_per_call=10",
        "--config.evaluation_episodes=2",
    ],
}
COMMON = {
    "steps": 60,
    "method.every": 10,
    "method.stop": 45,
    "evaluate_every": 30,
    "checkpoint_every": 10,
    "log_every": 10,
}
SHORT = {"steps": 4, "method.every": 2, "method.stop": 3, "checkpoint_every": 2}


def options(kind, folder, data_dir):
    fields = COMMON | (SHORT if kind == "detect" else {})
    if kind == "detect":
        fields |= {"evaluate_every": 4, "log_every": 1}
    return [
        *CONFIGS[kind],
        f"--workdir={folder}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


def start(arguments, count=1, devices=2):
    """Starts processes that share simulated devices."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices // count}",
        "PYTHONPATH": ":".join(filter(None, sys.path)),
    }
    together = [f"--coordinator_address={address}", f"--num_processes={count}"]
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "sparsejax.train", *arguments),
                *([*together, f"--process_id={index}"] if count > 1 else []),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(count)
    ]


def finish(processes):
    said = [one.communicate(timeout=500)[0] for one in processes]
    return [one.returncode for one in processes], said


def assert_same_run(left, right):
    assert rows(left) == rows(right)
    states = [restored(folder).state for folder in (left, right)]
    for state in states:
        sj.verify(state.params, state.optimizer_state)
    a, b = (
        jax.tree.map(np.asarray, jax.tree.map(_bits, jax.tree.leaves(state)))
        for state in states
    )
    assert len(a) == len(b) > 20
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def _bits(leaf):
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


@pytest.mark.parametrize("kind", CONFIGS)
def test_two_processes_train_what_one_does(kind, tmp_path, data_dir):
    for count in (1, 2):
        folder = tmp_path / str(count)
        devices = count if kind == "agents" else 2
        started = start(options(kind, folder, data_dir), count, devices)
        codes, said = finish(started)
        assert codes == [train.FINISHED] * count, "\n".join(said)
    if kind == "agents":
        # A product rounds as the number of agents is that it is made for; what they do
        # then differs, what they are does not.
        one, two = (rows(tmp_path / str(count)) for count in (1, 2))
        names = ("step", "kind", "environment_steps", "sparsity", "density", "moves")
        assert [[row.get(name) for name in names] for row in one] == [
            [row.get(name) for name in names] for row in two
        ]
    else:
        assert_same_run(tmp_path / "1", tmp_path / "2")
    for name in ("summary.json", "report.html"):
        assert (tmp_path / "2" / name).is_file()
    # One of them reports; the other one is silent, but for the library that connects.
    assert "finished" in said[0]
    assert "step" not in said[1]


def wait_for(path):
    end = time.monotonic() + 200
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_one_ends_both_which_resume_bitwise(victim, tmp_path, data_dir):
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    codes, said = finish(start(options("classify", whole, data_dir), 2))
    assert codes == [0, 0], "\n".join(said)
    processes = start(options("classify", folder, data_dir), 2)
    wait_for(folder / "checkpoints" / "20")
    (child,) = subprocess.run(
        ["pgrep", "-P", str(processes[victim].pid)], capture_output=True, text=True
    ).stdout.split()
    os.kill(int(child), signal.SIGKILL)
    began = time.monotonic()
    codes, said = finish(processes)
    assert codes == [LOST, LOST]
    assert time.monotonic() - began < 60
    for one in said:
        assert re.search(rf"process {victim} of 2, on \S+, was killed by SIGKILL", one)
    codes, said = finish(start(options("classify", folder, data_dir), 2))
    assert codes == [0, 0], "\n".join(said)
    assert "going on from the checkpoint of step" in said[0]
    assert_same_run(folder, whole)


def test_asking_one_stops_both_and_one_process_goes_on(tmp_path, data_dir):
    folder, whole = tmp_path / "stopped", tmp_path / "whole"
    processes = start(options("classify", folder, data_dir), 2)
    wait_for(folder / "checkpoints" / "20")
    processes[1].send_signal(signal.SIGTERM)
    codes, said = finish(processes)
    assert codes == [train.INTERRUPTED] * 2, "\n".join(said)
    assert "another process was asked to stop: saved step" in said[0]
    for target in (folder, whole):
        codes, said = finish(start(options("classify", target, data_dir)))
        assert codes == [train.FINISHED], said[0]
    assert_same_run(folder, whole)


def test_a_mistake_in_the_config_ends_both(tmp_path, data_dir):
    arguments = [*options("classify", tmp_path, data_dir), "--config.mesh.fsdp=3"]
    codes, said = finish(start(arguments, 2))
    assert codes == [train.MISUSED] * 2
    # The other one may be ended before it has said the same.
    assert "config.mesh = {'data': -1, 'fsdp': 3} does not fit" in "".join(said)
    assert "Run the same command again" not in "".join(said)
