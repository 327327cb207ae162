"""What a training step does: gradients, the method's update, the average."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from sparsejax.tasks import averaging
from sparsejax.tasks.base import TrainState

Objective = Callable[..., tuple[Float[Array, ""], tuple[Any, PyTree]]]


class Step(NamedTuple):
    """What a training step made.

    Attributes:
      state: The state after it.
      loss: The objective, before it.
      outputs: What the objective returned beside the loss.
      gradient_norm: Of the raw, dense gradient.
    """

    state: TrainState
    loss: Float[Array, ""]
    outputs: Any
    gradient_norm: Float[Array, ""]


def stepping(
    transformation: optax.GradientTransformationExtraArgs, decay: float | None
) -> Callable[..., Step]:
    """Makes the step of a network.

    Args:
      transformation: The sparse method around its optimizer.
      decay: Of the running average of the weights; None for no average.

    Returns:
      A function ``step(state, objective, scored=None, *, parts=None)``. The objective
      takes parameters and model state, and returns the loss with a pair of outputs and
      new model state; ``scored``, by default the same, is what a method that asks for
      ``grad_fn`` differentiates. With ``parts``, arrays of one first axis, both take a
      part as well, and loss, outputs and gradient are the sums over the parts, made one
      after the other.
    """

    def step(
        state: TrainState,
        objective: Objective,
        scored: Objective | None = None,
        *,
        parts: PyTree = None,
    ) -> Step:
        def gradients_at(params: PyTree) -> PyTree:
            return _gradient(scored or objective, params, state.model_state, parts)[1]

        (loss, (outputs, model_state)), gradients = _gradient(
            objective, state.params, state.model_state, parts
        )
        updates, optimizer_state = transformation.update(
            gradients, state.optimizer_state, state.params, grad_fn=gradients_at
        )
        params = optax.apply_updates(state.params, updates)
        average = None
        if decay is not None:
            average = averaging.next_average(
                state.average,
                params,
                model_state,
                optimizer_state=optimizer_state,
                step=state.step,
                decay=decay,
            )
        new_state = state._replace(
            step=state.step + 1,
            params=params,
            model_state=model_state,
            optimizer_state=optimizer_state,
            average=average,
        )
        return Step(new_state, loss, outputs, optax.tree.norm(gradients))

    return step


def _gradient(
    objective: Objective, params: PyTree, model_state: PyTree, parts: PyTree
) -> Any:
    """``((loss, (outputs, model state)), gradient)``, summed over the parts."""
    differentiate = jax.value_and_grad(objective, has_aux=True)
    if parts is None:
        return differentiate(params, model_state)
    first = jax.tree.map(lambda array: array[0], parts)
    if len(jax.tree.leaves(parts)[0]) == 1:
        return differentiate(params, model_state, first)

    def add(carry: Any, part: PyTree) -> tuple[Any, None]:
        sums, model_state = carry
        (loss, (outputs, model_state)), gradient = differentiate(
            params, model_state, part
        )
        sums = jax.tree.map(jnp.add, sums, (loss, outputs, gradient))
        return (sums, model_state), None

    shapes = jax.eval_shape(differentiate, params, model_state, first)
    (loss, (outputs, _)), gradient = jax.tree.map(
        lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes
    )
    start = ((loss, outputs, gradient), model_state)
    ((loss, outputs, gradient), model_state), _ = jax.lax.scan(add, start, parts)
    return (loss, (outputs, model_state)), gradient
