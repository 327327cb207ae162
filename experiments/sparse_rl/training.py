"""Trains all seeds of an arm as its config says, in a process of its own."""

import json
import math
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

from experiments.sparse_rl.settings import ARMS, PROBLEMS

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class Row(NamedTuple):
    """One trained agent.

    Attributes:
      problem: name in `PROBLEMS`.
      arm: name in `ARMS`.
      seed: number of the agent in its program.
      updates: of its networks.
      score: mean return of the last tenth of the evaluations.
      parameters: of all its networks, that are left.
      sparsity: share of zeros in the layers that may be sparse.
      seconds: wall time of all agents of the arm, side by side.
    """

    problem: str
    arm: str
    seed: int
    updates: int
    score: float
    parameters: int
    sparsity: float
    seconds: float


class Curve(NamedTuple):
    """How the returns of an arm's agents went.

    Attributes:
      updates: at each evaluation.
      returns: of each agent, [evaluations][agents].
    """

    updates: list[int]
    returns: list[list[float]]


def train(
    problem: str, arm: str, seeds: int, updates: int | None, folder: pathlib.Path
) -> list[Row]:
    """Runs ``python -m sparsejax.train`` and reads what it wrote.

    Args:
      problem: name in `PROBLEMS`.
      arm: name in `ARMS`.
      seeds: agents, trained side by side.
      updates: in place of the config's own, if given.
      folder: of the run directories. A run that is there already goes on, or is only
        read if it is finished.

    Returns:
      A row for each agent.

    Raises:
      CalledProcessError: The command failed.
    """
    workdir = run(problem, arm, seeds, updates, folder)
    config = PROBLEMS[problem].config
    options = [
        f"--config={ARMS[arm].method}_{config}",
        f"--config.seeds={seeds}",
        f"--workdir={workdir.resolve()}",
    ]
    if ARMS[arm].small:
        options.append(f"--config.model.hidden={PROBLEMS[problem].small}")
    if updates is not None:
        options.append(f"--config.steps={updates}")
    command = [sys.executable, "-m", "sparsejax.train", *options]
    subprocess.run(command, cwd=ROOT, check=True)
    return rows(problem, arm, workdir)


def run(
    problem: str, arm: str, seeds: int, updates: int | None, folder: pathlib.Path
) -> pathlib.Path:
    """The run directory of an arm."""
    return folder / f"{problem}-{arm}-{updates or PROBLEMS[problem].updates}-{seeds}"


def rows(problem: str, arm: str, workdir: pathlib.Path) -> list[Row]:
    """The rows of a finished run.

    Args:
      problem: name in `PROBLEMS`.
      arm: name in `ARMS`.
      workdir: the run directory.
    """
    summary: dict[str, Any] = json.loads((workdir / "summary.json").read_text())
    found = curve(workdir)
    last = found.returns[-math.ceil(len(found.returns) / 10) :]
    return [
        Row(
            problem,
            arm,
            seed,
            summary["step"],
            sum(returns) / len(returns),
            summary["cost"]["active_parameters"],
            summary["sparsity"],
            summary["seconds"],
        )
        for seed, returns in enumerate(zip(*last, strict=True))
    ]


def curve(workdir: pathlib.Path) -> Curve:
    """The returns of a run's evaluations.

    Args:
      workdir: the run directory.
    """
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    found = [row for row in map(json.loads, lines) if row["kind"] == "evaluation"]
    return Curve(
        [row["step"] for row in found],
        [[*row["episode_return_of_seed"].values()] for row in found],
    )
