"""RMSProp with the bias correction of each weight by its own age."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Int, PyTree

from sparsejax.optim.ages import (
    age_dtype,
    bias_corrected,
    check_warm_up,
    older,
    warmed_up,
    young,
)

__all__ = ["RmsState", "rmsprop", "scale_by_rms"]


class RmsState(NamedTuple):
    """State of `scale_by_rms`.

    Attributes:
      count: updates made so far.
      age: like params: updates of each weight since it began, as of `adam`.
      nu: second moments.
    """

    count: Int[Array, ""]
    age: PyTree
    nu: PyTree


def rmsprop(
    learning_rate: optax.ScalarOrSchedule,
    decay: ArrayLike = 0.9,
    eps: ArrayLike = 1e-8,
    eps_in_sqrt: bool = True,
    momentum: ArrayLike | None = None,
    nesterov: bool = False,
    *,
    warm_up: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """RMSProp whose second moment is corrected by the age of each weight.

    With ``a`` updates of a weight since it began, or began again::

        nu = decay nu + (1 - decay) g**2
        w -= lr * g / sqrt(nu / (1 - decay**a) + eps)

    and, with ``momentum``, a trace of these updates. Without the correction the first
    update of a regrown weight is ``1 / sqrt(1 - decay)`` times the learning rate, 3.2
    times at a decay of 0.9. Where no weight ever regrows this is
    ``optax.rmsprop(bias_correction=True)``, to rounding.

    Args:
      learning_rate: a number, or a schedule over steps.
      decay: of the second moment.
      eps: added to the second moment.
      eps_in_sqrt: whether it is added under the root.
      momentum: decay of the trace; None: no momentum.
      nesterov: with Nesterov momentum.
      warm_up: as of `adam`.

    Returns:
      An optimizer whose ``update`` needs ``params``, for use inside a sparse method.

    Raises:
      ValueError: ``warm_up`` is out of range; ``update`` without ``params``.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.set(sj.optim.rmsprop(1e-3), sparsity=0.5, every=10, stop=100)
      >>> params = {"kernel": jnp.ones((4, 4))}
      >>> updates, state = tx.update(params, tx.init(params), params)
    """
    parts = [
        scale_by_rms(decay, eps, eps_in_sqrt, warm_up=warm_up),
        optax.scale_by_learning_rate(learning_rate),
    ]
    if momentum is not None:
        parts.append(optax.trace(decay=momentum, nesterov=nesterov))
    return optax.chain(*parts)


def scale_by_rms(
    decay: ArrayLike = 0.9,
    eps: ArrayLike = 1e-8,
    eps_in_sqrt: bool = True,
    *,
    warm_up: int | None = None,
) -> optax.GradientTransformation:
    """The part of `rmsprop` before the learning rate; arguments as there."""
    check_warm_up("warm_up", warm_up)
    dtype = age_dtype(decay)

    def init_fn(params):
        return RmsState(
            count=jnp.zeros((), jnp.int32),
            age=young(params, dtype),
            nu=optax.tree.zeros_like(params),
        )

    def update_fn(updates, state, params=None):
        age = older(state.age, updates, params)
        count = jnp.asarray(optax.safe_increment(state.count))
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, decay, 2)

        def step(update, second, age):
            second = bias_corrected(second, decay, age)
            if eps_in_sqrt:
                return update * jax.lax.rsqrt(second + eps)
            return update / (jnp.sqrt(second) + eps)

        steps = warmed_up(jax.tree.map(step, updates, nu, age), age, count, warm_up)
        return steps, RmsState(count, age, optax.tree.cast_like(nu, state.nu))

    return optax.GradientTransformation(init_fn, update_fn)
