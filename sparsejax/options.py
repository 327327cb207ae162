"""The arguments that all methods share, written once."""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable
from typing import Any, TypedDict, TypeVar, get_type_hints

from jaxtyping import PRNGKeyArray, PyTree

from sparsejax.distributions import Distribution
from sparsejax.layers import Layout, Where, matmul_weights
from sparsejax.structures import Structure

__all__ = ["Options", "method", "method_without"]

Function = TypeVar("Function", bound=Callable[..., Any])


class Options(TypedDict, total=False):
    """Keyword arguments of every method; `COMMON` documents them."""

    distribution: Distribution | None
    structure: Structure | None
    where: Where
    layout: Layout | None
    initial_masks: PyTree | None
    seed: int | PRNGKeyArray
    packed: bool
    track: bool


DEFAULTS = {
    "distribution": None,
    "structure": None,
    "where": matmul_weights,
    "layout": None,
    "initial_masks": None,
    "seed": 0,
    "packed": False,
    "track": False,
}

COMMON = """\
distribution: splits the sparsity over the layers; default `erk`.
structure: family of masks; default `unstructured`.
where: which leaves to sparsify; default every matmul and convolution weight.
layout: roles of axes; default `by_name`.
initial_masks: tree like params of bool arrays, None at dense leaves; where the
  topology begins, in place of ``where`` and of what the method begins with.
seed: integer or random key (may be traced).
packed: store masks at one bit a weight.
track: record exploration and turnover."""


def method(function: Function) -> Function:
    """Completes a method's signature and docstring by the common arguments.

    For a function whose last parameter is ``**options: Unpack[Options]``: what
    `inspect.signature`, ``help`` and a config see are the arguments themselves, those
    that the function names itself excepted.

    Example:
      >>> import inspect, sparsejax as sj
      >>> list(inspect.signature(sj.static).parameters)[-2:]
      ['packed', 'track']
    """
    return _completed(function, ())


def method_without(*names: str) -> Callable[[Function], Function]:
    """`method` for one that has no use for some of the common arguments.

    Args:
      *names: arguments that it then does not take.

    Example:
      >>> import inspect, sparsejax as sj
      >>> "structure" in inspect.signature(sj.soft_threshold).parameters
      False
    """
    return lambda function: _completed(function, names)


def _completed(function: Function, without: tuple[str, ...]) -> Function:
    @functools.wraps(function)
    def complete(*args, **kwargs):
        for name in without:
            if name in kwargs:
                raise TypeError(
                    f"{function.__name__}() got an unexpected keyword argument {name!r}"
                )
        return function(*args, **kwargs)

    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind != p.VAR_KEYWORD]
    left_out = {parameter.name for parameter in own} | {*without}
    hints = get_type_hints(Options)
    common = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=hints[name]
        )
        for name, value in DEFAULTS.items()
        if name not in left_out
    ]
    complete.__signature__ = signature.replace(parameters=own + common)  # pyright: ignore[reportAttributeAccessIssue]
    complete.__doc__ = _documented(function.__doc__, [p.name for p in common])
    return complete  # pyright: ignore[reportReturnType]


def _documented(text: str | None, names: list[str]) -> str | None:
    """Replaces the line on ``**options`` by the entries of those arguments."""
    lines = (text or "").splitlines()
    place = next((i for i, s in enumerate(lines) if "**options:" in s), None)
    if place is None:
        return text
    entries: dict[str, list[str]] = {}
    for line in COMMON.splitlines():
        if not line.startswith(" "):
            name = line.partition(":")[0]
        entries.setdefault(name, []).append(line)
    shown = [line for name in names for line in entries[name]]
    indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
    lines[place : place + 1] = textwrap.indent("\n".join(shown), indent).splitlines()
    return "\n".join(lines)
