"""Several processes that train one network: who writes, and what all agree on.

Everything here is the same program for one process: it is the first, and agrees with
itself.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

__all__ = ["Agreement", "Member", "fetch", "is_first", "join", "on_first"]

Value = TypeVar("Value")


class Member(NamedTuple):
    """One of the processes of a run, as `sparsejax.supervising` starts it.

    Attributes:
      coordinator: Where jax's coordination service is: ``"host:port"``.
      count: How many processes there are.
      index: Which of them this is, from 0.
      hosts: Where each of them runs.
    """

    coordinator: str
    count: int
    index: int
    hosts: tuple[str, ...]


def join(member: Member) -> None:
    """Makes one jax of all processes; before anything else touches a device.

    Args:
      member: Which of the processes this is.
    """
    jax.distributed.initialize(member.coordinator, member.count, member.index)


def is_first() -> bool:
    """Whether this process is the one that writes.

    Example:
      >>> is_first()
      True
    """
    return jax.process_index() == 0


def on_first(function: Callable[[], Value]) -> Value:
    """Lets the first process do what only one may do; all get its outcome.

    Args:
      function: Called in the first process. What it returns, or raises, can be pickled.

    Returns:
      What it returned there. What it raised there is raised in every process.

    Example:
      >>> on_first(lambda: {"step": 3})
      {'step': 3}
    """
    if jax.process_count() == 1:
        return function()
    value, error = None, None
    if is_first():
        try:
            value = function()
        except Exception as raised:
            error = raised
    value, error = pickle.loads(_from_first(pickle.dumps((value, error))))
    if error is not None:
        raise error
    return value


def fetch(tree: PyTree) -> PyTree:
    """Brings arrays to every process, also those of which each has a part.

    Args:
      tree: Arrays; all processes have to call this with the same tree.

    Returns:
      The same as NumPy arrays.

    Example:
      >>> fetch({"loss": jnp.ones(2)})
      {'loss': array([1., 1.], dtype=float32)}
    """

    def whole(leaf):
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_addressable or leaf.is_fully_replicated
        ):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return jax.device_get(leaf)

    return jax.tree.map(whole, tree)


class Agreement:
    """Whether any process has been asked for something, known by all at one step.

    A signal reaches processes at different moments, yet all have to stop after the same
    step. Every step each says whether it has been asked, and learns what was said a
    step before, so that no device waits.

    Args:
      mesh: All devices of all processes.

    Example:
      >>> from sparsejax import sharding
      >>> agreement = Agreement(sharding.mesh({}))
      >>> agreement.reached(False), agreement.reached(True)
      (False, True)
    """

    def __init__(self, mesh: Mesh):
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        everywhere = NamedSharding(mesh, PartitionSpec())
        self._any = jax.jit(jnp.any, out_shardings=everywhere)
        self._local = sum(
            device.process_index == jax.process_index() for device in mesh.devices.flat
        )
        self._said: jax.Array | None = None

    def reached(self, asked: bool) -> bool:
        """Says whether this process has been asked, in the step that begins.

        Args:
          asked: Whether it has.

        Returns:
          Whether any process has, by the step before; with one process: by this one.
        """
        if jax.process_count() == 1:
            return asked
        before, mine = self._said, np.full(self._local, asked)
        said = jax.make_array_from_process_local_data(self._sharding, mine)
        self._said = self._any(said)
        return before is not None and bool(before)


def _from_first(content: bytes) -> bytes:
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    buffer = np.zeros(size, np.uint8)
    if is_first():
        buffer[:] = np.frombuffer(content, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes()
