"""Checks of arguments that say what came, what is allowed and what to do."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

from jax.core import Tracer

__all__ = ["check_choice", "check_fraction", "check_sparsity", "check_step"]


def check_sparsity(name: str, value: Any) -> None:
    """Raises unless ``value`` is a sparsity in [0, 1), or a map of paths to such."""
    if isinstance(value, Mapping):
        if not value:
            raise ValueError(f"{name}={{}} names no layer; give at least one pattern")
        for pattern, one in value.items():
            check_sparsity(f"{name}[{pattern!r}]", one)
        return
    if not _is_number(value):
        raise ValueError(
            f"{name}={value!r} is not a number; give the fraction of weights that are "
            "zero, in [0, 1), such as 0.9"
        )
    if not 0 <= value < 1:
        raise ValueError(
            f"{name}={value!r} is outside [0, 1); it is the fraction of weights that "
            "are zero, such as 0.9 for a network with 10 % of its weights"
        )


def check_fraction(name: str, value: Any) -> None:
    """Raises unless ``value`` is a number in [0, 1]; traced values pass."""
    if isinstance(value, Tracer):
        return
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{name}={value!r} is not a fraction; give a number in [0, 1]")


def check_step(name: str, value: Any, *, least: int = 0) -> None:
    """Raises unless ``value`` is an integer of at least ``least``."""
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_integer or value < least:
        raise ValueError(
            f"{name}={value!r} is not a number of steps; give an integer >= {least}"
        )


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; choose one of {choices}")


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_real and math.isfinite(value)
