"""What a config's network will cost, before anything is trained or any data is read."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sparsejax as sj
from sparsejax.building import ConfigError, build, plain, resolve
from sparsejax.card import Card
from sparsejax.cost import Cost
from sparsejax.distributions import erk
from sparsejax.layers import Layout, by_name, leaves_with_paths, matmul_weights
from sparsejax.planning import plan_layers
from sparsejax.structures import n_m, unstructured
from sparsejax.tasks.base import Task
from sparsejax.validation import abstract_state

__all__ = ["Expected", "dense_gradient_every", "expected_cost"]

# Large enough that counts are exact to a tenth of a per cent.
_STAND_IN = (40, 50)


class Expected(NamedTuple):
    """The cost of a config, and what it rests on.

    Attributes:
      cost: counted by tracing.
      remarks: sentences on what is not exact.
    """

    cost: Cost
    remarks: tuple[str, ...]


def expected_cost(config: Mapping[str, Any], *, mode: str = "exact") -> Expected:
    """Counts what the network of a config costs at the end of its training.

    The network is traced, never run, and the dataset is not opened unless only its
    examples say which shape they have. Every layer has the budget that the method's
    arguments give it. What training costs follows from the sparsity at every step,
    which the method itself is asked for, on one small stand-in layer, and from the
    dense gradients that its card declares.

    Args:
      config: the config.
      mode: as in `sparsejax.cost`.

    Returns:
      The cost, and remarks on what is not exact.

    Raises:
      ConfigError: for whatever in the config cannot be built.

    Example:
      >>> from sparsejax.configuration import load
      >>> expected_cost(load("rigl_mlp")).cost.dense_flops
      51712
    """
    config = plain(config)
    task: Task = build("task", config["task"], "sparsejax.tasks", _unopened(config))
    state = abstract_state(task.initialise, jax.random.key(0), config)
    counts, remarks = _counts(config["method"], state.params, task.layout)
    zeros = sum(size - active for active, size in counts.values())
    size = sum(size for _, size in counts.values())
    progress = _mean_progress(config, zeros / size) if zeros else 1.0
    counted = sj.cost(
        lambda params, rest, inputs: task.forward(params, rest, inputs),
        state.params,
        counts,
        state.model_state,
        task.example_input,
        mode=mode,
        examples=task.example_input.shape[0],
        dense_gradient_every=dense_gradient_every(config["method"]),
        mean_progress=progress,
    )
    return Expected(counted, tuple(remarks))


def dense_gradient_every(method: Any) -> int | None:
    """How often a method needs the gradient of the weights that are zero.

    Args:
      method: ``config.method``: a name, or a mapping with one.

    Returns:
      Steps from one dense gradient to the next, 0 if every step needs it, None if none
      does, as the card in the method's file says.

    Raises:
      ConfigError: there is no such method.

    Example:
      >>> dense_gradient_every({"name": "rigl", "every": 50})
      50
      >>> dense_gradient_every("straight_through")
      0
      >>> dense_gradient_every("set") is None
      True
    """
    function, arguments = _method(method)
    card = _card(function)
    if card is None or not card.dense_gradient:
        return None
    if card.dense_gradient == "every step":
        return 0
    default = inspect.signature(function).parameters["every"].default
    return arguments.get("every") or default


def _method(method: Any) -> tuple[Any, dict[str, Any]]:
    method = plain(method)
    arguments = {"name": method} if isinstance(method, str) else dict(method)
    function = resolve("method", arguments.pop("name"), "sparsejax.methods")
    return function, arguments


def _card(function: Any) -> Card | None:
    return getattr(sys.modules[function.__module__], "CARD", None)


def _unopened(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with a dataset that only has shapes in place of the one it names."""
    fields = dict(config)
    data = dict(config["data"])
    ours = {
        name: data.pop(name) for name in ("batch_size", "worker_count") if name in data
    }
    name = "sparsejax.data.declared.declared"
    fields["data"] = {"name": name, "dataset": data, **ours}
    return fields


def _counts(
    method: Any, params: Any, layout: Layout | None
) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Path to active and all weights at the end of training, and what to say of it."""
    function, arguments = _method(method)
    name, card = function.__name__, _card(function)
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty
    }
    settings = {**defaults, **arguments}
    sparsity, structure = settings.get("sparsity"), settings.get("structure")
    if "sparsity" not in settings and {"n", "m"} <= settings.keys():
        structure = n_m(settings["n"], settings["m"])
        sparsity = 1 - settings["n"] / settings["m"]
    if sparsity is None:
        if name == "dense":
            return {}, []
        return {}, [
            f"{name} has no sparsity in the config, it follows from training: every "
            "weight is counted; a finished run's summary.json has the sparse network."
        ]
    plan = plan_layers(
        params,
        settings.get("where", matmul_weights),
        layout or by_name(),
        sparsity,
        _built("distribution", settings.get("distribution")) or erk(),
        _built("structure", structure) or unstructured(),
    )
    counts = {
        layer.path: (int(np.sum(np.asarray(budget))), layer.size)
        for layer, budget in zip(plan.layers, plan.budgets, strict=True)
    }
    kinds = {"global": "of all layers together", "bounded": "an upper bound"}
    kind = kinds.get(card.budget) if card else None
    if kind is None or settings.get("scope") == "layer":
        return counts, []
    return counts, [
        f"{name}: the budget is {kind}; which layers have the weights is decided in "
        "training, and counted as the distribution would have it."
    ]


def _built(field: str, value: Any) -> Any:
    if not isinstance(value, str | Mapping):
        return value
    return build(f"method.{field}", value, f"sparsejax.{field}s")


def _mean_progress(config: Mapping[str, Any], sparsity: float) -> float:
    """The mean over the steps of the sparsity so far, over the final sparsity."""
    function, arguments = _method(config["method"])
    card, taken = _card(function), inspect.signature(function).parameters
    if card is None or "stop" not in taken:
        return 1.0
    if card.budget not in ("scheduled", "global") or card.needs:
        return 1.0
    arguments = {
        k: v for k, v in arguments.items() if k not in ("distribution", "track")
    }
    if not isinstance(arguments["sparsity"], float):
        arguments["sparsity"] = sparsity
    spec = {"name": config["method"]["name"], **arguments}
    nested = {
        "drop_fraction": "sparsejax.schedules",
        "schedule": "sparsejax.schedules",
        "structure": "sparsejax.structures",
    }
    inner = optax.sgd(1e-3)
    method = build("method", spec, "sparsejax.methods", inner, nested=nested)
    params = {"kernel": jax.random.normal(jax.random.key(0), _STAND_IN)}
    gradients = {"kernel": jax.random.normal(jax.random.key(1), _STAND_IN)}

    def step(carry, _):
        params, state = carry
        mask = dict(leaves_with_paths(sj.masks(state)))["kernel"]
        updates, state = method.update(gradients, state, params)
        zeros = mask.size - jnp.sum(mask, dtype=jnp.int32)
        return (optax.apply_updates(params, updates), state), zeros

    def run(params):
        state = method.init(params)
        carry = (sj.sparsify(params, state), state)
        (_, state), zeros = jax.lax.scan(step, carry, length=config["steps"])
        mask = dict(leaves_with_paths(sj.masks(state)))["kernel"]
        return zeros, mask.size - jnp.sum(mask, dtype=jnp.int32)

    zeros, last = (np.asarray(x, np.float64) for x in jax.jit(run)(params))
    if not last:
        raise ConfigError(
            f"config.method: no weight is zero after config.steps = {config['steps']}; "
            "let the method end before training does."
        )
    return min(1.0, float(zeros.mean() / last))
