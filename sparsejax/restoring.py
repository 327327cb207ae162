"""A trained network from its run directory."""

from __future__ import annotations

import json
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from sparsejax.building import build
from sparsejax.checkpoint import CheckpointError, Checkpoints
from sparsejax.runs import RunError
from sparsejax.tasks.base import Task, TrainState
from sparsejax.validation import abstract_state

__all__ = ["Restored", "restored"]


class Restored(NamedTuple):
    """A run as it was at its newest checkpoint.

    Attributes:
      config: What the run was asked for.
      task: What the config describes.
      state: Parameters, masks and all else that training changes.
      step: Updates that were made.
    """

    config: ConfigDict
    task: Task
    state: TrainState
    step: int


def restored(
    workdir: str | os.PathLike[str],
    *,
    report: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> Restored:
    """Reads the newest checkpoint of a run that is whole; nothing is changed there.

    Args:
      workdir: The run directory.
      report: Called with a line for each damaged checkpoint that is passed over.

    Returns:
      The run.

    Raises:
      RunError: The folder is not that of a run, or has no checkpoint that can be read.
      ConfigError: What the run's config names is not there, such as its dataset.
    """
    folder = pathlib.Path(workdir)
    try:
        config: Any = ConfigDict(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError) as error:
        raise RunError(
            f"{folder} is not a run directory: its config.json cannot be read "
            f"({error}); name the folder that python -m sparsejax.train wrote"
        ) from error
    if not (folder / "checkpoints").is_dir():
        raise RunError(
            f"{folder} has no checkpoints; run the training until it saves one "
            "(config.checkpoint_every)"
        )
    task: Task = build("task", config.task, "sparsejax.tasks", config)
    abstract = abstract_state(task.initialise, jax.random.key(config.seed), config)
    # However many devices it was trained on, here it lies on one.
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), abstract
    )
    checkpoints = Checkpoints(folder, keep=None, report=report)
    try:
        found = checkpoints.restore(abstract, set_aside=False)
    except CheckpointError as error:
        raise RunError(str(error)) from error
    finally:
        checkpoints.close()
    if found is None:
        raise RunError(
            f"{folder} has no checkpoint yet; run the training until it saves one "
            "(config.checkpoint_every)"
        )
    step, state, _ = found
    return Restored(config, task, state, step)
