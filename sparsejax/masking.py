"""Engine A, masking: keeps the parameters of any optax loop exactly sparse.

A method is a rule that chooses masks, and a schedule that says when. The engine does
everything else: it initialises masks, hands the wrapped optimizer the gradient of the
sparse network, returns updates that land on exact zeros, and restarts the optimizer's
statistics where the topology changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from sparsejax.checks import check_choice
from sparsejax.distributions import Distribution
from sparsejax.layers import (
    Layer,
    Layout,
    Where,
    leaves_with_paths,
    matmul_weights,
)
from sparsejax.leaves import (
    begin_tracking,
    flatten,
    given_params,
    land,
    map_masked,
    pick_masked,
    record_move,
    reject_accumulation,
    zero_outside,
)
from sparsejax.planning import budget_arrays, check_members, planner
from sparsejax.schedules import When
from sparsejax.state import MaskedState, pack, unpack
from sparsejax.statistics import restart_outside
from sparsejax.structures import Structure

__all__ = ["Initial", "Memory", "Move", "Rule", "masked"]


class Move(NamedTuple):
    """What a rule sees when the topology moves; the lists are aligned with ``layers``.

    Attributes:
      step: updates made before this one.
      when: the schedule that called for the move.
      key: random key of this move.
      layers: the sparsified leaves (static).
      budgets: weights to keep in the end, per leaf an int array over stacked layers.
      structure: how masks are selected.
      weights: current weights, exactly zero outside their masks.
      gradients: raw gradients, dense.
      masks: current masks.
      memory: what the method's `Memory` gathered, None without one.
      params_with: weights like ``weights`` -> the whole parameter tree with them.
      extra: keyword arguments of ``update`` that are not the engine's own.
    """

    step: Int[Array, ""]
    when: When
    key: PRNGKeyArray
    layers: Sequence[Layer]
    budgets: Sequence[Int[Array, "..."]]
    structure: Structure
    weights: list[Float[Array, "..."]]
    gradients: list[Float[Array, "..."]]
    masks: list[Bool[Array, "..."]]
    memory: Any
    params_with: Callable[[list[Any]], PyTree]
    extra: Mapping[str, Any]

    def extra_argument(self, name: str, purpose: str) -> Any:
        """A keyword argument of ``update`` that the method needs.

        Raises:
          ValueError: it was not passed.
        """
        if self.extra.get(name) is None:
            raise ValueError(
                f"{name}=None: this method needs {purpose}; call "
                f"tx.update(grads, state, params, {name}=...)"
            )
        return self.extra[name]

    def gradients_at(
        self, weights: list[Float[Array, "..."]]
    ) -> list[Float[Array, "..."]]:
        """The gradients at other weights on this step's batch, by ``grad_fn``.

        Raises:
          ValueError: ``update`` was not given ``grad_fn``.
        """
        gradient_function = self.extra_argument(
            "grad_fn", "a function from parameters to the gradients of this step's loss"
        )
        found = dict(leaves_with_paths(gradient_function(self.params_with(weights))))
        return [found[layer.path] for layer in self.layers]


class Memory(NamedTuple):
    """What a method gathers from step to step, beside masks.

    Attributes:
      init: weights -> the memory before the first step.
      update: ``(memory, step, weights, gradients, masks) -> memory``, called at every
        step, before a move; the lists are aligned with the sparsified leaves.
    """

    init: Callable[[list[Any]], Any]
    update: Callable[..., Any]


Initial = Callable[..., list[Bool[Array, "..."]]]
"""(layers, budgets, structure, key, weights, params_with) -> masks at init."""

Rule = Callable[[Move], list[Bool[Array, "..."]]]
"""Chooses the new masks at a topology move."""


def masked(
    inner: optax.GradientTransformation,
    *,
    rule: Rule | None,
    when: When | None,
    sparsity: float | Mapping[str, float] | None,
    distribution: Distribution | None = None,
    initial: Literal["random", "dense"] | Initial = "random",
    initial_sparsity: float | None = None,
    on_move: Literal["hold", "step"] = "hold",
    hold_before: int = 0,
    memory: Memory | None = None,
    structure: Structure | None = None,
    where: Where | None = matmul_weights,
    layout: Layout | None = None,
    initial_masks: PyTree | None = None,
    seed: int | PRNGKeyArray = 0,
    packed: bool = False,
    track: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that parameters stay sparse and their masks move.

    With gradient ``g``, parameters ``p``, mask ``m`` (``m'`` after a move) and the
    inner optimizer's update ``u = inner(m g)`` the returned update is ``u`` where
    ``m & m'`` and ``-p`` elsewhere: a kept weight gets exactly the inner update, a
    dropped one lands on exact zero in any dtype, a grown one starts from zero. The
    inner optimizer starts every step with initial statistics outside the mask, so that
    nothing stale survives a drop and a grown weight begins anew.

    Args:
      inner: the optimizer (the whole chain, clipping included).
      rule: chooses the masks at a move; None if the topology never moves.
      when: the moves' schedule; None if the topology never moves.
      sparsity: fraction of zeros over all chosen layers; or a map from path patterns to
        sparsities (first match wins, layers that match none stay dense); or None to
        take the counts of ``initial_masks``.
      distribution: splits the sparsity over the layers; default `erk`.
      initial: masks at init, "random" with the budget's exact counts, "dense", or a
        function that chooses them (`Initial`).
      initial_sparsity: sparsity of random masks, where the method begins denser than it
        ends; default ``sparsity``.
      on_move: "hold" replaces the optimizer's step on a move (no parameter that the
        wrapper sees moves except to drop; the optimizer's statistics go on), "step"
        makes the step and then moves the topology of its result.
      hold_before: parameters also hold at all steps before this one.
      memory: what the method gathers from step to step.
      structure: family of masks; default `unstructured`.
      where: which leaves to sparsify; None for none at all.
      layout: roles of axes; default `by_name`.
      initial_masks: tree like params of bool arrays, None at dense leaves; replaces
        ``where``, ``distribution`` and ``initial``.
      seed: integer or (possibly traced) random key.
      packed: store masks at one bit a weight instead of one byte.
      track: record exploration and turnover (`Tracking`).

    Returns:
      A transformation whose ``update`` needs ``params``.

    Raises:
      ValueError: at construction or ``init``, naming the argument, its value and the
        fix.
    """
    check_choice("on_move", on_move, ("hold", "step"))
    if not callable(initial):
        check_choice("initial", initial, ("random", "dense"))
    plan = planner(
        sparsity=sparsity,
        where=where,
        layout=layout,
        distribution=distribution,
        structure=structure,
        initial_masks=initial_masks,
        exact=initial == "random" and initial_sparsity is None,
    )
    inner = optax.with_extra_args_support(inner)
    store = pack if packed else lambda mask: mask

    def first_masks(params, layers, budgets, key, weights, params_with):
        if initial == "dense":
            return [jnp.ones(layer.shape, bool) for layer in layers]
        if callable(initial):
            return initial(layers, budgets, plan.structure, key, weights, params_with)
        if initial_sparsity is not None:
            # A map of sparsities may have chosen fewer layers than `where`.
            chosen = {layer.path for layer in layers}
            denser = plan.within(
                params, lambda path, _: path in chosen, initial_sparsity
            )
            budgets = denser.budgets
        return random_masks(key, layers, budgets, plan.structure)

    def init_fn(params: PyTree) -> MaskedState:
        layers, budgets = plan(params)
        key = jax.random.key(seed) if isinstance(seed, int) else seed
        key, mask_key = jax.random.split(key)
        paths, leaves, treedef = flatten(params)
        if initial_masks is not None:
            masks = treedef.flatten_up_to(initial_masks)
            given = [mask for mask in masks if mask is not None]
            check_members(plan.structure, layers, given)
        else:
            chosen = [layer.path for layer in layers]
            here = [path in chosen for path in paths]
            weights = [leaf for leaf, one in zip(leaves, here, strict=True) if one]
            rebuild = _rebuild(treedef, leaves, here)
            found = iter(
                first_masks(params, layers, budgets, mask_key, weights, rebuild)
            )
            masks = [next(found) if one else None for one in here]
        inner_state = inner.init(treedef.unflatten(zero_outside(leaves, masks)))
        reject_accumulation(inner_state)
        stored = treedef.unflatten(map_masked(store, masks))
        tracking = begin_tracking(stored, treedef, masks) if track else None
        gathered = None if memory is None else memory.init(pick_masked(masks, leaves))
        return MaskedState(
            jnp.zeros((), jnp.int32), key, stored, inner_state, tracking, gathered
        )

    def update_fn(
        updates: PyTree, state: MaskedState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, MaskedState]:
        params = given_params(params)
        paths, leaves, treedef = flatten(params)
        gradients = treedef.flatten_up_to(updates)
        masks = map_masked(unpack, treedef.flatten_up_to(state.masks))

        # Restarting statistics on the way in, not on the way out, lets the compiler
        # update them in place: the step and the stored statistics are then the same.
        inner_state = state.inner
        if rule is not None:
            fresh = inner.init(treedef.unflatten(zero_outside(leaves, masks)))
            by_path = dict(zip(paths, masks, strict=True))
            inner_state = restart_outside(by_path, inner_state, fresh)
        sparse_gradients = treedef.unflatten(zero_outside(gradients, masks))
        result, inner_state = inner.update(
            sparse_gradients, inner_state, params, **extra
        )
        steps: list[Any] = treedef.flatten_up_to(result)
        state = state._replace(
            count=optax.safe_increment(state.count), inner=inner_state
        )
        if rule is None or when is None:
            return treedef.unflatten(land(masks, leaves, steps)), state

        step = state.count - 1
        due = when.due(step)
        dense = [pick_masked(masks, values) for values in (leaves, gradients, masks)]
        if memory is not None:
            state = state._replace(memory=memory.update(state.memory, step, *dense))

        def move_once(carry):
            assert rule is not None and when is not None
            _, stored, tracking = carry
            # Not the masks from outside: they would be copied into the loop.
            masks = map_masked(unpack, treedef.flatten_up_to(stored))
            weights = leaves if on_move == "hold" else _stepped(masks, leaves, steps)
            layers, budgets = plan(params)
            move = Move(
                step=step,
                when=when,
                key=jax.random.fold_in(state.key, step),
                layers=layers,
                budgets=budget_arrays(layers, budgets),
                structure=plan.structure,
                weights=pick_masked(masks, weights),
                gradients=pick_masked(masks, gradients),
                masks=pick_masked(masks, masks),
                memory=state.memory,
                params_with=_rebuild(
                    treedef, leaves, [mask is not None for mask in masks]
                ),
                extra=extra,
            )
            found = iter(rule(move))
            new = [None if mask is None else next(found) for mask in masks]
            stored = treedef.unflatten(map_masked(store, new))
            record = record_move(tracking, treedef, masks, new, store)
            return jnp.zeros_like(due), stored, record

        # A loop of one pass or none, since a `cond` copies what it returns at every
        # step, moved or not. Were parameters or statistics to pass through either,
        # they would be copied too.
        _, stored, tracking = lax.while_loop(
            lambda carry: carry[0], move_once, (due, state.masks, state.tracking)
        )
        kept = map_masked(unpack, treedef.flatten_up_to(stored))
        if on_move == "step":
            kept = map_masked(jnp.logical_and, masks, kept)
        if on_move == "hold" or hold_before:
            held = (due if on_move == "hold" else False) | (step < hold_before)
            steps = [jnp.where(held, jnp.zeros_like(one), one) for one in steps]
        update = treedef.unflatten(land(kept, leaves, steps))
        return update, state._replace(masks=stored, tracking=tracking)

    # optax's own type of states knows no None.
    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]


