"""The run directory: one config, one process at a time, no file half written."""

import contextlib
import fcntl
import io
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sparsejax.building import ConfigError


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Creates a run directory if need be, and keeps other processes out of it.

    Args:
      workdir: The run directory.

    Raises:
      ConfigError: If it cannot be written to, or another process runs in it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / ".lock", "a")  # noqa: SIM115 (closed by `with` below)
    except OSError as error:
        raise ConfigError(
            f"--workdir={workdir}: cannot be written to ({error.strerror}); name a "
            "folder that can, --workdir=FOLDER."
        ) from error
    # The kernel drops the lock with the process, however it ends: nothing to clean up.
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"--workdir={workdir}: another process is running in it; wait for it, "
                "or name another folder."
            ) from error
        yield


def in_use(workdir: pathlib.Path) -> bool:
    """Whether a process runs in a run directory at this moment.

    Args:
      workdir: The run directory; it need not exist.

    Returns:
      Whether `locked` would refuse it.

    Example:
      >>> in_use(pathlib.Path("no/such/run"))
      False
    """
    try:
        with open(workdir / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def claim(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Writes ``config.json``, or makes sure that it says the same.

    A run may go on with another ``mesh``: it says where arrays are, not what they are.

    Args:
      workdir: The run directory.
      config: The config as plain data.

    Raises:
      ConfigError: If the directory belongs to another config; the message has the
        fields that differ, as ``field: there -> here``.
    """
    path = workdir / "config.json"
    try:
        here = json.loads(json.dumps(config))
    except TypeError as error:
        raise ConfigError(
            f"the config cannot be stored ({error}); use numbers, strings, None, lists "
            "and dictionaries only."
        ) from error
    if not path.exists():
        write_json(path, here)
        return
    try:
        there = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"--workdir={workdir}: its config.json is not JSON ({error}); delete the "
            "folder to start again, or name another."
        ) from error
    changes = differences({**there, "mesh": None}, {**here, "mesh": None})
    if not changes and there != here:
        write_json(path, here)
    if changes:
        raise ConfigError(
            f"--workdir={workdir} holds a run of another config ({'; '.join(changes)});"
            " name another folder, or delete that one."
        )


def differences(there: Any, here: Any, field: str = "") -> list[str]:
    """Lists the fields in which two configs differ.

    Args:
      there: One config as plain data.
      here: The other.
      field: Where the two stand, for messages.

    Returns:
      One text per field, ``"method.sparsity: 0.9 -> 0.8"``.

    Example:
      >>> differences({"seed": 0, "data": {"name": "a"}}, {"data": {"name": "b"}})
      ["data.name: 'a' -> 'b'", 'seed: 0 -> (absent)']
    """
    if isinstance(there, dict) and isinstance(here, dict):
        changes = []
        for key in sorted({*there, *here}):
            inner = f"{field}.{key}" if field else key
            if key not in here:
                changes.append(f"{inner}: {there[key]!r} -> (absent)")
            elif key not in there:
                changes.append(f"{inner}: (absent) -> {here[key]!r}")
            else:
                changes.extend(differences(there[key], here[key], inner))
        return changes
    return [] if there == here else [f"{field}: {there!r} -> {here!r}"]


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON so that a reader finds the old file or the new one, never a part.

    Args:
      path: The file.
      value: Plain data.
    """
    _write(path, (json.dumps(value, indent=2) + "\n").encode())


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a NumPy archive so that a reader finds the old file or the new one.

    Args:
      path: The file, ``.npz``.
      arrays: Name to array.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    _write(path, buffer.getvalue())


def _write(path: pathlib.Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
