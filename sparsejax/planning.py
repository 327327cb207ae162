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

from sparsejax.checks import check_sparsity
from sparsejax.distributions import Budget, Distribution, erk, per_path
from sparsejax.layers import (
    Layer,
    Layout,
    Where,
    by_name,
    check_pattern,
    choose_layers,
    leaves_with_paths,
)
from sparsejax.structures import Structure, unstructured

__all__ = [
    "Plan",
    "Planner",
    "budget_arrays",
    "check_members",
    "plan_layers",
    "planner",
]


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
    for layer in layers:
        if layer.size // layer.slices >= 2**31:
            raise ValueError(
                f"{layer.path} has {layer.size // layer.slices:,} weights that share a "
                "budget; 2**31 - 1 is the most: split the leaf, or stack its parts "
                "along an axis that the layout calls stacked"
            )
    if isinstance(sparsity, Mapping):
        paths = [layer.path for layer in layers]
        for pattern in sparsity:
            check_pattern("sparsity", pattern, paths)
        named = "|".join(f"(?:{pattern})" for pattern in sparsity)
        layers = [layer for layer in layers if re.search(named, layer.path)]
        distribution, sparsity = per_path(sparsity, rest=distribution), 0.0
    return Plan(layers, structure.fit(layers, distribution(layers, sparsity)))


class Planner(NamedTuple):
    """A method's arguments that decide which weights it keeps; made by `planner`."""

    sparsity: float | Mapping[str, float] | None
    where: Where | None
    layout: Layout
    distribution: Distribution
    structure: Structure
    initial_masks: PyTree | None
    exact: bool

    def __call__(self, params: PyTree) -> Plan:
        """The plan for these parameters."""
        if self.initial_masks is not None:
            return _plan_from_masks(self, params)
        assert self.sparsity is not None
        return self.within(params, self.where, self.sparsity)

    def within(
        self,
        params: PyTree,
        where: Where | None,
        sparsity: float | Mapping[str, float],
    ) -> Plan:
        """A plan of the same kind for other leaves or another sparsity."""
        return plan_layers(
            params, where, self.layout, sparsity, self.distribution, self.structure
        )


def planner(
    *,
    sparsity: float | Mapping[str, float] | None,
    where: Where | None,
    layout: Layout | None,
    distribution: Distribution | None,
    structure: Structure | None,
    initial_masks: PyTree | None,
    exact: bool,
    budgeted: bool = True,
) -> Planner:
    """Checks a method's arguments, and fills in the defaults.

    Args:
      sparsity: fraction of zeros, a map from path patterns to fractions, or None.
      where: which leaves; None for none at all.
      layout: roles of axes; default `by_name`.
      distribution: splits the sparsity over the leaves; default `erk`.
      structure: family of masks; default `unstructured`.
      initial_masks: like params; bool arrays, None at dense leaves.
      exact: whether the method keeps its count, so that ``initial_masks`` and
        ``sparsity`` must agree.
      budgeted: whether the method has a budget at all.

    Raises:
      ValueError: a sparsity out of range, or neither a sparsity nor masks.
    """
    if sparsity is not None:
        check_sparsity("sparsity", sparsity)
    elif initial_masks is None:
        if budgeted:
            raise ValueError(
                "sparsity=None needs `initial_masks`, whose counts it takes"
            )
        sparsity = 0.0
    return Planner(
        sparsity,
        where,
        layout or by_name(),
        distribution or erk(),
        structure or unstructured(),
        initial_masks,
        exact,
    )


def _plan_from_masks(wanted: Planner, params: PyTree) -> Plan:
    """The plan of given masks: their leaves, and their counts if no sparsity is given.

    Raises:
      ValueError: a mask of another shape or dtype than bool; counts that contradict
        the sparsity.
    """
    masks, sparsity = wanted.initial_masks, wanted.sparsity
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
        layers.append(Layer(path, shape, wanted.layout(path, shape)))
        given.append(mask)
    if not layers:
        raise ValueError("initial_masks has no mask: every leaf is None")
    if sparsity is None:
        return Plan(layers, wanted.structure.measure(layers, given))
    chosen = {layer.path for layer in layers}
    plan = wanted.within(params, lambda path, _: path in chosen, sparsity)
    if wanted.exact and not _traced(given):
        active = sum(int(np.sum(np.asarray(mask))) for mask in given)
        budget = sum(sum(one) for one in plan.budgets)
        if active != budget:
            raise ValueError(
                f"initial_masks keep {active} weights but sparsity={sparsity} means "
                f"{budget}; pass sparsity=None to take the masks' own counts"
            )
    return plan


def check_members(
    structure: Structure, layers: Sequence[Layer], masks: Sequence[Any]
) -> None:
    """Raises for a mask that the structure, asked for that very mask, cannot give.

    Args:
      structure: family of masks.
      layers: the sparsified leaves.
      masks: theirs; traced ones are taken on trust.

    Raises:
      ValueError: a mask is no member of the family.
    """
    if not structure.strict or _traced(masks):
        return
    with jax.ensure_compile_time_eval():
        given = [jnp.asarray(mask) for mask in masks]
        scores = [mask.astype(jnp.float32) for mask in given]
        nearest = structure.select(layers, scores, structure.measure(layers, given))
        for layer, mask, member in zip(layers, given, nearest, strict=True):
            if not np.array_equal(mask, member):
                raise ValueError(
                    f"initial_masks at {layer.path} is no mask of structure="
                    f"{structure.name}; pass masks of that structure, or another "
                    "`structure` (unstructured takes any)"
                )


def _traced(masks: Sequence[Any]) -> bool:
    return any(isinstance(mask, Tracer) for mask in masks)
