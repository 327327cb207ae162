"""Schedules: *when* the topology moves, and *how much* of it."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sparsejax.checks import check_fraction, check_step

__all__ = [
    "Schedule",
    "When",
    "as_schedule",
    "at",
    "constant",
    "cosine",
    "cubic",
    "periodic",
    "polynomial",
]

Schedule = Callable[[Float[Array, ""]], Float[Array, ""]]
"""Maps progress (0 at the beginning, 1 at the stop) to a value; both may be traced."""


class When(NamedTuple):
    """The steps at which the topology moves; made by `periodic` or `at`.

    Steps are counted by the updates made before: the first call of ``update`` is step
    0.
    """

    every: int
    start: int
    stop: int
    include_stop: bool
    steps: tuple[int, ...] | None = None

    def due(self, step: int | Int[Array, ""]) -> bool | Bool[Array, ""]:
        """Whether the topology moves at ``step``."""
        if self.steps is not None:
            return functools.reduce(operator.or_, (step == one for one in self.steps))
        regular = (step >= self.start) & (step < self.stop)
        regular &= (step - self.start) % self.every == 0
        return regular | (step == self.stop) if self.include_stop else regular

    def progress(self, step: int | Int[Array, ""]) -> Float[Array, ""]:
        """``step / stop`` clipped to [0, 1]: RigL's clock, not shifted by ``start``."""
        return _ratio(step, self.stop)

    def phase(self, step: int | Int[Array, ""]) -> Float[Array, ""]:
        """``(step - start) / (stop - start)`` in [0, 1], exactly 1 from ``stop`` on."""
        return _ratio(step - self.start, self.stop - self.start)


def _ratio(elapsed: int | Int[Array, ""], total: int) -> Float[Array, ""]:
    elapsed = jnp.asarray(elapsed)
    ratio = elapsed.astype(jnp.float32) / jnp.float32(max(total, 1))
    # Exactly 1 at the end whatever the rounding, so that a pruning schedule arrives.
    return jnp.where(elapsed >= total, 1.0, jnp.clip(ratio, 0.0, 1.0))


def periodic(
    every: int, *, start: int | None = None, stop: int, include_stop: bool = False
) -> When:
    """Moves at ``start``, ``start + every``, ... while the step is below ``stop``.

    Args:
      every: steps from one move to the next, at least 1.
      start: first move, counted in updates made before it; default ``every``, since at
        step 0 many networks have all-zero gradients.
      stop: no move at or after this step, except where ``include_stop``.
      include_stop: also move at ``stop`` itself, whether or not it is a multiple of the
        interval; pruning schedules need it to reach their target.

    Raises:
      ValueError: ``every < 1``, a negative ``start``, or ``stop`` before ``start``.

    Example:
      >>> when = periodic(10, stop=30)
      >>> [step for step in range(50) if when.due(step)]
      [10, 20]
    """
    check_step("every", every, least=1)
    start = every if start is None else start
    check_step("start", start)
    check_step("stop", stop)
    if stop < start:
        raise ValueError(
            f"stop={stop} is before the first topology move at start={start}: no move "
            "would ever happen; raise `stop` or lower `start` (default: `every`)"
        )
    return When(every, start, stop, include_stop)


def at(*steps: int) -> When:
    """Moves at these steps and no others; ``stop`` is the last of them.

    Args:
      *steps: in increasing order, counted in updates made before.

    Raises:
      ValueError: no steps, or not increasing.

    Example:
      >>> when = at(3, 10)
      >>> [step for step in range(20) if when.due(step)]
      [3, 10]
    """
    for step in steps:
        check_step("steps", step)
    if not steps or list(steps) != sorted(set(steps)):
        raise ValueError(f"steps={steps!r} must be one or more, in increasing order")
    return When(1, steps[0], steps[-1], False, tuple(steps))


def constant(value: float) -> Schedule:
    """``f(p) = value``.

    Example:
      >>> float(constant(0.5)(0.9))
      0.5
    """
    check_fraction("value", value)
    return lambda progress: jnp.full_like(_as_float(progress), value)


def cosine(initial: float, *, final: float = 0.0) -> Schedule:
    """``f(p) = final + (initial - final) * (1 + cos(pi p)) / 2``, RigL's drop fraction.

    Args:
      initial: value at the beginning, in [0, 1].
      final: value at the stop; 0 in RigL (Evci et al., 2020), 0.005 in ITOP (Liu et
        al., 2021).

    Example:
      >>> [round(float(cosine(0.3)(p)), 6) for p in (0.0, 0.5, 1.0)]
      [0.3, 0.15, 0.0]
    """
    check_fraction("initial", initial)
    check_fraction("final", final)

    def schedule(progress):
        wave = (1.0 + jnp.cos(math.pi * _as_float(progress))) / 2.0
        return final + (initial - final) * wave

    return schedule


def polynomial(
    initial: float = 0.0, *, final: float = 1.0, power: float = 3.0
) -> Schedule:
    """``f(p) = final + (initial - final) * (1 - p)**power``.

    With ``power=3`` the gradual pruning schedule of Zhu & Gupta (2017). Exactly
    ``final`` at progress 1.

    Example:
      >>> gradual = polynomial(0.0, final=0.9)
      >>> [round(float(gradual(p)), 6) for p in (0.0, 0.25, 0.5, 0.75, 1.0)]
      [0.0, 0.520312, 0.7875, 0.885937, 0.9]
    """
    check_fraction("initial", initial)
    check_fraction("final", final)
    if not power > 0:
        raise ValueError(f"power={power!r} is not positive; 3 is the published value")

    def schedule(progress):
        return final + (initial - final) * (1.0 - _as_float(progress)) ** power

    return schedule


def cubic() -> Schedule:
    """`polynomial` from 0 to 1 with power 3."""
    return polynomial(0.0, final=1.0, power=3.0)


def as_schedule(name: str, value: Schedule | float) -> Schedule:
    """Accepts a number where a schedule is asked for: a constant.

    Args:
      name: argument to name in the error.
      value: schedule, or a number in [0, 1].
    """
    if callable(value):
        return value
    check_fraction(name, value)
    return constant(value)


def _as_float(progress) -> Float[Array, ""]:
    return jnp.asarray(progress, jnp.float32)
