"""Restarting an optimizer's statistics where a weight is not active."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from sparsejax.layers import path_name

__all__ = ["restart_outside"]


def restart_outside(
    masks: Mapping[str, Bool[Array, "..."] | None],
    state: optax.OptState,
    fresh: optax.OptState,
) -> optax.OptState:
    """Gives an optimizer its initial statistics at every weight outside its mask.

    A leaf of the state belongs to a parameter if its tree path ends in the parameter's
    path and it has the same shape: momentum, second moments, averages and slow copies
    of any optimizer. What is stored in another shape (factored statistics, counters)
    stays.

    Args:
      masks: parameter path -> mask, None at dense leaves.
      state: the optimizer's state.
      fresh: its initial state for the current (sparse) parameters; not always zero,
        since some optimizers keep a copy of the parameters.

    Returns:
      The state with ``fresh``'s values outside the masks.
    """
    with_paths, treedef = jax.tree.flatten_with_path(state)
    initial = treedef.flatten_up_to(fresh)
    leaves = [
        _restart_leaf(leaf, value, _owner(path, masks))
        for (path, leaf), value in zip(with_paths, initial, strict=True)
    ]
    return treedef.unflatten(leaves)


def _restart_leaf(leaf: Any, value: Any, mask: Any) -> Any:
    if mask is None or getattr(leaf, "shape", None) != mask.shape:
        return leaf
    return jnp.where(mask, leaf, jnp.asarray(value, leaf.dtype))


def _owner(path: tuple[Any, ...], masks: Mapping[str, Any]) -> Any:
    """The longest parameter path that ends this path decides."""
    for start in range(len(path) + 1):
        name = path_name(path[start:])
        if name in masks:
            return masks[name]
    return None
