"""Which processes train together: said by flags, or by Slurm."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from sparsejax.building import ConfigError

__all__ = ["Group", "find_group"]


class Group(NamedTuple):
    """The processes of a run.

    Attributes:
      address: Where the first one can be reached: ``"host:port"``.
      count: How many there are.
      index: Which of them this is, from 0.
    """

    address: str
    count: int
    index: int


def find_group(
    address: str | None,
    count: int | None,
    index: int | None,
    environment: Mapping[str, str],
) -> Group | None:
    """Finds out which processes train together: by flags, or by Slurm.

    Args:
      address: ``--coordinator_address``.
      count: ``--num_processes``.
      index: ``--process_id``.
      environment: Environment variables; those of a job step that ``srun`` started with
        several tasks stand for the flags.

    Returns:
      The processes; None if this one trains alone.

    Raises:
      ConfigError: If some flags are missing, or out of range.

    Example:
      >>> find_group("node0:1234", 2, 1, {})
      Group(address='node0:1234', count=2, index=1)
      >>> find_group(None, None, None, {})
    """
    given = {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": index,
    }
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return _of_slurm(environment)
    if address is None or count is None or index is None:
        raise ConfigError(
            f"{' and '.join(missing)} is missing: a run of several processes needs "
            "--coordinator_address=HOST:PORT, --num_processes=N and --process_id=I, "
            "the last from 0 to N - 1; under srun with several tasks none of them."
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) >= 2**16:
        raise ConfigError(
            f"--coordinator_address={address}: give the host of process 0 and a free "
            "port there, such as node0:1234."
        )
    if not 0 <= index < count:
        raise ConfigError(
            f"--process_id={index} of --num_processes={count}: give one from 0 to "
            f"{count - 1}."
        )
    return Group(address, count, index) if count > 1 else None


def _of_slurm(environment: Mapping[str, str]) -> Group | None:
    count = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    if count < 2 or "SLURM_PROCID" not in environment:
        return None
    nodes = environment["SLURM_STEP_NODELIST"]
    listed = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True
    )
    if listed.returncode or not listed.stdout.split():
        raise ConfigError(
            f"scontrol show hostnames {nodes}: {listed.stderr.strip()}; give "
            "--coordinator_address, --num_processes and --process_id instead."
        )
    # The same for all tasks of a step, and another for every other step.
    job, step = (int(environment[f"SLURM_{name}_ID"]) for name in ("JOB", "STEP"))
    port = 40_000 + (16 * job + step) % 20_000
    host = listed.stdout.split()[0]
    return Group(f"{host}:{port}", count, int(environment["SLURM_PROCID"]))
