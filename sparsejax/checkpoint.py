"""Checkpoints of everything that a run's future depends on.

A checkpoint holds the train state (parameters, optimizer state with the masks, model
statistics, random keys, step), the position in the data, and a small record with the
config and the wall time so far. A run that is killed and started again is, bit by bit,
the run that was not.
"""

import pathlib
import zlib
from collections.abc import Callable
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp


class CheckpointError(Exception):
    """A checkpoint that could not be written or read, in one line."""


class Checkpoints:
    """The checkpoints of one run, the newest few of them.

    Args:
      workdir: The run directory; they go to ``checkpoints/`` in it.
      keep: How many to keep; None for all.
      report: Called with one line for the user when a damaged one is passed over.
    """

    def __init__(
        self, workdir: pathlib.Path, *, keep: int | None, report: Callable[[str], None]
    ):
        self._folder = (workdir / "checkpoints").resolve()
        self._damaged = self._folder.with_name("damaged_checkpoints")
        self._report = report
        self._options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(self._folder, options=self._options)

    def save(self, step: int, state: Any, iterator: Any, record: Any) -> None:
        """Saves a checkpoint, and returns when it is on the disk.

        Args:
          step: Optimizer updates made so far; nothing happens if it is saved already.
          state: Any pytree of arrays: typed keys, bool masks and None are fine.
          iterator: The grain iterator of the training data.
          record: Plain data kept with it.

        Raises:
          CheckpointError: If the disk is full, or cannot be written to.
        """
        if step in self._manager.all_steps():
            return
        record = {"digest": _digest(state), **record}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=grain.checkpoint.CheckpointSave(iterator),
            record=ocp.args.JsonSave(record),
        )
        try:
            self._manager.save(step, args=items, force=True)
            self._manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            kept = [s for s in self._manager.all_steps() if s != step]
            last = f"the one of step {max(kept)} is kept" if kept else "there is none"
            raise CheckpointError(
                f"cannot save the checkpoint of step {step} in {self._folder}: "
                f"{_reason(error)} (last good checkpoint: {last}); free some space and "
                "run the same command again to go on."
            ) from error

    def restore(self, state: Any, iterator: Any = None) -> tuple[int, Any, Any] | None:
        """Restores the newest checkpoint that is whole, and the iterator in place.

        Damaged ones are set aside in ``damaged_checkpoints/``, and reported.

        Args:
          state: A pytree of arrays or their abstract shapes, as it was saved.
          iterator: A grain iterator of the same data; moved to its saved position. None
            only reads: damaged checkpoints stay where they are.

        Returns:
          The step, the state and the record; None if nothing was saved.

        Raises:
          CheckpointError: If there are checkpoints, but all of them are damaged.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        position = None if iterator is None else iterator.get_state()
        for step in steps:
            items = {
                "state": ocp.args.StandardRestore(state),
                "record": ocp.args.JsonRestore(),
            }
            if iterator is not None:
                items["data"] = grain.checkpoint.CheckpointRestore(iterator)
            try:
                restored: Any = self._manager.restore(
                    step, args=ocp.args.Composite(**items)
                )
                if restored.record["digest"] != _digest(restored.state):
                    raise ValueError("its contents do not match their checksum")
            # What a damaged file raises is up to three libraries and the damage.
            except Exception as error:
                if iterator is None:
                    self._report(f"checkpoint of step {step}: {_reason(error)}")
                    continue
                iterator.set_state(position)
                self._set_aside(step)
                self._report(
                    f"checkpoint of step {step} is damaged ({_reason(error)}); moved "
                    f"to {self._damaged}, trying the one before it."
                )
                continue
            return step, restored.state, restored.record
        if steps:
            raise CheckpointError(
                f"none of the checkpoints of {self._folder.parent} can be read; those "
                f"of a run that goes on are in {self._damaged.name}/. To start again, "
                "delete the folder."
            )
        return None

    def close(self) -> None:
        """Closes the manager."""
        self._manager.close()

    def _set_aside(self, step: int) -> None:
        self._damaged.mkdir(exist_ok=True)
        target = self._damaged / str(step)
        number = 1
        while target.exists():
            number += 1
            target = self._damaged / f"{step}-{number}"
        (self._folder / str(step)).rename(target)
        self._manager.reload()


def _digest(state: Any) -> int:
    """A checksum of all arrays in a tree, by value."""
    digest = 0
    for leaf in jax.tree.leaves(state):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(jax.device_get(leaf))
        digest = zlib.crc32(array.view(np.uint8).data, digest)
    return digest


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0][:200] if lines else type(error).__name__).rstrip(".")
