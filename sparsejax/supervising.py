"""Processes that train together are started together, and end together.

Each process that a user or a cluster starts supervises another one, which trains: when
one of these ends, however it does, all others learn which one and why, and end as well.
Otherwise they would wait for it in a collective, for minutes or for ever.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from sparsejax.process_groups import Group
from sparsejax.process_links import Center, Link, Spoke
from sparsejax.processes import Member
from sparsejax.programs import bound_to_parent

__all__ = ["LOST", "MEMBER", "supervise"]

#: The exit code of all processes after one was killed, or its host was lost.
LOST = 76

#: The environment variable that tells a process that is supervised which one it is.
MEMBER = "SPARSEJAX_MEMBER"

# Saved or finished: the others do the same.
_FINE = (0, 75)

_HOPELESS = (2, 3, 4, 5)
_GO_ON = (
    "Run the same command again, in all processes, to go on from the last checkpoint."
)

# jax aborts processes that have lost another one, or its collectives raise.
_CONSEQUENCES = (-signal.SIGABRT, 1)

# Seconds until a consequence is taken for a cause.
_GRACE = 3.0


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
    with (Center if group.index == 0 else Spoke)(group, events) as link:
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
        # What is wrong with a config or a network would only happen again.
        advice = "" if code in _HOPELESS else f" {_GO_ON}"
        print(
            f"{name}: process {index} of {group.count}, on {link.hosts[index]}, "
            f"{_fate(code)}{mine}.{advice}",
            file=sys.stderr,
            flush=True,
        )
    return LOST if code is None or code < 0 else code


def _until_the_end(
    group: Group,
    events: queue.Queue,
    link: Link,
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
    group: Group, events: queue.Queue, link: Link, ended: dict[int, int | None]
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
