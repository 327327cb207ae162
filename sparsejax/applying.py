"""Masks applied to parameter-like trees, and the check that they still hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from sparsejax.layers import leaves_with_paths, path_name
from sparsejax.state import is_state, masks
from sparsejax.views import evaluation_values, values_by_path

__all__ = [
    "apply_masks",
    "evaluation_params",
    "masks_by_path",
    "sparsify",
    "verify",
]


def sparsify(params: PyTree, state: optax.OptState) -> PyTree:
    """Makes the parameters what the method trains, so that the first forward is sparse.

    Parameters outside their masks become zero; those that are a view of latent weights
    become it. Idempotent; needed once, after ``tx.init``. The updates keep it so from
    then on.

    Args:
      params: the parameters.
      state: optimizer state with a sparsejax method in it.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.static(optax.sgd(0.1), sparsity=0.5)
      >>> params = {"kernel": jnp.ones((2, 4))}
      >>> int(sj.sparsify(params, tx.init(params))["kernel"].sum())
      4
    """
    return _replaced(apply_masks(params, state), values_by_path(state))


def evaluation_params(params: PyTree, state: optax.OptState) -> PyTree:
    """The parameters to evaluate: the deterministic network of stochastic gates.

    The parameters themselves for every method but those that train on random samples.

    Args:
      params: the parameters.
      state: optimizer state with a sparsejax method in it.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.static(optax.sgd(0.1), sparsity=0.5)
      >>> params = {"kernel": jnp.ones((2, 4))}
      >>> sj.evaluation_params(params, tx.init(params)) is params
      True
    """
    found = evaluation_values(state)
    return _replaced(params, found) if found else params


def _replaced(params: PyTree, values: Mapping[str, Array]) -> PyTree:
    with_paths, treedef = jax.tree.flatten_with_path(params)
    named = [(path_name(path), leaf) for path, leaf in with_paths]
    return treedef.unflatten(
        values[name].astype(leaf.dtype) if name in values else leaf
        for name, leaf in named
    )


def apply_masks(tree: PyTree, masks_or_state: PyTree) -> PyTree:
    """Zeroes any tree shaped like the parameters outside the masks.

    For what is not updated by the optimizer and so becomes dense when the topology
    moves: moving averages, target networks, a lookahead's slow copy.

    Args:
      tree: like the parameters.
      masks_or_state: a tree of masks as `masks` returns it, or an optimizer state.

    Raises:
      ValueError: the masks name a leaf that the tree lacks, or of another shape.
    """
    found = masks_by_path(masks_or_state)
    with_paths, treedef = jax.tree.flatten_with_path(tree)
    named = [(path_name(path), leaf) for path, leaf in with_paths]
    leaves = dict(named)
    for path, mask in found.items():
        shape = getattr(leaves.get(path), "shape", None)
        if shape != mask.shape:
            raise ValueError(
                f"the mask of {path} has shape {mask.shape} but the tree has "
                f"{'no such leaf' if path not in leaves else f'shape {shape}'}; apply "
                "masks to a tree like the parameters they were made for"
            )
    return treedef.unflatten(
        jnp.where(found[name], leaf, jnp.zeros_like(leaf)) if name in found else leaf
        for name, leaf in named
    )


def masks_by_path(masks_or_state: PyTree) -> dict[str, Any]:
    """Path -> mask of every sparsified leaf, from masks or an optimizer state."""
    nodes = jax.tree.leaves(masks_or_state, is_leaf=is_state)
    if any(is_state(node) for node in nodes):
        masks_or_state = masks(masks_or_state)
    return dict(leaves_with_paths(masks_or_state))


@jax.jit
def _strays(leaves, leaf_masks):
    return {
        path: jnp.sum((leaf != 0) & ~leaf_masks[path]) for path, leaf in leaves.items()
    }


def verify(params: PyTree, state: optax.OptState) -> None:
    """Raises when a parameter is not zero where its mask says so.

    A check on the host, to be called now and then (the training loop does at each
    evaluation), not inside a jitted step.

    Args:
      params: the parameters.
      state: optimizer state with a sparsejax method in it.

    Raises:
      ValueError: names the leaf, how many entries are wrong, and the likely cause.
    """
    found = masks_by_path(state)
    leaves = {path: leaf for path, leaf in leaves_with_paths(params) if path in found}
    for path, count in _strays(leaves, found).items():
        if int(np.sum(count)):
            raise ValueError(
                f"{path}: {int(np.sum(count))} parameters outside the mask are not "
                "zero; likely a transformation chained after the sparse method (it "
                "must go around the whole chain), a dense average put in place of the "
                "parameters (use sj.apply_masks), or parameters and optimizer state "
                "from different checkpoints"
            )
