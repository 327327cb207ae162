"""Checks of a config, and of what was built from it, before anything is compiled."""

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import jax

from sparsejax.building import ConfigError, located, parameters, plain, resolve

#: The smallest value of every integer that each run needs.
_LEAST = {
    "seed": 0,
    "steps": 1,
    "data.batch_size": 1,
    "log_every": 1,
    "evaluate_every": 1,
    "checkpoint_every": 1,
    "keep_checkpoints": 1,
}


def check(config: Mapping[str, Any]) -> None:
    """Checks the fields that the training loop itself reads.

    Args:
      config: The config.

    Raises:
      ConfigError: For the first that is missing or out of range.
    """
    for field, least in _LEAST.items():
        value = _get(config, field)
        is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if value is None:
            raise ConfigError(
                f"config.{field} is missing: set it in the config file, to an integer "
                f">= {least}."
            )
        if not is_integer or value < least:
            raise ConfigError(
                f"config.{field} = {value!r}: give an integer >= {least}."
            )
    if config["seed"] >= 2**32:
        raise ConfigError(f"config.seed = {config['seed']}: give one below 2**32.")
    for field in ("task", "model", "data", "optimizer", "method"):
        if not config.get(field):
            raise ConfigError(
                f"config.{field} is missing: set it in the config file, as "
                "{'name': ...}."
            )
    stop, steps = _get(config, "method.stop"), config["steps"]
    if isinstance(stop, numbers.Integral) and stop > steps:
        raise ConfigError(
            f"config.method.stop = {stop} is after the end of training, config.steps = "
            f"{steps}: lower the one (75 % of training is usual) or raise the other."
        )


def check_devices(config: Mapping[str, Any], count: int) -> None:
    """Checks that the mesh has all devices, and each the same share of a batch.

    Args:
      config: The config.
      count: How many devices there are.

    Raises:
      ConfigError: If not.
    """
    spec = plain(config.get("mesh")) or {}
    axes = ("data", "fsdp")
    if not isinstance(spec, Mapping) or set(spec) - set(axes):
        raise ConfigError(
            f"config.mesh = {spec!r}: give the numbers of devices along 'data' and "
            "'fsdp', such as {'fsdp': 8}."
        )
    for axis, size in spec.items():
        if not isinstance(size, int) or size == 0 or size < -1:
            raise ConfigError(
                f"config.mesh.{axis} = {size!r}: give a number of devices, or -1 for "
                "all that are left."
            )
    sizes = [spec.get("data", -1), spec.get("fsdp", 1)]
    known = math.prod(size for size in sizes if size > 0)
    if sizes.count(-1) == 2 or count % known or (-1 not in sizes and known != count):
        raise ConfigError(
            f"config.mesh = {dict(zip(axes, sizes, strict=True))} does not fit the "
            f"{count} devices: their product has to be {count}; one of them may be -1."
        )
    batch_size = config["data"]["batch_size"]
    if batch_size % count:
        raise ConfigError(
            f"config.data.batch_size = {batch_size} cannot be split over {count} "
            f"devices: give a multiple of {count}."
        )


def abstract_state(
    initialise: Callable[..., Any], key: jax.Array, config: Mapping[str, Any]
) -> Any:
    """Traces the initialisation, so that what only it can reject comes up at once.

    Whether a path rule matches a layer, or a budget fits, is known only when the
    parameters' shapes are.

    Args:
      initialise: The task's function of a key.
      key: A random key.
      config: The config, to say which field an error is about.

    Returns:
      The state's shapes and dtypes.

    Raises:
      ConfigError: For what the method or the model rejects.
    """
    try:
        return jax.eval_shape(initialise, key)
    except ConfigError:
        raise
    except ValueError as error:
        method = config["method"]
        name = method if isinstance(method, str) else method["name"]
        names = parameters(resolve("method", name, "sparsejax.methods"))
        raise ConfigError(located("method", str(error), names)) from error


def _get(config: Any, field: str) -> Any:
    for part in field.split("."):
        if not isinstance(config, Mapping) and not hasattr(config, "keys"):
            return None
        config = config.get(part)
    return config
