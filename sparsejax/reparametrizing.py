"""Engine B, reparametrisation: parameters that are a sparse view of dense weights.

The dense weights live in the optimizer's state and are what the wrapped optimizer
trains. The user's parameters are their view, remade at every update: sparse, with exact
zeros, and without a call that could be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from sparsejax.distributions import Distribution
from sparsejax.layers import Layout, Where, matmul_weights
from sparsejax.leaves import (
    begin_tracking,
    flatten,
    given_params,
    land,
    map_masked,
    pick_masked,
    record_move,
    reject_accumulation,
    wider,
    zero_outside,
)
from sparsejax.planning import budget_arrays, planner
from sparsejax.state import Design, ReparametrizedState, pack, unpack
from sparsejax.statistics import restart_outside
from sparsejax.structures import Structure
from sparsejax.views import Snapshot, View, snapshot, view_values

__all__ = ["reparametrized", "without_decay"]


def reparametrized(
    inner: optax.GradientTransformation,
    *,
    view: View,
    sparsity: float | Mapping[str, float] | None,
    refresh: Callable[[Int[Array, ""]], Bool[Array, ""]] | None = None,
    values: Mapping[str, Callable[[Int[Array, ""]], Array]] | None = None,
    exact: bool = True,
    extra_optimizer: optax.GradientTransformation | None = None,
    distribution: Distribution | None = None,
    structure: Structure | None = None,
    where: Where | None = matmul_weights,
    layout: Layout | None = None,
    initial_masks: PyTree | None = None,
    seed: int | PRNGKeyArray = 0,
    packed: bool = False,
    track: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that parameters are the sparse view of dense weights.

    With latent weights ``w``, what else is trained ``a``, the view ``v(w, a)`` and the
    gradient ``g`` at it, the inner optimizer steps ``w`` by the view's backward rule of
    ``g``, another one steps ``a``, and the returned update is ``v(w', a') - p`` where
    the new mask is, ``-p`` elsewhere: zeros are exact in any dtype, other entries right
    to rounding. The latent weights are the truth, so nothing accumulates.

    Args:
      inner: the optimizer (the whole chain, clipping included).
      view: how parameters follow from latent weights.
      sparsity: fraction of zeros over all chosen layers, or a map from path patterns to
        sparsities; or None to take the counts of ``initial_masks``, and for a view
        without a budget.
      refresh: whether masks are selected anew for the view after so many updates; None
        for always. They are at init.
      values: schedules of the view by name, as functions of the updates made.
      exact: whether masks have their budget from the first step on, so that
        ``initial_masks`` have to agree with ``sparsity``.
      extra_optimizer: optimizer of what the view trains beside weights; default
        ``inner``, on a state of its own.
      distribution: splits the sparsity over the layers; default `erk`.
      structure: family of masks; default `unstructured`.
      where: which leaves to sparsify; None for none at all.
      layout: roles of axes; default `by_name`.
      initial_masks: tree like params of bool arrays, None at dense leaves; latent
        weights start at zero outside, and the first masks are selected inside.
      seed: integer or (possibly traced) random key.
      packed: store masks at one bit a weight instead of one byte.
      track: record exploration and turnover (`Tracking`).

    Returns:
      A transformation whose ``update`` needs ``params``.

    Raises:
      ValueError: at construction or ``init``, naming the argument, its value and the
        fix.
    """
    plan = planner(
        sparsity=sparsity,
        where=where,
        layout=layout,
        distribution=distribution,
        structure=structure,
        initial_masks=initial_masks,
        exact=exact,
        budgeted=view.budgeted,
    )
    inner = optax.with_extra_args_support(inner)
    extra_optimizer = optax.with_extra_args_support(extra_optimizer or inner)
    store = pack if packed else lambda mask: mask

    def current(step: Int[Array, ""]) -> dict[str, Array]:
        found = {name: value(step) for name, value in (values or {}).items()}
        # Of strong types, or the second step would be compiled again.
        return {name: jnp.asarray(x, jnp.result_type(x)) for name, x in found.items()}

    def init_fn(params: PyTree) -> ReparametrizedState:
        layers, budgets = plan(params)
        budgets = budget_arrays(layers, budgets)
        key = jax.random.key(seed) if isinstance(seed, int) else seed
        key, first_key = jax.random.split(key)
        paths, leaves, treedef = flatten(params)
        chosen = {layer.path for layer in layers}
        here = [True if path in chosen else None for path in paths]
        latents = [_latent(leaf) for leaf in pick_masked(here, leaves)]
        given = None
        if initial_masks is not None:
            given = pick_masked(here, treedef.flatten_up_to(initial_masks))
            latents = zero_outside(latents, given)
        step = jnp.zeros((), jnp.int32)
        now = Snapshot(
            layers=layers,
            structure=plan.structure,
            step=step,
            key=first_key,
            latents=latents,
            masks=[jnp.ones(layer.shape, bool) for layer in layers],
            extra=None,
            memory=None,
            values=current(step),
        )
        extra, memory = view.init(now, budgets)
        now = now._replace(
            key=jax.random.fold_in(key, step), extra=extra, memory=memory
        )
        masks, memory = view.select(now, budgets, given)
        # Optimizers may keep what they are given, and a state in which an array occurs
        # twice cannot be donated.
        copies = [jnp.copy(latent) for latent in latents]
        inner_state = inner.init(treedef.unflatten(_spread(copies, here, leaves)))
        reject_accumulation(inner_state)
        stored = treedef.unflatten(map_masked(store, _spread(masks, here)))
        return ReparametrizedState(
            count=step,
            key=key,
            masks=stored,
            latents=treedef.unflatten(_spread(latents, here)),
            inner=inner_state,
            extra=extra,
            extra_inner=_first_extra_state(extra_optimizer, extra),
            memory=memory,
            values=now.values,
            design=Design(view, tuple(layers), plan.structure),
            tracking=begin_tracking(stored, treedef, here) if track else None,
        )

    def update_fn(
        updates: PyTree,
        state: ReparametrizedState,
        params: PyTree | None = None,
        **arguments: Any,
    ) -> tuple[PyTree, ReparametrizedState]:
        params = given_params(params)
        paths, leaves, treedef = flatten(params)
        here = map_masked(lambda _: True, treedef.flatten_up_to(state.latents))
        gradients = treedef.flatten_up_to(updates)
        now = snapshot(state)._replace(values=current(state.count))
        pulled, extra_gradients = _gradients(view, now, pick_masked(here, gradients))

        # The optimizers' steps, of the latent and dense weights and of the extra.
        steps, inner_state = inner.update(
            treedef.unflatten(_spread(pulled, here, gradients)),
            state.inner,
            treedef.unflatten(_spread(now.latents, here, leaves)),
            **arguments,
        )
        steps = treedef.flatten_up_to(steps)
        latents = _stepped(now.latents, pick_masked(here, steps))
        moving = view.trainable(now)
        if moving is not None:
            rows = zip(moving, latents, now.latents, strict=True)
            latents = [jnp.where(*row) for row in rows]
            by_path = dict(zip(paths, _spread(moving, here), strict=True))
            # Frozen statistics are those before the step, not initial ones.
            inner_state = restart_outside(by_path, inner_state, state.inner)
        extra, extra_inner = now.extra, state.extra_inner
        if jax.tree.leaves(extra):
            extra_steps, extra_inner = extra_optimizer.update(
                extra_gradients, extra_inner, extra, **arguments
            )
            extra = view.constrain(optax.apply_updates(extra, extra_steps))

        # The next view, from masks that are selected for it or stay.
        count = jnp.asarray(optax.safe_increment(state.count))
        now = now._replace(
            step=count,
            key=jax.random.fold_in(state.key, count),
            latents=latents,
            extra=extra,
            values=current(count),
        )

        def select(carry):
            due, stored, memory, tracking = carry
            masks = map_masked(unpack, treedef.flatten_up_to(stored))
            before = now._replace(masks=pick_masked(masks, masks), memory=memory)
            layers, budgets = plan(params)
            found, memory = view.select(before, budget_arrays(layers, budgets))
            new = _spread(found, here)
            stored = treedef.unflatten(map_masked(store, new))
            tracking = record_move(tracking, treedef, masks, new, store)
            return jnp.zeros_like(due), stored, memory, tracking

        # A loop of one pass or none, since a `cond` copies what it returns. Where masks
        # are always selected it also makes them once: fused into both the state and the
        # update they could round differently, and disagree. XLA must not see that the
        # condition holds.
        due = jnp.asarray(count > 0 if refresh is None else refresh(count))
        carry = (due, state.masks, state.memory, state.tracking)
        carry = lax.while_loop(lambda carry: carry[0], select, carry)
        _, stored, memory, tracking = carry
        masks = map_masked(unpack, treedef.flatten_up_to(stored))
        now = now._replace(masks=pick_masked(masks, masks), memory=memory)
        pairs = [pick_masked(here, one) for one in (leaves, gradients)]
        moved = _differences(view_values(view, now), *pairs)
        update = land(masks, leaves, _spread(moved, here, steps))
        return treedef.unflatten(update), ReparametrizedState(
            count=count,
            key=state.key,
            masks=stored,
            latents=treedef.unflatten(_spread(latents, here)),
            inner=inner_state,
            extra=extra,
            extra_inner=extra_inner,
            memory=memory,
            values=now.values,
            design=state.design,
            tracking=tracking,
        )

    # optax's own type of states knows no None.
    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]


