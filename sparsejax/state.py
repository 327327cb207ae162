"""What a method keeps in the optimizer's state, and finding it under any wrapper."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree, UInt8

from sparsejax.layers import Layer
from sparsejax.structures import Structure

__all__ = [
    "Design",
    "MaskedState",
    "PackedMask",
    "ReparametrizedState",
    "State",
    "Tracking",
    "find_states",
    "is_state",
    "masks",
    "pack",
    "replica_axes",
    "unpack",
    "unpack_all",
]


@jax.tree_util.register_pytree_with_keys_class
class PackedMask:
    """A bool mask at one bit per weight: eight neighbours of the last axis in a byte.

    Attributes:
      bits: uint8, the mask's shape with the last axis divided by 8, rounded up.
      width: length of the mask's last axis (static).
    """

    def __init__(self, bits: UInt8[Array, "..."], width: int):
        self.bits, self.width = bits, width

    def tree_flatten_with_keys(self):
        return ((jax.tree_util.GetAttrKey("bits"), self.bits),), self.width

    @classmethod
    def tree_unflatten(cls, width, children):
        return cls(children[0], width)

    def __repr__(self):
        return f"PackedMask(bits={self.bits!r}, width={self.width})"


class Tracking(NamedTuple):
    """Optional record of the topology's history.

    Attributes:
      explored: union of all masks so far, in the structure of the masks.
      dropped: per masked leaf (None elsewhere), weights dropped by the last move.
      grown: likewise, weights grown by the last move.
      moves: topology moves so far.
    """

    explored: PyTree
    dropped: PyTree
    grown: PyTree
    moves: Int[Array, ""]


class MaskedState(NamedTuple):
    """State of every method of the masking engine.

    Attributes:
      count: updates made so far.
      key: random key; a move at step ``t`` draws from ``fold_in(key, t)``.
      masks: like params: a bool array or `PackedMask` at each sparsified leaf, None at
        dense leaves.
      inner: state of the wrapped optimizer.
      tracking: `Tracking`, or None if not asked for.
      memory: what the method gathers from step to step, None for most.
    """

    count: Int[Array, ""]
    key: PRNGKeyArray
    masks: PyTree
    inner: optax.OptState
    tracking: Tracking | None
    memory: Any = None


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Design:
    """What turns latent weights into parameters: static, and equal by value.

    Attributes:
      view: a `sparsejax.views.View`.
      layers: the sparsified leaves.
      structure: family of masks.
    """

    view: Any
    layers: tuple[Layer, ...]
    structure: Structure


class ReparametrizedState(NamedTuple):
    """State of every method of the reparametrising engine.

    Attributes:
      count: updates made so far.
      key: random key; the view after ``t`` updates draws from ``fold_in(key, t)``.
      masks: like params: where the view can be other than zero, a bool array or
        `PackedMask` at each sparsified leaf, None at dense leaves.
      latents: like params: the dense weights behind the view, in float32 (or wider), at
        each sparsified leaf, None at dense leaves.
      inner: state of the wrapped optimizer, over params with latents in their place.
      extra: what the method trains beside weights (thresholds, gates), None for most.
      extra_inner: state of the optimizer of ``extra``.
      memory: what the method keeps and does not train, None for most.
      values: current values of the method's schedules.
      design: how params follow from all this (no arrays).
      tracking: `Tracking`, or None if not asked for.
    """

    count: Int[Array, ""]
    key: PRNGKeyArray
    masks: PyTree
    latents: PyTree
    inner: optax.OptState
    extra: Any
    extra_inner: optax.OptState
    memory: Any
    values: Mapping[str, Array]
    design: Design
    tracking: Tracking | None


State = MaskedState | ReparametrizedState


def pack(mask: Bool[Array, "..."]) -> PackedMask:
    """Packs a mask to one bit per weight.

    Example:
      >>> import jax.numpy as jnp
      >>> pack(jnp.array([[True] * 9])).bits.tolist()
      [[255, 128]]
    """
    return PackedMask(jnp.packbits(mask, axis=-1), mask.shape[-1])


def unpack(mask: Any) -> Any:
    """The bool array of a `PackedMask`; bool arrays and None pass through."""
    if not isinstance(mask, PackedMask):
        return mask
    return jnp.unpackbits(mask.bits, axis=-1, count=mask.width).astype(bool)


def unpack_all(tree: PyTree) -> PyTree:
    """A stored tree of masks as bool arrays, None wherever there is no mask.

    Leaves that an outer wrapper hides from the method (`optax.MaskedNode`) become None.
    """
    return jax.tree.map(
        lambda node: None if isinstance(node, optax.MaskedNode) else unpack(node),
        tree,
        is_leaf=lambda node: isinstance(node, PackedMask | optax.MaskedNode),
    )


def find_states(state: optax.OptState) -> list[State]:
    """All states of sparsejax methods inside an optimizer state, outermost first.

    Where something wraps its arrays, as ``nnx.Optimizer`` does, they are unwrapped.

    Raises:
      ValueError: there is none.
    """
    found = [
        node for node in jax.tree.leaves(state, is_leaf=is_state) if is_state(node)
    ]
    if not found:
        raise ValueError(
            "this optimizer state holds no sparsejax method; wrap the optimizer in "
            "one, for example sj.rigl(optax.adam(1e-3), sparsity=0.9, stop=1000)"
        )
    return [jax.tree.map(_bare, node, is_leaf=_is_variable) for node in found]


def _is_variable(node: Any) -> bool:
    return hasattr(node, "get_value")


def _bare(node: Any) -> Any:
    return node.get_value() if _is_variable(node) else node


def masks(state: optax.OptState) -> PyTree:
    """The masks: a tree like params of bool arrays, None at dense leaves.

    Looks through any optax wrapper; where several methods share the parameters
    (``optax.partition``) their masks are merged.

    Args:
      state: an optimizer state with at least one sparsejax method in it.

    Raises:
      ValueError: the state holds no sparsejax method.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.static(optax.sgd(0.1), sparsity=0.5)
      >>> params = {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}
      >>> found = sj.masks(tx.init(params))
      >>> int(found["kernel"].sum()), found["bias"]
      (8, None)
    """
    merged = None
    for found in find_states(state):
        merged = _merge(merged, unpack_all(found.masks))
    return merged


def replica_axes(state: optax.OptState) -> PyTree:
    """``in_axes`` and ``out_axes`` for `jax.vmap` of an update over replicas.

    Everything is mapped along axis 0 except the counter that decides when the topology
    moves, which all replicas share: the move then stays a branch that costs nothing
    between moves, where a mapped counter would make every step select.

    Args:
      state: the state of one replica, or of all.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sparsejax as sj
      >>> params = {"kernel": jnp.ones((3, 4, 4))}  # 3 replicas
      >>> def init(key, params):
      ...     tx = sj.rigl(optax.sgd(0.1), sparsity=0.5, stop=100, seed=key)
      ...     return tx.init(params)
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> axes = sj.replica_axes(init(keys[0], {"kernel": params["kernel"][0]}))
      >>> state = jax.vmap(init, out_axes=axes)(keys, params)
      >>> state.count.shape, state.masks["kernel"].shape
      ((), (3, 4, 4))
    """
    return jax.tree.map(
        lambda node: (
            jax.tree.map(lambda _: 0, node)._replace(count=None)
            if is_state(node)
            else 0
        ),
        state,
        is_leaf=is_state,
    )


def is_state(node: Any) -> bool:
    """Whether a node of an optimizer state is a sparsejax method's."""
    return isinstance(node, State)


def _merge(first: Any, second: Any) -> Any:
    if first is None or second is None:
        return second if first is None else first
    if isinstance(first, jax.Array):
        raise ValueError(
            "two sparsejax methods sparsify the same leaf; use one of them"
        )
    children, treedef = jax.tree.flatten(first, is_leaf=lambda node: node is not first)
    others = jax.tree.leaves(second, is_leaf=lambda node: node is not second)
    pairs = zip(children, others, strict=True)
    return jax.tree.unflatten(treedef, [_merge(a, b) for a, b in pairs])
