"""A running average of the weights that is as sparse as they are, for evaluation."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

import sparsejax as sj
from sparsejax.building import ConfigError, plain


class Average(NamedTuple):
    """What is evaluated in place of the last step's network.

    Attributes:
      params: Averaged parameters, zero outside of the masks.
      model_state: Averaged statistics, such as BatchNorm's.
    """

    params: PyTree
    model_state: PyTree


def average_decay(config: Mapping[str, Any]) -> float | None:
    """Reads ``config.average``.

    Args:
      config: The config; ``average`` is ``{"decay": 0.999}``, and None or a decay of 0
        stand for no average.

    Returns:
      The decay; None if nothing is to be averaged.

    Raises:
      ConfigError: For another field, or a decay that is not in [0, 1).

    Example:
      >>> average_decay({"average": {"decay": 0.99}})
      0.99
      >>> average_decay({}) is None
      True
    """
    spec = plain(config.get("average"))
    if spec is None:
        return None
    if not isinstance(spec, Mapping) or set(spec) != {"decay"}:
        raise ConfigError(
            f"config.average = {spec!r}: give {{'decay': 0.999}}, or None for no "
            "average."
        )
    decay = spec["decay"]
    if not isinstance(decay, int | float) or not 0 <= decay < 1:
        raise ConfigError(
            f"config.average.decay = {decay!r} is not in [0, 1); use 0.999, less in a "
            "short run, or 0 for no average."
        )
    return decay or None


def first_average(
    params: PyTree, model_state: PyTree, optimizer_state: optax.OptState
) -> Average:
    """The average before the first step: a copy of the network.

    Args:
      params: Parameters, sparse already.
      model_state: The model's other arrays.
      optimizer_state: The sparse method's state.

    Returns:
      The average.
    """
    shown = sj.evaluation_params(params, optimizer_state)
    # The parameters' own buffers are given away to the next step.
    return jax.tree.map(jnp.copy, Average(shown, model_state))


def next_average(
    average: Average,
    params: PyTree,
    model_state: PyTree,
    *,
    optimizer_state: optax.OptState,
    step: Int[Array, ""],
    decay: float,
) -> Average:
    """Moves the average towards the network that a step has led to.

    ``a' = m (d a + (1 - d) p)`` with the mask ``m`` after the step and
    ``d = min(decay, (1 + step) / (10 + step))``, so that short runs do not average over
    their beginning. A weight that was dropped leaves the average at once; one that grew
    starts from zero there as it does in the network.

    Args:
      average: What the last step led to.
      params: Parameters after the step.
      model_state: The model's other arrays after the step; those that are not floating
        point are taken as they are.
      optimizer_state: The sparse method's state after the step.
      step: Steps made before this one.
      decay: Share of the old average, in (0, 1).

    Returns:
      The next average.

    Example:
      >>> tx = sj.static(optax.sgd(0.1), sparsity=0.5)
      >>> params = {"kernel": jnp.ones((2, 4))}
      >>> state = tx.init(params)
      >>> params = sj.sparsify(params, state)
      >>> old = first_average(jax.tree.map(jnp.zeros_like, params), {}, state)
      >>> new = next_average(old, params, {}, optimizer_state=state,
      ...                    step=jnp.array(1000), decay=0.75)
      >>> float(new.params["kernel"].sum())
      1.0
    """
    rate = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    shown = sj.evaluation_params(params, optimizer_state)

    def mixed(new: Array, old: Array) -> Array:
        if not jnp.issubdtype(new.dtype, jnp.floating):
            return new
        return jnp.asarray(optax.incremental_update(new, old, rate), new.dtype)

    found = jax.tree.map(mixed, Average(shown, model_state), average)
    return found._replace(params=sj.apply_masks(found.params, optimizer_state))