def without_decay(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer with its parameters hidden, so that weight decay has none to pull.

    For trainables that decay must not touch, by an optimizer that the user made for
    weights. Not for one that reads parameters for more than decay (schedule-free,
    lookahead).

    Args:
      optimizer: sees zeros in place of the parameters.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> tx = without_decay(optax.adamw(0.1, weight_decay=1.0))
      >>> state = tx.init(jnp.ones(2))
      >>> updates, state = tx.update(jnp.zeros(2), state, jnp.ones(2))
      >>> bool((updates == 0).all())
      True
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def update_fn(updates, state, params=None, **arguments):
        hidden = None if params is None else jax.tree.map(jnp.zeros_like, params)
        return optimizer.update(updates, state, hidden, **arguments)

    return optax.GradientTransformationExtraArgs(optimizer.init, update_fn)


def _latent(leaf: Array) -> Array:
    # A copy: donating the state must not take the parameters with it.
    return jnp.array(leaf, wider(leaf.dtype, jnp.float32))


def _spread(
    values: Sequence[Any], here: list[Any], others: list[Any] | None = None
) -> list[Any]:
    """The values at the chosen leaves, those of ``others`` (or None) elsewhere."""
    found = iter(values)
    others = [None] * len(here) if others is None else others
    pairs = zip(here, others, strict=True)
    return [other if one is None else next(found) for one, other in pairs]


def _gradients(view: View, now: Snapshot, gradients: list[Any]) -> tuple[Any, Any]:
    """Gradients of latents and extra: the view's backward rule, and its penalty."""
    pairs = zip(gradients, now.latents, strict=True)
    pulled = view.pull(now, [g.astype(latent.dtype) for g, latent in pairs])
    if view.penalty(now) is None:
        return pulled

    def penalty(latents, extra):
        return view.penalty(now._replace(latents=latents, extra=extra))

    own = jax.grad(penalty, argnums=(0, 1))(now.latents, now.extra)
    return jax.tree.map(jnp.add, pulled, own)


def _stepped(latents: list[Any], steps: list[Any]) -> list[Any]:
    pairs = zip(latents, steps, strict=True)
    return [(latent + step).astype(latent.dtype) for latent, step in pairs]


def _differences(values: list[Any], leaves: list[Any], like: list[Any]) -> list[Any]:
    """Updates that lead from the leaves to the values, in the gradients' dtypes.

    Wrappers that may skip an update return zeros like the gradients instead.
    """

    def difference(value, leaf, gradient):
        dtype = wider(leaf.dtype, gradient.dtype)
        return (value - leaf.astype(value.dtype)).astype(dtype)

    rows = zip(values, leaves, like, strict=True)
    return [difference(*row) for row in rows]


def _first_extra_state(optimizer, extra: Any) -> optax.OptState:
    try:
        return optimizer.init(extra)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "extra_optimizer cannot train the method's own thresholds or gates, a list "
            "of one array per sparsified leaf (by default it is the wrapped optimizer, "
            "here perhaps made for the tree of the parameters); pass another: "
            f"{str(error).splitlines()[0]}"
        ) from error
