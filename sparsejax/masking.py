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

from sparsejax.checks import check_choice, check_sparsity
from sparsejax.distributions import Distribution, erk
from sparsejax.layers import Layer, Layout, Where, by_name, matmul_weights, path_name
from sparsejax.planning import Plan, budget_arrays, plan_from_masks, plan_layers
from sparsejax.schedules import When
from sparsejax.state import MaskedState, Tracking, pack, unpack
from sparsejax.statistics import restart_outside
from sparsejax.structures import Structure, unstructured

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
    if sparsity is not None:
        check_sparsity("sparsity", sparsity)
    elif initial_masks is None:
        raise ValueError("sparsity=None needs `initial_masks`, whose counts it takes")
    structure = structure or unstructured()
    distribution = distribution or erk()
    layout = layout or by_name()
    inner = optax.with_extra_args_support(inner)
    store = pack if packed else lambda mask: mask

    def plan(params: PyTree) -> Plan:
        if initial_masks is None:
            assert sparsity is not None
            return plan_layers(params, where, layout, sparsity, distribution, structure)
        exact = initial == "random" and initial_sparsity is None
        return plan_from_masks(
            params, initial_masks, layout, sparsity, distribution, structure, exact
        )

    def first_masks(params, layers, budgets, key, weights, params_with):
        if initial == "dense":
            return [jnp.ones(layer.shape, bool) for layer in layers]
        if callable(initial):
            return initial(layers, budgets, structure, key, weights, params_with)
        if initial_sparsity is not None:
            assert where is not None
            denser = plan_layers(
                params, where, layout, initial_sparsity, distribution, structure
            )
            budgets = denser.budgets
        return random_masks(key, layers, budgets, structure)

    def init_fn(params: PyTree) -> MaskedState:
        layers, budgets = plan(params)
        key = jax.random.key(seed) if isinstance(seed, int) else seed
        key, mask_key = jax.random.split(key)
        paths, leaves, treedef = _flatten(params)
        if initial_masks is not None:
            masks = treedef.flatten_up_to(initial_masks)
        else:
            chosen = [layer.path for layer in layers]
            here = [path in chosen for path in paths]
            weights = [leaf for leaf, one in zip(leaves, here, strict=True) if one]
            rebuild = _rebuild(treedef, leaves, here)
            found = iter(
                first_masks(params, layers, budgets, mask_key, weights, rebuild)
            )
            masks = [next(found) if one else None for one in here]
        inner_state = inner.init(treedef.unflatten(_zeroed(leaves, masks)))
        _reject_accumulation(inner_state)
        stored = treedef.unflatten(_each(store, masks))
        tracking = None
        if track:
            zeros = treedef.unflatten(_each(lambda _: jnp.zeros((), jnp.int32), masks))
            tracking = Tracking(stored, zeros, zeros, jnp.zeros((), jnp.int32))
        gathered = None if memory is None else memory.init(_chosen(masks, leaves))
        return MaskedState(
            jnp.zeros((), jnp.int32), key, stored, inner_state, tracking, gathered
        )

    def update_fn(
        updates: PyTree, state: MaskedState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, MaskedState]:
        if params is None:
            raise ValueError(
                "params=None: a sparse method needs the parameters; call "
                "tx.update(grads, state, params)"
            )
        paths, leaves, treedef = _flatten(params)
        gradients = treedef.flatten_up_to(updates)
        masks = _each(unpack, treedef.flatten_up_to(state.masks))

        # Restarting statistics on the way in, not on the way out, lets the compiler
        # update them in place: the step and the stored statistics are then the same.
        inner_state = state.inner
        if rule is not None:
            fresh = inner.init(treedef.unflatten(_zeroed(leaves, masks)))
            by_path = dict(zip(paths, masks, strict=True))
            inner_state = restart_outside(by_path, inner_state, fresh)
        sparse_gradients = treedef.unflatten(_zeroed(gradients, masks))
        steps, inner_state = inner.update(
            sparse_gradients, inner_state, params, **extra
        )
        steps = treedef.flatten_up_to(steps)
        state = state._replace(
            count=optax.safe_increment(state.count), inner=inner_state
        )
        if rule is None or when is None:
            return treedef.unflatten(_landed(masks, leaves, steps)), state

        step = state.count - 1
        due = when.due(step)
        dense = [_chosen(masks, values) for values in (leaves, gradients, masks)]
        if memory is not None:
            state = state._replace(memory=memory.update(state.memory, step, *dense))

        def move_once(carry):
            assert rule is not None and when is not None
            _, stored, tracking = carry
            # Not the masks from outside: they would be copied into the loop.
            masks = _each(unpack, treedef.flatten_up_to(stored))
            weights = leaves if on_move == "hold" else _stepped(masks, leaves, steps)
            layers, budgets = plan(params)
            move = Move(
                step=step,
                when=when,
                key=jax.random.fold_in(state.key, step),
                layers=layers,
                budgets=budget_arrays(layers, budgets),
                structure=structure,
                weights=_chosen(masks, weights),
                gradients=_chosen(masks, gradients),
                masks=_chosen(masks, masks),
                memory=state.memory,
                params_with=_rebuild(
                    treedef, leaves, [mask is not None for mask in masks]
                ),
                extra=extra,
            )
            found = iter(rule(move))
            new = [None if mask is None else next(found) for mask in masks]
            stored = treedef.unflatten(_each(store, new))
            record = _record(tracking, treedef, masks, new, store)
            return jnp.zeros_like(due), stored, record

        # A loop of one pass or none, since a `cond` copies what it returns at every
        # step, moved or not. Were parameters or statistics to pass through either,
        # they would be copied too.
        _, stored, tracking = lax.while_loop(
            lambda carry: carry[0], move_once, (due, state.masks, state.tracking)
        )
        kept = _each(unpack, treedef.flatten_up_to(stored))
        if on_move == "step":
            kept = _each(jnp.logical_and, masks, kept)
        if on_move == "hold" or hold_before:
            held = (due if on_move == "hold" else False) | (step < hold_before)
            steps = [jnp.where(held, jnp.zeros_like(one), one) for one in steps]
        update = treedef.unflatten(_landed(kept, leaves, steps))
        return update, state._replace(masks=stored, tracking=tracking)

    # optax's own type of states knows no None.
    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]


