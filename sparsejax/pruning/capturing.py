"""What enters the layers of any network: a walk that stops at their products.

The function is traced once and then executed operation by operation. Weights are
followed through whatever only moves their entries (transposes, reshapes, casts, slices
of a scan), so that at each product it is known which leaf it reads, and in which order
its inputs come. No table of layer types is needed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jaxtyping import Array, Float, PyTree

from sparsejax import graph
from sparsejax.layers import Layer, leaves_with_paths

__all__ = ["Reached", "positions", "products"]

_MOVES = (
    "broadcast_in_dim",
    "copy",
    "copy_p",
    "dynamic_slice",
    "expand_dims",
    "reshape",
    "rev",
    "slice",
    "split",
    "squeeze",
    "transpose",
    "unstack",
)
_ENTRYWISE = ("convert_element_type", "div", "mul", "reduce_precision", "select_n")


class Reached(NamedTuple):
    """A product that reads a chosen leaf, before it is computed.

    Attributes:
      path: of the leaf.
      index: which of the layers that are stacked in the leaf, 0 where none are.
      inputs: what the layer's neurons see, one row per sample (example, token, image
        patch), in the order of `to_rows`; float32.
    """

    path: str
    index: int
    inputs: Float[Array, "samples inputs"]


def products(
    apply: Callable[..., Any],
    params: PyTree,
    batch: PyTree,
    layers: Sequence[Layer],
    current: Mapping[str, Array],
    origins: Mapping[str, np.ndarray] | None = None,
) -> Generator[Reached, None, None]:
    """Executes ``apply(params, batch)`` and stops at each product with a chosen leaf.

    Whoever iterates may change ``current`` before going on: the product, and all that
    follows, is then computed with the leaf's new values.

    Args:
      apply: the network.
      params: its parameters.
      batch: its input, any tree of arrays.
      layers: the chosen leaves.
      current: path -> values of each chosen leaf; read when a product is computed.
      origins: of `positions`, to share them between several runs.

    Yields:
      One `Reached` for each product, and for each layer of a stacked one.

    Raises:
      ValueError: a chosen leaf is used in a way that cannot be followed.
    """
    closed = jax.make_jaxpr(apply)(params, batch)
    chosen = {layer.path: layer for layer in layers}
    origins = positions(layers) if origins is None else origins
    values: list[Any] = [
        _Leaf(path, origins[path], functools.partial(current.__getitem__, path))
        if path in chosen
        else leaf
        for path, leaf in leaves_with_paths(params)
    ]
    values += jax.tree.leaves(batch)
    yield from _run(closed.jaxpr, closed.consts, values, chosen)


def positions(layers: Sequence[Layer]) -> dict[str, np.ndarray]:
    """The flat index of every entry of each leaf; leaves of one shape share an array.

    Example:
      >>> from sparsejax.layers import LeafSpec
      >>> positions([Layer("kernel", (2, 3), LeafSpec((0,), (1,)))])["kernel"].tolist()
      [[0, 1, 2], [3, 4, 5]]
    """
    by_shape: dict[tuple[int, ...], np.ndarray] = {}
    for layer in layers:
        if layer.shape not in by_shape:
            dtype = np.int32 if layer.size <= np.iinfo(np.int32).max else np.int64
            flat = np.arange(layer.size, dtype=dtype)
            by_shape[layer.shape] = flat.reshape(layer.shape)
    return {layer.path: by_shape[layer.shape] for layer in layers}


class _Leaf(NamedTuple):
    """A value that is a chosen leaf, its entries moved about."""

    path: str
    origin: np.ndarray  # flat index in the leaf of every entry
    make: Callable[[], Array]


def _made(values: Sequence[Any]) -> list[Any]:
    return [value.make() if isinstance(value, _Leaf) else value for value in values]


def _bind(equation: JaxprEqn, values: Sequence[Any]) -> list[Any]:
    found = equation.primitive.get_bind_params(equation.params)
    # Releases of jax differ in whether functions are arguments of their own.
    functions, settings = found if isinstance(found, tuple) else ((), found)
    results = equation.primitive.bind(*functions, *_made(values), **settings)
    return results if equation.primitive.multiple_results else [results]


def _run(
    jaxpr: Jaxpr, constants: Sequence[Any], values: Sequence[Any], chosen
) -> Generator[Reached, None, list[Any]]:
    known = dict(zip(jaxpr.constvars, constants, strict=True))
    known.update(zip(jaxpr.invars, values, strict=True))
    # Activations of all batches are held at once: no longer than they are needed.
    last = {atom: None for atom in jaxpr.outvars if not isinstance(atom, Literal)}
    dying: list[list[Any]] = []
    for equation in reversed(jaxpr.eqns):
        atoms = [atom for atom in equation.invars if not isinstance(atom, Literal)]
        dying.append([atom for atom in dict.fromkeys(atoms) if atom not in last])
        last.update(dict.fromkeys(atoms))

    def read(atom):
        return atom.val if isinstance(atom, Literal) else known[atom]

    for equation, spent in zip(jaxpr.eqns, reversed(dying), strict=True):
        inputs = [read(atom) for atom in equation.invars]
        results = yield from _execute(equation, inputs, chosen)
        known.update(zip(equation.outvars, results, strict=True))
        for atom in spent:
            del known[atom]
    return [read(atom) for atom in jaxpr.outvars]


def _execute(
    equation: JaxprEqn, values: list[Any], chosen: Mapping[str, Layer]
) -> Generator[Reached, None, list[Any]]:
    leaves = [value for value in values if isinstance(value, _Leaf)]
    name = equation.primitive.name
    if not leaves:
        return _bind(equation, values)
    if name in ("dot_general", "conv_general_dilated"):
        if len(leaves) == 1:
            inputs_of = _dot_inputs if name == "dot_general" else _convolution_inputs
            yield from inputs_of(equation, values, chosen[leaves[0].path])
        return _bind(equation, values)
    if name == "scan":
        return (yield from _scan(equation, values, chosen))
    inner = graph.inner_jaxprs(equation)
    if name == "cond":
        branch = inner[min(max(int(values[0]), 0), len(inner) - 1)]
        return (yield from _run(*_opened(branch), values[1:], chosen))
    if len(inner) == 1 and len(graph.opened_jaxpr(inner[0]).invars) == len(values):
        return (yield from _run(*_opened(inner[0]), values, chosen))
    if inner:
        raise ValueError(
            f"{leaves[0].path} is used inside a {name}, where its inputs cannot be "
            "followed; leave it out by `where`, or use lax.scan"
        )
    moved = _moved(equation, values) if len(leaves) == 1 else None
    return moved or _bind(equation, values)


def _opened(program: ClosedJaxpr | Jaxpr) -> tuple[Jaxpr, Sequence[Any]]:
    if isinstance(program, ClosedJaxpr):
        return program.jaxpr, program.consts
    return program, ()


def _moved(equation: JaxprEqn, values: list[Any]) -> list[Any] | None:
    """The leaf after an operation that only moves, casts or scales its entries."""
    [leaf] = [value for value in values if isinstance(value, _Leaf)]
    name = equation.primitive.name
    if name in _MOVES:
        inputs = [
            leaf.origin.astype(np.int32, copy=False) if v is leaf else v for v in values
        ]
        origins = [np.asarray(origin) for origin in _bind(equation, inputs)]
    elif name in _ENTRYWISE and equation.outvars[0].aval.shape == leaf.origin.shape:  # pyright: ignore[reportAttributeAccessIssue]
        origins = [leaf.origin]
    else:
        return None
    return [
        _Leaf(leaf.path, origin, lambda i=i: _bind(equation, values)[i])
        for i, origin in enumerate(origins)
    ]


def _scan(
    equation: JaxprEqn, values: list[Any], chosen: Mapping[str, Layer]
) -> Generator[Reached, None, list[Any]]:
    """One iteration after the other, the scanned leaves slice by slice."""
    settings = equation.params
    body = settings["jaxpr"]
    carried = graph.same_rank(equation.outvars, body.jaxpr.outvars)
    last = graph.same_rank(equation.invars, body.jaxpr.invars)
    constants, carry = values[: last - carried], _made(values[last - carried : last])
    steps = range(settings["length"])
    outputs: list[list[Any]] = []
    for step in reversed(steps) if settings["reverse"] else steps:
        slices = [_slice(value, step) for value in values[last:]]
        results = yield from _run(
            body.jaxpr, body.consts, [*constants, *carry, *slices], chosen
        )
        results = _made(results)
        carry = results[:carried]
        outputs.append(results[carried:])
    if settings["reverse"]:
        outputs.reverse()
    return [*carry, *(jnp.stack(column) for column in zip(*outputs, strict=True))]


def _slice(value: Any, step: int) -> Any:
    if not isinstance(value, _Leaf):
        return value[step]
    return _Leaf(value.path, value.origin[step], lambda: value.make()[step])


def _dot_inputs(
    equation: JaxprEqn, values: list[Any], layer: Layer
) -> Generator[Reached, None, None]:
    side = 0 if isinstance(values[0], _Leaf) else 1
    contracted, batched = equation.params["dimension_numbers"]
    origin = _grouped(values[side].origin, contracted[side], batched[side])
    data = _grouped(values[1 - side], contracted[1 - side], batched[1 - side])
    for one, samples in zip(origin, data, strict=True):
        yield _reached(layer, one, samples)


def _grouped(array: Any, contracted: Sequence[int], batched: Sequence[int]) -> Any:
    """An operand as ``[batch, free, contracted]``, each flattened."""
    shape = array.shape
    free = [a for a in range(len(shape)) if a not in (*contracted, *batched)]
    moved = array.transpose(*batched, *free, *contracted)
    inputs = int(np.prod([shape[axis] for axis in contracted]))
    groups = int(np.prod([shape[axis] for axis in batched]))
    return moved.reshape(groups, -1, inputs)


def _convolution_inputs(
    equation: JaxprEqn, values: list[Any], layer: Layer
) -> Generator[Reached, None, None]:
    settings = equation.params
    groups = settings["feature_group_count"] * settings["batch_group_count"]
    if not isinstance(values[1], _Leaf) or groups != 1:
        raise ValueError(
            f"{layer.path} is a grouped convolution, whose filters have different "
            "inputs; leave it out by `where`"
        )
    numbers = settings["dimension_numbers"]
    kernel = values[1].origin.transpose(numbers.rhs_spec)
    image = values[0].transpose(numbers.lhs_spec).astype(jnp.float32)
    samples = _patches(
        image,
        kernel.shape[2:],
        settings["window_strides"],
        tuple(settings["padding"]),
        settings["lhs_dilation"],
        settings["rhs_dilation"],
    )
    inputs = samples.shape[1]
    yield _reached(layer, kernel.reshape(-1, inputs), samples)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4, 5))
def _patches(image: Array, window, strides, padding, holes, spread) -> Array:
    """What a convolution sees at each place: ``[places, channels * positions]``.

    By slices: as a convolution with identity kernels it would take longer than all
    others of the network.
    """
    borders = zip(padding, holes, strict=True)
    border = [(low, high, width - 1) for (low, high), width in borders]
    image = lax.pad(image, jnp.float32(0), [(0, 0, 0), (0, 0, 0), *border])
    steps = (1, 1, *strides)
    reach = [(size - 1) * gap + 1 for size, gap in zip(window, spread, strict=True)]
    pieces = []
    for position in np.ndindex(*window):
        first = [at * gap for at, gap in zip(position, spread, strict=True)]
        room = zip(image.shape[2:], reach, first, strict=True)
        last = [size - far + begin + 1 for size, far, begin in room]
        pieces.append(
            lax.slice(image, (0, 0, *first), (*image.shape[:2], *last), steps)
        )
    stacked = jnp.moveaxis(jnp.stack(pieces, 2), (1, 2), (-2, -1))
    return stacked.reshape(-1, image.shape[1] * len(pieces))


def _reached(layer: Layer, origin: np.ndarray, samples: Array) -> Reached:
    """Samples in the order of the layer's inputs, from where its entries came."""
    one = layer.slice
    index = int(origin.flat[0]) // one.size
    place = np.arange(one.size, dtype=origin.dtype).reshape(one.shape)
    rows = place.transpose(*one.spec.fan_out, *one.spec.fan_in)
    rows = rows.reshape(one.fan_out, one.fan_in)
    origin = origin - origin.dtype.type(index * one.size)
    if not np.array_equal(origin, rows):  # which they are in most networks
        samples = samples[:, _order(layer, origin, rows)]
    return Reached(layer.path, index, samples.astype(jnp.float32))


def _order(layer: Layer, origin: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Where each input of a neuron stands in a product."""
    place = np.empty(rows.size, np.int64)
    place[rows.reshape(-1)] = np.arange(rows.size)
    complete = origin.shape == rows.shape
    complete = complete and origin.min() >= 0 and origin.max() < rows.size
    if complete:
        neurons, inputs = np.unravel_index(place[origin], rows.shape)
        complete = (inputs == inputs[0]).all()
        complete = complete and len(np.unique(neurons[:, 0])) == len(rows)
        if complete:
            return np.argsort(inputs[0])
    raise ValueError(
        f"{layer.path} with shape {layer.shape} is multiplied along other axes "
        f"than its fan-in {layer.spec.fan_in}; give its `layout`, or leave it out "
        "by `where`"
    )
