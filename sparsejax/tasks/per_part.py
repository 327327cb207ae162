"""Transformations for the parts of a tree of parameters, each by its own method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from sparsejax.layers import path_name

__all__ = ["first_key", "joined", "only", "per_part"]


def first_key(path: str) -> str:
    """The part of ``"actor/hidden0/kernel"`` where parts are the keys of a dict."""
    return path.partition("/")[0]


def per_part(
    transformations: Mapping[str, optax.GradientTransformation],
    part_of: Callable[[str], str] = first_key,
) -> optax.GradientTransformationExtraArgs:
    """Gives every part of the parameters a transformation of its own.

    As `optax.partition`, but ``grad_fn``, where it is given, is handed to each part as
    a function of its own parameters.

    Args:
      transformations: Part to transformation.
      part_of: Maps a leaf's path to its part.

    Returns:
      One transformation; its state is ``{part: state}``.

    Example:
      >>> import jax.numpy as jnp, sparsejax as sj
      >>> tx = per_part({"actor": sj.static(optax.sgd(1.0), sparsity=0.5),
      ...                "critic": optax.sgd(0.5)})
      >>> params = {"actor": {"kernel": jnp.ones((2, 2))}, "critic": jnp.ones(1)}
      >>> state = tx.init(params)
      >>> updates, state = tx.update(params, state, params)
      >>> updates["critic"].tolist(), sj.counts(state)
      ([-0.5], {'actor/kernel': (2, 4)})
    """
    extended = {
        part: optax.with_extra_args_support(one)
        for part, one in transformations.items()
    }

    def init_fn(params: PyTree) -> PyTree:
        return {
            part: one.init(only(part, params, part_of))
            for part, one in extended.items()
        }

    def update_fn(
        updates: PyTree,
        state: PyTree,
        params: PyTree = None,
        *,
        grad_fn: Callable[[PyTree], PyTree] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        found, new_state = [], {}
        for part, one in extended.items():
            if grad_fn is not None:

                def of_part(tree: PyTree, part: str = part) -> PyTree:
                    assert grad_fn is not None
                    return only(part, grad_fn(joined([params, tree])), part_of)

                extra = {**extra, "grad_fn": of_part}
            new_updates, new_state[part] = one.update(
                only(part, updates, part_of),
                state[part],
                only(part, params, part_of),
                **extra,
            )
            found.append(new_updates)
        return joined(found), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def only(part: str, tree: PyTree, part_of: Callable[[str], str] = first_key) -> PyTree:
    """Hides all but one part of a tree.

    Args:
      part: What stays.
      tree: The parameters, or a tree like them.
      part_of: Maps a leaf's path to its part.

    Returns:
      The tree, with `optax.MaskedNode` in place of other leaves.

    Example:
      >>> only("actor", {"actor": 1, "critic": 2})
      {'actor': 1, 'critic': MaskedNode()}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            leaf if part_of(path_name(path)) == part else optax.MaskedNode()
        ),
        tree,
    )


def joined(trees: list[PyTree]) -> PyTree:
    """One tree from several that hide parts of it; of two leaves, the later one.

    Example:
      >>> joined([{"actor": 1, "critic": 2}, only("critic", {"actor": 3, "critic": 4})])
      {'actor': 1, 'critic': 4}
    """

    def hidden(leaf: Any) -> bool:
        return isinstance(leaf, optax.MaskedNode)

    whole = trees[0]
    for tree in trees[1:]:
        whole = jax.tree.map(
            lambda old, new: old if hidden(new) else new, whole, tree, is_leaf=hidden
        )
    return whole
