"""The loop over a network's layers that data-driven pruning shares."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from sparsejax.distributions import Distribution, uniform
from sparsejax.layers import (
    Layer,
    Layout,
    Where,
    by_name,
    leaves_with_paths,
)
from sparsejax.planning import Plan, plan_layers
from sparsejax.pruning.capturing import Reached, positions, products
from sparsejax.structures import Structure

__all__ = [
    "Calibration",
    "Report",
    "calibrated",
    "planned",
    "prune_network",
    "selected",
]

Prune = Callable[[Layer, int, Array, Any], tuple[Array, Bool[Array, "..."]]]
"""(layer, weights to keep, values, statistics of its inputs) -> values, mask."""


Report = Callable[[str, int], None]


class Calibration(NamedTuple):
    """How the inputs of a layer are summed up.

    Attributes:
      statistic: samples [samples, inputs] -> arrays that are added over batches.
      layer_by_layer: whether a layer sees inputs that pruned layers computed.
    """

    statistic: Callable[[Float[Array, "samples inputs"]], Any]
    layer_by_layer: bool


def planned(
    params: PyTree,
    sparsity: Any,
    distribution: Distribution | None,
    structure: Structure,
    where: Where,
    layout: Layout | None,
) -> Plan:
    """The chosen layers and what each keeps; `uniform` and `by_name` by default."""
    return plan_layers(
        params,
        where,
        layout or by_name(),
        sparsity,
        distribution or uniform(),
        structure,
    )


def selected(
    structure: Structure,
    layers: Sequence[Layer],
    scores: Sequence[Float[Array, "..."]],
    counts: Sequence[Any],
) -> list[Bool[Array, "..."]]:
    """The structure's masks, by a program that layers of one shape share."""
    nameless = tuple(layer._replace(path="") for layer in layers)
    return _selected(structure, nameless, list(scores), list(counts))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _selected(structure, layers, scores, counts):
    return structure.select(layers, scores, counts)


def prune_network(
    apply: Callable[..., Any],
    params: PyTree,
    batches: Iterable[PyTree],
    plan: Plan,
    calibration: Calibration,
    prune: Prune,
    report: Report | None = None,
) -> tuple[PyTree, PyTree]:
    """Prunes the layers in the order in which the network uses them.

    All batches walk through the network side by side. Where they reach a layer, it is
    pruned by what they bring, and walks on with the pruned weights.

    Args:
      apply: ``(params, batch) -> anything``.
      params: the trained parameters.
      batches: calibration data; their sizes may differ.
      plan: the layers and their budgets.
      calibration: what is gathered, and when it is used.
      prune: prunes one (unstacked) layer.
      report: called with the path of each layer that was pruned, and its number among
        those that are stacked.

    Returns:
      The pruned parameters; and a tree like them of masks, None at dense leaves.

    Raises:
      ValueError: there are no batches, they take different ways, or no product reads a
        chosen leaf.
    """
    layers = {layer.path: layer for layer in plan.layers}
    budgets = dict(zip(layers, plan.budgets, strict=True))
    leaves = {path: jnp.asarray(leaf) for path, leaf in leaves_with_paths(params)}
    current = {path: leaves[path] for path in layers}
    masks = {path: jnp.ones(layer.shape, bool) for path, layer in layers.items()}
    missing = [(path, i) for path in layers for i in range(layers[path].slices)]
    gathered: dict[tuple[str, int], Any] = {}

    def prune_one(path: str, index: int, statistics: Any) -> None:
        layer, budget = layers[path], int(budgets[path][index])
        slices = (layer.slices, *layer.slice_shape)
        values = current[path].reshape(slices)
        mask = masks[path].reshape(slices)
        new, kept = prune(layer.slice, budget, values[index], statistics)
        current[path] = values.at[index].set(new).reshape(layer.shape)
        masks[path] = mask.at[index].set(kept).reshape(layer.shape)
        if report is not None:
            report(path, index)

    origins = positions(plan.layers)
    runs = [
        products(apply, params, batch, plan.layers, current, origins)
        for batch in batches
    ]
    if not runs:
        raise ValueError("batches is empty; one batch of some hundred samples will do")
    for name, statistics in _side_by_side(runs, calibration.statistic):
        if not calibration.layer_by_layer:
            before = gathered.get(name)
            gathered[name] = (
                statistics
                if before is None
                else jax.tree.map(jnp.add, before, statistics)
            )
        elif name in missing:
            prune_one(*name, statistics)
        missing = [one for one in missing if one != name]
        if calibration.layer_by_layer and not missing:
            break
    if missing:
        raise ValueError(
            f"no product reads {missing[0][0]} where that can be seen; leave it out by "
            "`where`"
        )
    for name, statistics in gathered.items():
        prune_one(*name, statistics)
    treedef = jax.tree.structure(params)
    return (
        treedef.unflatten([current.get(path, leaf) for path, leaf in leaves.items()]),
        treedef.unflatten([masks.get(path) for path in leaves]),
    )


def _side_by_side(
    runs: Sequence[Iterator[Reached]], statistic: Callable[[Array], Any]
) -> Iterator[tuple[tuple[str, int], Any]]:
    """Walks all batches from product to product, summing up what each receives."""
    while True:
        names, total = [], None
        for run in runs:
            reached = next(run, None)
            names.append(None if reached is None else (reached.path, reached.index))
            if reached is not None:
                found = statistic(reached.inputs)
                total = found if total is None else jax.tree.map(jnp.add, total, found)
        if len(set(names)) > 1:
            raise ValueError(
                f"batches reach different layers ({names[0]} and others): give batches "
                "that take the same way through the network"
            )
        if names[0] is None:
            return
        yield names[0], total


def calibrated(
    statistic: Callable[[Float[Array, "samples inputs"]], Any], layer_by_layer: bool
) -> Calibration:
    """A `Calibration` whose statistic is compiled."""
    return Calibration(jax.jit(statistic), layer_by_layer)
