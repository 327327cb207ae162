"""Trains every run of a sweep, here or on a cluster, and writes a table of them.

  python -m sparsejax.sweep --config=NAME[:ARGUMENT] [--vary FIELD=VALUES ...]
                            [--config.FIELD=VALUE ...] [--launcher=LAUNCHER]
                            [--workdir=FOLDER]

What runs there are:

--config          As for sparsejax.train. Without --vary, what its sweep() yields.
--vary            FIELD=VALUE,VALUE,... or FIELD=FIRST..LAST, again for each field; the
                  runs are all combinations: --vary method.sparsity=0.9,0.95
                  --vary seed=0..4. To compare methods, vary the config:
                  --vary config=mlp:static,mlp:rigl; or, of methods with the same
                  arguments, --vary method.name=rigl,set.
--config.FIELD    Overrides a field of all runs.
--list            Prints the runs and how they stand, and starts nothing.

Who runs them:

--launcher        local (default): processes on this machine. slurm: job arrays on a
                  cluster. debug: one run after the other in this very process.
--workdir         The folder of the sweep; default: runs/NAME-sweep. Each run has a
                  directory in it, named by what is varied and a hash of all that
                  differs from the config's defaults. On Slurm all nodes must see it.
--workers         Runs at once; default: 1 for local, on Slurm as many as it will.
--retries         How often a run that fails is tried again; default: 2.
--gpus            For each run; default: 0.
--time            Time for each run, in minutes or HH:MM:SS; after it the run saves, and
                  goes on as a job of its own. Default on Slurm: 60, else none.
--partition, --constraint, --cpus, --memory (GB)
                  Of Slurm; for anything else --slurm KEY=VALUE, again for each:
                  --slurm account=mine --slurm qos=low.
--detach          Submits to Slurm and leaves. The same command again looks after what
                  has become of the jobs.
--no-check        Builds no network before launching; fields are checked all the same.

The same command again is free: finished runs are skipped, those under way are watched,
interrupted ones go on from their last checkpoint, failed ones are tried anew. A run
that was preempted and has saved (exit code 75 of sparsejax.train) is resumed, and does
not count as failed; what cannot get better (codes 2, 3 and 4) is not tried again.
Ctrl-C has local runs save and end; jobs on Slurm go on. In the end there are
results.csv and sweep.html, as by: python -m sparsejax.report FOLDER.

Exit codes:
   0  all runs are finished (now, or already before); with --detach: submitted
   1  a defect in the program: the traceback says where
   2  the command, a config, the folder or the installation is at fault; nothing was
      launched
   5  a run has failed, and so have its retries, or it was cancelled; the others are
      finished
  74  a file could not be written or read, such as on a full disk
  75  interrupted by SIGTERM or Ctrl-C: run the same command to go on
"""

import sys

from sparsejax.extras import require_for_program

require_for_program(
    "sparsejax.sweep",
    "absl flax grain matplotlib ml_collections orbax.checkpoint rich tensorboardX "
    "tensorflow_datasets",
    extra="sweep",
    started=__name__ == "__main__",
)

import argparse
import time
from collections.abc import Sequence

import jax
import tensorflow_datasets as tfds
from absl import flags, logging

from sparsejax import configuration, interruption, workdir
from sparsejax.building import ConfigError
from sparsejax.programs import failed
from sparsejax.runs import RunError
from sparsejax.sweeps import options, plan
from sparsejax.sweeps.launchers import Launcher
from sparsejax.sweeps.report import write_sweep_report
from sparsejax.sweeps.view import View, view
from sparsejax.sweeps.watching import Sweep

FINISHED, MISUSED, FAILED, FILE_ERROR, INTERRUPTED = 0, 2, 5, 74, 75


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
      arguments: Without the program's name; default: the process's own.

    Returns:
      The exit code; for what went wrong there is one line on standard error.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or {"--help", "-h"} & set(arguments):
        print(__doc__)
        print("Configs:\n  " + "\n  ".join(configuration.available()))
        return FINISHED if arguments else MISUSED
    # Worker processes of the input pipeline insist on parsed flags.
    flags.FLAGS.mark_as_parsed()
    tfds.disable_progress_bar()
    logging.set_verbosity(logging.FATAL)
    try:
        return run(*options.parse(arguments))
    except (ConfigError, ImportError) as error:
        return failed("sparsejax.sweep", MISUSED, error)
    except OSError as error:
        return failed(
            "sparsejax.sweep",
            FILE_ERROR,
            f"a file could not be read or written: {error}; free some space or check "
            "the path, and run the same command again to go on.",
        )


def run(asked_for: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Launches the runs that are not finished, and watches them.

    Args:
      asked_for: The options, as `main` reads them.
      overrides: ``--config.FIELD=VALUE``, for all runs.

    Returns:
      The exit code.

    Raises:
      ConfigError: Before anything is launched, for every mistake in any run.
    """
    trials = plan.expand(asked_for.config, asked_for.vary, overrides)
    folder = options.folder(asked_for, trials)
    launcher = options.launcher(asked_for, folder)
    if launcher.name != "debug":
        # The devices are for the runs; here is nothing but shapes.
        jax.config.update("jax_platforms", "cpu")
    if asked_for.list:
        for watched in Sweep(trials, folder, launcher, retries=0, report=print).runs:
            print(f"{watched.state:>9}  {watched.trial.name}")
        return FINISHED
    with workdir.locked(folder), interruption.requested() as asked, view() as shown:
        sweep = Sweep(
            trials, folder, launcher, retries=asked_for.retries, report=shown.message
        )
        finished, active = sweep.count("finished"), sweep.count("waiting", "running")
        shown.message(
            f"{len(trials)} runs in {folder}: {finished} finished before, {active} "
            f"under way, {len(trials) - finished - active} to start"
        )
        for watched in sweep.runs:
            place, config = watched.folder, dict(watched.trial.config)
            if (place / "config.json").exists():
                workdir.claim(place, config)
        if not asked_for.no_check:
            missing = [w.trial for w in sweep.runs if w.state == "to start"]
            plan.check(missing, shown.message)
        code = _watch(sweep, launcher, shown, asked, detach=asked_for.detach)
    if code in (FINISHED, FAILED) and not asked_for.detach:
        try:
            shown.message(f"the table is {write_sweep_report(folder)}")
        except RunError as error:
            shown.message(f"there is no table: {error}")
    return code


def _watch(
    sweep: Sweep,
    launcher: Launcher,
    shown: View,
    asked: interruption.Request,
    *,
    detach: bool,
) -> int:
    pause = 2.0 if launcher.stays else 0.3
    while True:
        if not asked:
            sweep.start()
        if detach:
            shown.message("submitted; the same command without --detach watches them")
            return FINISHED
        sweep.step()
        shown.show(sweep.runs)
        if sweep.over:
            break
        if asked or launcher.stopped:
            if launcher.stays:
                shown.message(
                    "the jobs go on by themselves; run the same command to watch them, "
                    "or end them by scancel"
                )
            else:
                shown.message("asked to stop: the runs are saving")
                sweep.stop()
            return INTERRUPTED
        time.sleep(pause)
    for watched in sweep.runs:
        if watched.state in ("failed", "cancelled"):
            said = watched.standing.message or "scancel"
            shown.message(f"{watched.state}: {watched.folder}: {said}")
    return FINISHED if sweep.count("finished") == len(sweep.runs) else FAILED


if __name__ == "__main__":
    sys.exit(main())
