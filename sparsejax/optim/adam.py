"""Adam and AdamW with the bias correction of each weight by its own age."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

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

__all__ = ["AdamState", "adam", "adamw", "scale_by_adam"]


class AdamState(NamedTuple):
    """State of `scale_by_adam`.

    Attributes:
      count: updates made so far.
      age: like params: updates of each weight since it began; uint16 and at most
        65,535, where the bias correction is 1 (uint32 for decays above 0.9997).
      mu: first moments.
      nu: second moments.
    """

    count: Int[Array, ""]
    age: PyTree
    mu: PyTree
    nu: PyTree


def adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
    warm_up: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam whose bias correction knows how old each weight is.

    With ``a`` updates of a weight since it began, or began again::

        mu = b1 mu + (1 - b1) g,   nu = b2 nu + (1 - b2) g**2
        w -= lr * mu / (1 - b1**a) / (sqrt(nu / (1 - b2**a)) + eps)

    Inside a sparse method a regrown weight has new moments. With the step count in
    place of ``a``, as everywhere else, its first updates are those of a young weight
    without correction: under a constant gradient 3.2, 4.2, 5.0, ... times the learning
    rate, 6.6 times at the 12th and 1.3 times still at the 1,000th. Here all are the
    learning rate. Where no weight ever regrows this is `optax.adam`, to rounding.

    Args:
      learning_rate: a number, or a schedule over steps.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      eps_root: added under the root.
      mu_dtype: dtype of the first moment; default the parameter's.
      nesterov: with Nesterov momentum.
      warm_up: a regrown weight's updates rise linearly to their full size within so
        many, see `warm_up_regrown`; None: at once.

    Returns:
      An optimizer whose ``update`` needs ``params``, for use inside a sparse method.

    Raises:
      ValueError: ``warm_up`` is out of range; ``update`` without ``params``.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.rigl(sj.optim.adam(1e-3), sparsity=0.5, every=10, stop=100)
      >>> params = {"kernel": jnp.ones((4, 4))}
      >>> updates, state = tx.update(params, tx.init(params), params)

    References:
      Kingma & Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015. A counter
      for each regrown block, and the warm-up, are in SMET (ICML 2026), which names the
      missing correction the cause of loss spikes in dynamic sparse training. Deviation:
      a counter for each weight, and the warm-up scales the update, not the moment.
    """
    return optax.chain(
        scale_by_adam(
            b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, warm_up=warm_up
        ),
        optax.scale_by_learning_rate(learning_rate),
    )


def adamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: Any = None,
    weight_decay: optax.ScalarOrSchedule = 1e-4,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    *,
    nesterov: bool = False,
    warm_up: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`adam` with decoupled weight decay: ``w -= lr * weight_decay * w`` besides.

    Where no weight ever regrows this is `optax.adamw`, to rounding.

    Args:
      learning_rate: a number, or a schedule over steps.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      eps_root: added under the root.
      mu_dtype: dtype of the first moment; default the parameter's.
      weight_decay: a number, or a schedule over steps.
      mask: which leaves decay, a tree of bools or a function that makes one; default
        all.
      nesterov: with Nesterov momentum.
      warm_up: as of `adam`.

    Returns:
      An optimizer whose ``update`` needs ``params``, for use inside a sparse method.

    Raises:
      ValueError: ``warm_up`` is out of range; ``update`` without ``params``.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = sj.rigl(
      ...     sj.optim.adamw(1e-3, warm_up=20), sparsity=0.5, every=10, stop=100)
      >>> params = {"kernel": jnp.ones((4, 4))}
      >>> updates, state = tx.update(params, tx.init(params), params)

    References:
      Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """
    return optax.chain(
        scale_by_adam(
            b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, warm_up=warm_up
        ),
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


def scale_by_adam(
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
    warm_up: int | None = None,
) -> optax.GradientTransformation:
    """The part of `adam` before the learning rate; arguments as there."""
    check_warm_up("warm_up", warm_up)
    dtype = age_dtype(b1, b2)

    def init_fn(params):
        return AdamState(
            count=jnp.zeros((), jnp.int32),
            age=young(params, dtype),
            mu=optax.tree.zeros_like(params, dtype=mu_dtype),
            nu=optax.tree.zeros_like(params),
        )

    def update_fn(updates, state, params=None):
        age = older(state.age, updates, params)
        count = jnp.asarray(optax.safe_increment(state.count))
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2)

        def first(moment, gradient, age):
            if not nesterov:
                return bias_corrected(moment, b1, age)
            ahead = bias_corrected(moment, b1, age, 1)
            return b1 * ahead + (1 - b1) * bias_corrected(gradient, b1, age)

        def step(moment, second, gradient, age):
            root = jnp.sqrt(bias_corrected(second, b2, age) + eps_root)
            return first(moment, gradient, age) / (root + eps)

        steps = jax.tree.map(step, mu, nu, updates, age)
        steps = warmed_up(steps, age, count, warm_up)
        mu = optax.tree.cast(mu, mu_dtype)
        nu = optax.tree.cast_like(nu, state.nu)
        return steps, AdamState(count, age, mu, nu)

    return optax.GradientTransformation(init_fn, update_fn)
