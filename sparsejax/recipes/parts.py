"""What recipes are made of: arguments of methods and of configs, maps, sweeps."""

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict, FieldReference

from sparsejax.building import ConfigError, plain, resolve


def keep_dense(config: ConfigDict, path: str) -> None:
    """Takes a layer out of the sparse ones, if the method distributes a sparsity.

    Args:
      config: Changed in place.
      path: A regular expression over paths, without dots.

    Example:
      >>> from sparsejax import recipes
      >>> config = recipes.mlp("rigl")
      >>> keep_dense(config, "head/kernel")
      >>> config.method.distribution.custom.to_dict()
      {'head/kernel': 0.0}
    """
    if "distribution" in plain(config)["method"]:
        with config.ignore_type():
            erk = {"name": "erk", "custom": {path: 0.0}}
            config.update({"method": {"distribution": erk}})


def sparsify_only(config: ConfigDict, where: str) -> None:
    """Chooses the sparse layers by their paths, if the method lets one choose.

    Args:
      config: Changed in place.
      where: A regular expression over paths.

    Example:
      >>> from sparsejax import recipes
      >>> config = recipes.mlp("rigl")
      >>> sparsify_only(config, "hidden")
      >>> config.method.where
      'hidden'
    """
    method = plain(config)["method"]["name"]
    function = resolve("method", method, "sparsejax.methods")
    if "where" in inspect.signature(function).parameters:
        config.update({"method": {"where": where}})


def by_path(values: Mapping[str, Any]) -> ConfigDict:
    """Writes a map of path patterns as a config field, whose keys else have no dots.

    Args:
      values: Pattern to value: ``{"hidden.*/kernel": 0.95, "head/kernel": 0.5}``.

    Returns:
      What a field that takes a map of paths can be set to.

    Example:
      >>> from sparsejax import recipes
      >>> config = recipes.mlp("rigl")
      >>> with config.ignore_type():
      ...     config.method.sparsity = by_path({"hidden.*": 0.95, "head/.*": 0.5})
      >>> config.method.sparsity.to_dict()
      {'head/.*': 0.5, 'hidden.*': 0.95}
    """
    return ConfigDict(dict(values), allow_dotted_keys=True)


def grid(values: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Yields every combination of some values, for a config's ``sweep()``.

    Args:
      values: Field to values: ``{"method.sparsity": (0.9, 0.95), "seed": range(5)}``.

    Yields:
      Overrides: field to value.

    Example:
      >>> list(grid({"seed": (0, 1)}))
      [{'seed': 0}, {'seed': 1}]
    """
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def method_fields(
    name: str,
    *,
    sparsity: float,
    every: int,
    steps: FieldReference,
    stop: int | FieldReference | None = None,
    start: int | FieldReference | None = None,
) -> dict[str, Any]:
    """Chooses those of the common arguments that a method has.

    Args:
      name: A method's name.
      sparsity: The fraction of zeros.
      every: Steps between moves of the topology.
      steps: Steps of training, which the intervals follow if they are changed.
      stop: Step of the last move; default three quarters of the steps.
      start: Step of the first pruning; default an eighth of the steps.

    Returns:
      ``config.method``.

    Raises:
      ConfigError: There is no such method.

    Example:
      >>> method_fields("set", sparsity=0.9, every=10, steps=FieldReference(80))["name"]
      'set'
    """
    signature = inspect.signature(resolve("method", name, "sparsejax.methods"))
    arguments = {
        "sparsity": sparsity,
        "distribution": "erk",
        "track": True,
        "every": every,
        "stop": steps * 3 // 4 if stop is None else stop,
        "start": steps // 8 if start is None else start,
    }
    begins = signature.parameters.get("start")
    if begins is not None and begins.default is not inspect.Parameter.empty:
        del arguments["start"]
    taken = {k: v for k, v in arguments.items() if k in signature.parameters}
    return {"name": name, **taken}


def check_argument(config: str, argument: str | None, allowed: Sequence[str]) -> None:
    """Raises unless a config has that argument.

    Args:
      config: The config's name, for the message.
      argument: What was given after the colon, or None.
      allowed: What may be.

    Raises:
      ConfigError: It has not.

    Example:
      >>> check_argument("rigl_mlp", "digits", ("digits",))
    """
    if argument is not None and argument not in allowed:
        raise ConfigError(
            f"--config={config}:{argument}: unknown argument {argument!r}; there are: "
            f"{', '.join(f'{config}:{name}' for name in allowed)}."
        )
