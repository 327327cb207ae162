"""Training on from a sparse network: rewound to earlier weights, or made dense."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from sparsejax.applying import apply_masks, masks_by_path
from sparsejax.checks import check_step
from sparsejax.layers import path_name
from sparsejax.runtime_checks import raise_where
from sparsejax.state import (
    MaskedState,
    PackedMask,
    find_states,
    is_state,
    pack,
    unpack,
)

__all__ = ["densify", "rewind"]


def rewind(
    params: PyTree,
    masks_or_state: PyTree,
    tx: optax.GradientTransformation,
    *,
    step: int | Int[Array, ""] = 0,
) -> tuple[PyTree, optax.OptState]:
    """Starts training again, with the masks that were found.

    The weights inside the masks are those given, bit for bit; the optimizer's
    statistics begin anew; schedules continue at ``step``. Which weights are given makes
    the method: those of ``step`` (weight rewinding; with step 0 the lottery ticket),
    the trained ones (learning-rate rewinding), or new random ones (the control). What
    else the model keeps (statistics of batch norms) is the caller's to rewind.

    Schedules are the method's own and those of optax: every ``count`` that a state
    holds alone, or `optax.inject_hyperparams` beside its hyperparameters. Counts beside
    statistics are their age, and restart.

    Args:
      params: the weights to begin with, dense or sparse.
      masks_or_state: the masks to keep, as `sparsejax.masks` returns them, or the
        optimizer state of any method.
      tx: trains on: a method that begins with these masks
        (``initial_masks=sj.masks(state)``), or dense. It may stand in a wrapper.
      step: updates made before, as schedules count them.

    Returns:
      The sparse parameters, and a state of ``tx``.

    Raises:
      ValueError: ``tx`` sparsifies other leaves, begins without a weight that the
        masks keep, or trains a view of latent weights; a negative ``step``.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> start = {"kernel": jnp.array([[0.5, 0.25]])}
      >>> prune = sj.magnitude(optax.sgd(1.0), sparsity=0.5, start=0)
      >>> gradients = {"kernel": jnp.array([[0.75, -0.25]])}
      >>> _, state = prune.update(gradients, prune.init(start), start)
      >>> tx = sj.static(
      ...     optax.adam(1e-3), sparsity=None, initial_masks=sj.masks(state))
      >>> params, state = sj.rewind(start, state, tx)
      >>> params["kernel"].tolist()
      [[0.0, 0.25]]

    References:
      Frankle & Carbin, "The lottery ticket hypothesis", ICLR 2019; Renda, Frankle and
      Carbin, "Comparing rewinding and fine-tuning in neural network pruning", ICLR
      2020.
    """
    if isinstance(step, int):
        check_step("step", step)
    kept = masks_by_path(masks_or_state)
    params = apply_masks(params, masks_or_state)
    fresh = tx.init(params)
    _check_begins_with(masks_by_path(fresh), kept)

    def with_masks(node: Any) -> Any:
        def stored(path, mask):
            found = kept[path_name(path)]
            return pack(found) if isinstance(mask, PackedMask) else found

        return _with_stored(node, stored, "rewind") if is_state(node) else node

    return params, _set_clocks(jax.tree.map(with_masks, fresh, is_leaf=is_state), step)


def densify(state: optax.OptState) -> optax.OptState:
    """Frees all weights: sparse pre-training, then dense fine-tuning.

    Every mask becomes True. The parameters stay, and so does the network's function:
    freed weights begin at zero. The optimizer goes on; let `rewind` follow to begin its
    statistics anew, which Adam's would otherwise be as old as training.

    Args:
      state: of a method that moves no weight any more: `static`, or one behind its
        ``stop``.

    Returns:
      The state of the same transformation, dense.

    Raises:
      ValueError: the masks follow from latent weights.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.static(optax.sgd(0.1), sparsity=0.75)
      >>> state = sj.densify(tx.init({"kernel": jnp.ones((4, 4))}))
      >>> sj.counts(state)
      {'kernel': (16, 16)}

    References:
      Thangarasa et al., "SPDF: Sparse pre-training and dense fine-tuning for large
      language models", UAI 2023.
    """
    find_states(state)

    def opened(path, mask):
        del path
        free = jnp.ones_like(unpack(mask))
        return pack(free) if isinstance(mask, PackedMask) else free

    return jax.tree.map(
        lambda node: _with_stored(node, opened, "densify") if is_state(node) else node,
        state,
        is_leaf=is_state,
    )


def _check_begins_with(first: dict[str, Any], kept: dict[str, Any]) -> None:
    if first.keys() != kept.keys():
        raise ValueError(
            f"tx sparsifies {', '.join(sorted(first)) or 'nothing'}, but there are "
            f"masks of {', '.join(sorted(kept))}; build it with "
            "initial_masks=sj.masks(state)"
        )
    # An optimizer that keeps a copy of the parameters was given those inside its masks.
    lacking = [jnp.any(kept[path] & ~first[path]) for path in kept]
    messages = [
        f"tx begins without weights of {path} that the masks keep; build it with "
        "initial_masks=sj.masks(state), or as a method that begins dense"
        for path in kept
    ]
    if lacking:
        raise_where(jnp.stack(lacking), messages)


def _with_stored(node: Any, stored: Any, name: str) -> MaskedState:
    """A method's state with other masks, and a history that begins with them."""
    if not isinstance(node, MaskedState):
        raise ValueError(
            f"{name} sets masks, but here they follow from latent weights; go on with "
            "a method that keeps masks, such as sj.static(inner, sparsity=None, "
            "initial_masks=sj.masks(state))"
        )
    masks = jax.tree.map_with_path(
        stored, node.masks, is_leaf=lambda leaf: isinstance(leaf, PackedMask)
    )
    tracking = node.tracking
    if tracking is not None:
        tracking = tracking._replace(explored=masks)
    return node._replace(masks=masks, tracking=tracking)


_WITH_HYPERPARAMETERS = (
    optax.InjectHyperparamsState,
    optax.InjectStatefulHyperparamsState,
)


def _is_clock(node: Any) -> bool:
    alone = getattr(node, "_fields", None) == ("count",)
    return alone or isinstance(node, (MaskedState, *_WITH_HYPERPARAMETERS))


def _set_clocks(tree: Any, step: int | Int[Array, ""]) -> Any:
    def wound(node):
        if not _is_clock(node):
            return node
        inner = {
            name: _set_clocks(getattr(node, name), step)
            for name in node._fields
            if name != "count"
        }
        return node._replace(count=jnp.full_like(node.count, step), **inner)

    return jax.tree.map(wound, tree, is_leaf=_is_clock)
