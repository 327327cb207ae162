"""One run of a sweep as a job: it trains, and leaves word of how that ended."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

from sparsejax import workdir
from sparsejax.extras import require
from sparsejax.programs import bound_to_parent

FINISHED, INTERRUPTED = 0, 75
#: Exit codes of ``sparsejax.train`` after which the same would only happen again: the
#: config is wrong, the loss is not finite, the wrapping is in the wrong order, a device
#: has too little memory.
HOPELESS = (2, 3, 4, 5)

_ROWS, _VERDICT, _LOG = "metrics.jsonl", "verdict.json", "train.log"

# Until a run has saved after it was asked to stop.
_PATIENCE = 100.0


class Standing(NamedTuple):
    """How a run stands, by what is in its directory.

    Attributes:
      state: ``"finished"``, ``"failed"``, ``"interrupted"`` or ``"unfinished"``.
      step: the last step that was logged.
      metrics: the last evaluation.
      message: of one that failed, why.
    """

    state: str
    step: int
    metrics: dict[str, Any]
    message: str


def standing(folder: pathlib.Path, steps: int) -> Standing:
    """Says how a run stands.

    Args:
      folder: The run directory; it need not exist.
      steps: At which the run is finished.

    Returns:
      How it stands.

    Example:
      >>> standing(pathlib.Path("no/such/run"), 10).state
      'unfinished'
    """
    step, metrics = _progress(folder / _ROWS)
    summary, verdict = _read(folder / "summary.json"), _read(folder / _VERDICT)
    if summary.get("step") == steps:
        return Standing("finished", steps, summary.get("final", metrics), "")
    if verdict.get("code") == INTERRUPTED:
        return Standing("interrupted", step, metrics, "")
    if verdict:
        return Standing("failed", step, metrics, verdict.get("message", ""))
    return Standing("unfinished", step, metrics, "")


class Job:
    """Trains one run in a process of its own, and again if that fails.

    A call returns the exit code of ``sparsejax.train``; other than 0, it is written to
    ``verdict.json`` in the run directory, whose ``train.log`` has what the process
    printed. It is what submitit sends to a worker: SIGTERM has the run save and ends
    the call with code 75, and `checkpoint` is called by submitit before it puts the job
    back into the queue.

    Args:
      arguments: of ``python -m sparsejax.train``, without ``--workdir``.
      folder: The run directory.
      retries: How often a run that fails, and has got no further than before, is tried
        again.
    """

    def __init__(self, arguments: Sequence[str], folder: pathlib.Path, retries: int):
        self.arguments, self.folder, self.retries = tuple(arguments), folder, retries
        self._process: int | None = None
        self._asked = False

    def __call__(self) -> int:
        with contextlib.suppress(ValueError):  # only the main thread hears signals
            signal.signal(signal.SIGTERM, self._stop)
        return self._repeat(self._train)

    def here(self) -> int:
        """Trains in this very process; for debuggers.

        Returns:
          The exit code.
        """
        from sparsejax import train

        def attempt() -> int:
            try:
                return train.main(self._command()[3:])
            except Exception:
                traceback.print_exc()
                return 1

        self._asked = True
        return self._repeat(attempt)

    def checkpoint(self) -> Any:
        """Has the run save, and hands submitit what goes on from there.

        Returns:
          A `submitit.helpers.DelayedSubmission`.
        """
        helpers = require("submitit.helpers", extra="sweep")
        self._stop(signal.SIGTERM, None)
        self._await_exit()
        return helpers.DelayedSubmission(Job(self.arguments, self.folder, self.retries))

    def _repeat(self, attempt: Any) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / _VERDICT).unlink(missing_ok=True)
        failures, furthest = 0, _progress(self.folder / _ROWS)[0]
        while True:
            code = attempt()
            if code == INTERRUPTED and not self._asked:
                continue  # somebody else's signal: what was saved goes on
            step, _ = _progress(self.folder / _ROWS)
            if step > furthest:
                failures, furthest = 0, step
            failures += code not in (FINISHED, INTERRUPTED)
            if code in (FINISHED, INTERRUPTED, *HOPELESS) or failures > self.retries:
                break
            self._note(f"exit code {code}; retry {failures} of {self.retries}")
        if code != FINISHED:
            verdict = {
                "code": code,
                "failures": failures,
                "message": self._reason(code),
            }
            workdir.write_json(self.folder / _VERDICT, verdict)
        return code

    def _command(self) -> list[str]:
        program = [sys.executable, "-m", "sparsejax.train"]
        return [*program, *self.arguments, f"--workdir={self.folder}"]

    def _train(self) -> int:
        with open(self.folder / _LOG, "a") as log:
            child = subprocess.Popen(
                bound_to_parent(self._command(), signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            self._process = child.pid
            if self._asked:  # in between
                os.kill(child.pid, signal.SIGTERM)
            while child.poll() is None:
                time.sleep(0.1)
            self._process = None
        stopped = self._asked and child.returncode == -signal.SIGTERM
        return INTERRUPTED if stopped else child.returncode

    def _stop(self, number: int, frame: Any) -> None:
        del number, frame
        self._asked = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGTERM)

    def _await_exit(self) -> None:
        # `Popen.wait` may hold its lock in the very frame that the signal came in.
        end = time.monotonic() + _PATIENCE
        while self._process is not None:
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            try:
                if os.waitid(os.P_PID, self._process, flags) is not None:
                    return
            except ChildProcessError:
                return
            if time.monotonic() > end:
                os.kill(self._process, signal.SIGKILL)
                return
            time.sleep(0.1)

    def _note(self, text: str) -> None:
        with open(self.folder / _LOG, "a") as log:
            print(f"sparsejax.sweep: {text}", file=log)

    def _reason(self, code: int) -> str:
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        lines = _tail(self.folder / _LOG).splitlines()
        said = [line for line in lines if line.startswith("sparsejax.train: ")]
        spoken = [line for line in lines if line.strip()]
        return ([*spoken, *said] or ["it said nothing"])[-1].strip()


def _progress(path: pathlib.Path) -> tuple[int, dict[str, Any]]:
    """The last step in the metrics, and the last evaluation among the last rows."""
    step, metrics = 0, {}
    for line in _tail(path).splitlines():
        try:
            row = json.loads(line)
            step = max(step, row["step"])
        except (json.JSONDecodeError, TypeError, KeyError):
            continue  # cut off at either end
        if row.get("kind") == "evaluation":
            metrics = row
    return step, metrics


def _tail(path: pathlib.Path, size: int = 1 << 15) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return {}