def _flatten(params: PyTree) -> tuple[list[str], list[Any], Any]:
    with_paths, treedef = jax.tree.flatten_with_path(params)
    paths = [path_name(path) for path, _ in with_paths]
    return paths, [leaf for _, leaf in with_paths], treedef


def _each(
    function: Callable[..., Any], masks: list[Any], *rest: list[Any]
) -> list[Any]:
    """Maps a function over the masked leaves; None elsewhere."""
    columns = zip(masks, *rest, strict=True)
    return [None if row[0] is None else function(*row) for row in columns]


def _chosen(masks: list[Any], values: list[Any]) -> list[Any]:
    pairs = zip(masks, values, strict=True)
    return [value for mask, value in pairs if mask is not None]


def _zeroed(leaves: list[Any], masks: list[Any]) -> list[Any]:
    return [
        leaf if mask is None else jnp.where(mask, leaf, jnp.zeros_like(leaf))
        for leaf, mask in zip(leaves, masks, strict=True)
    ]


def _landed(masks: list[Any], leaves: list[Any], steps: list[Any]) -> list[Any]:
    """The inner update where kept; exactly ``-param`` elsewhere.

    The wider of both dtypes carries it: rounding ``-param`` would leave a remainder.
    """

    def land(mask, leaf, step):
        if mask is None:
            return step
        dtype = jnp.promote_types(leaf.dtype, step.dtype)
        return jnp.where(mask, step.astype(dtype), -leaf.astype(dtype))

    return [land(*row) for row in zip(masks, leaves, steps, strict=True)]


def _stepped(masks: list[Any], leaves: list[Any], steps: list[Any]) -> list[Any]:
    """The sparse parameters after the inner step, as `optax.apply_updates` does it."""
    updates = _landed(masks, leaves, steps)
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


def _record(tracking: Tracking | None, treedef, masks, new, store) -> Tracking | None:
    if tracking is None:
        return None

    def count(before, after):
        return jnp.sum(before & ~after, dtype=jnp.int32)

    explored = _each(unpack, treedef.flatten_up_to(tracking.explored))
    union = _each(jnp.logical_or, explored, new)
    return Tracking(
        explored=treedef.unflatten(_each(store, union)),
        dropped=treedef.unflatten(_each(count, masks, new)),
        grown=treedef.unflatten(_each(count, new, masks)),
        moves=jnp.asarray(optax.safe_increment(tracking.moves)),
    )


def _reject_accumulation(inner_state: optax.OptState) -> None:
    def is_accumulator(node):
        return isinstance(node, optax.MultiStepsState)

    nodes = jax.tree.leaves(inner_state, is_leaf=is_accumulator)
    if any(is_accumulator(node) for node in nodes):
        raise ValueError(
            "optax.MultiSteps is inside the sparse method: weights would grow by the "
            "gradient of one micro-batch; put it around: "
            "optax.MultiSteps(sj.rigl(optax.adam(1e-3), ...), every_k_schedule=k)"
        )
