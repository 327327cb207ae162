"""The engine of always-sparse training: weights change places in compressed form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree
from sparsejax_kernels.formats.transposed import transpose

from sparsejax.always_sparse.drawing import redraw
from sparsejax.always_sparse.topology import Topology
from sparsejax.leaves import flatten, given_params, reject_accumulation
from sparsejax.schedules import Schedule, When
from sparsejax.selection import top_k_mask
from sparsejax.statistics import restart_outside

__all__ = ["RewiredState", "Score", "rewired", "topology"]

Score = Callable[[Float[Array, "out k"], Float[Array, "out k"]], Float[Array, "out k"]]
"""(weights, their gradients) -> what makes a weight worth keeping."""


class RewiredState(NamedTuple):
    """State of an always-sparse method.

    Attributes:
      count: updates made so far.
      key: random key; a move at step ``t`` draws from ``fold_in(key, t)``.
      topology: like params: a `Topology` at sparse leaves, None at others.
      inner: state of the wrapped optimizer, over the compressed parameters.
    """

    count: Int[Array, ""]
    key: PRNGKeyArray
    topology: PyTree
    inner: optax.OptState


def topology(state: optax.OptState) -> PyTree:
    """The topology for the forward pass: like params, None at dense leaves.

    Args:
      state: of an always-sparse method, under any optax wrapper.

    Raises:
      ValueError: there is none in it.
    """

    def is_state(node):
        return isinstance(node, RewiredState)

    found = [n for n in jax.tree.leaves(state, is_leaf=is_state) if is_state(n)]
    if len(found) != 1:
        raise ValueError(
            f"this optimizer state holds {len(found)} always-sparse methods; wrap the "
            "optimizer in one, for example sparsejax.always_sparse.set"
        )
    return found[0].topology


def rewired(
    inner: optax.GradientTransformation,
    *,
    topology: PyTree,
    when: When | None,
    score: Score,
    fraction: Schedule,
    seed: int | PRNGKeyArray = 0,
) -> optax.GradientTransformationExtraArgs:
    """Moves the worst weights of compressed layers to other inputs.

    At a move a layer with ``n`` weights gives up the ``floor(f(t) n)`` that score
    lowest, wherever they are. A neuron with candidates gives up no more than it has of
    these: its worst weights take the places of the candidates of steepest gradient, and
    all candidates are drawn anew. Without candidates new places are random. New weights
    start at zero, with fresh statistics; on the step of a move nothing else changes.

    Args:
      inner: the optimizer, clipping and schedules included.
      topology: like params: a `Topology` at sparse leaves, None at others.
      when: the steps of moves; None for a topology that stays.
      score: what makes a weight worth keeping.
      fraction: share of a layer's weights that move, over ``step / stop``.
      seed: number or key that new places are drawn from.

    Raises:
      ValueError: at ``init``, if no leaf is sparse or a topology has another shape than
        its parameter.
    """
    wires = topology

    def init_fn(params: PyTree) -> RewiredState:
        paths, leaves, treedef = flatten(params)
        found = treedef.flatten_up_to(wires)
        if all(one is None for one in found):
            raise ValueError(
                "topology has no layer: every leaf is None; make values and topology "
                "by sparsejax.always_sparse.connect"
            )
        for path, leaf, one in zip(paths, leaves, found, strict=True):
            if one is not None and one.indices.shape != leaf.shape:
                raise ValueError(
                    f"topology at {path} is for values of shape {one.indices.shape}, "
                    f"but the parameter has {leaf.shape}; take both from one `connect`"
                )
        inner_state = inner.init(params)
        reject_accumulation(inner_state)
        key = jax.random.key(seed) if isinstance(seed, int) else seed
        # Copies: what is donated with the state stays the caller's.
        own = jax.tree.map(jnp.copy, wires)
        return RewiredState(jnp.zeros((), jnp.int32), key, own, inner_state)

    def update_fn(
        updates: PyTree, state: RewiredState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, RewiredState]:
        params = given_params(params)
        paths, leaves, treedef = flatten(params)
        gradients = treedef.flatten_up_to(updates)
        before = treedef.flatten_up_to(state.topology)
        own = [_without_candidates(*row) for row in zip(gradients, before, strict=True)]
        result, inner_state = inner.update(
            treedef.unflatten(own), state.inner, params, **extra
        )
        steps = treedef.flatten_up_to(result)
        step, key = state.count, state.key
        state = state._replace(
            count=jnp.asarray(optax.safe_increment(step)), inner=inner_state
        )
        if when is None:
            return treedef.unflatten(steps), state

        due = jnp.asarray(when.due(step))

        def move_once(carry):
            assert when is not None
            share = fraction(when.progress(step))
            rows = zip(leaves, gradients, carry[1], strict=True)
            moved = [
                one
                if one is None
                else move(
                    jax.random.fold_in(key, step * len(paths) + index),
                    *(leaf, gradient, one, share, score),
                )
                for index, (leaf, gradient, one) in enumerate(rows)
            ]
            return jnp.zeros_like(due), moved

        # A loop of one pass or none: between moves it copies nothing that is large.
        _, after = lax.while_loop(lambda carry: carry[0], move_once, (due, before))
        rows = zip(leaves, steps, before, after, strict=True)
        landed = [_landed(due, *row) for row in rows]
        staying = {
            path: None if one is None or new is None else one.indices == new.indices
            for path, one, new in zip(paths, before, after, strict=True)
        }
        fresh = inner.init(treedef.unflatten(leaves))
        return treedef.unflatten(landed), state._replace(
            topology=treedef.unflatten(after),
            inner=restart_outside(staying, inner_state, fresh),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]


def move(
    key: PRNGKeyArray,
    values: Float[Array, "out k"],
    gradients: Float[Array, "out k"],
    wires: Topology,
    share: Float[Array, ""],
    score: Score,
) -> Topology:
    """The topology of one layer after a move; arguments as for `rewired`."""
    fan_in, width = wires.fan_in, wires.indices.shape[1]
    worth = score(values[:, :fan_in], gradients[:, :fan_in])
    count = jnp.floor(share * worth.size).astype(jnp.int32)
    given_up = ~top_k_mask(worth, worth.size - count)
    active, candidates = wires.indices[:, :fan_in], wires.indices[:, fan_in:]
    if width > fan_in:
        place = jnp.argsort(jnp.argsort(worth, axis=1), axis=1)
        given_up &= place < width - fan_in
        best_first = jnp.argsort(-jnp.abs(gradients[:, fan_in:]), axis=1)
        ranked = jnp.take_along_axis(candidates, best_first, axis=1)
        chosen = jnp.minimum(place, width - fan_in - 1)
        grown = jnp.take_along_axis(ranked, chosen, axis=1)
        indices = jnp.concatenate(
            [jnp.where(given_up, grown, active), candidates], axis=1
        )
        again = jnp.broadcast_to(jnp.arange(width) >= fan_in, indices.shape)
    else:
        indices, again = active, given_up
    indices = redraw(key, indices, again, wires.inputs)
    return dataclasses.replace(
        wires, indices=indices, transposed=transpose(indices, wires.inputs)
    )


def _without_candidates(gradient: Array, wires: Topology | None) -> Array:
    if wires is None or wires.fan_in == wires.indices.shape[1]:
        return gradient
    active = jnp.arange(gradient.shape[1]) < wires.fan_in
    return jnp.where(active, gradient, jnp.zeros_like(gradient))


def _landed(due, value, step, before: Topology | None, after: Topology | None):
    """The step of what stays, ``-value`` where a weight left, nothing on a move."""
    step = jnp.where(due, jnp.zeros_like(step), step)
    if before is None or after is None:
        return step
    step = _without_candidates(step, before)
    return jnp.where(before.indices == after.indices, step, -value.astype(step.dtype))
