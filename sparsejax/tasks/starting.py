"""Weights and masks to begin with: those that another run has ended with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

import sparsejax as sj
from sparsejax import runs
from sparsejax.building import ConfigError, plain
from sparsejax.layers import leaves_with_paths
from sparsejax.models.stacking import stacked, unstacked
from sparsejax.restoring import restored

_TOPOLOGIES = ("keep", "densify", "new")


class Start(NamedTuple):
    """What a run begins with.

    Attributes:
      params: Trained parameters; None at leaves that begin anew.
      model_state: The model's other arrays; None to begin with new ones.
      masks: Of the run that they are from; None where the topology begins anew.
    """

    params: PyTree
    model_state: PyTree
    masks: PyTree


def start_of(config: Mapping[str, Any], shapes: PyTree, state: PyTree) -> Start | None:
    """Reads what ``config.start_from`` names.

    Its fields: ``workdir``, a run directory; ``topology``, ``"keep"`` to begin with
    the run's masks, ``"densify"`` to train all weights from there (for the method
    ``dense``), or ``"new"`` for a method that begins with its own masks, such as
    gradual pruning of a trained network; ``new``, a regular expression over paths that
    begin with new values, such as the head for other classes. Blocks that are stacked
    in one of the runs and listed in the other are converted.

    Args:
      config: The config.
      shapes: The parameters of its model, or their shapes.
      state: The model's other arrays, or their shapes.

    Returns:
      What to begin with; None if the config does not say.

    Raises:
      ConfigError: A field is wrong, the run cannot be read, or is of another model.
    """
    spec = plain(config.get("start_from"))
    if not spec:
        return None
    known = {"workdir", "topology", "new"}
    if not isinstance(spec, Mapping) or "workdir" not in spec or set(spec) - known:
        raise ConfigError(
            f"config.start_from = {spec!r}: give {{'workdir': FOLDER, 'topology': "
            "'keep'}, or None to begin with new weights."
        )
    if not spec["workdir"]:
        return None
    topology = spec.get("topology", "keep")
    if topology not in _TOPOLOGIES:
        raise ConfigError(
            f"config.start_from.topology = {topology!r}: use one of "
            f"{', '.join(map(repr, _TOPOLOGIES))}."
        )
    method = plain(config["method"])
    name = method if isinstance(method, str) else method["name"]
    if (topology == "densify") != (name == "dense"):
        raise ConfigError(
            f"config.start_from.topology = {topology!r} with config.method.name = "
            f"{name!r}: 'densify' goes with the method 'dense', and that with nothing "
            "else."
        )
    try:
        run = restored(spec["workdir"])
    except runs.RunError as error:
        raise ConfigError(f"config.start_from.workdir: {error}.") from error
    trained = run.state.params
    shown = sj.evaluation_params(trained, run.state.optimizer_state)
    masks = None
    if topology == "keep":
        masks = sj.masks(run.state.optimizer_state)
        if not jax.tree.leaves(masks):
            raise ConfigError(
                f"config.start_from.topology = 'keep': the run {spec['workdir']} is "
                "dense; use 'new'."
            )
    for convert in (lambda tree: tree, stacked, unstacked):
        found = convert(shown)
        if {path for path, _ in leaves_with_paths(found)} == {
            path for path, _ in leaves_with_paths(shapes)
        }:
            shown, masks = found, convert(masks)
            break
    params = _fitting(shown, shapes, spec)
    same = jax.tree.map(lambda x: x.shape, run.state.model_state) == jax.tree.map(
        lambda x: x.shape, state
    )
    return Start(params, run.state.model_state if same else None, masks)


def _fitting(params: PyTree, shapes: PyTree, spec: Mapping[str, Any]) -> PyTree:
    """The parameters in the model's tree, None at those that begin anew."""
    there = dict(leaves_with_paths(params))
    pattern = spec.get("new")
    chosen, missing = {}, []
    for path, shape in leaves_with_paths(shapes):
        if pattern and re.search(pattern, path):
            chosen[path] = None
        elif path in there and there[path].shape == shape.shape:
            chosen[path] = there[path]
        else:
            has = there[path].shape if path in there else "nothing"
            missing.append(f"{path} with shape {shape.shape}, the run {has}")
    if missing:
        raise ConfigError(
            f"config.start_from.workdir = {spec['workdir']!r}: the model has "
            f"{missing[0]}; give the same config.model, or name the leaves that begin "
            "anew by config.start_from.new, a regular expression."
        )
    if pattern and not any(value is None for value in chosen.values()):
        raise ConfigError(
            f"config.start_from.new = {pattern!r} matches no path; the paths are: "
            f"{', '.join([*chosen][:8])}."
        )
    return jax.tree.structure(shapes).unflatten(chosen.values())
