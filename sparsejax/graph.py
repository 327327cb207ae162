"""Which parameter leaf feeds which product: one walk over a function's jaxpr."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jaxtyping import PyTree

from sparsejax.layers import leaves_with_paths

_PRODUCTS = ("dot_general", "conv_general_dilated")
_SCALINGS = ("mul", "div")
_OPAQUE = ("pallas_call", "ffi_call")


class Use(NamedTuple):
    """One matrix product or convolution, and the parameter that it multiplies by.

    Attributes:
      path: path of the parameter leaf, such as `"block0/conv1/kernel"`; None when
        neither operand is a parameter (the products inside attention).
      kind: `"dot"` or `"convolution"`.
      macs: multiply-accumulates of the whole batch; zero padding counts as data.
      outputs: output elements of the whole batch.
      weights_per_output: weights that one output element reads (its fan-in).
      framed_outputs: output elements of a strided convolution of the input itself
        when its stride walks over the padded image, border included; otherwise
        `outputs`. Published tables count the first convolution so.
    """

    path: str | None
    kind: str
    macs: int
    outputs: int
    weights_per_output: int
    framed_outputs: int

    def times(self, count: int) -> Use:
        """The same product, executed `count` times."""
        return self._replace(
            macs=self.macs * count,
            outputs=self.outputs * count,
            framed_outputs=self.framed_outputs * count,
        )


def uses(function: Callable, params: PyTree, *inputs: Any) -> tuple[Use, ...]:
    """Lists every product in `function(params, *inputs)` with the leaf it reads.

    The function is traced, never run, so arrays may be `jax.ShapeDtypeStruct`. A
    leaf is followed through whatever does not mix it with data: casts, reshapes,
    transposes, slices, products with masks, normalisations of the weight itself,
    `jit`, `remat`, custom derivatives, `vmap`, and `scan` (counted once per
    iteration). Of a `cond`, the costliest branch counts. Boolean inputs and PRNG
    keys are not data, so that masks and weight noise may be passed as inputs. When
    several leaves make up one weight, the largest of them is named.

    Args:
      function: any JAX function; its first argument is `params`.
      params: pytree of arrays or `jax.ShapeDtypeStruct`.
      *inputs: the further arguments, pytrees of the same kinds.

    Returns:
      One `Use` per product, in order of execution.

    Raises:
      ValueError: a product inside a `while_loop` (its number of iterations is not in
        the program) or inside a primitive that cannot be looked into.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from sparsejax.graph import uses
      >>> params = {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}
      >>> forward = lambda params, x: x @ params["kernel"] + params["bias"]
      >>> use, = uses(forward, params, jax.ShapeDtypeStruct((2, 3), "float32"))
      >>> use.path, use.macs, use.weights_per_output
      ('kernel', 24, 3)
    """
    return uses_in(jax.make_jaxpr(function)(params, *inputs), params)


def uses_in(program: ClosedJaxpr, params: PyTree) -> tuple[Use, ...]:
    """`uses` of a function that is traced already.

    Args:
      program: the function's jaxpr; its first inputs are the leaves of `params`.
      params: pytree of arrays or `jax.ShapeDtypeStruct`.

    Returns:
      One `Use` per product, in order of execution.

    Raises:
      ValueError: as `uses`.
    """
    sizes = {path: math.prod(leaf.shape) for path, leaf in leaves_with_paths(params)}
    flows = [_Flow(frozenset([path]), False, False, sizes[path]) for path in sizes]
    flows += [_input(variable) for variable in program.jaxpr.invars[len(sizes) :]]
    walk = _Walk(sizes)
    walk.jaxpr(program, flows)
    return tuple(walk.uses)


class _Flow(NamedTuple):
    """What is known about one value of the program."""

    paths: frozenset[str]  # leaves it is made of; empty once data is mixed in
    data: bool
    contracted: bool  # some product lies upstream
    extent: int  # elements before any broadcast


_CONSTANT = _Flow(frozenset(), False, False, 1)


def _input(variable: Any) -> _Flow:
    passive = any(
        jnp.issubdtype(variable.aval.dtype, kind)
        for kind in (jnp.bool_, jax.dtypes.prng_key)
    )
    return _Flow(frozenset(), not passive, False, _size(variable))


def _mix(flows: Iterable[_Flow], size: int, *, scaling: bool = False) -> _Flow:
    flows = tuple(flows)
    if scaling:
        # Spectral normalisation and folded BatchNorm scale a whole weight by a few
        # numbers that come from the model's state; it stays that weight.
        data = [flow for flow in flows if flow.data]
        if any(flow.paths and flow.extent == size for flow in flows) and all(
            flow.extent < size for flow in data
        ):
            flows = tuple(flow._replace(data=False) for flow in flows)
    data = any(flow.data for flow in flows)
    paths = frozenset().union(*(flow.paths for flow in flows))
    return _Flow(
        paths=frozenset() if data else paths,
        data=data,
        contracted=any(flow.contracted for flow in flows),
        extent=min(size, max((flow.extent for flow in flows), default=1)),
    )


class _Walk:
    """Walks a program once, carrying a flow per value and collecting the uses."""

    def __init__(self, sizes: dict[str, int]):
        self.sizes = sizes
        self.uses: list[Use] = []

    def jaxpr(
        self, program: ClosedJaxpr | Jaxpr, flows: Sequence[_Flow]
    ) -> list[_Flow]:
        jaxpr = opened_jaxpr(program)
        known = dict.fromkeys(jaxpr.constvars, _CONSTANT)
        known.update(zip(jaxpr.invars, flows, strict=True))

        def read(atom: Var | Literal) -> _Flow:
            return _CONSTANT if isinstance(atom, Literal) else known[atom]

        for equation in jaxpr.eqns:
            results = self.equation(equation, [read(atom) for atom in equation.invars])
            known.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, equation: JaxprEqn, flows: list[_Flow]) -> list[_Flow]:
        name = equation.primitive.name
        if name in _PRODUCTS:
            return [self.product(equation, flows)]
        if name == "scan":
            return self.scan(equation, flows)
        if name == "cond":
            return self.cond(equation, flows)
        inner = inner_jaxprs(equation)
        if name not in _OPAQUE and is_call(inner, flows):
            # shard_map shows the work of one device.
            mesh = equation.params.get("mesh")
            return self.repeated(inner[0], flows, 1 if mesh is None else mesh.size)
        if name in _OPAQUE and any(flow.paths for flow in flows):
            leaves = ", ".join(sorted(frozenset().union(*(f.paths for f in flows))))
            raise ValueError(
                f"function reads {leaves} in a {name}, which cannot be looked into; "
                "trace the dense form of the layer instead"
            )
        if any(_holds_product(program) for program in inner):
            raise ValueError(
                f"function computes a product inside a {name}, whose number of "
                "executions is not in the program; use lax.scan, or a fori_loop with "
                "fixed bounds"
            )
        scaling = name in _SCALINGS
        return [_mix(flows, _size(out), scaling=scaling) for out in equation.outvars]

    def product(self, equation: JaxprEqn, flows: list[_Flow]) -> _Flow:
        output = _size(equation.outvars[0])
        leaf = self.weight(flows)
        if equation.primitive.name == "dot_general":
            use = _dot_use(equation, leaf)
        else:
            reads_input = flows[0].data and not flows[0].contracted
            use = _convolution_use(equation, leaf, reads_input)
        self.uses.append(use)
        return _mix(flows, output)._replace(contracted=True, extent=output)

    def weight(self, flows: list[_Flow]) -> str | None:
        # Without data on either side (learned queries, factorised weights) the side
        # that no product lies behind is the layer's own weight.
        sides = [flow for flow in flows if flow.paths]
        if not sides:
            return None
        rank = min(flow.contracted for flow in sides)
        paths = (p for flow in sides if flow.contracted == rank for p in flow.paths)
        return max(sorted(paths), key=self.sizes.__getitem__)

    def repeated(
        self, program: ClosedJaxpr | Jaxpr, flows: list[_Flow], count: int
    ) -> list[_Flow]:
        before = len(self.uses)
        results = self.jaxpr(program, flows)
        self.uses[before:] = [use.times(count) for use in self.uses[before:]]
        return results

    def scan(self, equation: JaxprEqn, flows: list[_Flow]) -> list[_Flow]:
        program, length = equation.params["jaxpr"], equation.params["length"]
        # Newer releases of jax do not store the number of carried values, but only
        # those keep their rank from one iteration to the next.
        body = opened_jaxpr(program)
        carried = same_rank(equation.outvars, body.outvars)
        last = same_rank(equation.invars, body.invars)
        first = last - carried
        while True:
            before = len(self.uses)
            results = self.repeated(program, flows, length)
            carry = [
                _mix((old, new), max(old.extent, new.extent))
                for old, new in zip(flows[first:last], results, strict=False)
            ]
            if carry == flows[first:last]:
                return results
            # What is carried changed its nature (zeros became data): look again.
            del self.uses[before:]
            flows = [*flows[:first], *carry, *flows[last:]]

    def cond(self, equation: JaxprEqn, flows: list[_Flow]) -> list[_Flow]:
        before = self.uses
        costliest: list[Use] = []
        results = []
        for branch in equation.params["branches"]:
            self.uses = []
            results.append(self.jaxpr(branch, flows[1:]))
            costliest = max(costliest, self.uses, key=_total)
        self.uses = before + costliest
        return [
            _mix(flow, _size(out))
            for out, *flow in zip(equation.outvars, *results, strict=True)
        ]


def _dot_use(equation: JaxprEqn, leaf: str | None) -> Use:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = shape_of(equation.invars[0])
    fan_in = math.prod(shape[axis] for axis in contracted)
    outputs = _size(equation.outvars[0])
    return Use(leaf, "dot", outputs * fan_in, outputs, fan_in, outputs)


def _convolution_use(equation: JaxprEqn, leaf: str | None, reads_input: bool) -> Use:
    settings = equation.params
    numbers = settings["dimension_numbers"]
    image, kernel = (shape_of(atom) for atom in equation.invars)
    fan_in = math.prod(kernel[axis] for axis in numbers.rhs_spec[1:])
    outputs = framed = _size(equation.outvars[0])
    macs = outputs * fan_in
    dilation = math.prod(settings["lhs_dilation"])
    if dilation > 1:
        # A transposed convolution: the zeros between its inputs are no work.
        fan_out = math.prod(kernel) // kernel[numbers.rhs_spec[1]]
        macs = math.prod(image) * fan_out // settings["feature_group_count"]
    elif reads_input and max(settings["window_strides"]) > 1:
        produced = shape_of(equation.outvars[0])
        framed //= math.prod(produced[axis] for axis in numbers.out_spec[2:])
        windows = zip(
            numbers.lhs_spec[2:],
            settings["window_strides"],
            settings["padding"],
            strict=True,
        )
        framed *= math.prod(
            -(-(image[axis] + sum(border)) // stride)
            for axis, stride, border in windows
        )
    return Use(leaf, "convolution", macs, outputs, fan_in, framed)


def inner_jaxprs(equation: JaxprEqn) -> list[ClosedJaxpr | Jaxpr]:
    """Programs that an operation holds: the body of a jit, the branches of a cond."""
    found = []
    for value in equation.params.values():
        values = value if isinstance(value, tuple | list) else (value,)
        found += [item for item in values if isinstance(item, ClosedJaxpr | Jaxpr)]
    return found


def is_call(inner: list[ClosedJaxpr | Jaxpr], flows: Sequence[Any]) -> bool:
    """Whether the only inner program takes just what the operation takes."""
    return len(inner) == 1 and len(opened_jaxpr(inner[0]).invars) == len(flows)


def opened_jaxpr(program: ClosedJaxpr | Jaxpr) -> Jaxpr:
    """A program without its constants."""
    return program.jaxpr if isinstance(program, ClosedJaxpr) else program


def same_rank(outer: Sequence, inner: Sequence) -> int:
    """How many pairs have as many axes on both sides."""
    pairs = zip(outer, inner, strict=True)
    return sum(len(shape_of(a)) == len(shape_of(b)) for a, b in pairs)


def _holds_product(program: ClosedJaxpr | Jaxpr) -> bool:
    return any(
        equation.primitive.name in _PRODUCTS
        or any(_holds_product(inner) for inner in inner_jaxprs(equation))
        for equation in opened_jaxpr(program).eqns
    )


def shape_of(atom: Any) -> tuple[int, ...]:
    """The shape of a value of a program; () where it has none."""
    return getattr(atom.aval, "shape", ())


def _size(atom: Any) -> int:
    return math.prod(shape_of(atom))


def _total(found: list[Use]) -> int:
    return sum(use.macs for use in found)
