"""Processes that train together are started together, and end together.

Each process that a user or a cluster starts supervises another one, which trains: when
one of these ends, however it does, all others learn which one and why, and end as well.
Otherwise they would wait for it in a collective, for minutes or for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sparsejax.building import ConfigError
from sparsejax.processes import Member
from sparsejax.programs import bound_to_parent

__all__ = ["LOST", "MEMBER", "Group", "find_group", "supervise"]

#: The exit code of all processes after one was killed, or its host was lost.
LOST = 76

#: The environment variable that tells a process that is supervised which one it is.
MEMBER = "SPARSEJAX_MEMBER"

# Saved or finished: the others do the same.
_FINE = (0, 75)

# jax aborts processes that have lost another one, or its collectives raise.
_CONSEQUENCES = (-signal.SIGABRT, 1)

# Seconds until a consequence is taken for a cause.
_GRACE = 3.0

# Seconds in which all have to be there.
_PATIENCE = 300.0


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


def supervise(group: Group, command: Sequence[str], name: str) -> int:
    """Runs a command as one process of a group, and watches the others.

    Args:
      group: Which process this is.
      command: What to run; it finds its `Member`, as JSON, in the variable `MEMBER`.
      name: Of the program, for messages: ``"sparsejax.train"``.

    Returns:
      The exit code: that of the first process that has failed; `LOST` if it was killed
      or cannot be reached any more; otherwise the command's own.

    Raises:
      ConfigError: If the others cannot be reached.
    """
    events: queue.Queue[tuple[int, int | None]] = queue.Queue()
    with (_Center if group.index == 0 else _Spoke)(group, events) as link:
        member = Member(link.coordinator, group.count, group.index, link.hosts)
        environment = {**os.environ, MEMBER: json.dumps(member)}
        child = subprocess.Popen(
            bound_to_parent(command, signal.SIGKILL),
            env=environment,
            stdin=subprocess.DEVNULL,
            # Ctrl-C is for this process to hand on, once.
            start_new_session=True,
        )

        def wait() -> None:
            events.put((group.index, child.wait()))

        def hand_on(number: int, frame: Any) -> None:
            del frame
            child.send_signal(number)

        threading.Thread(target=wait, daemon=True).start()
        before = {
            number: signal.signal(number, hand_on)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            ended: dict[int, int | None] = {}
            index, code = _until_the_end(group, events, link, child, ended)
            child.kill()
            if group.index == 0:
                _until_all_know(group, events, link, ended)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            child.kill()
            child.wait()
    if code in _FINE:
        return int(code)
    if index != group.index or code is None or code < 0:
        mine = "" if index == group.index else f"; so process {group.index} has stopped"
        print(
            f"{name}: process {index} of {group.count}, on {link.hosts[index]}, "
            f"{_fate(code)}{mine}. Run the same command again, in all processes, to go "
            "on from the last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
    return LOST if code is None or code < 0 else code


def _until_the_end(
    group: Group,
    events: queue.Queue,
    link: _Link,
    child: subprocess.Popen,
    ended: dict[int, int | None],
) -> tuple[int, int | None]:
    """Whose end decides, and its code; None if it is out of reach."""
    suspect: tuple[int, int | None] | None = None
    deadline = float("inf")
    while time.monotonic() < deadline:
        try:
            index, code = events.get(timeout=0.2)
        except queue.Empty:
            continue
        if index in ended:
            continue
        if index == group.index and suspect is not None:
            code = -signal.SIGABRT  # it was killed here, which is no cause
        ended[index] = code
        link.tell(index, code)
        if code in _FINE:
            # The first one stays until all have ended, so that it is not missed.
            enough = range(group.count) if group.index == 0 else [group.index]
            if suspect is None and all(one in ended for one in enough):
                return group.index, ended[group.index]
            continue
        # Its part of the next collective will never come.
        child.kill()
        if suspect is None or code not in _CONSEQUENCES:
            suspect = index, code
        if code not in _CONSEQUENCES:
            break
        deadline = min(deadline, time.monotonic() + _GRACE)
    assert suspect is not None
    return suspect


def _until_all_know(
    group: Group, events: queue.Queue, link: _Link, ended: dict[int, int | None]
) -> None:
    """Stays until the others have ended: who loses the first one blames it."""
    deadline = time.monotonic() + 5 * _GRACE
    while len(ended) < group.count and time.monotonic() < deadline:
        try:
            index, code = events.get(timeout=0.2)
        except queue.Empty:
            continue
        if index not in ended:
            code = -signal.SIGABRT if index == group.index else code
            ended[index] = code
            link.tell(index, code)


def _fate(code: int | None) -> str:
    if code is None:
        return "cannot be reached any more: it, its host or the network has failed"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"has ended with exit code {code}, and said why"


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


class _Link:
    """Connections to other supervisors; what they tell becomes events.

    Attributes:
      coordinator: Where jax's own service is to be.
      hosts: Of all processes.
    """

    coordinator: str
    hosts: tuple[str, ...]

    def __init__(self, events: queue.Queue):
        self._events = events
        self._connections: dict[int, socket.socket] = {}

    def __enter__(self) -> _Link:
        return self

    def __exit__(self, *error: object) -> None:
        for connection in self._connections.values():
            connection.close()

    def tell(self, index: int, code: int | None) -> None:
        """Passes an end on to those that may not know of it."""
        raise NotImplementedError

    def _listen(self, other: int, lines: Any) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in lines:
                index, code = json.loads(line)
                self._events.put((index, code))
        self._events.put((other, None))

    def _connect(self, other: int, connection: socket.socket, lines: Any) -> None:
        connection.settimeout(None)
        # A host that is gone closes nothing: half a minute of silence says it.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("IDLE", 10), ("INTVL", 5), ("CNT", 4)):
            number = getattr(socket, f"TCP_KEEP{option}", None)
            if number is not None:
                connection.setsockopt(socket.IPPROTO_TCP, number, value)
        self._connections[other] = connection
        arguments = (other, lines)
        threading.Thread(target=self._listen, args=arguments, daemon=True).start()


class _Center(_Link):
    """The first process's: connected to all others."""

    def __init__(self, group: Group, events: queue.Queue):
        super().__init__(events)
        host, _, port = group.address.rpartition(":")
        try:
            server = socket.create_server(("", int(port)))
        except OSError as error:
            raise ConfigError(
                f"port {port}, to wait for the other processes, cannot be opened "
                f"({error.strerror}); give another one, --coordinator_address={host}:"
                "PORT, to all."
            ) from error
        end = time.monotonic() + _PATIENCE
        hosts = {0: socket.gethostname()}
        waiting: dict[int, tuple[socket.socket, Any]] = {}
        with server:
            while len(hosts) < group.count:
                server.settimeout(max(end - time.monotonic(), 0.01))
                try:
                    connection, _ = server.accept()
                except TimeoutError as error:
                    missing = sorted(set(range(group.count)) - set(hosts))
                    raise ConfigError(
                        f"processes {missing} of {group.count} have not come within "
                        f"{_PATIENCE:.0f} s; start one for each --process_id."
                    ) from error
                connection.settimeout(10)
                lines = connection.makefile("r")
                try:
                    index, count, other = json.loads(lines.readline())
                except (OSError, ValueError):
                    connection.close()  # somebody else
                    continue
                if count != group.count or index in hosts or index >= group.count:
                    connection.close()
                    raise ConfigError(
                        f"process {index} of {count} came from {other}, to a run of "
                        f"{group.count} that has {sorted(hosts)}; give every process "
                        "another --process_id and the same --num_processes."
                    )
                hosts[index] = other
                waiting[index] = connection, lines
        self.hosts = tuple(hosts[index] for index in range(group.count))
        with socket.create_server(("", 0)) as free:
            self.coordinator = f"{host}:{free.getsockname()[1]}"
        for index, (connection, lines) in waiting.items():
            _send(connection, (self.coordinator, self.hosts))
            self._connect(index, connection, lines)

    def tell(self, index: int, code: int | None) -> None:
        for other, connection in self._connections.items():
            if other != index:
                _send(connection, (index, code))


class _Spoke(_Link):
    """Another process's: connected to the first one."""

    def __init__(self, group: Group, events: queue.Queue):
        super().__init__(events)
        self._index = group.index
        host, _, port = group.address.rpartition(":")
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                connection = socket.create_connection((host, int(port)), timeout=10)
                break
            except OSError as error:
                if time.monotonic() > end:
                    raise ConfigError(
                        f"process 0 cannot be reached at {group.address} ({error}); "
                        "start it, or correct --coordinator_address."
                    ) from error
                time.sleep(0.5)
        hello = (group.index, group.count, socket.gethostname())
        lines = connection.makefile("r")
        try:
            _send(connection, hello)
            connection.settimeout(_PATIENCE + 10)
            self.coordinator, hosts = json.loads(lines.readline())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"process 0 at {group.address} has not let this one in, process "
                f"{group.index} of {group.count}: see what it said."
            ) from error
        self.hosts = tuple(hosts)
        self._connect(0, connection, lines)

    def tell(self, index: int, code: int | None) -> None:
        if index == self._index:
            _send(self._connections[0], (index, code))


def _send(connection: socket.socket, value: Any) -> None:
    # Whoever listens to a connection that is broken says so.
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(value).encode() + b"\n")
