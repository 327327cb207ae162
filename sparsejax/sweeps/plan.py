"""Which runs a sweep has: every combination of what is varied, checked and named."""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from sparsejax import configuration, validation
from sparsejax.building import ConfigError, build, plain

# The longest readable part of a run's name; the rest of a file name is its hash.
_LONGEST = 80


class Trial(NamedTuple):
    """One run of a sweep.

    Attributes:
      name: of its directory: what is varied, and a hash of all that differs from the
        config's defaults.
      arguments: of ``python -m sparsejax.train``, without ``--workdir``.
      settings: what is varied, field to value.
      config: the config with all overrides, as plain data.
      origin: where the settings come from, for messages.
    """

    name: str
    arguments: tuple[str, ...]
    settings: Mapping[str, Any]
    config: Mapping[str, Any]
    origin: str


def parse_vary(text: str) -> tuple[str, list[str]]:
    """Reads one ``--vary``.

    Args:
      text: ``"FIELD=VALUE,VALUE"``, or ``"FIELD=FIRST..LAST"`` for all whole numbers
        from the first to the last. Commas within brackets do not separate.

    Returns:
      The field, and its values as they are written.

    Raises:
      ConfigError: it is neither.

    Example:
      >>> parse_vary("method.name=rigl,set")
      ('method.name', ['rigl', 'set'])
      >>> parse_vary("seed=0..2")
      ('seed', ['0', '1', '2'])
      >>> parse_vary("model.hidden=(64,64),(128,128)")
      ('model.hidden', ['(64,64)', '(128,128)'])
    """
    field, equals, written = text.partition("=")
    field = field.removeprefix("config.")
    values = [value.strip() for value in _split(written)]
    if not field or not equals or not all(values):
        raise ConfigError(
            f"--vary {text}: give a field and its values, such as --vary "
            "method.sparsity=0.9,0.95 or --vary seed=0..4."
        )
    return field, [one for value in values for one in _counted(text, value)]


