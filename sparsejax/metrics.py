"""Metrics on disk: one JSON object per line, and TensorBoard events."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from tensorboardX import SummaryWriter

#: The fields that depend on the clock; all others are the same in every repetition.
WALL_CLOCK_FIELDS = ("seconds", "examples_per_second")


class MetricsWriter:
    """Appends rows to ``metrics.jsonl``, and mirrors them to TensorBoard.

    Args:
      workdir: The run directory; rows go to ``metrics.jsonl`` in it, events to
        ``tensorboard/``.
      step: The step that the run goes on from. Rows of later steps, and a last line
        that a killed process left incomplete, are dropped.
      writes: Whether anything is written: of several processes only one does, and the
        others know the same rows.
    """

    def __init__(self, workdir: pathlib.Path, *, step: int = 0, writes: bool = True):
        path = workdir / "metrics.jsonl"
        self.rows = [row for row in read(path) if step > 0 and row["step"] <= step]
        self._writes = writes
        if not writes:
            return
        replacement = path.with_suffix(".partial")
        with open(replacement, "w") as file:
            file.writelines(map(_line, self.rows))
        os.replace(replacement, path)
        self._file = open(path, "a")  # noqa: SIM115 (closed by `close`)
        self._events = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=step + 1 if step else 0
        )

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Appends one row, and hands it to the operating system at once.

        Args:
          step: Optimizer updates made so far.
          kind: ``"train"``, ``"evaluation"`` or ``"topology"``.
          values: Scalars, or mappings of a layer's path to a scalar.
        """
        row = {"step": step, "kind": kind, **values}
        self.rows.append(row)
        if not self._writes:
            return
        self._file.write(_line(row))
        self._file.flush()
        for name, value in values.items():
            layers = value.items() if isinstance(value, Mapping) else [(None, value)]
            for layer, scalar in layers:
                tag = f"{kind}/{name}" if layer is None else f"{kind}/{name}/{layer}"
                self._events.add_scalar(tag, scalar, step)

    def last(self, kind: str) -> dict[str, Any] | None:
        """Returns the newest row of a kind, or None."""
        return next((r for r in reversed(self.rows) if r["kind"] == kind), None)

    def sync(self) -> None:
        """Waits until everything written is on the disk."""
        if self._writes:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._events.flush()

    def close(self) -> None:
        """Closes the files."""
        if self._writes:
            self._file.close()
            self._events.close()


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the rows of a ``metrics.jsonl``.

    Args:
      path: The file; a missing one has no rows.

    Returns:
      The rows up to the first incomplete line.

    Example:
      >>> read(pathlib.Path("no_such_file"))
      []
    """
    rows: list[dict[str, Any]] = []
    if not path.is_file():
        return rows
    for line in path.read_text(errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"
