"""Connections between the processes of a group: who has ended, and how.

All others are connected to the first one, which passes on what it is told.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import time
from typing import Any

from sparsejax.building import ConfigError
from sparsejax.process_groups import Group

__all__ = ["Center", "Link", "Spoke"]

# Seconds in which all have to be there.
_PATIENCE = 300.0


class Link:
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

    def __enter__(self) -> Link:
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


class Center(Link):
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


class Spoke(Link):
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
