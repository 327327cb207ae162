"""The settings that the configs share: all but the method."""

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict, FieldReference

from sparsejax.building import ConfigError, resolve


def mlp(method: str, argument: str | None = None) -> ConfigDict:
    """A multilayer perceptron of 128-128 hidden units on the embedded digits.

    Args:
      method: A method's name.
      argument: ``None`` or ``"digits"``.

    Returns:
      The config: adam with a cosine schedule from 3e-3, batches of 128, 2,000 steps,
      sparsity 0.95 by ERK, the topology moving every 50 steps until 75 %.

    Raises:
      ConfigError: For another argument.

    Example:
      >>> mlp("rigl").method.stop
      1500
    """
    _check(f"{method}_mlp", argument, ("digits",))
    steps = FieldReference(2_000)
    config = ConfigDict({"seed": 0, "task": "classify", "steps": steps})
    config.model = {"name": "mlp", "hidden": (128, 128)}
    config.data = {"name": "digits", "batch_size": 128}
    config.optimizer = {"name": "adam", "learning_rate": 3e-3, "weight_decay": 0.0}
    config.learning_rate_schedule = {"name": "cosine", "warmup_steps": 0}
    config.label_smoothing = 0.0
    config.initialization = "fan_in_corrected"
    config.method = _method(method, sparsity=0.95, every=50, steps=steps)
    config.log_every = 50
    config.evaluate_every = 200
    config.checkpoint_every = 500
    config.keep_checkpoints = 3
    return config


def resnet50(method: str, argument: str | None = None) -> ConfigDict:
    """ResNet-50: on the embedded digits in minutes, or the published ImageNet recipe.

    Args:
      method: A method's name.
      argument: ``None`` or ``"digits"``: 154 steps (14 epochs) of 128 images of 8x8
        pixels with the small stem, sparsity 0.9. ``"imagenet"``: 32,000 steps (102
        epochs) of 4,096 images, sparsity 0.8, the topology moving every 100 steps until
        step 25,000.

    Returns:
      The config: nesterov momentum, weight decay 1e-4, ERK, drop fraction 0.3 with a
      cosine schedule.

    Raises:
      ConfigError: For another argument.

    Example:
      >>> resnet50("rigl", "imagenet").optimizer.learning_rate
      1.6
    """
    _check(f"{method}_resnet50", argument, ("digits", "imagenet"))
    return _imagenet(method) if argument == "imagenet" else _digits(method)


def by_path(values: Mapping[str, Any]) -> ConfigDict:
    """Writes a map of path patterns as a config field, whose keys else have no dots.

    Args:
      values: Pattern to value: ``{"hidden.*/kernel": 0.95, "head/kernel": 0.5}``.

    Returns:
      What a field that takes a map of paths can be set to.

    Example:
      >>> config = mlp("rigl")
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


def _digits(method: str) -> ConfigDict:
    steps = FieldReference(154)
    config = ConfigDict({"seed": 0, "task": "classify", "steps": steps})
    config.model = {"name": "resnet", "depth": 50, "stem": "small", "dtype": "float32"}
    config.data = {"name": "digits", "batch_size": 128}
    config.optimizer = {
        "name": "sgd",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-4,
    }
    config.learning_rate_schedule = {"name": "cosine", "warmup_steps": 0}
    config.label_smoothing = 0.0
    config.method = _method(method, sparsity=0.9, every=10, steps=steps)
    config.log_every = 2
    config.evaluate_every = 22
    config.checkpoint_every = 44
    config.keep_checkpoints = 2
    return config


def _imagenet(method: str) -> ConfigDict:
    steps = FieldReference(32_000)
    config = ConfigDict({"seed": 0, "task": "classify", "steps": steps})
    config.model = {
        "name": "resnet",
        "depth": 50,
        "stem": "imagenet",
        "dtype": "float32",
    }
    config.data = {"name": "imagenet2012", "batch_size": 4096, "worker_count": 16}
    # 0.1 for every 256 images of a batch.
    config.optimizer = {
        "name": "sgd",
        "learning_rate": 1.6,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-4,
    }
    # An epoch has 312.8 steps: warmed up for 5, a tenth from 30, 70 and 90 on.
    config.learning_rate_schedule = {
        "name": "staircase",
        "warmup_steps": 1_564,
        "boundaries": (9_384, 21_895, 28_151),
        "factor": 0.1,
    }
    config.label_smoothing = 0.1
    config.method = _method(method, sparsity=0.8, every=100, steps=steps, stop=25_000)
    config.log_every = 100
    config.evaluate_every = 1_600
    config.checkpoint_every = 800
    config.keep_checkpoints = 3
    return config


def _method(
    name: str,
    *,
    sparsity: float,
    every: int,
    steps: FieldReference,
    stop: int | None = None,
) -> dict[str, Any]:
    """Those of the common arguments that a method has; intervals follow the steps."""
    signature = inspect.signature(resolve("method", name, "sparsejax.methods"))
    arguments = {
        "sparsity": sparsity,
        "distribution": "erk",
        "track": True,
        "every": every,
        "stop": stop or steps * 3 // 4,
        "start": steps // 8,
    }
    begins = signature.parameters.get("start")
    if begins is not None and begins.default is not inspect.Parameter.empty:
        del arguments["start"]
    taken = {k: v for k, v in arguments.items() if k in signature.parameters}
    return {"name": name, **taken}


def _check(config: str, argument: str | None, allowed: Sequence[str]) -> None:
    if argument is not None and argument not in allowed:
        raise ConfigError(
            f"--config={config}:{argument}: unknown argument {argument!r}; there are: "
            f"{', '.join(f'{config}:{name}' for name in allowed)}."
        )
