"""Proximal steps: after the optimizer's step, weights shrink and small ones vanish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from sparsejax.layers import (
    Layer,
    Layout,
    Where,
    by_name,
    choose_layers,
    matmul_weights,
)
from sparsejax.leaves import (
    begin_tracking,
    flatten,
    given_params,
    land,
    map_masked,
    record_move,
    reject_accumulation,
    wider,
)
from sparsejax.state import MaskedState, pack, unpack

__all__ = ["Shrink", "proximal"]

Shrink = Callable[[Layer, Float[Array, "..."], Float[Array, ""]], Float[Array, "..."]]
"""(layer, weights after the step, shrinkage) -> weights, some of them exactly zero."""


def proximal(
    inner: optax.GradientTransformation,
    *,
    shrink: Shrink,
    shrinkage: float | optax.Schedule,
    where: Where = matmul_weights,
    layout: Layout | None = None,
    packed: bool = False,
    track: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that a proximal step follows each of its steps.

    With the inner optimizer's update ``u`` at the dense gradient, the parameters become
    ``shrink(p + u, s)``. The mask is where that is not zero. A zero weight goes on
    being trained, and returns as soon as a step takes it beyond the shrinkage.

    Args:
      inner: the optimizer, clipping and schedules included.
      shrink: the proximal operator of a penalty.
      shrinkage: its strength per step, learning rate included; a number, or a schedule
        over the updates made before.
      where: which leaves to sparsify.
      layout: roles of axes; default `by_name`.
      packed: store masks at one bit a weight instead of one byte.
      track: record exploration and turnover.

    Returns:
      A transformation whose ``update`` needs ``params``.

    Raises:
      ValueError: a negative shrinkage.
    """
    if not callable(shrinkage) and not shrinkage >= 0:
        raise ValueError(
            f"shrinkage={shrinkage!r} is negative; give the learning rate times the "
            "penalty's strength, such as 1e-3 * 1e-2"
        )
    layout = layout or by_name()
    inner = optax.with_extra_args_support(inner)
    store = pack if packed else lambda mask: mask

    def layers_at(params: PyTree, paths: list[str]) -> list[Layer | None]:
        chosen = choose_layers(params, where=where, layout=layout)
        by_path = {layer.path: layer for layer in chosen}
        return [by_path.get(path) for path in paths]

    def init_fn(params: PyTree) -> MaskedState:
        paths, leaves, treedef = flatten(params)
        layers = layers_at(params, paths)
        masks = map_masked(lambda _, leaf: leaf != 0, layers, leaves)
        inner_state = inner.init(params)
        reject_accumulation(inner_state)
        stored = treedef.unflatten(map_masked(store, masks))
        return MaskedState(
            count=jnp.zeros((), jnp.int32),
            key=jax.random.key(0),
            masks=stored,
            inner=inner_state,
            tracking=begin_tracking(stored, treedef, masks) if track else None,
        )

    def update_fn(
        updates: PyTree, state: MaskedState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, MaskedState]:
        params = given_params(params)
        paths, leaves, treedef = flatten(params)
        layers = layers_at(params, paths)
        steps, inner_state = inner.update(updates, state.inner, params, **extra)
        steps = treedef.flatten_up_to(steps)
        strength = shrinkage(state.count) if callable(shrinkage) else shrinkage
        strength = jnp.asarray(strength, jnp.float32)

        def shrunk(layer, leaf, step):
            dtype = wider(leaf.dtype, step.dtype, jnp.float32)
            stepped = leaf.astype(dtype) + step.astype(dtype)
            return shrink(layer, stepped, strength.astype(dtype))

        values = map_masked(shrunk, layers, leaves, steps)
        new = map_masked(lambda value: value != 0, values)

        def change(value, leaf, step):
            difference = value - leaf.astype(value.dtype)
            return difference.astype(wider(leaf.dtype, step.dtype))

        moved = [
            step if value is None else change(value, leaf, step)
            for value, leaf, step in zip(values, leaves, steps, strict=True)
        ]
        before = map_masked(unpack, treedef.flatten_up_to(state.masks))
        return treedef.unflatten(land(new, leaves, moved)), state._replace(
            count=jnp.asarray(optax.safe_increment(state.count)),
            masks=treedef.unflatten(map_masked(store, new)),
            inner=inner_state,
            tracking=record_move(state.tracking, treedef, before, new, store),
        )

    # optax's own type of states knows no None.
    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]
