"""From parameters to a plan: the sparsified leaves and the exact weights they keep."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int, PyTree

from sparsejax.distributions import Budget, Distribution, per_path
from sparsejax.layers import (
    Layer,
    Layout,
    Where,
    check_pattern,
    choose_layers,
    leaves_with_paths,
)
from sparsejax.structures import Structure

__all__ = ["Plan", "budget_arrays", "plan_from_masks", "plan_layers"]


class Plan(NamedTuple):
    """Sparsified leaves in flattening order, and the weights each keeps in the end."""

    layers: list[Layer]
    budgets: list[Budget] | list[Int[Array, "..."]]


def budget_arrays(
    layers: Sequence[Layer], budgets: Sequence[Budget] | Sequence[Int[Array, "..."]]
) -> list[Int[Array, "..."]]:
    """Budgets as arrays over each leaf's stacked axes."""
    return [
        jnp.asarray(budget, jnp.int32).reshape(layer.stacked_shape)
        for layer, budget in zip(layers, budgets, strict=True)
    ]


def plan_layers(
    params: PyTree,
    where: Where | None,
    layout: Layout,
    sparsity: float | Mapping[str, float],
    distribution: Distribution,
    structure: Structure,
) -> Plan:
    """Chooses the leaves and splits the sparsity over them.

    Args:
      params: the parameter tree.
      where: which leaves; None for none at all.
      layout: roles of axes.
      sparsity: a number, or a map from path patterns to numbers, in which case leaves
        that match no pattern stay dense.
      distribution: splits a number over the leaves.
      structure: fits the counts to what its masks can have.

    Raises:
      ValueError: nothing chosen, a pattern without a match, a layer without a weight.
    """
    if where is None:
        return Plan([], [])
    layers = choose_layers(params, where=where, layout=layout)
    if isinstance(sparsity, Mapping):
        paths = [layer.path for layer in layers]
        for pattern in sparsity:
            check_pattern("sparsity", pattern, paths)
        named = "|".join(f"(?:{pattern})" for pattern in sparsity)
        layers = [layer for layer in layers if re.search(named, layer.path)]
        distribution, sparsity = per_path(sparsity, rest=distribution), 0.0
    return Plan(layers, structure.fit(layers, distribution(layers, sparsity)))


def plan_from_masks(
    params: PyTree,
    masks: PyTree,
    layout: Layout,
    sparsity: float | Mapping[str, float] | None,
    distribution: Distribution,
    structure: Structure,
    exact: bool,
) -> Plan:
    """The plan of given masks: their leaves, and their counts if no sparsity is given.

    Args:
      params: the parameter tree.
      masks: like params; bool arrays, None at dense leaves.
      layout: roles of axes.
      sparsity: to be reached by the method; None for the masks' own.
      distribution: splits a number over the leaves.
      structure: fits the counts to what its masks can have.
      exact: whether the method keeps its count, so that masks and sparsity must agree.

    Raises:
      ValueError: a mask of another shape or dtype than bool; counts that contradict
        ``sparsity``.
    """
    treedef = jax.tree.structure(params)
    layers, given = [], []
    for (path, leaf), mask in zip(
        leaves_with_paths(params), treedef.flatten_up_to(masks), strict=True
    ):
        if mask is None:
            continue
        if mask.shape != leaf.shape or mask.dtype != bool:
            raise ValueError(
                f"initial_masks at {path} is {mask.dtype}{tuple(mask.shape)}; it must "
                f"be bool{tuple(leaf.shape)} like the parameter, or None"
            )
        shape = tuple(leaf.shape)
        layers.append(Layer(path, shape, layout(path, shape)))
        given.append(mask)
    if not layers:
        raise ValueError("initial_masks has no mask: every leaf is None")
    if sparsity is None:
        return Plan(layers, structure.measure(layers, given))
    chosen = {layer.path for layer in layers}
    plan = plan_layers(
        params,
        lambda path, _: path in chosen,
        layout,
        sparsity,
        distribution,
        structure,
    )
    if exact and not any(isinstance(mask, Tracer) for mask in given):
        active = sum(int(np.sum(np.asarray(mask))) for mask in given)
        budget = sum(sum(one) for one in plan.budgets)
        if active != budget:
            raise ValueError(
                f"initial_masks keep {active} weights but sparsity={sparsity} means "
                f"{budget}; pass sparsity=None to take the masks' own counts"
            )
    return plan
