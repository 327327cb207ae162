"""Reading a run directory: what a run was asked for, logged and came to."""

from __future__ import annotations

import json
import pathlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Row = Mapping[str, Any]


class RunError(ValueError):
    """A run directory that cannot be read, in one line."""


class Run(NamedTuple):
    """What a run directory says about its run.

    Attributes:
      workdir: the directory.
      config: `config.json`.
      rows: `metrics.jsonl` by kind: `"train"`, `"evaluation"`, `"topology"`.
      summary: `summary.json`; empty while the run has not ended.
    """

    workdir: pathlib.Path
    config: Row
    rows: Mapping[str, Sequence[Row]]
    summary: Row

    @property
    def samples(self) -> Mapping[str, np.ndarray]:
        """`samples.npz`, what the task shows of a few examples; empty without one."""
        path = self.workdir / "samples.npz"
        if not path.is_file():
            return {}
        try:
            with np.load(path) as stored:
                return dict(stored)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise RunError(
                f"{path} is no NumPy archive ({error}); delete it or run again"
            ) from error

    @property
    def step(self) -> int:
        """The last step that was logged."""
        return max(row["step"] for rows in self.rows.values() for row in rows)

    @property
    def masked(self) -> Sequence[Row]:
        """Exact counts per masked layer; empty for a dense network."""
        return self.summary.get("layers") or ()

    @property
    def cost(self) -> Row:
        """`Cost.as_dict()`; empty where it is not known."""
        return self.summary.get("cost") or {}

    @property
    def layers(self) -> list[Row]:
        """Every layer, masked or dense, in the order of the forward pass.

        Each has `path`, `shape`, `structure`, `active`, `size` and, where the cost is
        known, `sparse_flops` and `dense_flops` per example.
        """
        masked = {row["path"]: row for row in self.masked}
        rows = []
        for row in self.cost.get("layers", ()):
            flops = {name: row[name] for name in ("sparse_flops", "dense_flops")}
            counts = masked.pop(row["path"], None) or {
                "path": row["path"],
                "shape": row["shape"],
                "structure": "dense",
                "active": row["active"],
                "size": row["weights"],
            }
            rows.append({**counts, **flops})
        return [*rows, *masked.values()]

    def last(self, metric: str) -> float | None:
        """The metric's value in the last evaluation that has it."""
        rows = [row for row in self.rows.get("evaluation", ()) if metric in row]
        return self.summary.get("final", rows[-1] if rows else {}).get(metric)


def read_run(workdir: str | pathlib.Path) -> Run:
    """Reads a run directory, of a finished run or of one under way.

    Args:
      workdir: the directory.

    Returns:
      The run; of metrics that end in an incomplete line, those before it.

    Raises:
      RunError: there is no such directory, nothing was logged to it, or one of its
        files is broken.
    """
    workdir = pathlib.Path(workdir)
    if not workdir.is_dir():
        raise RunError(f"{workdir} is no directory; give the --workdir of a run")
    metrics = workdir / "metrics.jsonl"
    rows: dict[str, list] = {}
    if metrics.is_file():
        for row in _complete_rows(metrics):
            rows.setdefault(row["kind"], []).append(row)
    if not rows.get("train") and not rows.get("evaluation"):
        raise RunError(
            f"{metrics} has no training or evaluation row; give the --workdir of a run "
            "that has logged something"
        )
    config, summary = workdir / "config.json", workdir / "summary.json"
    return Run(workdir, _read_json(config), rows, _read_json(summary))


def _complete_rows(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            # A process that was killed leaves its last line unfinished.
            return
        yield row


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RunError(
            f"{path} is not JSON ({error}); restore it or run again"
        ) from error
