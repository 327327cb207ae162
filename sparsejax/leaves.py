"""Parameter trees as lists of leaves: what both engines do with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from sparsejax.layers import path_name
from sparsejax.state import Tracking, unpack

__all__ = [
    "begin_tracking",
    "flatten",
    "given_params",
    "land",
    "map_masked",
    "pick_masked",
    "record_move",
    "reject_accumulation",
    "wider",
    "zero_outside",
]


def wider(first: Any, *others: Any) -> Any:
    """The dtype that holds the values of all these, under any rule of promotion.

    Example:
      >>> import jax.numpy as jnp
      >>> wider(jnp.bfloat16, jnp.float32)
      dtype('float32')
    """
    with jax.numpy_dtype_promotion("standard"):
        for other in others:
            first = jnp.promote_types(first, other)
    return jnp.dtype(first)


def given_params(params: PyTree | None) -> PyTree:
    """The parameters that ``update`` was called with.

    Raises:
      ValueError: it was called without.
    """
    if params is None:
        raise ValueError(
            "params=None: a sparse method needs the parameters; call "
            "tx.update(grads, state, params)"
        )
    return params


def flatten(params: PyTree) -> tuple[list[str], list[Any], Any]:
    """Paths, leaves and structure of a parameter tree."""
    with_paths, treedef = jax.tree.flatten_with_path(params)
    paths = [path_name(path) for path, _ in with_paths]
    return paths, [leaf for _, leaf in with_paths], treedef


def map_masked(
    function: Callable[..., Any], masks: list[Any], *rest: list[Any]
) -> list[Any]:
    """Maps a function over the masked leaves; None elsewhere."""
    columns = zip(masks, *rest, strict=True)
    return [None if row[0] is None else function(*row) for row in columns]


def pick_masked(masks: list[Any], values: list[Any]) -> list[Any]:
    """The values at the masked leaves, and no others."""
    pairs = zip(masks, values, strict=True)
    return [value for mask, value in pairs if mask is not None]


def zero_outside(leaves: list[Any], masks: list[Any]) -> list[Any]:
    """The leaves with zeros outside their masks; all of a leaf without one."""
    return [
        leaf if mask is None else jnp.where(mask, leaf, jnp.zeros_like(leaf))
        for leaf, mask in zip(leaves, masks, strict=True)
    ]


def land(masks: list[Any], leaves: list[Any], steps: list[Any]) -> list[Any]:
    """The step where kept; exactly ``-param`` elsewhere.

    The wider of both dtypes carries it: rounding ``-param`` would leave a remainder.
    """

    def one(mask, leaf, step):
        if mask is None:
            return step
        dtype = wider(leaf.dtype, step.dtype)
        return jnp.where(mask, step.astype(dtype), -leaf.astype(dtype))

    return [one(*row) for row in zip(masks, leaves, steps, strict=True)]


def begin_tracking(stored: PyTree, treedef: Any, masks: list[Any]) -> Tracking:
    """The record of a topology that has not moved yet."""

    def zeros():
        found = map_masked(lambda _: jnp.zeros((), jnp.int32), masks)
        return treedef.unflatten(found)

    # Arrays of its own, since a state in which one occurs twice cannot be donated.
    explored = jax.tree.map(jnp.copy, stored)
    return Tracking(explored, zeros(), zeros(), jnp.zeros((), jnp.int32))


def record_move(
    tracking: Tracking | None,
    treedef: Any,
    masks: list[Any],
    new: list[Any],
    store: Callable[[Any], Any],
) -> Tracking | None:
    """The record after a move from some masks to new ones; None without a record."""
    if tracking is None:
        return None

    def count(before, after):
        return jnp.sum(before & ~after, dtype=jnp.int32)

    explored = map_masked(unpack, treedef.flatten_up_to(tracking.explored))
    union = map_masked(jnp.logical_or, explored, new)
    return Tracking(
        explored=treedef.unflatten(map_masked(store, union)),
        dropped=treedef.unflatten(map_masked(count, masks, new)),
        grown=treedef.unflatten(map_masked(count, new, masks)),
        moves=jnp.asarray(optax.safe_increment(tracking.moves)),
    )


def reject_accumulation(inner_state: optax.OptState) -> None:
    """Raises if an optimizer that is to be wrapped accumulates gradients."""

    def is_accumulator(node):
        return isinstance(node, optax.MultiStepsState)

    nodes = jax.tree.leaves(inner_state, is_leaf=is_accumulator)
    if any(is_accumulator(node) for node in nodes):
        raise ValueError(
            "optax.MultiSteps is inside the sparse method: its topology would follow "
            "the gradient of one micro-batch; put it around: "
            "optax.MultiSteps(sj.rigl(optax.adam(1e-3), ...), every_k_schedule=k)"
        )
