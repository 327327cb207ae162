"""The command line: which config file, which overrides, which run directory."""

import dataclasses
import difflib
import importlib.util
import pathlib
import re
import shlex
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from sparsejax.building import ConfigError

_PACKAGE = pathlib.Path(__file__).resolve().parent

_PROCESSES = ("coordinator_address", "num_processes", "process_id")


@dataclasses.dataclass(frozen=True)
class Command:
    """What a command line asks for.

    Attributes:
      config: The config with its overrides, a locked ConfigDict.
      name: The config's name with its argument, such as ``rigl_resnet50-imagenet``.
      workdir: The run directory.
      text: The command line, to run it again.
      coordinator_address: Where the first of several processes is, if given.
      num_processes: How many there are, if given.
      process_id: Which of them this is, if given.
    """

    config: Any
    name: str
    workdir: pathlib.Path
    text: str
    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def parse(arguments: Sequence[str]) -> Command:
    """Reads a command line.

    Args:
      arguments: Without the program's name: ``["--config=rigl_mlp", ...]``.

    Returns:
      The config with the overrides, and where to run.

    Raises:
      ConfigError: For anything that cannot be understood, in one line.

    Example:
      >>> parse(["--config=rigl_mlp", "--config.seed=3"]).config.seed
      3
    """
    own = flags.FlagValues()
    flags.DEFINE_string("config", None, "Config file or name.", flag_values=own)
    flags.DEFINE_string("workdir", None, "Run directory.", flag_values=own)
    # As jax names the arguments of its `distributed.initialize`.
    flags.DEFINE_string(_PROCESSES[0], None, "Host and port.", flag_values=own)
    for name in _PROCESSES[1:]:
        flags.DEFINE_integer(name, None, "A number.", flag_values=own)
    try:
        overrides = own(["train", *arguments], known_only=True)[1:]
    except flags.Error as error:
        raise ConfigError(_first_line(error)) from error
    if not own.config:
        raise ConfigError(
            "--config is missing: name a config file, such as --config=rigl_mlp; "
            f"there are: {', '.join(available())}."
        )
    _check_are_overrides(overrides)
    config = load(own.config)
    name = _stem(own.config)
    config = _overridden(config, overrides)
    text = shlex.join(["python", "-m", "sparsejax.train", *arguments])
    workdir = pathlib.Path(own.workdir or f"runs/{name}")
    return Command(
        config, name, workdir, text, *(getattr(own, flag) for flag in _PROCESSES)
    )


def load(spec: str) -> ml_collections.ConfigDict:
    """Loads a config by its file or its name.

    Args:
      spec: ``"configs/rigl_mlp.py"`` or the path of a file of yours, or only a name
        ``"rigl_mlp"``; with an argument after a colon, ``"rigl_resnet50:imagenet"``.

    Returns:
      What the file's ``get_config`` returns, and ``mesh`` where that does not set it:
      all devices along ``data`` (`sparsejax.sharding`).

    Raises:
      ConfigError: If there is no such config, it has no such argument, or running the
        file fails.

    Example:
      >>> load("rigl_mlp").method.name
      'rigl'
    """
    config = module(spec).get_config(_argument(spec))
    if "mesh" not in config:
        with config.unlocked():
            config.mesh = {"data": -1, "fsdp": 1}
    return config


def module(spec: str) -> Any:
    """Imports the file of a config.

    Args:
      spec: As for :func:`load`.

    Returns:
      The module; its ``get_config`` raises nothing but ConfigError, and always returns
      a ConfigDict.

    Raises:
      ConfigError: If there is no such file, or it cannot be imported.

    Example:
      >>> callable(module("rigl_mlp").sweep)
      True
    """
    path = find(spec)
    specification = importlib.util.spec_from_file_location(
        f"sparsejax_config_{path.stem}", path.resolve()
    )
    assert specification is not None
    assert specification.loader is not None
    loaded = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(loaded)
    except Exception as error:
        raise ConfigError(_failure(path, error)) from error
    inner = getattr(loaded, "get_config", None)
    if not callable(inner):
        raise ConfigError(
            f"--config={spec}: {path} defines no get_config(arg=None); add one that "
            "returns a ConfigDict."
        )

    def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
        try:
            config = inner() if argument is None else inner(argument)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(_failure(path, error)) from error
        if not isinstance(config, ml_collections.ConfigDict):
            raise ConfigError(
                f"--config={spec}: get_config of {path} returned "
                f"{type(config).__name__}; return an ml_collections.ConfigDict."
            )
        return config

    loaded.get_config = get_config  # type: ignore[attr-defined]
    return loaded


