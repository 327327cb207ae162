"""Restarting an optimizer's statistics where the topology changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from sparsejax.layers import path_name

__all__ = ["restart"]


def restart(
    state: optax.OptState,
    fresh: optax.OptState,
    changed: Mapping[str, Bool[Array, "..."] | None],
) -> optax.OptState:
    """Puts statistics back to their initial value wherever a weight was dropped or grown.

    A leaf of the state belongs to a parameter if its tree path ends in the parameter's
    path and it has the same shape: momentum, second moments, averages and slow copies
    of any optimizer. What is stored in another shape (factored statistics, counters)
    stays.

    Args:
      state: the optimizer's state.
      fresh: its initial state for the current (sparse) parameters; not always zero,
        since some optimizers keep a copy of the parameters.
      changed: parameter path -> entries whose mask changed, None at dense leaves.

    Returns:
      The state with ``fresh``'s values at the changed entries.
    """
    with_paths, treedef = jax.tree.flatten_with_path(state)
    initial = treedef.flatten_up_to(fresh)
    leaves = [
        _restart_leaf(leaf, value, _owner(path, changed))
        for (path, leaf), value in zip(with_paths, initial, strict=True)
    ]
    return treedef.unflatten(leaves)


def _restart_leaf(leaf: Any, value: Any, changed: Any) -> Any:
    if changed is None or getattr(leaf, "shape", None) != changed.shape:
        return leaf
    return jnp.where(changed, jnp.asarray(value, leaf.dtype), leaf)


def _owner(path: tuple[Any, ...], changed: Mapping[str, Any]) -> Any:
    """The longest parameter path that ends this path decides."""
    for start in range(len(path) + 1):
        name = path_name(path[start:])
        if name in changed:
            return changed[name]
    return None
