"""Which layers read the neurons of a layer one by one, nothing having mixed them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from sparsejax import graph
from sparsejax.layers import leaves_with_paths

__all__ = ["Link", "links"]

# fmt: off
_ENTRYWISE = frozenset((
    "abs", "add", "add_any", "and", "atan2", "cbrt", "ceil", "clamp",
    "convert_element_type", "copy", "copy_p", "cos", "div", "eq", "erf", "erf_inv",
    "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite",
    "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "not",
    "or", "pow", "reduce_precision", "rem", "round", "rsqrt", "select_n", "sign", "sin",
    "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
))
# fmt: on
_CASTS = ("convert_element_type", "copy", "copy_p", "reduce_precision")
_REDUCTIONS = ("reduce_max", "reduce_min", "reduce_prod", "reduce_sum")


class Link(NamedTuple):
    """A layer whose neurons only known layers read.

    Attributes:
      source: path of its kernel.
      readers: paths of the kernels whose inputs its neurons are, in the same order.
      between: paths of the vectors with one number per neuron on the way: biases,
        the scales and statistics of normalisations.
    """

    source: str
    readers: tuple[str, ...]
    between: tuple[str, ...]


def links(
    function: Callable[..., Any], variables: Any, inputs: Any, kernels: Sequence[str]
) -> list[Link]:
    """Follows the outputs of layers to the layers that read them.

    The function is traced, not run. Between a layer and its reader there may be
    whatever treats every neuron for itself and all alike: biases, activations, casts,
    normalisation by stored statistics, averages over other axes, reshapes. A sum with
    another layer's outputs, normalisation over neurons, a convolution of channels by
    themselves, or use as a result end the search: such a layer has no link.

    Args:
      function: called as ``function(variables, inputs)``.
      variables: pytree of parameters and statistics.
      inputs: pytree of arrays or `jax.ShapeDtypeStruct`.
      kernels: paths of the kernels of shape ``(..., in, out)`` to look at: those of
        linear layers and of convolutions. Where a convolution reads zeros around an
        image, it does not read a neuron's constant there.

    Returns:
      A link for each layer with readers, in order of execution.

    Example:
      >>> import jax.numpy as jnp
      >>> def network(params, x):
      ...   x = jax.nn.relu(x @ params["first"] + params["bias"])
      ...   return x @ params["second"]
      >>> params = {"first": jnp.ones((3, 4)), "bias": jnp.ones(4)}
      >>> params["second"] = jnp.ones((4, 2))
      >>> links(network, params, jnp.ones((1, 3)), ["first", "second"])
      [Link(source='first', readers=('second',), between=('bias',))]
    """
    closed = jax.make_jaxpr(function)(variables, inputs)
    leaves = leaves_with_paths(variables)
    values = [_of_leaf(path, leaf, kernels) for path, leaf in leaves]
    walk = _Walk({path: leaf.shape for path, leaf in leaves})
    rest = [_MIXED] * (len(closed.jaxpr.invars) - len(leaves))
    results = walk.jaxpr(closed, [*values, *rest])
    walk.lose(*results)
    return walk.found()


class _Value(NamedTuple):
    """What is known of one value of the program."""

    mixed: bool = False  # anything may have become part of it
    kernel: str | None = None  # it is this kernel
    source: str | None = None  # neuron by neuron made of this layer's outputs
    vectors: frozenset[str] = frozenset()  # leaves with one number per neuron
    axis: int | None = None  # where the neurons are; None: a number for all alike


_MIXED = _Value(mixed=True)
_NUMBER = _Value()


def _of_leaf(path: str, leaf: Any, kernels: Sequence[str]) -> _Value:
    if path in kernels:
        return _Value(kernel=path)
    if len(leaf.shape) == 1:
        return _Value(vectors=frozenset([path]), axis=0)
    return _NUMBER if not leaf.shape else _MIXED


class _Walk:
    def __init__(self, shapes: Mapping[str, tuple[int, ...]]):
        self.shapes = shapes
        self.sources: dict[str, list[str]] = {}
        self.vectors: dict[str, set[str]] = {}
        self.lost: set[str | None] = set()  # sources and vectors
        self.unlike_layers: set[str | None] = set()  # kernels that are used otherwise

    def lose(self, *values: _Value) -> None:
        """These values went where their neurons cannot be followed."""
        for value in values:
            self.lost |= {value.source, value.kernel, *value.vectors}
            self.unlike_layers.add(value.kernel)

    def found(self) -> list[Link]:
        found = []
        for source, readers in self.sources.items():
            between = sorted(p for p, users in self.vectors.items() if source in users)
            alone = all(
                self.vectors[path] == {source} and path not in self.lost
                for path in between
            )
            kept = source not in self.lost
            kept &= not self.unlike_layers.intersection(readers)
            if readers and alone and kept:
                found.append(Link(source, tuple(readers), tuple(between)))
        return found

    def jaxpr(
        self, program: ClosedJaxpr | Jaxpr, values: Sequence[_Value]
    ) -> list[_Value]:
        jaxpr = graph.opened_jaxpr(program)
        known = {
            atom: _MIXED if graph.shape_of(atom) else _NUMBER
            for atom in jaxpr.constvars
        }
        known.update(zip(jaxpr.invars, values, strict=True))

        def read(atom):
            return _NUMBER if isinstance(atom, Literal) else known[atom]

        for equation in jaxpr.eqns:
            results = self.equation(equation, [read(atom) for atom in equation.invars])
            known.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, equation: JaxprEqn, values: list[_Value]) -> list[_Value]:
        name = equation.primitive.name
        inner = graph.inner_jaxprs(equation)
        loop = name in ("scan", "while", "cond")
        if not loop and graph.is_call(inner, values):
            return self.jaxpr(inner[0], values)
        result = None
        if name in ("dot_general", "conv_general_dilated"):
            result = self.product(equation, values)
        elif name in _ENTRYWISE:
            result = self.entrywise(name, values)
        elif len(values) == 1:
            axis = _moved(equation, values[0])
            if values[0].axis is None and not (values[0].mixed or values[0].kernel):
                result = values[0]
            elif axis is not None:
                result = values[0]._replace(axis=axis)
        if result is None:
            self.lose(*values)
            result = _MIXED
        return [result] * len(equation.outvars)

    def entrywise(self, name: str, values: list[_Value]) -> _Value | None:
        if len(values) == 1:
            # A function of the kernel is another one: what it makes of zeros, say.
            same = not values[0].kernel or name in _CASTS
            return values[0] if same else None
        sources = {value.source for value in values if value.source}
        axes = {value.axis for value in values if value.axis is not None}
        opaque = any(value.mixed or value.kernel for value in values)
        if opaque or len(sources) > 1 or len(axes) > 1:
            return None
        vectors = frozenset().union(*(value.vectors for value in values))
        source = next(iter(sources), None)
        if source is not None:
            for path in vectors:
                self.vectors.setdefault(path, set()).add(source)
        return _Value(source=source, vectors=vectors, axis=next(iter(axes), None))

    def product(self, equation: JaxprEqn, values: list[_Value]) -> _Value | None:
        data, kernel = values[0], values[1].kernel
        axes = kernel and _product_axes(equation)
        # A layer that is used twice has two kinds of readers, or two sources.
        if not kernel or not axes or data.kernel or kernel in self.sources:
            return None
        read, written = axes
        neurons_are_read = data.source is not None and data.axis == read
        if neurons_are_read:
            assert data.source is not None
            self.sources[data.source].append(kernel)
        else:
            self.lose(data)
        self.sources[kernel] = []
        return _Value(source=kernel, axis=written)


def _product_axes(equation: JaxprEqn) -> tuple[int, int] | None:
    """Axis of the data that a layer reads neurons along, and that it writes along."""
    settings = equation.params
    numbers = settings["dimension_numbers"]
    if equation.primitive.name == "dot_general":
        (lhs, rhs), (batched, _) = numbers
        if tuple(rhs) != (0,) or batched:
            return None
        return lhs[0], len(graph.shape_of(equation.outvars[0])) - 1
    groups = settings["feature_group_count"] * settings["batch_group_count"]
    rank = len(graph.shape_of(equation.invars[1]))
    in_order = tuple(numbers.rhs_spec) == (rank - 1, rank - 2, *range(rank - 2))
    if groups != 1 or not in_order:
        return None
    return numbers.lhs_spec[1], numbers.out_spec[1]


def _moved(equation: JaxprEqn, value: _Value) -> int | None:
    """Where the neurons' axis is after an operation that may move it."""
    if value.axis is None or value.mixed or value.kernel:
        return None
    name, settings, axis = equation.primitive.name, equation.params, value.axis
    before = graph.shape_of(equation.invars[0])
    after = graph.shape_of(equation.outvars[0])
    if name == "broadcast_in_dim":
        axis = settings["broadcast_dimensions"][axis]
    elif name == "transpose":
        axis = tuple(settings["permutation"]).index(axis)
    elif name in ("reshape", "squeeze", "expand_dims"):
        inside = math.prod(before[axis + 1 :])
        fitting = [
            i
            for i, size in enumerate(after)
            if size == before[axis] and math.prod(after[i + 1 :]) == inside
        ]
        # Axes of length 1 beside it make no difference: the first of them will do.
        axis = fitting[0] if fitting else None
    elif name in _REDUCTIONS:
        if axis in settings["axes"]:
            return None
        axis -= sum(gone < axis for gone in settings["axes"])
    else:
        return None
    return axis if axis is not None and after[axis] == before[value.axis] else None
