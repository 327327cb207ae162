"""Trains a network as a config says, and writes a report.

  python -m sparsejax.train --config=NAME[:ARGUMENT] [--workdir=FOLDER]
                            [--config.FIELD=VALUE ...]

--config          A config that comes with the package, by name or file, or a file of
                  yours: rigl_mlp, configs/rigl_resnet50.py, rigl_resnet50:imagenet.
--workdir         The run directory; default: runs/NAME. It gets config.json,
                  metrics.jsonl, tensorboard/, checkpoints/, summary.json, report.html
                  and plots/, and of some tasks samples.npz.
--config.FIELD    Overrides a field: --config.seed=1, --config.method.sparsity=0.95.
                  Also arguments that the config does not mention:
                  --config.method.packed=True.

The same command again goes on from the last checkpoint, with the very same result as if
it had never been interrupted; also on other devices, with another --config.mesh. To
stop, press Ctrl-C or send SIGTERM: the run saves after the step that it is in.

Several processes, such as one for each host, train one network together: under `srun`
with several tasks the command above is all there is to it. Elsewhere each is given

--coordinator_address   the host of process 0 and a free port there: node0:1234
--num_processes         how many they are
--process_id            which of them this is, from 0 on

and the same --workdir, on a disk that all of them see. Process 0 writes and reports;
when one of them ends early the others end, too, and say which one it was.

Exit codes:
   0  finished (now, or already before)
   1  a defect in the program: the traceback says where
   2  the command, the config, the run directory or the installation is at fault;
      nothing was trained
   3  the loss or a parameter is not finite; the last good checkpoint is kept
   4  a weight that should be zero is not: something is wrapped in the wrong order
   5  a device has too little memory: the message says what to lower
  74  a file could not be written or read, such as on a full disk
  75  interrupted by SIGTERM or Ctrl-C, and saved: run the same command to go on
  76  another process of the run was killed or lost, with its host or the network
"""

import sys

from sparsejax.extras import MissingExtraError, require_for_program

require_for_program(
    "sparsejax.train",
    "absl flax grain matplotlib ml_collections orbax.checkpoint rich tensorboardX "
    "tensorflow_datasets",
    extra="train",
    started=__name__ == "__main__",
)

import contextlib
import json
import os
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import jax
import tensorflow_datasets as tfds
from absl import flags, logging
from jax.sharding import NamedSharding

import sparsejax as sj
from sparsejax import (
    configuration,
    interruption,
    processes,
    sharding,
    validation,
    workdir,
)
from sparsejax.building import ConfigError, build
from sparsejax.checkpoint import CheckpointError, Checkpoints
from sparsejax.data.pipeline import evaluation_batches, train_iterator
from sparsejax.energy import Energy, find_meters
from sparsejax.health import DivergedError, check, health
from sparsejax.metrics import MetricsWriter
from sparsejax.process_groups import find_group
from sparsejax.programs import failed
from sparsejax.progress import progress
from sparsejax.report import write_report
from sparsejax.summary_file import collect
from sparsejax.supervising import MEMBER, supervise
from sparsejax.tasks.base import Task, TrainState

FINISHED, MISUSED, DIVERGED, NOT_SPARSE, NO_MEMORY = 0, 2, 3, 4, 5
FILE_ERROR, INTERRUPTED = 74, 75

# Seconds in which a process that fails because another one has ended is ended itself.
_WAIT_FOR_NEWS = 5


