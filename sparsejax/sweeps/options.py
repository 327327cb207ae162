"""The options of a sweep's command line, and the launcher that they ask for."""

import argparse
import difflib
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from sparsejax import configuration
from sparsejax.building import ConfigError
from sparsejax.sweeps.launchers import Debug, Launcher, Local, Slurm
from sparsejax.sweeps.plan import Trial

_LAUNCHERS = ("local", "slurm", "debug")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help.")


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Reads the options, and sets aside what overrides fields of the config.

    Args:
      arguments: Without the program's name.

    Returns:
      The options, and the overrides as they are written.

    Raises:
      ConfigError: For what there is not, or what does not go together.

    Example:
      >>> options, overrides = parse(["--config=rigl_mlp", "--config.steps=10"])
      >>> options.launcher, overrides
      ('local', ['--config.steps=10'])
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument("--vary", action="append", default=[])
    parser.add_argument("--launcher", default="local")
    parser.add_argument("--workdir", type=pathlib.Path)
    parser.add_argument("--workers", type=_at_least(1))
    parser.add_argument("--retries", type=_at_least(0), default=2)
    parser.add_argument("--gpus", type=_at_least(0), default=0)
    parser.add_argument("--time", type=_minutes)
    parser.add_argument("--partition")
    parser.add_argument("--constraint")
    parser.add_argument("--cpus", type=_at_least(1))
    parser.add_argument("--memory", type=_at_least(1))
    parser.add_argument("--slurm", action="append", default=[])
    parser.add_argument("--detach", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--no-check", action="store_true")
    options, others = parser.parse_known_args(arguments)
    for other in others:
        if re.match(r"--(no)?config\.[^=]+(=.*)?$", other, re.DOTALL):
            continue
        flag = other.split("=")[0]
        near = difflib.get_close_matches(flag, list(parser._option_string_actions), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(
            f"{other}: unknown argument{hint}; fields of the config are overridden by "
            "--config.FIELD=VALUE; see --help."
        )
    _check(options)
    return options, others


def _check(options: argparse.Namespace) -> None:
    if options.launcher not in _LAUNCHERS:
        raise ConfigError(
            f"--launcher={options.launcher}: use one of {', '.join(_LAUNCHERS)}."
        )
    if options.time is not None and options.time < 5:
        raise ConfigError(
            f"--time={options.time}: give at least 5 minutes; a run is asked to save "
            "two minutes before its time is over."
        )
    if options.launcher == "slurm":
        return
    for flag in ("partition", "constraint", "cpus", "memory", "slurm", "detach"):
        if getattr(options, flag):
            raise ConfigError(
                f"--{flag} is for --launcher=slurm; --launcher={options.launcher} has "
                "no use for it."
            )
    for flag in ("workers", "gpus", "time"):
        if options.launcher == "debug" and getattr(options, flag):
            raise ConfigError(
                f"--{flag}: --launcher=debug runs everything in this process; use "
                "--launcher=local."
            )


def folder(options: argparse.Namespace, trials: Sequence[Trial]) -> pathlib.Path:
    """Says where the sweep is, from the root on.

    Args:
      options: As `parse` reads them.
      trials: The runs, of which the first names a sweep that has no name.

    Returns:
      The folder; it need not exist.
    """
    name = configuration.find(trials[0].arguments[0].removeprefix("--config=")).stem
    default = pathlib.Path(f"runs/{name}-sweep")
    # Jobs may begin in another folder than this process did.
    return (options.workdir or default).absolute()


def launcher(options: argparse.Namespace, folder: pathlib.Path) -> Launcher:
    """Makes what starts the runs.

    Args:
      options: As `parse` reads them.
      folder: Of the sweep.

    Returns:
      The launcher.

    Raises:
      ConfigError: There is no Slurm here, or an option of it is not understood.
      ImportError: submitit is not installed.
    """
    if options.launcher == "debug" or (options.list and options.launcher == "local"):
        return Debug()
    files = folder / "jobs"
    if options.launcher == "local":
        workers = options.workers or 1
        return Local(files, workers=workers, gpus=options.gpus, minutes=options.time)
    asked: dict[str, Any] = {
        "time": options.time or 60,
        "partition": options.partition,
        "constraint": options.constraint,
        "cpus_per_task": options.cpus,
        "gpus_per_node": options.gpus or None,
        "mem": f"{options.memory}GB" if options.memory else None,
        "array_parallelism": options.workers,
        # Since 22.05 srun no longer takes it over from sbatch.
        "srun_args": [f"--cpus-per-task={options.cpus}"] if options.cpus else None,
    }
    more = {}
    for text in options.slurm:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise ConfigError(f"--slurm {text}: give KEY=VALUE, such as qos=low.")
        more[key.lstrip("-")] = value
    asked["additional_parameters"] = more or None
    given = {name: value for name, value in asked.items() if value is not None}
    return Slurm(files, given, f"sparsejax-{folder.name}")


def _at_least(least: int) -> Any:
    def convert(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"{text!r}: give a whole number >= {least}"
            )
        return int(text)

    return convert


def _minutes(text: str) -> int:
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?|(\d+)", text)
    if not found or text == "0":
        raise argparse.ArgumentTypeError(
            f"{text!r}: give minutes, or HH:MM:SS, or D-HH:MM:SS"
        )
    if found[5]:
        return int(found[5])
    days, hours, minutes, seconds = (int(found[i] or 0) for i in range(1, 5))
    return max(1, 1440 * days + 60 * hours + minutes + (seconds > 0))
