"""Where arrays lie on many devices: batches split, large states split as well."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from sparsejax.building import plain

__all__ = ["everywhere", "memory", "mesh", "of_batch", "of_state"]

# Arrays below this size, in entries, are on every device whole: a network has many such
# vectors, and together they are small.
_LEAST = 4096


def mesh(config: Mapping[str, Any]) -> Mesh:
    """All devices, as ``config.mesh`` arranges them.

    Args:
      config: The config; ``mesh`` is ``{"data": -1, "fsdp": 1}`` by default: how many
        times the state is stored, and over how many devices each copy of it is split;
        -1 stands for all that are left. It is checked by
        :func:`sparsejax.validation.check_devices`.

    Returns:
      A mesh with the axes ``data`` and ``fsdp``.

    Example:
      >>> dict(mesh({}).shape) == {"data": jax.device_count(), "fsdp": 1}
      True
    """
    spec = plain(config.get("mesh")) or {}
    sizes = [spec.get("data", -1), spec.get("fsdp", 1)]
    known = math.prod(size for size in sizes if size > 0)
    left = jax.device_count() // known
    # The compiler places what follows from the batch: a network may do what the types
    # of explicit shardings have no rule for.
    automatic = (AxisType.Auto,) * 2
    shape = tuple(left if size == -1 else size for size in sizes)
    return jax.make_mesh(shape, ("data", "fsdp"), automatic)


def of_batch(mesh: Mesh) -> NamedSharding:
    """Every device has its own examples.

    Args:
      mesh: Of `mesh`.

    Returns:
      The sharding of arrays whose first axis is that of the examples.
    """
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def everywhere(mesh: Mesh) -> NamedSharding:
    """Every device has all of it.

    Args:
      mesh: Of `mesh`.

    Returns:
      The sharding of any array.
    """
    return NamedSharding(mesh, PartitionSpec())


def of_state(state: PyTree, mesh: Mesh, replicas: PyTree = None) -> PyTree:
    """Splits every large array over the axis ``fsdp``, and copies it along ``data``.

    Arrays of one shape are split alike: a weight, its mask and its optimizer's
    statistics. The axis is the longest that can be split evenly, the last of equals.
    Networks that are trained side by side are split over all devices instead, so that
    each device has some of them, if their number allows it.

    Args:
      state: Arrays, or their shapes.
      mesh: Of `mesh`.
      replicas: Where the state is that of several networks, a tree like it of 0 where
        the first axis counts them, and of None.

    Returns:
      A tree of shardings.

    Example:
      >>> found = of_state({"kernel": jax.ShapeDtypeStruct((64, 256), "float32")},
      ...                  mesh({}))
      >>> found["kernel"].spec
      P(None, 'fsdp')
    """
    count = mesh.shape["fsdp"]

    def place(leaf):
        axes = [axis for axis, size in enumerate(leaf.shape) if size % count == 0]
        if math.prod(leaf.shape) < _LEAST or not axes:
            return everywhere(mesh)
        longest = max(axes, key=lambda axis: (leaf.shape[axis], axis))
        names = (None,) * longest + ("fsdp",)
        return NamedSharding(mesh, PartitionSpec(*names))

    if replicas is None:
        return jax.tree.map(place, state)

    def split(leaf, axis):
        whole = axis is None or leaf.shape[0] % mesh.size
        return everywhere(mesh) if whole else of_batch(mesh)

    leaves, treedef = jax.tree.flatten(state)
    axes = treedef.flatten_up_to(replicas)
    return treedef.unflatten(map(split, leaves, axes))


def memory(compiled: Any) -> str:
    """Says what a compiled program needs on each device.

    Args:
      compiled: Of ``jax.jit(...).lower(...).compile()``.

    Returns:
      Such as ``"12 MiB of state and batch, 30 MiB more while it runs, per device"``.

    Example:
      >>> memory(jax.jit(lambda x: x + 1).lower(1.0).compile())
      '0.0 MiB of state and batch, 0.0 MiB more while it runs, per device'
    """
    found = compiled.memory_analysis()
    if found is None:
        return "memory unknown"
    held = found.argument_size_in_bytes / 2**20
    used = found.temp_size_in_bytes / 2**20
    return (
        f"{held:,.1f} MiB of state and batch, {used:,.1f} MiB more while it runs, "
        "per device"
    )
