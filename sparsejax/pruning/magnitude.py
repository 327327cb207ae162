"""One-shot magnitude pruning of trained parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from sparsejax.checks import check_choice, check_sparsity
from sparsejax.distributions import Distribution
from sparsejax.layers import Layout, Where, leaves_with_paths, matmul_weights
from sparsejax.planning import budget_arrays
from sparsejax.pruning.driving import planned, selected
from sparsejax.selection import top_k_mask
from sparsejax.structures import Structure, unstructured

__all__ = ["magnitude"]


def magnitude(
    params: PyTree,
    *,
    sparsity: float | Mapping[str, float],
    scope: Literal["layer", "global"] = "layer",
    distribution: Distribution | None = None,
    structure: Structure | None = None,
    where: Where = matmul_weights,
    layout: Layout | None = None,
) -> tuple[PyTree, PyTree]:
    """Zeroes the weights of smallest magnitude; needs no data.

    Args:
      params: the trained parameters.
      sparsity: fraction of weights that become zero, in [0, 1); or a map from path
        patterns to fractions.
      scope: "layer" prunes each layer to its budget; "global" ranks all weights
        together, and only the total is fixed (unstructured).
      distribution: splits the sparsity over the layers; default `uniform`.
      structure: family of masks; default `unstructured`.
      where: which leaves to prune; default every matmul and convolution weight.
      layout: roles of axes; default `by_name`.

    Returns:
      The pruned parameters; and a tree like them of bool masks, None at dense leaves.

    Raises:
      ValueError: an argument out of range, or a layer left without weights.

    Example:
      >>> import jax.numpy as jnp, sparsejax as sj
      >>> params = {"kernel": jnp.array([[1.0, -4.0], [3.0, 2.0]])}
      >>> params, masks = sj.pruning.magnitude(params, sparsity=0.5)
      >>> params["kernel"].tolist()
      [[0.0, -4.0], [3.0, 0.0]]
    """
    check_sparsity("sparsity", sparsity)
    check_choice("scope", scope, ("layer", "global"))
    if scope == "global" and structure is not None:
        raise ValueError(
            f"scope='global' ranks single weights, not structure {structure.name}; "
            "leave out `structure`, or use scope='layer'"
        )
    structure = structure or unstructured()
    layers, budgets = planned(params, sparsity, distribution, structure, where, layout)
    leaves = dict(leaves_with_paths(params))
    scores = [jnp.abs(leaves[layer.path]) for layer in layers]
    if scope == "global":
        found = top_k_mask(scores, sum(int(sum(budget)) for budget in budgets))
    else:
        found = selected(structure, layers, scores, budget_arrays(layers, budgets))
    masks = {layer.path: mask for layer, mask in zip(layers, found, strict=True)}
    treedef = jax.tree.structure(params)
    pruned = [
        jnp.where(masks[path], leaf, jnp.zeros_like(leaf)) if path in masks else leaf
        for path, leaf in leaves.items()
    ]
    return treedef.unflatten(pruned), treedef.unflatten([masks.get(p) for p in leaves])