def expand(
    spec: str | None,
    varied: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> list[Trial]:
    """Lists the runs of a sweep.

    Args:
      spec: The config, as for ``--config`` of ``sparsejax.train``; None if ``config``
        itself is varied.
      varied: What follows each ``--vary``; none of them: what ``sweep()`` of the config
        yields.
      overrides: Common to all runs, ``--config.FIELD=VALUE``.

    Returns:
      The runs, in the order of the product, without repetitions. Where a config has a
      field ``seeds``, seeds in a row are one run that trains them as one program.

    Raises:
      ConfigError: For a field, a value or a combination that cannot be; the message
        names the ``--vary`` that it comes from.

    Example:
      >>> trials = expand("rigl_mlp", ["method.sparsity=0.9,0.95", "seed=0..2"])
      >>> len(trials), trials[0].name.rpartition("-")[0]
      (6, 'rigl_mlp,sparsity=0.9,seed=0')
    """
    trials: dict[str, Trial] = {}
    combinations = list(_combinations(spec, varied, overrides))
    for combination, origin in _side_by_side(spec, combinations, overrides):
        trial = _trial(spec, combination, overrides, origin)
        trials.setdefault(trial.name, trial)
    if not trials:
        raise ConfigError(
            f"--config={spec}: its sweep() yields nothing; name what to vary, such as "
            "--vary seed=0..4."
        )
    return list(trials.values())


def check(trials: Iterable[Trial], report: Callable[[str], None]) -> None:
    """Builds what each setting names and traces it, so that mistakes come up now.

    Runs that differ only in their seed are checked once.

    Args:
      trials: The runs.
      report: Told which setting is being checked.

    Raises:
      ConfigError: For the first mistake; the message names the ``--vary``.
    """
    checked = set()
    for trial in trials:
        setting = json.dumps({**trial.config, "seed": 0}, sort_keys=True, default=str)
        if setting in checked:
            continue
        checked.add(setting)
        report(f"checking {trial.name}")
        config = configuration.parse(trial.arguments).config
        try:
            validation.check(config)
            task = build("task", config.task, "sparsejax.tasks", config)
            key = jax.random.key(config.seed)
            validation.abstract_state(task.initialise, key, config)
        except ConfigError as error:
            raise ConfigError(_located(trial.origin, trial.settings, error)) from error


def _combinations(
    spec: str | None, varied: Sequence[str], overrides: Sequence[str]
) -> Iterator[tuple[dict[str, Any], str]]:
    if varied:
        values: dict[str, list[str]] = {}
        for text in varied:
            field, listed = parse_vary(text)
            if field in values:
                raise ConfigError(
                    f"--vary {text}: {field} is varied twice; give all its values to "
                    "one --vary."
                )
            _check_not_overridden(field, overrides)
            values[field] = listed
        if spec is None and "config" not in values:
            raise ConfigError(
                "--config is missing: name a config, such as --config=rigl_mlp, or "
                "vary it: --vary config=static_mlp,rigl_mlp."
            )
        for combination in itertools.product(*values.values()):
            yield dict(zip(values, combination, strict=True)), "--vary"
        return
    if spec is None:
        raise ConfigError(
            "--config is missing: name a config, such as --config=rigl_mlp."
        )
    study = getattr(configuration.module(spec), "sweep", None)
    if not callable(study):
        raise ConfigError(
            f"--config={spec}: it defines no sweep(); name what to vary, such as "
            "--vary seed=0..4, or add a sweep() that yields dictionaries of overrides."
        )
    yielded: Any = study()
    for combination in yielded:
        yield dict(combination), f"sweep() of {spec}"


def _side_by_side(
    spec: str | None,
    combinations: Sequence[tuple[dict[str, Any], str]],
    overrides: Sequence[str],
) -> Iterator[tuple[dict[str, Any], str]]:
    """Makes seeds in a row one run, where a config trains several as one program."""
    chosen = {str(one.get("config", spec)) for one, _ in combinations}
    given = any(re.match(r"--?config\.seeds=", override) for override in overrides)
    by_setting: dict[str, list[int]] = {}
    for one, _ in combinations:
        others = json.dumps({**one, "seed": None}, default=str)
        if re.fullmatch(r"\d+", str(one.get("seed"))):
            by_setting.setdefault(others, []).append(int(one["seed"]))
    several = (
        not given
        and all("seeds" not in one for one, _ in combinations)
        and all(map(_trains_several, chosen))
    )
    for one, origin in combinations:
        seeds = by_setting.get(json.dumps({**one, "seed": None}, default=str), [])
        count = len(seeds)
        if not several or not seeds or seeds != list(range(seeds[0], seeds[0] + count)):
            yield one, origin
        elif int(one["seed"]) == seeds[0]:
            yield {**one, "seeds": count}, origin


def _trains_several(config: str) -> bool:
    """Whether a config trains several seeds as one program."""
    try:
        return "seeds" in configuration.load(config)
    except ConfigError:
        return False  # what is wrong with it comes up, and is named, with its run


def _trial(
    spec: str | None, combination: Mapping[str, Any], overrides: Sequence[str], origin
) -> Trial:
    flat = dict(_flat(combination))
    chosen = str(flat.pop("config", spec))
    arguments = (
        f"--config={chosen}",
        *overrides,
        *(f"--config.{field}={value}" for field, value in flat.items()),
    )
    try:
        command = configuration.parse(arguments)
        validation.check(command.config)
        defaults = dict(_flat(plain(configuration.load(chosen))))
    except ConfigError as error:
        raise ConfigError(_located(origin, combination, error)) from error
    config = plain(command.config)
    values = dict(_flat(config))
    settings = {field: values.get(field, value) for field, value in flat.items()}
    changed = {
        field: value
        for field, value in values.items()
        if field not in defaults or defaults[field] != value
    }
    content = json.dumps([command.name, changed], sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    words = [command.name, *(f"{_word(f)}={v}" for f, v in settings.items())]
    readable = re.sub(r"[^\w.,=+-]", "_", ",".join(words))[:_LONGEST]
    if "config" in combination:
        settings = {"config": command.name, **settings}
    return Trial(f"{readable}-{digest}", arguments, settings, config, origin)


def _located(origin: str, settings: Mapping[str, Any], error: ConfigError) -> str:
    """The message, behind those settings that it is about, or behind all."""
    message = str(error)
    parts = set(re.findall(r"config\.(\w+)", message))
    about = {f: v for f, v in settings.items() if f.split(".")[0] in parts}
    about = about or {f: v for f, v in settings.items() if f == "config"} or settings
    if origin == "--vary":
        where = " ".join(f"--vary {field}={value}" for field, value in about.items())
    else:
        where = f"{origin}, {about}"
    return f"{where}: {message}"


def _check_not_overridden(field: str, overrides: Sequence[str]) -> None:
    for override in overrides:
        if re.match(rf"--?(no)?config\.{re.escape(field)}(=|$)", override):
            raise ConfigError(
                f"{override}: --vary {field} sets the same field; give it to one of "
                "them only."
            )


def _flat(value: Mapping[str, Any], field: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        name = f"{field}.{key}" if field else str(key)
        if isinstance(inner, Mapping) and inner:
            yield from _flat(inner, name)
        else:
            yield name, inner


def _word(field: str) -> str:
    """``method.sparsity`` -> ``sparsity``; ``method.name`` -> ``method``."""
    parts = field.split(".")
    return parts[-2] if parts[-1] == "name" and len(parts) > 1 else parts[-1]


def _counted(text: str, value: str) -> list[str]:
    found = re.fullmatch(r"(-?\d+)\.\.(-?\d+)", value)
    if not found:
        return [value]
    first, last = int(found[1]), int(found[2])
    if last < first:
        raise ConfigError(
            f"--vary {text}: {value} counts up from {first} and never gets to {last}; "
            f"write {last}..{first}."
        )
    return [str(number) for number in range(first, last + 1)]


def _split(text: str) -> list[str]:
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
