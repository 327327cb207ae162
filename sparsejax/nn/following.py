"""Which normalisation and which ReLU follow a layer, and nothing else reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Jaxpr, JaxprEqn, Literal
from jaxtyping import PyTree

from sparsejax import graph
from sparsejax.nn.rectifying import is_rectifier
from sparsejax.nn.surgery import modules, put

__all__ = ["Followers", "followers"]

_READ, _WRITTEN = "sparsejax reads: ", "sparsejax wrote: "


class Followers(NamedTuple):
    """What alone reads the outputs of a layer.

    Attributes:
      norm: path of the normalisation by stored statistics; None if none.
      rectified: whether a ReLU comes next.
    """

    norm: str | None
    rectified: bool


def followers(
    model: nnx.Module, inputs: PyTree, layers: Collection[str]
) -> dict[str, Followers]:
    """Traces a model, without running it, and looks at what reads its layers.

    Args:
      model: in evaluation mode.
      inputs: what it is called with.
      layers: paths of the layers to look at.

    Returns:
      Path -> followers, of the layers that are called once.

    Raises:
      ValueError: if a normalisation that follows a layer uses the statistics of the
        batch.
    """
    copy = nnx.clone(model)
    norms = {
        path: module
        for path, module in modules(copy)
        if isinstance(module, nnx.BatchNorm) and module.axis in (-1, (-1,))
    }
    found = dict(modules(copy))
    marked = {path: _Marked(nnx.clone(found[path]), path) for path in (*layers, *norms)}
    copy = put(copy, marked)
    definition, state = nnx.split(copy)

    def apply(state, inputs):
        return nnx.merge(definition, state)(inputs)

    program = jax.make_jaxpr(apply)(state, inputs)
    calls, result = Counter(), {}
    for jaxpr in _all_jaxprs(program.jaxpr):
        readers = _readers(jaxpr)
        writers = {
            name.removeprefix(_WRITTEN): equation
            for equation in jaxpr.eqns
            if (name := _name(equation)).startswith(_WRITTEN)
        }
        calls.update(
            name.removeprefix(_WRITTEN)
            for equation in jaxpr.eqns
            if (name := _name(equation)).startswith(_WRITTEN)
        )
        for path in writers.keys() & layers:
            reader, norm = _only_reader(readers, writers[path]), None
            if reader is not None and _name(reader).startswith(_READ):
                norm, _, training = _name(reader).removeprefix(_READ).partition("\n")
                if training:
                    raise ValueError(
                        f"{norm} normalises by the statistics of a batch, which "
                        "cannot be folded; call model.eval(), or give the model "
                        "evaluation as its default"
                    )
                reader = _only_reader(readers, writers.get(norm))
            rectified = reader is not None and is_rectifier(reader)
            result[path] = Followers(norm, rectified)
    return {
        path: each
        for path, each in result.items()
        if calls[path] == 1 and (each.norm is None or calls[each.norm] == 1)
    }


class _Marked(nnx.Module):
    """A layer whose inputs and outputs are to be found in the program."""

    def __init__(self, layer: Any, path: str):
        self.layer = layer
        self.path = path

    def __call__(self, x, *args, **kwargs):
        if isinstance(self.layer, nnx.BatchNorm):
            given = kwargs.get("use_running_average", args[0] if args else None)
            stored = self.layer.use_running_average if given is None else given
            training = "" if stored else "\ntraining"
            x = checkpoint_name(x, f"{_READ}{self.path}{training}")
        y = self.layer(x, *args, **kwargs)
        return checkpoint_name(y, _WRITTEN + self.path)


def _name(equation: JaxprEqn) -> str:
    return equation.params["name"] if equation.primitive.name == "name" else ""


def _all_jaxprs(jaxpr: Jaxpr) -> Iterator[Jaxpr]:
    yield jaxpr
    for equation in jaxpr.eqns:
        for inner in graph.inner_jaxprs(equation):
            yield from _all_jaxprs(graph.opened_jaxpr(inner))


def _readers(jaxpr: Jaxpr) -> dict[Any, list[JaxprEqn | None]]:
    """Variable -> what reads it; None is the caller."""
    readers = {}
    reads = [(atom, equation) for equation in jaxpr.eqns for atom in equation.invars]
    for atom, equation in [*reads, *((atom, None) for atom in jaxpr.outvars)]:
        if not isinstance(atom, Literal):
            readers.setdefault(atom, []).append(equation)
    return readers


def _only_reader(
    readers: dict[Any, list[JaxprEqn | None]], writer: JaxprEqn | None
) -> JaxprEqn | None:
    found = readers.get(writer.outvars[0], []) if writer is not None else []
    return found[0] if len(found) == 1 else None
