"""Trains a network as its config says, in a process of its own."""

import json
import math
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class Config(NamedTuple):
    """A config that is trained.

    Attributes:
      network: title of the table that it belongs to.
      method: as tables and plots call it.
      steps: the config's own.
      warmup_steps: the same of its learning rate.
    """

    network: str
    method: str
    steps: int
    warmup_steps: int


_MOBILENET, _SSD = "MobileNetV1 on the digits", "SSDLite on scenes of digits"

CONFIGS = {
    "dense_mobilenet_v1": Config(_MOBILENET, "dense", 600, 30),
    "rigl_mobilenet_v1": Config(_MOBILENET, "RigL", 600, 30),
    "dense_ssd_mobilenet_v1": Config(_SSD, "dense", 1_500, 100),
    "rigl_ssd_mobilenet_v1": Config(_SSD, "RigL", 1_500, 100),
}


class Row(NamedTuple):
    """One trained network.

    Attributes:
      config: its name.
      seed: of initial weights, masks and order of examples.
      steps: of training.
      score: share of the test images classified correctly, or of a detector the
        average precision at 50 % overlap.
      average_precision: the mean over overlaps of 50 to 95 %; nan of a classifier.
      sparsity: share of zeros in the layers that may be sparse.
      parameters: all that are left, those of dense layers included.
      flops: of inference, for one image.
      flops_ratio: the same over those of the dense network.
      stored_bytes: parameters in compressed rows (CSR), or dense where that is less.
      seconds: wall time of training and evaluation.
    """

    config: str
    seed: int
    steps: int
    score: float
    average_precision: float
    sparsity: float
    parameters: int
    flops: int
    flops_ratio: float
    stored_bytes: int
    seconds: float


def train(config: str, seed: int, steps: int | None, folder: pathlib.Path) -> Row:
    """Runs ``python -m sparsejax.train`` and reads its summary.

    Args:
      config: name in `CONFIGS`.
      seed: ``config.seed``.
      steps: in place of the config's own, if given.
      folder: of the run directories. A run that is there already goes on, or is only
        read if it is finished.

    Raises:
      CalledProcessError: The command failed.
    """
    run = folder / f"{config}-{steps or CONFIGS[config].steps}-{seed}"
    subprocess.run(
        [sys.executable, "-m", "sparsejax.train", *_options(config, seed, steps, run)],
        cwd=ROOT,
        check=True,
    )
    return row(config, json.loads((run / "summary.json").read_text()))


def _options(config: str, seed: int, steps: int | None, run: pathlib.Path) -> list[str]:
    options = [
        f"--config={config}",
        f"--config.seed={seed}",
        f"--workdir={run.resolve()}",
    ]
    if steps is not None:
        own = CONFIGS[config]
        warm_up = own.warmup_steps * steps // own.steps
        options.append(f"--config.steps={steps}")
        options.append(f"--config.learning_rate_schedule.warmup_steps={warm_up}")
    return options


def row(config: str, summary: dict[str, Any]) -> Row:
    """The row of a finished run.

    Args:
      config: name in `CONFIGS`.
      summary: its ``summary.json``.
    """
    final, cost = summary["final"], summary["cost"]
    detector = "average_precision_50" in final
    return Row(
        config,
        summary["seed"],
        summary["step"],
        final["average_precision_50" if detector else "accuracy"],
        final["mean_average_precision"] if detector else math.nan,
        summary["sparsity"],
        cost["active_parameters"],
        round(cost["sparse_flops"]),
        cost["ratio"],
        cost["stored_bytes"]["csr"],
        summary["seconds"],
    )
