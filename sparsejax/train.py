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

import json
import os
import time
import traceback
from collections.abc import Callable, Sequence

import jax
import tensorflow_datasets as tfds
from absl import flags, logging

from sparsejax import configuration, processes
from sparsejax.building import ConfigError
from sparsejax.checkpoint import CheckpointError
from sparsejax.health import DivergedError
from sparsejax.process_groups import find_group
from sparsejax.programs import failed
from sparsejax.supervising import MEMBER, supervise
from sparsejax.training import FINISHED, INTERRUPTED, NotSparseError, run

MISUSED, DIVERGED, NOT_SPARSE, NO_MEMORY, FILE_ERROR = 2, 3, 4, 5, 74

# Seconds in which a process that fails because another one has ended is ended itself.
_WAIT_FOR_NEWS = 5


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


def _out_of_memory(error: Exception) -> str:
    reason = next(line for line in str(error).splitlines() if line.strip())
    return (
        f"a device has too little memory ({reason[:200]}); lower "
        "config.data.batch_size, split the state over more devices (config.mesh.fsdp), "
        "or, where the config has it, raise config.gradient_accumulation or set "
        "config.model.remat=True. The last checkpoint is kept."
    )


if __name__ == "__main__":
    sys.exit(main())