def _stepped(masks: list[Any], leaves: list[Any], steps: list[Any]) -> list[Any]:
    """The sparse parameters after the inner step, as `optax.apply_updates` does it."""
    updates = land(masks, leaves, steps)
    return [
        (leaf + update).astype(leaf.dtype)
        for leaf, update in zip(leaves, updates, strict=True)
    ]


def _rebuild(treedef, leaves, chosen) -> Callable[[list[Any]], PyTree]:
    def params_with(weights):
        given = iter(weights)
        pairs = zip(leaves, chosen, strict=True)
        return treedef.unflatten(next(given) if one else leaf for leaf, one in pairs)

    return params_with


def random_masks(key, layers, budgets, structure) -> list[Bool[Array, "..."]]:
    """Uniformly random members of a structure, of the budgets' counts."""

    # One compiled program, and one generator for all layers of a shape: layer by layer
    # the initialisation of a deep network would compile for minutes.
    @jax.jit
    def draw(key):
        scores: dict[int, Array] = {}
        for shape in dict.fromkeys(layer.shape for layer in layers):
            group = [i for i, layer in enumerate(layers) if layer.shape == shape]
            keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.array(group))
            bits = jax.vmap(lambda key, shape=shape: jax.random.bits(key, shape))(keys)
            scores |= dict(zip(group, bits, strict=True))
        ordered = [scores[i] for i in range(len(layers))]
        return structure.select(layers, ordered, budget_arrays(layers, budgets))

    return draw(key)
