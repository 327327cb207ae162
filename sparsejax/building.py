"""Building objects from a config: the name in the config is the name of the function.

There is no registry. ``config.method.name = "rigl"`` calls the function ``rigl`` of the
file ``sparsejax/methods/rigl.py`` with the other fields of ``config.method`` as its
keyword arguments; ``"mypackage.mymethod"`` calls a function from outside.
"""

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class ConfigError(ValueError):
    """A config that cannot be run, in one line: the field, its value and the fix."""


def build(
    field: str,
    spec: str | Mapping[str, Any],
    package: str,
    *args: Any,
    nested: Mapping[str, str] | None = None,
    **offered: Any,
) -> Any:
    """Calls the function that a part of the config names, with its other fields.

    Args:
      field: Where the spec stands in the config, for messages: ``"method"`` for
        ``config.method``.
      spec: A mapping (a ConfigDict, too) with ``name`` and keyword arguments, or only
        the name.
      package: Where names are looked up: a module with a function of that name
        (``"sparsejax.schedules"``), or a package with one file per function
        (``"sparsejax.methods"``).
      *args: Positional arguments that come from the program, not from the config.
      nested: Arguments that are specs themselves, each with its package:
        ``{"drop_fraction": "sparsejax.schedules"}``. Strings and mappings are built,
        every other value (a number, None, an object) is passed on as it is.
      **offered: Keyword arguments from the program. The function gets those that it
        has a parameter for, and the spec does not set.

    Returns:
      What the named function returns.

    Raises:
      ConfigError: If the name is unknown, an argument is unknown or missing, or the
        function rejects a value (``ValueError`` or ``TypeError``).

    Example:
      >>> import fractions
      >>> build("ratio", {"name": "Fraction", "numerator": 3}, "fractions",
      ...       denominator=4)
      Fraction(3, 4)
    """
    arguments = plain(spec)
    if isinstance(arguments, str):
        arguments = {"name": arguments}
    if not isinstance(arguments, dict) or not isinstance(arguments.get("name"), str):
        raise ConfigError(
            f"config.{field} = {arguments!r}: expected a name, or fields with a "
            f"'name'; set config.{field}.name to one of: {_listed(known(package))}."
        )
    name = arguments.pop("name")
    function = resolve(field, name, package)
    for argument, inner_package in (nested or {}).items():
        value = arguments.get(argument)
        if isinstance(value, str | dict):
            arguments[argument] = build(f"{field}.{argument}", value, inner_package)
    arguments = _checked(field, name, function, args, arguments, offered)
    try:
        return function(*args, **arguments)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(
            located(f"{field}", str(error), parameters(function))
        ) from error


def resolve(field: str, name: str, package: str) -> Callable[..., Any]:
    """Finds the function that a name in the config stands for.

    Args:
      field: Where the name stands in the config, for messages.
      name: A function's name within `package`, or a dotted one from outside.
      package: As for :func:`build`.

    Returns:
      The function, not called.

    Raises:
      ConfigError: If there is none; the message has the nearest known names.

    Example:
      >>> resolve("ratio", "Fraction", "fractions").__name__
      'Fraction'
    """
    if "." in name:
        found = _from_outside(field, name)
    elif name.isidentifier() and not name.startswith("_"):
        found = _from_package(name, package)
    else:
        found = None
    if found is not None:
        return found
    names = known(package)
    raise ConfigError(
        f"config.{field}.name = {name!r}: unknown{_suggestion(name, names)}; known: "
        f"{_listed(names)}, or a function of yours as 'mypackage.myfunction'."
    )


def known(package: str) -> list[str]:
    """Lists the names that a config may use for functions of a package.

    Args:
      package: As for :func:`build`.

    Returns:
      The names, sorted.

    Example:
      >>> "cosine" in known("sparsejax.schedules")
      True
    """
    module = importlib.import_module(package)
    names = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and inspect.isfunction(value)
        and _is_own_callable(value, package)
    }
    for submodule in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if submodule.name.startswith("_"):
            continue
        try:
            found = _from_package(submodule.name, package)
        except ImportError:
            continue
        if found is not None:
            names.add(submodule.name)
    return sorted(names)


def plain(spec: Any) -> Any:
    """A part of a config as a dict of dicts, whatever kind of mapping it is.

    Args:
      spec: A ConfigDict, another mapping, or a value.

    Returns:
      Dicts in place of the mappings; other values as they are.

    Example:
      >>> from ml_collections import ConfigDict
      >>> plain({"method": ConfigDict({"name": "rigl"})})
      {'method': {'name': 'rigl'}}
    """
    if hasattr(spec, "to_dict"):
        return spec.to_dict()
    if isinstance(spec, Mapping):
        return {key: plain(value) for key, value in spec.items()}
    return spec


