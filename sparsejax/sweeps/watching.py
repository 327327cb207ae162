"""Seeing a sweep to its end: starting runs, resuming them, trying again."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from sparsejax import workdir
from sparsejax.sweeps.launchers import Launcher
from sparsejax.sweeps.plan import Trial
from sparsejax.sweeps.trial import Job, Standing, standing

#: How a run can stand; the last three are ends.
STATES = ("to start", "waiting", "running", "finished", "failed", "cancelled")
_ENDS = STATES[3:]
_RECORD = "sweep.json"


@dataclasses.dataclass
class Watched:
    """A run, and what is known of it.

    Attributes:
      trial: Which run.
      folder: Its directory.
      state: One of `STATES`.
      job: What identifies its job; None if it has none.
      standing: What its directory says.
      lost: How many of its jobs have ended without a word and without a step.
      begun: The step that its job went on from.
      ended: When its job was first seen to have ended.
    """

    trial: Trial
    folder: pathlib.Path
    state: str
    standing: Standing
    job: str | None = None
    lost: int = 0
    begun: int = 0
    ended: float | None = None

    @property
    def steps(self) -> int:
        """At which it is finished."""
        return self.trial.config["steps"]


class Sweep:
    """The runs of a sweep in their directories, and the jobs that they have.

    Args:
      trials: The runs.
      folder: Of the sweep; each run has a directory in it.
      launcher: Who starts jobs.
      retries: How often a run that fails is tried again.
      report: Called with a line for the user.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        folder: pathlib.Path,
        launcher: Launcher,
        *,
        retries: int,
        report: Callable[[str], None],
    ):
        self._folder, self._launcher = folder, launcher
        self._retries, self._report = retries, report
        jobs = _recorded(folder).get("jobs", {})
        self.runs = []
        for trial in trials:
            place = _place(folder, trial.name)
            found = standing(place, trial.config["steps"])
            run = Watched(trial, place, "to start", found, begun=found.step)
            if found.state == "finished":
                run.state = "finished"
            elif jobs.get(place.name, [None])[0] == launcher.name:
                run.job = jobs[place.name][1]
            self.runs.append(run)
        # Jobs of an earlier launcher may have ended, and say no more than their files.
        states = launcher.states([run.job for run in self.runs if run.job])
        for run in self.runs:
            alive = states.get(run.job or "") in ("waiting", "running")
            if run.job is not None and not alive:
                run.job = None
            if run.state == "to start" and workdir.in_use(run.folder):
                run.job = run.job or "elsewhere"
        self.step()

    def count(self, *states: str) -> int:
        """How many runs stand so."""
        return sum(run.state in states for run in self.runs)

    @property
    def over(self) -> bool:
        """Whether there is nothing left to wait for."""
        return all(run.state in _ENDS for run in self.runs)

    def step(self) -> None:
        """Looks at all jobs."""
        jobs = [run.job for run in self.runs if run.job]
        states = self._launcher.states([job for job in jobs if job != "elsewhere"])
        for run in self.runs:
            if run.job is not None:
                self._look(run, states.get(run.job, "ended"))

    def start(self) -> None:
        """Starts what waits to be started, as far as there is room."""
        waiting = [run for run in self.runs if run.state == "to start"]
        active = self.count("waiting", "running")
        starting = waiting[: max(0, self._launcher.room(active))]
        if not starting:
            return
        for run in starting:
            run.folder.mkdir(parents=True, exist_ok=True)
            # What it says is of the past.
            (run.folder / "verdict.json").unlink(missing_ok=True)
            run.begun = run.standing.step
        jobs = [Job(r.trial.arguments, r.folder, self._retries) for r in starting]
        for run, job in zip(starting, self._launcher.submit(jobs), strict=True):
            run.job, run.state, run.ended = job, "waiting", None
        self._record()

    def stop(self, patience: float = 120.0) -> None:
        """Asks all jobs to save, and waits until they have."""
        self._launcher.stop([run.job for run in self.runs if run.job])
        end = time.monotonic() + patience
        while time.monotonic() < end:
            jobs = [run.job for run in self.runs if run.job]
            if "running" not in self._launcher.states(jobs).values():
                break
            time.sleep(0.2)

    def _look(self, run: Watched, state: str) -> None:
        run.standing = standing(run.folder, run.steps)
        if state in ("waiting", "running"):
            run.state, run.ended = state, None
        elif workdir.in_use(run.folder):
            # Its job is gone, and the training that it had begun is about to end.
            run.state, run.ended = "running", None
        elif run.standing.state in ("finished", "failed"):
            run.state, run.job = run.standing.state, None
        else:
            # Other machines' files may come late.
            run.ended = run.ended or time.monotonic()
            if time.monotonic() - run.ended >= self._launcher.grace:
                self._again(run, cancelled=state == "cancelled")

    def _again(self, run: Watched, *, cancelled: bool) -> None:
        run.job = None
        if cancelled:
            run.state = "cancelled"
            return
        if run.standing.step <= run.begun:
            run.lost += 1
        if run.lost > self._retries:
            run.state = "failed"
            told = f"its job ended {run.lost} times without a word"
            run.standing = run.standing._replace(state="failed", message=told)
            return
        run.state = "to start"
        if not self._launcher.stopped:
            self._report(f"{run.trial.name} ended at step {run.standing.step}: resumed")

    def _record(self) -> None:
        """Writes down which runs and jobs there are, for whoever comes next."""
        record = _recorded(self._folder)
        runs, jobs = record.get("runs", {}), record.get("jobs", {})
        for run in self.runs:
            runs[run.folder.name] = {
                "arguments": list(run.trial.arguments),
                "settings": dict(run.trial.settings),
            }
            jobs.pop(run.folder.name, None)
            if run.job not in (None, "elsewhere"):
                jobs[run.folder.name] = [self._launcher.name, run.job]
        workdir.write_json(self._folder / _RECORD, {"runs": runs, "jobs": jobs})


def _place(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The run's directory, also where a sweep of other fields has named it."""
    return next(folder.glob(f"*-{name.rpartition('-')[2]}"), folder / name)


def _recorded(folder: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads((folder / _RECORD).read_text())
    except (OSError, json.JSONDecodeError):
        return {}
