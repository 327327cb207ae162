"""The training loop: from a command to a finished run directory, or a saved one."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any

import jax
from jax.sharding import NamedSharding

import sparsejax as sj
from sparsejax import (
    configuration,
    interruption,
    processes,
    sharding,
    topology_rows,
    validation,
    workdir,
)
from sparsejax.building import build
from sparsejax.checkpoint import Checkpoints
from sparsejax.data.pipeline import evaluation_batches, train_iterator
from sparsejax.energy import Energy, find_meters
from sparsejax.health import check, health
from sparsejax.metrics import MetricsWriter
from sparsejax.progress import progress
from sparsejax.report import write_report
from sparsejax.summary_file import collect
from sparsejax.tasks.base import Task, TrainState

__all__ = ["FINISHED", "INTERRUPTED", "NotSparseError", "run"]

FINISHED, INTERRUPTED = 0, 75


class NotSparseError(Exception):
    """A parameter outside its mask is not zero; one line."""


def run(command: configuration.Command) -> int:
    """Trains until the end, or until somebody asks to stop.

    Args:
      command: The config and the run directory.

    Returns:
      The exit code.

    Raises:
      ConfigError: Before anything is compiled or written, for every mistake in it.
      DivergedError: If the loss or a parameter is not finite.
      NotSparseError: If a parameter outside its mask is not zero.
      CheckpointError: If a checkpoint cannot be written, or none can be read.
    """
    config, folder = command.config, command.workdir
    began = time.monotonic()
    meters = find_meters(gpus=jax.default_backend() == "gpu")
    first = processes.is_first()
    with (
        open(os.devnull, "w") as nowhere,
        progress(config.get("steps") or 1, stream=None if first else nowhere) as shown,
        interruption.requested() as asked,
        Energy(meters) as energy,
        contextlib.ExitStack() as held,
    ):
        # ------------------------------------------------ check, before compiling
        shown.stage("reading the config and the data")
        validation.check(config)
        validation.check_devices(config, jax.device_count())
        task: Task = build("task", config.task, "sparsejax.tasks", config)
        batch_size = config.data.batch_size
        sample = next(_iterator(task, config))
        if task.dataset.identity:
            shown.message(f"data: {task.dataset.identity}")
        key = jax.random.key(config.seed)
        abstract = validation.abstract_state(task.initialise, key, config)

        def begin() -> int | None:
            held.enter_context(workdir.locked(folder))
            workdir.claim(folder, config.to_dict())
            return _finished_step(folder)

        if processes.on_first(begin) == config.steps:
            if first and not (folder / "report.html").exists():
                write_report(folder)
            shown.message(
                f"{folder} is finished (step {config.steps}); its report is "
                f"{folder / 'report.html'}. To start again, delete the folder or "
                "name another: --workdir=FOLDER."
            )
            return FINISHED

        # ------------------------------------ devices: one batch over all of them
        mesh = sharding.mesh(config)
        split = sharding.of_batch(mesh)
        placed = sharding.of_state(abstract, mesh, task.replicas)
        # Simulated devices can deadlock in a collective of the next step.
        one_at_a_time = jax.default_backend() == "cpu" and mesh.size > 1

        # ---------------------------------------- restore the last, or initialise
        shown.stage("restoring or initialising")
        checkpoints = held.enter_context(
            Checkpoints(folder, keep=config.keep_checkpoints, report=shown.message)
        )
        step, earlier = 0, 0.0
        abstract = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            abstract,
            placed,
        )
        restored = checkpoints.restore(abstract)
        if restored is None:
            initialise = jax.jit(task.initialise, out_shardings=placed)
            state: TrainState = initialise(key, jax.device_get(task.start))
        else:
            step, state, record = restored
            earlier = record["seconds"]
            energy.add_earlier(record.get("joules"))
            shown.message(f"going on from the checkpoint of step {step}")
        metrics = MetricsWriter(folder, step=step, writes=first)
        iterator = _iterator(task, config, first=step // task.steps_per_call)
        agreement = processes.Agreement(mesh)
        stopping = False

        # ---------------------------------------------------------------- compile
        shown.stage("compiling the training step")
        compiling = time.monotonic()
        train_step = (
            jax.jit(
                _measured(task),
                donate_argnums=0,
                out_shardings=(placed, *[sharding.everywhere(mesh)] * 2),
            )
            .lower(state, _placed(sample, split))
            .compile()
        )
        evaluation_step = jax.jit(task.evaluation_step)
        taken = time.monotonic() - compiling
        shown.message(f"compiled in {taken:.0f} s; {sharding.memory(train_step)}")

        # ------------------------------------------------------------------ train
        began -= earlier
        seconds = first_second = time.monotonic() - began
        first_step = step
        unchecked: tuple[int, Any] | None = None
        text = ""
        if step == 0:
            topology_rows.write(metrics, 0, task.one_of(state).optimizer_state)
        shown.stage("training")
        while step < config.steps:
            if stopping := agreement.reached(bool(asked)):
                break
            batch = _placed(next(iterator), split)
            state, scalars, measured = train_step(state, batch)
            step += task.steps_per_call
            last = step == config.steps
            evaluates = last or step % config.evaluate_every == 0
            logs = last or step % config.log_every == 0
            saves = last or step % config.checkpoint_every == 0

            # The device works on this step while the host looks at the last one.
            if unchecked is not None:
                check(*unchecked, state.params)
            unchecked = (step, measured)
            if evaluates or logs or saves or one_at_a_time:
                check(*unchecked, state.params)
                unchecked = None
            seconds = time.monotonic() - began
            shown.advance(step, text)

            if logs:
                rate = (step - first_step) * batch_size / (seconds - first_second)
                row = {name: float(value) for name, value in scalars.items()}
                # What there is nothing to say of yet, such as returns.
                row = {name: value for name, value in row.items() if value == value}
                clock = {"seconds": seconds, "examples_per_second": rate}
                metrics.write(step, "train", {**row, **clock})
                topology_rows.write(metrics, step, task.one_of(state).optimizer_state)
                text = _text(row)
            if evaluates:
                _verify(step, state)
                row = _evaluate(evaluation_step, state, task, config, split)
                seconds = time.monotonic() - began
                metrics.write(step, "evaluation", {**row, "seconds": seconds})
                shown.message(f"step {step}: evaluation {_text(row)}")
            if saves:
                metrics.sync()
                energy.sample()
                used = {"seconds": seconds, "joules": energy.joules}
                checkpoints.save(step, state, used)

        if stopping:
            if unchecked is not None:
                check(*unchecked, state.params)
            metrics.sync()
            used = {"seconds": seconds, "joules": energy.joules}
            checkpoints.save(step, state, used)
            checkpoints.wait()
            shown.message(
                f"{asked.signal or 'another process was asked to stop'}: saved step "
                f"{step} of {config.steps} in {folder}; run the same command to go on."
            )
            return INTERRUPTED

        # ------------------------------------------------------ summary and report
        shown.stage("writing the report")
        checkpoints.wait()
        energy.sample()
        state = task.one_of(state)
        summary = collect(
            command, task, state, metrics, seconds=seconds, energy=energy.as_dict()
        )
        metrics.close()
        samples = {} if task.samples is None else task.samples(state)
        if first:
            if samples:
                workdir.write_arrays(folder / "samples.npz", samples)
            workdir.write_json(folder / "summary.json", summary)
            write_report(folder)
        shown.message(sj.summary(state.params, state.optimizer_state))
        shown.message(f"energy: {energy}")
        for name, value in task.dataset.references.items():
            shown.message(f"without a network: {name} {value:.4f}")
        shown.message(
            f"finished: {_text(summary['final'])} at sparsity "
            f"{summary['sparsity']:.4f} ({seconds:.0f} s); see "
            f"{folder / 'report.html'}"
        )
        return FINISHED


def _measured(task: Task) -> Any:
    def step(state, batch):
        new_state, scalars = task.train_step(state, batch)
        return (
            new_state,
            scalars,
            health(scalars["loss"], state.params, new_state.params),
        )

    return step


def _iterator(task: Task, config: Any, *, first: int = 0) -> Any:
    return train_iterator(
        task.dataset,
        batch_size=config.data.batch_size,
        seed=config.seed,
        worker_count=config.data.get("worker_count", 0),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        first=first,
    )


def _placed(batch: Any, split: NamedSharding) -> Any:
    """The batch on all devices, of which every process has read its own share."""
    return jax.make_array_from_process_local_data(split, batch)


def _evaluate(
    evaluation_step: Any, state: TrainState, task: Task, config: Any, split: Any
) -> dict[str, float]:
    batches = evaluation_batches(
        task.dataset,
        batch_size=config.data.batch_size,
        worker_count=config.data.get("worker_count", 0),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    outputs = (evaluation_step(state, _placed(batch, split)) for batch in batches)
    return task.gather(processes.fetch(output) for output in outputs)


def _verify(step: int, state: TrainState) -> None:
    try:
        sj.verify(state.params, state.optimizer_state)
        if state.average is not None:
            sj.verify(state.average.params, state.optimizer_state)
    except ValueError as error:
        raise NotSparseError(f"step {step}: {error}") from error


def _finished_step(folder: Any) -> int | None:
    try:
        return json.loads((folder / "summary.json").read_text())["step"]
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None


def _text(row: dict[str, float]) -> str:
    shown = (
        "loss",
        "bits_per_byte",
        "accuracy",
        "mean_average_precision",
        "average_precision_50",
        "training_return",
        "episode_return",
    )
    return "  ".join(f"{name} {row[name]:.4f}" for name in shown if name in row)