class NotSparseError(Exception):
    """A parameter outside its mask is not zero; one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
      arguments: Without the program's name; default: the process's own.

    Returns:
      The exit code; for what went wrong there is one line on standard error.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or {"--help", "-help", "-h", "--helpfull"} & set(arguments):
        print(__doc__)
        print("Configs:\n  " + "\n  ".join(configuration.available()))
        return FINISHED if arguments else MISUSED
    # Worker processes of the input pipeline insist on parsed flags.
    flags.FLAGS.mark_as_parsed()
    tfds.disable_progress_bar()
    # What goes wrong in a library reaches the user as our one line, not as its log.
    logging.set_verbosity(logging.FATAL)
    member = os.environ.pop(MEMBER, None)
    if member is not None:
        _as_member(processes.Member(*json.loads(member)), arguments)
    return _outcome(lambda: _run_or_supervise(arguments))


def _run_or_supervise(arguments: list[str]) -> int:
    command = configuration.parse(arguments)
    group = find_group(
        command.coordinator_address,
        command.num_processes,
        command.process_id,
        os.environ,
    )
    if group is None:
        return run(command)
    program = [sys.executable, "-m", "sparsejax.train", *arguments]
    return supervise(group, program, "sparsejax.train")


def _as_member(member: processes.Member, arguments: list[str]) -> None:
    """Trains as one of several processes, and ends this one."""

    def together() -> int:
        processes.join(member)
        return run(configuration.parse(arguments))

    try:
        code = _outcome(together)
    except Exception:
        # If another one has ended, this one is about to be: its own error follows.
        time.sleep(_WAIT_FOR_NEWS)
        traceback.print_exc()
        code = 1
    if code not in (FINISHED, INTERRUPTED):
        # Not by jax's way out, on which it waits for the others.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _outcome(function: Callable[[], int]) -> int:
    """The function's exit code, or that of what went wrong and was said."""
    try:
        return function()
    except (ConfigError, MissingExtraError) as error:
        return failed("sparsejax.train", MISUSED, error)
    except DivergedError as error:
        return failed("sparsejax.train", DIVERGED, error)
    except NotSparseError as error:
        return failed("sparsejax.train", NOT_SPARSE, error)
    except CheckpointError as error:
        return failed("sparsejax.train", FILE_ERROR, error)
    except OSError as error:
        return failed(
            "sparsejax.train",
            FILE_ERROR,
            f"a file could not be read or written: {error}; free some space or check "
            "the path, and run the same command again to go on.",
        )
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        # GPUs say the one, CPUs the other.
        known = ("RESOURCE_EXHAUSTED", "Out of memory", "Unable to allocate")
        if not any(sign in str(error) for sign in known):
            raise
        return failed("sparsejax.train", NO_MEMORY, _out_of_memory(error))


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
            _write_topology(metrics, 0, task.one_of(state))
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
                _write_topology(metrics, step, task.one_of(state))
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


def _write_topology(metrics: MetricsWriter, step: int, state: TrainState) -> None:
    """Writes a row if the topology has moved since the last one."""
    previous = metrics.last("topology")
    try:
        moves = sj.moves(state.optimizer_state)
    except ValueError:
        moves = None  # not tracked: only a change of a density can be seen
    if previous is not None and moves is not None and previous["moves"] == moves:
        return
    counts = sj.counts(state.optimizer_state)
    density = {path: active / size for path, (active, size) in counts.items()}
    if not density or (previous and moves is None and previous["density"] == density):
        return
    zeros = sum(size - active for active, size in counts.values())
    sparsity = zeros / sum(size for _, size in counts.values())
    row: dict[str, Any] = {"sparsity": sparsity, "density": density}
    row |= {"exploration": {}, "dropped": {}, "grown": {}}
    if moves is not None:
        turnover = sj.turnover(state.optimizer_state)
        row["exploration"] = sj.exploration(state.optimizer_state)
        row["dropped"] = {path: dropped for path, (dropped, _) in turnover.items()}
        row["grown"] = {path: grown for path, (_, grown) in turnover.items()}
        row["moves"] = moves
    metrics.write(step, "topology", row)


def _verify(step: int, state: TrainState) -> None:
    try:
        sj.verify(state.params, state.optimizer_state)
        if state.average is not None:
            sj.verify(state.average.params, state.optimizer_state)
    except ValueError as error:
        raise NotSparseError(f"step {step}: {error}") from error


def _out_of_memory(error: Exception) -> str:
    reason = next(line for line in str(error).splitlines() if line.strip())
    return (
        f"a device has too little memory ({reason[:200]}); lower "
        "config.data.batch_size, split the state over more devices (config.mesh.fsdp), "
        "or, where the config has it, raise config.gradient_accumulation or set "
        "config.model.remat=True. The last checkpoint is kept."
    )


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


if __name__ == "__main__":
    sys.exit(main())
