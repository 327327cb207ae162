"""ReLUs that follow layers which have computed them already, left out."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, jaxpr_as_fun
from jaxtyping import Array

from sparsejax import graph

__all__ = ["Rectified", "is_rectifier", "mark_rectified"]

_MARK = "sparsejax: is not negative"


def mark_rectified(x: Array) -> Array:
    """The same, known not to be negative to a `Rectified` model around it."""
    return checkpoint_name(x, _MARK)


def is_rectifier(equation: JaxprEqn) -> bool:
    """Whether a step of a program is a ReLU and nothing else."""
    if equation.primitive.name == "max":
        x, floor = equation.invars
        return not isinstance(x, Literal) and _is_zero(floor)
    inner = graph.inner_jaxprs(equation)
    if len(inner) != 1 or len(equation.invars) != 1:
        return False
    jaxpr = graph.opened_jaxpr(inner[0])
    return (
        len(jaxpr.eqns) == 1
        and is_rectifier(jaxpr.eqns[0])
        and jaxpr.outvars == jaxpr.eqns[0].outvars
    )


def _is_zero(atom: Any) -> bool:
    return isinstance(atom, Literal) and not np.shape(atom.val) and atom.val == 0


class Rectified(nnx.Module):
    """A model for inference that does not compute again the ReLUs of its layers.

    Compressed layers compute a ReLU that follows them while they have the sums at
    hand. The model's own code does not know; on large images what it adds takes a
    quarter of the time. Here the model's program is traced, and those of its ReLUs are
    left out whose input a layer has made so. Call it under `jax.jit`.

    Args:
      model: any NNX module; nothing of it may change when it is called.

    Example:
      >>> import jax.numpy as jnp
      >>> class Twice(nnx.Module):
      ...   def __call__(self, x):
      ...     return nnx.relu(mark_rectified(nnx.relu(x)))
      >>> fast = Rectified(Twice())
      >>> str(jax.make_jaxpr(fast)(jnp.ones(2))).count("max")
      1
    """

    def __init__(self, model: nnx.Module):
        self.model = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the model; arguments that are no arrays are constants."""
        definition, state = nnx.split(self.model)
        leaves, structure = jax.tree.flatten((state, args, kwargs))
        is_array = [hasattr(leaf, "dtype") for leaf in leaves]
        results = []

        def run(*arrays):
            given = iter(arrays)
            filled = [
                next(given) if array else leaf
                for leaf, array in zip(leaves, is_array, strict=True)
            ]
            state, args, kwargs = structure.unflatten(filled)
            outputs, treedef = jax.tree.flatten(
                nnx.merge(definition, state)(*args, **kwargs)
            )
            results.append(treedef)
            return outputs

        arrays = [leaf for leaf, is_one in zip(leaves, is_array, strict=True) if is_one]
        program = _without_repeated(jax.make_jaxpr(run)(*arrays))
        return results[-1].unflatten(jaxpr_as_fun(program)(*arrays))


def _without_repeated(program: ClosedJaxpr) -> ClosedJaxpr:
    jaxpr = program.jaxpr
    same, rectified, kept = {}, set(), []

    def resolved(atom):
        return atom if isinstance(atom, Literal) else same.get(atom, atom)

    for equation in jaxpr.eqns:
        inputs = [resolved(atom) for atom in equation.invars]
        if is_rectifier(equation) and inputs[0] in rectified:
            same[equation.outvars[0]] = inputs[0]
            continue
        if equation.primitive.name == "name" and equation.params["name"] == _MARK:
            rectified.add(equation.outvars[0])
        kept.append(equation.replace(invars=inputs))
    outputs = [resolved(atom) for atom in jaxpr.outvars]
    return program.replace(jaxpr=jaxpr.replace(eqns=kept, outvars=outputs))
