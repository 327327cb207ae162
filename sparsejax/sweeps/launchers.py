"""Who starts the runs: this process, submitit here, or submitit on a Slurm cluster."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sparsejax.building import ConfigError
from sparsejax.extras import require
from sparsejax.sweeps.trial import INTERRUPTED, Job

# Slurm's words for a job that is still to come or under way; all others have ended.
_WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"}
_RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"}

# A worker is asked to save this many seconds before its time is over.
_NOTICE = 120


class Launcher(Protocol):
    """Starts jobs, and says what became of them.

    Attributes:
      name: as on the command line.
      stopped: whether somebody has asked a job of this process to stop.
      stays: whether jobs go on when this process ends.
      grace: seconds until the files of a job that has ended are sure to be seen.
    """

    name: str
    stopped: bool
    stays: bool
    grace: float

    def room(self, active: int) -> int:
        """How many more jobs may be started while so many are active."""
        ...

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        """Starts jobs, or puts them into a queue; returns what identifies them."""
        ...

    def states(self, jobs: Sequence[str]) -> dict[str, str]:
        """``"waiting"``, ``"running"``, ``"cancelled"`` or ``"ended"``, per job."""
        ...

    def stop(self, jobs: Sequence[str]) -> None:
        """Asks jobs to save and to end."""
        ...


class Debug:
    """Runs everything in this process, one run after the other."""

    name, stays, grace = "debug", False, 0.0

    def __init__(self) -> None:
        self.stopped = False

    def room(self, active: int) -> int:
        """One at a time."""
        return 1 - active

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        """Runs them; they have ended when this returns."""
        for job in jobs:
            if not self.stopped:
                self.stopped = job.here() == INTERRUPTED
        return ["here"] * len(jobs)

    def states(self, jobs: Sequence[str]) -> dict[str, str]:
        """All have ended."""
        return dict.fromkeys(jobs, "ended")

    def stop(self, jobs: Sequence[str]) -> None:
        """None is running while this is called."""


class Local:
    """Worker processes on this machine, by submitit's local executor.

    Args:
      folder: For submitit's files.
      workers: How many at once.
      gpus: For each, by the numbers from 0 on.
      minutes: Until a run is asked to save and is started again; None: as long as it
        takes.
    """

    name, stopped, stays, grace = "local", False, False, 0.0

    def __init__(
        self, folder: pathlib.Path, *, workers: int, gpus: int, minutes: int | None
    ):
        submitit = require("submitit", extra="sweep")
        self._executor = submitit.LocalExecutor(folder=folder, max_num_timeout=10**6)
        self._workers, self._gpus = workers, gpus
        # It counts in 24ths of a second what it waits for.
        self._minutes = 60 * 24 * 365 if minutes is None else minutes
        self._jobs: dict[str, Any] = {}
        self._slots: dict[str, int] = {}

    def room(self, active: int) -> int:
        """As many as there are workers."""
        return self._workers - active

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        """Starts them at once."""
        return [self._submit(job) for job in jobs]

    def states(self, jobs: Sequence[str]) -> dict[str, str]:
        """Looks at the processes, also at those of an earlier launcher."""
        found = {job: "running" if self._alive(job) else "ended" for job in jobs}
        self._slots = {
            job: slot
            for job, slot in self._slots.items()
            if found.get(job) == "running"
        }
        return found

    def stop(self, jobs: Sequence[str]) -> None:
        """Sends SIGTERM, which submitit's controller hands on."""
        for job in jobs:
            if self._alive(job):
                os.kill(int(job), signal.SIGTERM)

    def _submit(self, job: Job) -> str:
        taken = set(self._slots.values())
        slot = next(slot for slot in range(self._workers + 1) if slot not in taken)
        first = slot * self._gpus
        self._executor.update_parameters(
            timeout_min=self._minutes,
            signal_delay_s=_NOTICE,
            gpus_per_node=self._gpus,
            visible_gpus=tuple(range(first, first + self._gpus)),
        )
        # Ctrl-C reaches all processes of a terminal, and submitit's would kill theirs
        # within a second; what is born deaf to it is stopped by SIGTERM alone.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            submitted = self._executor.submit(job)
        finally:
            signal.signal(signal.SIGINT, before)
        self._jobs[submitted.job_id] = submitted
        self._slots[submitted.job_id] = slot
        return submitted.job_id

    def _alive(self, job: str) -> bool:
        if job in self._jobs:
            return not self._jobs[job].done()
        try:
            os.kill(int(job), 0)
            command = pathlib.Path(f"/proc/{job}/cmdline").read_bytes()
        except (OSError, ValueError):
            return False
        return b"submitit" in command


class Slurm:
    """Jobs of a Slurm cluster: submitit's arrays.

    Args:
      folder: For submitit's files, on a disk that all nodes see.
      options: What ``sbatch`` is to ask for, by submitit's names.
      name: Of the jobs.
    """

    name, stopped, stays, grace = "slurm", False, True, 10.0

    def __init__(self, folder: pathlib.Path, options: Mapping[str, Any], name: str):
        submitit = require("submitit", extra="sweep")
        try:
            # What has run out of time is put back, however often, while it gets on.
            executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=1000)
        except RuntimeError as error:
            raise ConfigError(
                "--launcher=slurm: this machine has no srun and sbatch; start the "
                "sweep on a login node of the cluster, or use --launcher=local."
            ) from error
        executor.update_parameters(
            job_name=name, signal_delay_s=_NOTICE, stderr_to_stdout=True, **options
        )
        self._executor = executor
        self._last: dict[str, str] = {}

    def room(self, active: int) -> int:
        """The queue takes all."""
        return 10**9

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        """Submits one array.

        Raises:
          ConfigError: If Slurm does not take it.
        """
        try:
            with self._executor.batch():
                submitted = [self._executor.submit(job) for job in jobs]
            return [job.job_id for job in submitted]
        except Exception as error:
            said = [line for line in str(error).splitlines() if line.strip()]
            reason = next((x for x in said if "error" in x.lower()), "".join(said[-1:]))
            raise ConfigError(
                f"--launcher=slurm: sbatch refuses the jobs ({reason.strip()}); check "
                "--partition, --time, --gpus, --constraint, --cpus and --memory."
            ) from error

    def states(self, jobs: Sequence[str]) -> dict[str, str]:
        """Asks the queue; what it has forgotten has ended."""
        if not jobs:
            return {}
        arrays = ",".join(sorted({job.partition("_")[0] for job in jobs}))
        command = ["squeue", "--noheader", "--array", "--states=all"]
        command += ["--format=%i %T", f"--jobs={arrays}"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=60, check=False
            )
            unknown = "Invalid job id" in done.stderr
            answered = done.returncode == 0 or unknown
        except (OSError, subprocess.TimeoutExpired):
            answered = False
        if not answered:  # a controller that is busy or restarts: as before
            return {job: self._last.get(job, "waiting") for job in jobs}
        lines = [line.split() for line in done.stdout.splitlines()]
        found = {words[0]: words[1] for words in lines if len(words) == 2}
        self._last = {job: _state(found.get(job)) for job in jobs}
        return self._last

    def stop(self, jobs: Sequence[str]) -> None:
        """Cancels them; SIGTERM comes first."""
        subprocess.run(["scancel", *jobs], check=False, capture_output=True)


def _state(word: str | None) -> str:
    if word in _WAITING:
        return "waiting"
    if word in _RUNNING:
        return "running"
    return "cancelled" if word == "CANCELLED" else "ended"
