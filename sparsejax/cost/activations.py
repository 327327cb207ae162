"""Bytes of activations, from the order in which a program writes and reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from sparsejax.cost.records import ActivationBytes, number
from sparsejax.graph import inner_jaxprs, is_call, opened_jaxpr, same_rank

__all__ = ["activation_bytes"]

# Operations that write their result to memory. All others are fused into those that
# read them; and what a reduction reads is fused into the reduction.
_WRITING = (
    *("dot_general", "ragged_dot", "conv_general", "reduce_", "select_and_", "arg"),
    *("cum", "sort", "top_k", "gather", "scatter", "fft", "while", "cond", "scan"),
    *("cholesky", "eig", "qr", "svd", "lu", "triangular_solve"),
    *("pallas_call", "ffi_call", "custom_call", "pure_callback", "io_callback"),
)

_REDUCING = ("reduce_", "arg", "cum")
_VIEWS = ("reshape", "squeeze", "expand_dims", "transpose", "copy", "copy_p")


def activation_bytes(
    program: ClosedJaxpr, parameters: int, examples: int = 1
) -> ActivationBytes:
    """Counts what a program writes beside its parameters and inputs.

    Args:
      program: the jaxpr of a forward pass.
      parameters: how many of its first inputs are parameters; the others are data
        unless they are boolean or random keys.
      examples: batch size, which the bytes are divided by.

    Returns:
      The bytes per example.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def forward(w, x):
      ...     return jax.nn.relu(x @ w) @ w
      >>> shapes = (jax.ShapeDtypeStruct(s, "float32") for s in ((5, 5), (3, 5)))
      >>> activation_bytes(jax.make_jaxpr(forward)(*shapes), 1, 3)
      ActivationBytes(peak=40, kept=60)
    """
    inputs = opened_jaxpr(program).invars
    data = [False] * parameters + [_is_data(one) for one in inputs[parameters:]]
    peak, kept, _ = _count(program, data)
    return ActivationBytes(
        number(Fraction(peak, examples)), number(Fraction(kept, examples))
    )


class _Value:
    """A value of the program; the same object wherever the value goes.

    Attributes:
      data: whether it depends on the inputs.
      in_memory: whether it has been written; inputs and parameters have been before.
      sources: written values that it is computed from; itself, once it is written.
    """

    def __init__(
        self,
        data: bool,
        in_memory: bool = False,
        sources: frozenset[int] = frozenset(),
    ):
        self.data, self.in_memory, self.sources = data, in_memory, sources


class _Event(NamedTuple):
    """A moment at which values are read and written."""

    reads: frozenset[int]
    writes: tuple[int, ...] = ()
    fused: bool = False  # what is read for the last time makes room for the result
    inside: int = 0  # bytes alive within a loop or a branch, its results included


def _count(
    program: ClosedJaxpr | Jaxpr, data: Sequence[bool]
) -> tuple[int, int, list[bool]]:
    """Peak and kept bytes of a program, and which of its results are data."""
    walk = _Walk()
    jaxpr = opened_jaxpr(program)
    results = walk.jaxpr(jaxpr, [_Value(one, in_memory=True) for one in data])
    for atom, value in zip(jaxpr.outvars, results, strict=True):
        walk.write(atom, value)
    walk.events.append(_Event(_sources(results)))
    return walk.peak(), walk.kept, [value.data for value in results]


class _Walk:
    """One pass over a program, calls opened up, that notes its events."""

    def __init__(self):
        self.events: list[_Event] = []
        self.sizes: list[int] = []
        self.kept = 0

    def jaxpr(self, jaxpr: Jaxpr, given: Sequence[_Value]) -> list[_Value]:
        known = {variable: _Value(False) for variable in jaxpr.constvars}
        known.update(zip(jaxpr.invars, given, strict=True))

        def read(atom: Any) -> _Value:
            return _Value(False) if isinstance(atom, Literal) else known[atom]

        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            results = self.equation(equation, operands)
            known.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, equation: JaxprEqn, operands: list[_Value]) -> list[_Value]:
        name = equation.primitive.name
        data = any(value.data for value in operands)
        if name in _VIEWS:
            return operands[:1]
        if name.startswith(_WRITING) and name != "reduce_precision":
            return self.operation(equation, operands) if data else _unknown(equation)
        inner = inner_jaxprs(equation)
        if is_call(inner, operands):
            return self.jaxpr(opened_jaxpr(inner[0]), operands)
        sources = _sources(operands)
        return [_Value(data, sources=sources) for _ in equation.outvars]

    def operation(self, equation: JaxprEqn, operands: list[_Value]) -> list[_Value]:
        if not equation.primitive.name.startswith(_REDUCING):
            for atom, value in zip(equation.invars, operands, strict=True):
                self.write(atom, value)
        inside = kept = 0
        data = [True for _ in equation.outvars]
        if equation.primitive.name == "scan":
            inside, kept, data = _scan(equation, operands)
        elif equation.primitive.name in ("cond", "while"):
            inside, kept = _branches(equation, operands)
        results = _unknown(equation)
        for atom, value, one in zip(equation.outvars, results, data, strict=True):
            if one:
                self.place(atom, value)
        writes = tuple(_sources(results))
        self.events.append(_Event(_sources(operands), writes, inside=inside))
        # A loop's results are among what its iterations keep.
        self.kept += kept or sum(self.sizes[one] for one in writes)
        return results

    def write(self, atom: Any, value: _Value) -> None:
        """Notes that a fused value is written, unless it is in memory already."""
        if not value.data or value.in_memory:
            return
        reads = value.sources
        self.place(atom, value)
        self.events.append(_Event(reads, tuple(value.sources), fused=True))
        self.kept += sum(self.sizes[one] for one in value.sources)

    def place(self, atom: Any, value: _Value) -> None:
        value.data = value.in_memory = True
        value.sources = frozenset([len(self.sizes)])
        self.sizes.append(_bytes(atom))

    def peak(self) -> int:
        last_read = {
            one: moment for moment, event in enumerate(self.events) for one in event[0]
        }
        most = live = 0
        for moment, event in enumerate(self.events):
            done = sum(
                self.sizes[one] for one in event.reads if last_read[one] == moment
            )
            new = sum(self.sizes[one] for one in event.writes)
            needed = max(new - done, 0) if event.fused else max(new, event.inside)
            most = max(most, live + needed)
            # What nobody reads is gone at once.
            unread = sum(
                self.sizes[one] for one in event.writes if one not in last_read
            )
            live += new - done - unread
        return most


def _scan(equation: JaxprEqn, operands: list[_Value]) -> tuple[int, int, list[bool]]:
    body = opened_jaxpr(equation.params["jaxpr"])
    carried = same_rank(equation.outvars, body.outvars)
    last = same_rank(equation.invars, body.invars)
    data = [value.data for value in operands]
    while True:
        peak, kept, results = _count(body, data)
        before, now = data[last - carried : last], results[:carried]
        after = [old or new for old, new in zip(before, now, strict=True)]
        if after == before:
            break
        data[last - carried : last] = after
    stacked = sum(_bytes(out) for out in equation.outvars[carried:])
    # After the first iteration what is carried is no input any more.
    carries = zip(body.outvars[:carried], operands[last - carried : last], strict=True)
    taken = sum(_bytes(out) for out, first in carries if not first.sources)
    return peak + stacked + taken, kept * equation.params["length"], results


def _branches(equation: JaxprEqn, operands: list[_Value]) -> tuple[int, int]:
    """The most that a branch, or one iteration of a loop, takes."""
    peak = kept = 0
    for program in inner_jaxprs(equation):
        here = opened_jaxpr(program).invars
        # Of the operands the last ones go to every branch; a loop's body has its own.
        data = [value.data for value in operands][len(operands) - len(here) :]
        data = data if len(data) == len(here) else [True for _ in here]
        found = _count(program, data)
        peak, kept = max(peak, found[0]), max(kept, found[1])
    return peak, kept


def _sources(values: Sequence[_Value]) -> frozenset[int]:
    return frozenset().union(*(value.sources for value in values))


def _unknown(equation: JaxprEqn) -> list[_Value]:
    return [_Value(False) for _ in equation.outvars]


def _is_data(atom: Any) -> bool:
    passive = (jnp.bool_, jax.dtypes.prng_key)
    return not any(jnp.issubdtype(atom.aval.dtype, kind) for kind in passive)


def _bytes(atom: Any) -> int:
    return math.prod(atom.aval.shape) * getattr(atom.aval.dtype, "itemsize", 0)
