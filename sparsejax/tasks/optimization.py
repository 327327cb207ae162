"""The inner optimizer that a config describes, and its learning rate."""

import difflib
import inspect
import numbers
from collections.abc import Mapping
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from sparsejax.building import ConfigError, build, parameters, resolve
from sparsejax.layers import path_name


def learning_rate_schedule(config: Mapping[str, Any]) -> optax.Schedule:
    """Builds the learning rate as a function of the step.

    Args:
      config: ``config.optimizer.learning_rate`` is the peak and ``config.steps`` the
        end of what ``config.learning_rate_schedule`` names (default ``"constant"``).

    Returns:
      A function of the step.

    Raises:
      ConfigError: For a learning rate that is not positive, or a bad schedule.

    Example:
      >>> config = {"steps": 10, "optimizer": {"learning_rate": 0.1},
      ...           "learning_rate_schedule": "cosine"}
      >>> round(float(learning_rate_schedule(config)(5)), 6)
      0.05
    """
    peak = config["optimizer"].get("learning_rate")
    if not _is_number(peak) or peak <= 0:
        raise ConfigError(
            f"config.optimizer.learning_rate = {peak!r}: give a positive number; 0.1 "
            "for sgd or 0.001 for adam are usual."
        )
    return build(
        "learning_rate_schedule",
        config.get("learning_rate_schedule") or "constant",
        "sparsejax.tasks.learning_rates",
        peak,
        config["steps"],
    )


def optimizer(
    config: Mapping[str, Any], learning_rate: optax.Schedule
) -> optax.GradientTransformation:
    """Builds the optimizer that the sparse method wraps.

    ``config.optimizer.name`` is an optimizer of optax, or a dotted name from outside;
    its other fields are that function's arguments, and these:

    - ``weight_decay``: not applied to biases and norm scales. Optimizers that decay
      weights themselves (adamw, lion, ...) get it as an argument; for the others (sgd,
      adam, ...) it is L2 regularisation, added to the gradient.
    - ``weight_decay_of``: ``"kernels"`` (default), or ``"all"``: biases, scales and
      what a method trains beside weights, such as STR's thresholds, decay as well.
    - ``gradient_clip``: the largest global norm that a gradient may have, measured
      before the weight decay.

    Args:
      config: The config.
      learning_rate: The learning rate as a function of the step.

    Returns:
      The optimizer.

    Raises:
      ConfigError: For an unknown name or argument, or a value out of range.

    Example:
      >>> config = {"optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4}}
      >>> optimizer(config, lambda step: 0.1).init({"kernel": jax.numpy.ones(2)}) != ()
      True
    """
    spec = dict(config["optimizer"])
    spec.pop("learning_rate", None)
    name = spec.get("name")
    if isinstance(name, str) and "." not in name and name not in _known():
        near = difflib.get_close_matches(name, _known(), n=2)
        hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
        raise ConfigError(
            f"config.optimizer.name = {name!r}: unknown{hint}; known: "
            f"{', '.join(_known())}, or a function of yours as 'mypackage.myfunction'."
        )
    clip = spec.pop("gradient_clip", None)
    if clip is not None and (not _is_number(clip) or clip <= 0):
        raise ConfigError(
            f"config.optimizer.gradient_clip = {clip!r}: give a positive number, or "
            "None not to clip."
        )
    decay = spec.get("weight_decay", 0.0)
    if not _is_number(decay) or decay < 0:
        raise ConfigError(
            f"config.optimizer.weight_decay = {decay!r}: give a number >= 0."
        )
    reach = spec.pop("weight_decay_of", "kernels")
    if reach not in _REACHES:
        raise ConfigError(
            f"config.optimizer.weight_decay_of = {reach!r}: use one of "
            f"{', '.join(map(repr, _REACHES))}."
        )
    mask = _REACHES[reach]
    parts = [] if clip is None else [optax.clip_by_global_norm(clip)]
    if isinstance(name, str) and not _decays_itself(name):
        spec.pop("weight_decay", None)
        if decay:
            parts.append(optax.add_decayed_weights(decay, mask=mask))
    built = build(
        "optimizer",
        spec,
        "optax",
        learning_rate=learning_rate,
        mask=mask,
        weight_decay_mask=mask,
    )
    return optax.chain(*parts, built) if parts else built


def decayed(params: PyTree) -> PyTree:
    """Which leaves weight decay applies to: all but biases, norm scales and vectors.

    Args:
      params: Parameters.

    Returns:
      A tree of bools.

    Example:
      >>> import jax.numpy as jnp
      >>> decayed({"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)})
      {'bias': False, 'kernel': True}
    """

    def applies(path, leaf):
        name = path_name(path).rpartition("/")[2]
        return leaf.ndim > 1 and name not in ("bias", "scale")

    return jax.tree_util.tree_map_with_path(applies, params)


# What ``weight_decay_of`` stands for; optax takes None for everything.
_REACHES = {"kernels": decayed, "all": None}


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _decays_itself(name: str) -> bool:
    return "weight_decay" in parameters(resolve("optimizer", name, "optax"))


def _known() -> list[str]:
    return sorted(
        name
        for name, value in vars(optax).items()
        if inspect.isfunction(value)
        and not name.startswith("scale_by")
        and "learning_rate" in inspect.signature(value).parameters
    )