def located(field: str, message: str, names: Iterable[str] = ()) -> str:
    """Prefixes an error's message with the place in the config that it is about.

    Args:
      field: The part of the config that was being built: ``"method"``.
      message: The message; only its first line is kept.
      names: Arguments that a message may begin with: ``"sparsity must be ..."`` becomes
        ``"config.method.sparsity must be ..."``.

    Returns:
      One line.

    Example:
      >>> located("method", "sparsity = 2 is not in [0, 1).", ["sparsity"])
      'config.method.sparsity = 2 is not in [0, 1).'
      >>> located("method", "params are needed.")
      'config.method: params are needed.'
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    first = lines[0] if lines else "rejected without a message."
    begins = re.match(r"`?(\w+)`?", first)
    if begins and begins[1] in set(names):
        return f"config.{field}.{begins[1]}{first[begins.end() :]}"
    return f"config.{field}: {first}"


def parameters(function: Callable[..., Any]) -> list[str]:
    """Lists the names of the arguments that a function takes by keyword.

    Args:
      function: Any callable.

    Returns:
      The names, in the order of the signature.

    Example:
      >>> parameters(lambda inner, *, sparsity: None)
      ['inner', 'sparsity']
    """
    keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    signature = inspect.signature(function)
    return [p.name for p in signature.parameters.values() if p.kind in keyword]


def _checked(
    field: str,
    name: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    arguments: dict[str, Any],
    offered: dict[str, Any],
) -> dict[str, Any]:
    signature = inspect.signature(function)
    names = parameters(function)
    positional = {
        p.name
        for p in list(signature.parameters.values())[: len(args)]
        if p.kind is not inspect.Parameter.VAR_POSITIONAL
    }
    takes_any = any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values()
    )
    allowed = [n for n in names if n not in positional]
    for argument, value in arguments.items():
        if argument not in allowed and not takes_any:
            raise ConfigError(
                f"config.{field}.{argument} = {value!r}: {name!r} has no such "
                f"argument{_suggestion(argument, allowed)}; it takes: "
                f"{_listed(allowed)}."
            )
    for argument, value in offered.items():
        if argument in allowed or takes_any:
            arguments.setdefault(argument, value)
    for argument in allowed:
        required = signature.parameters[argument].default is inspect.Parameter.empty
        if required and argument not in arguments:
            raise ConfigError(
                f"config.{field}.{argument} is missing: {name!r} needs it; set "
                f"--config.{field}.{argument}=..., or the field in the config file."
            )
    return arguments


def _from_package(name: str, package: str) -> Callable[..., Any] | None:
    module = importlib.import_module(package)
    found = getattr(module, name, None)
    if _is_own_callable(found, package):
        return found
    if not hasattr(module, "__path__"):
        return None
    if importlib.util.find_spec(f"{package}.{name}") is None:
        return None
    submodule = importlib.import_module(f"{package}.{name}")
    found = getattr(submodule, name, None)
    return found if callable(found) else None


def _from_outside(field: str, name: str) -> Callable[..., Any]:
    parent, _, attribute = name.rpartition(".")
    try:
        try:
            found = getattr(importlib.import_module(parent), attribute, None)
            if found is None:
                found = importlib.import_module(name)
        except ModuleNotFoundError:
            found = importlib.import_module(name)
    except (ImportError, ValueError, TypeError) as error:
        raise ConfigError(
            f"config.{field}.name = {name!r}: cannot be imported ({error}); install "
            "its package, or put its folder on PYTHONPATH."
        ) from error
    if isinstance(found, types.ModuleType):
        found = getattr(found, attribute, None)
    if not callable(found):
        raise ConfigError(
            f"config.{field}.name = {name!r}: the module {name!r} has no function "
            f"{attribute!r}; name one as 'mypackage.myfunction'."
        )
    return found


def _is_own_callable(value: Any, package: str) -> bool:
    """Whether a module's attribute was defined in the package, not imported into it."""
    if not callable(value) or isinstance(value, types.ModuleType):
        return False
    module = getattr(value, "__module__", None) or ""
    return module == package or module.startswith(f"{package}.")


def _suggestion(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=2)
    return f" (did you mean {' or '.join(repr(n) for n in near)}?)" if near else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"