def find(spec: str) -> pathlib.Path:
    """Finds the file of a config.

    Args:
      spec: As for :func:`load`.

    Returns:
      The path as given if it exists; else the file of that name among the configs
      beside the package (a checkout) or inside it (an installed wheel).

    Raises:
      ConfigError: If there is neither; the message has the nearest names.

    Example:
      >>> find("configs/rigl_mlp.py:digits").name
      'rigl_mlp.py'
    """
    path = pathlib.Path(spec.partition(":")[0])
    if path.is_file():
        return path
    bare_name = path.suffix in ("", ".py") and str(path.parent) in (".", "configs")
    if bare_name:
        bundled = _folder() / f"{path.stem}.py"
        if bundled.is_file():
            return bundled
    names = available()
    near = difflib.get_close_matches(path.stem, names, n=2)
    suggestion = f" (did you mean {' or '.join(near)}?)" if near else ""
    raise ConfigError(
        f"--config={spec}: no such file or config{suggestion}; there are: "
        f"{', '.join(names)}."
    )


def available() -> list[str]:
    """Lists the names of the configs that come with the package.

    Returns:
      The names, sorted.

    Example:
      >>> "rigl_resnet50" in available()
      True
    """
    names = (path.stem for path in _folder().glob("*.py"))
    return sorted(name for name in names if not name.startswith("_"))


def _folder() -> pathlib.Path:
    # A wheel has them inside the package; in a checkout they lie beside it.
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def _argument(spec: str) -> str | None:
    _, colon, argument = spec.partition(":")
    return argument if colon else None


def _stem(spec: str) -> str:
    file, _, argument = spec.partition(":")
    stem = pathlib.Path(file).stem
    return f"{stem}-{argument}" if argument else stem


def _check_are_overrides(arguments: Sequence[str]) -> None:
    follows_flag = False
    for argument in arguments:
        if re.match(r"--?(no)?config\.", argument):
            follows_flag = "=" not in argument
        elif follows_flag and not argument.startswith("-"):
            follows_flag = False
        else:
            flag = argument.split("=")[0].lstrip("-")
            known = ["config", "workdir", "help", *_PROCESSES]
            near = difflib.get_close_matches(flag, known, n=1)
            suggestion = f" (did you mean --{near[0]}?)" if near else ""
            raise ConfigError(
                f"{argument}: unknown argument{suggestion}; there are --config=NAME, "
                "--workdir=FOLDER, --config.FIELD=VALUE, --help and, for several "
                f"processes, --{', --'.join(_PROCESSES)}."
            )


def _overridden(
    config: ml_collections.ConfigDict, arguments: Sequence[str]
) -> ml_collections.ConfigDict:
    for argument in arguments:
        if found := re.match(r"--?(?:no)?config\.([^=]+)", argument):
            _check_field(config, found[1], argument)
    values = flags.FlagValues()
    argv = ["train", *arguments]
    # New fields may only appear where `build` will check them: see `_check_field`.
    config.unlock()
    try:
        config_flags.DEFINE_config_dict(
            "config",
            config,
            flag_values=values,
            lock_config=False,
            accept_new_attributes=True,
            sys_argv=argv,
        )
        left_over = values(argv)[1:]
    except flags.IllegalFlagValueError as error:
        raise ConfigError(_illegal_value(_first_line(error))) from error
    except (flags.Error, KeyError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{' '.join(arguments)}: {_first_line(error)} Give a value of the field's "
            "own type."
        ) from error
    if left_over:
        raise ConfigError(
            f"{left_over[0]}: unknown argument; write overrides as "
            "--config.FIELD=VALUE."
        )
    return values.config.lock()


def _check_field(config: Any, field: str, argument: str) -> None:
    """Raises unless the field exists, or is an argument of something named.

    An argument that a config file does not mention (``--config.method.track=True``) is
    fine: whether the method has it is checked where the method is built.
    """
    value = config
    parts = field.split(".")
    for depth, part in enumerate(parts):
        is_config = isinstance(value, ml_collections.ConfigDict)
        where = ".".join(["config", *parts[:depth]])
        if is_config and part in value:
            value = value[part]
        elif is_config and "name" in value and depth == len(parts) - 1:
            return
        else:
            fields = sorted(value.keys()) if is_config else []
            near = difflib.get_close_matches(part, fields, n=2)
            suggestion = f" (did you mean {' or '.join(near)}?)" if near else ""
            listed = f"it has: {', '.join(fields)}" if fields else "it has no fields"
            raise ConfigError(
                f"{argument}: {where} has no field {part!r}{suggestion}; {listed}."
            )


def _illegal_value(message: str) -> str:
    found = re.match(r"flag --(config\.[^=]+)=(.*?): (.*)", message)
    if not found:
        return message
    field, value, reason = found.groups()
    return f"{field} = {value!r}: {reason}; give a value of the field's own type."


def _failure(path: pathlib.Path, error: Exception) -> str:
    line, trace = "", error.__traceback__
    while trace is not None:
        file = pathlib.Path(trace.tb_frame.f_code.co_filename)
        if file == path.resolve():
            line = f", line {trace.tb_lineno}"
        trace = trace.tb_next
    return f"{path}{line}: {type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    message = error.args[0] if error.args else error
    return next((x.strip() for x in str(message).splitlines() if x.strip()), "failed")
