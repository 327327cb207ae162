"""Checkpoints of everything that a run's future depends on.

A checkpoint holds the train state (parameters, optimizer state with the masks, model
statistics, random keys, step) and a small record with the wall time so far. Batches are
a function of the seed and the step. A run that is killed and started again is, bit by
bit, the run that was not; on another number of devices or processes it has the same
state and goes on with the same batches.
"""

import math
import pathlib
import zlib
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import lax
from jax.experimental import multihost_utils
from jaxtyping import Array, UInt

from sparsejax import processes
from sparsejax.layers import path_name
from sparsejax.version import __version__

# Raised whenever what is in a checkpoint, or how its checksum is made, changes.
_FORMAT = 2


class CheckpointError(Exception):
    """A checkpoint that could not be written or read, in one line."""


class Checkpoints:
    """The checkpoints of one run, the newest few of them; a context manager.

    They are written while training goes on; each is whole on the disk, and seen by
    `restore`, or it is not there. The end of the context waits for the last one. Of
    several processes all have to make the same calls.

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
        self._options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._manager: Any = ocp.CheckpointManager(self._folder, options=self._options)
        self._last: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.close()
        except CheckpointError:
            # What went wrong first is what the user has to know.
            if error == (None, None, None):
                raise

    def save(self, step: int, state: Any, record: Any) -> None:
        """Copies the state, and returns while it is being written.

        Args:
          step: Optimizer updates made so far; nothing happens if it is saved already.
          state: Any pytree of arrays: typed keys, bool masks and None are fine.
          record: Plain data kept with it.

        Raises:
          CheckpointError: If the disk is full, or cannot be written to: now, or while
            the one before was written.
        """
        self.wait()
        if step in self._manager.all_steps():
            return
        record = {
            **record,
            "format": _FORMAT,
            "version": __version__,
            "shapes": _shapes(state),
            "digest": _digest(state),
        }
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record)
        )
        self._last = step
        try:
            self._manager.save(step, args=items, force=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unsaved(error) from error

    def wait(self) -> None:
        """Returns when all that was saved is on the disk.

        Raises:
          CheckpointError: If it could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unsaved(error) from error

    def restore(
        self, state: Any, *, set_aside: bool = True
    ) -> tuple[int, Any, Any] | None:
        """Restores the newest checkpoint that is whole.

        Args:
          state: A pytree of arrays or their abstract shapes, as it was saved; their
            shardings may be others.
          set_aside: Whether damaged ones are moved to ``damaged_checkpoints/``, so that
            their steps can be saved again; otherwise they are only reported.

        Returns:
          The step, the state and the record; None if nothing was saved.

        Raises:
          CheckpointError: If there are checkpoints, but all of them are damaged, or
            they are those of another version of this program.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            restored, reason = None, ""
            try:
                restored, reason = self._read(step, state)
            except CheckpointError:
                raise
            # What a damaged file raises is up to three libraries and the damage.
            except Exception as error:
                reason = _reason(error)
            # One process may find a file damaged that others do not read.
            if _everywhere(restored is not None) and restored is not None:
                return step, *restored
            reason = reason or "another process cannot read it"
            if not set_aside:
                self._report(f"checkpoint of step {step}: {reason}")
                continue
            self._set_aside(step)
            self._report(
                f"checkpoint of step {step} is damaged ({reason}); moved to "
                f"{self._damaged}, trying the one before it."
            )
        if steps:
            raise CheckpointError(
                f"none of the checkpoints of {self._folder.parent} can be read; those "
                f"of a run that goes on are in {self._damaged.name}/. To start again, "
                "delete the folder."
            )
        return None

    def close(self) -> None:
        """Waits for what is being written, and closes the manager.

        Raises:
          CheckpointError: As for `wait`.
        """
        self.wait()
        self._manager.close()

    def _read(self, step: int, state: Any) -> tuple[Any, str]:
        """State and record, or None and what is wrong with them."""
        only_record = ocp.args.Composite(record=ocp.args.JsonRestore())
        record = self._manager.restore(step, args=only_record).record
        self._check_version(step, record, state)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(state))
        found = self._manager.restore(step, args=items).state
        if record["digest"] != _digest(found):
            return None, "its contents do not match their checksum"
        return (found, record), ""

    def _check_version(self, step: int, record: Any, state: Any) -> None:
        kind = record.get("format", 1)
        made = f"sparsejax {record.get('version', 'of before 0.1')}"
        if kind != _FORMAT:
            raise CheckpointError(
                f"the checkpoint of step {step} in {self._folder} has format {kind}, "
                f"made by {made}; this is sparsejax {__version__}, which reads format "
                f"{_FORMAT}: go on with that version, or start again in another "
                "folder, --workdir=FOLDER."
            )
        if record["shapes"] != _shapes(state):
            raise CheckpointError(
                f"the checkpoint of step {step} in {self._folder}, made by {made}, has "
                f"other arrays than sparsejax {__version__} makes of the same config: "
                "go on with the version that made it, or start again in "
                "another folder, --workdir=FOLDER."
            )

    def _unsaved(self, error: BaseException) -> CheckpointError:
        kept = [s for s in self._manager.all_steps() if s != self._last]
        last = f"the one of step {max(kept)} is kept" if kept else "there is none"
        return CheckpointError(
            f"cannot save the checkpoint of step {self._last} in {self._folder}: "
            f"{_reason(error)} (last good checkpoint: {last}); free some space and "
            "run the same command again to go on."
        )

    def _set_aside(self, step: int) -> None:
        def move() -> None:
            self._damaged.mkdir(exist_ok=True)
            target = self._damaged / str(step)
            number = 1
            while target.exists():
                number += 1
                target = self._damaged / f"{step}-{number}"
            (self._folder / str(step)).rename(target)

        processes.on_first(move)
        self._manager.reload()


def _everywhere(fine: bool) -> bool:
    """Whether it is so in every process."""
    if jax.process_count() == 1:
        return fine
    return bool(multihost_utils.process_allgather(np.array(fine)).all())


def _shapes(state: Any) -> int:
    """A checksum of paths, shapes and dtypes."""
    leaves, _ = jax.tree.flatten_with_path(state)
    rows = [(path_name(path), leaf.shape, str(leaf.dtype)) for path, leaf in leaves]
    return zlib.crc32(repr(rows).encode())


def _digest(state: Any) -> int:
    """A checksum of all arrays in a tree, by value, however they are split."""
    # One after the other: simulated devices can deadlock in two sums at once.
    sums = [int(_sum_of_hashes(leaf)) for leaf in jax.tree.leaves(state)]
    return zlib.crc32(np.asarray(sums, np.uint32).tobytes())


@jax.jit
def _sum_of_hashes(array: Array) -> UInt[Array, ""]:
    """The sum over all entries of a hash of bits and position, modulo 2**32.

    Every device hashes what it has, and only sums are exchanged.
    """
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    width = min(array.dtype.itemsize, 4)
    bits = lax.bitcast_convert_type(array, f"uint{8 * width}").astype(jnp.uint32)
    position = jnp.zeros(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):
        stride = jnp.uint32(math.prod(bits.shape[axis + 1 :]) % 2**32)
        position += stride * lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    # Two rounds of multiplying and shifting, in which every bit reaches every other.
    mixed = bits ^ (position * jnp.uint32(0x9E3779B1))
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0][:200] if lines else type(error).__name__).rstrip(".")
