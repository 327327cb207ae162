"""How often each weight was updated since it last began, and what follows from it."""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Inexact, Int, PyTree, UInt

from sparsejax.checks import check_step

__all__ = [
    "WarmUpState",
    "age_dtype",
    "bias_corrected",
    "older",
    "warm_up_regrown",
    "warmed_up",
    "young",
]

_MOST = int(np.iinfo(np.uint16).max)


class WarmUpState(NamedTuple):
    """State of `warm_up_regrown`.

    Attributes:
      count: updates made so far.
      age: like params: updates of each weight since it began, at most 65,535.
    """

    count: Int[Array, ""]
    age: PyTree


def warm_up_regrown(steps: int) -> optax.GradientTransformation:
    """Lets the updates of a regrown weight rise linearly to their full size.

    The update of a weight of age ``a`` (1 at its first) is multiplied by
    ``min(a / steps, 1)`` if the weight began later than the training; weights that were
    there from the beginning get their updates unchanged. For any optimizer:
    ``optax.chain(optax.lion(1e-4), sj.optim.warm_up_regrown(100))`` inside the sparse
    method. `adam`, `adamw` and `rmsprop` of this package have it as an argument, and
    then keep one array of ages for both purposes.

    Args:
      steps: length of the warm-up, 1 (none) to 65,535 updates.

    Raises:
      ValueError: ``steps`` is out of range; ``update`` without ``params``.

    Example:
      >>> import jax.numpy as jnp, optax, sparsejax as sj
      >>> tx = optax.chain(optax.sgd(1.0), sj.optim.warm_up_regrown(4))
      >>> params = {"kernel": jnp.array([[1.0, 0.0]])}
      >>> state = tx.init(params)
      >>> first = {"kernel": jnp.array([[1.0, 0.0]])}  # one weight is masked ...
      >>> _, state = tx.update(first, state, params)
      >>> both = {"kernel": jnp.array([[1.0, 1.0]])}  # ... and grows
      >>> tx.update(both, state, params)[0]["kernel"].tolist()
      [[-1.0, -0.25]]
    """
    check_warm_up("steps", steps)

    def init_fn(params):
        return WarmUpState(jnp.zeros((), jnp.int32), young(params, jnp.uint16))

    def update_fn(updates, state, params=None):
        age = older(state.age, updates, params)
        count = jnp.asarray(optax.safe_increment(state.count))
        return warmed_up(updates, age, count, steps), WarmUpState(count, age)

    return optax.GradientTransformation(init_fn, update_fn)


def check_warm_up(name: str, steps: int | None) -> None:
    """Raises unless ``steps`` is None, or a length that ages can count."""
    if steps is None:
        return
    check_step(name, steps, least=1)
    if steps > _MOST:
        raise ValueError(
            f"{name}={steps} is longer than ages are counted; give at most {_MOST}"
        )


def age_dtype(*decays: ArrayLike) -> Any:
    """The smallest dtype for ages whose largest value needs no bias correction.

    Ages stop at the largest value of uint16, half of a float32 moment's memory. That is
    enough where ``1 - decay**65535`` rounds to 1 in float32 (0.9997 and less, which
    Adam's 0.999 is); slower or traced decays take uint32.
    """
    known = all(isinstance(decay, numbers.Real) for decay in decays)
    if known and all(float(decay) ** _MOST < 2.0**-24 for decay in decays):  # pyright: ignore[reportArgumentType]
        return jnp.uint16
    return jnp.uint32


def young(params: PyTree, dtype: Any) -> PyTree:
    """Age 0 for every weight."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), params)


def older(ages: PyTree, updates: PyTree, params: PyTree | None) -> PyTree:
    """Ages after one more update.

    A weight that is zero, gets no gradient and has no age has not begun: that is what
    all weights outside a mask look like to the optimizer, and so a grown weight is 1 at
    its first update, whatever happened before.

    Raises:
      ValueError: ``params`` is None.
    """
    if params is None:
        raise ValueError(
            "params=None: ages need the parameters; call tx.update(grads, state, "
            "params)"
        )

    def one(age: UInt[Array, "..."], update: Array, param: Array) -> Array:
        alive = (age > 0) | (update != 0) | (param != 0)
        limit = jnp.array(jnp.iinfo(age.dtype).max, age.dtype)
        return age + (alive & (age < limit)).astype(age.dtype)

    return jax.tree.map(one, ages, updates, params)


def warmed_up(
    updates: PyTree, ages: PyTree, count: Int[Array, ""], steps: int | None
) -> PyTree:
    """Updates of weights younger than the training, times ``min(age / steps, 1)``."""
    if steps is None:
        return updates

    def one(update: Array, age: UInt[Array, "..."]) -> Array:
        share = jnp.minimum(age.astype(jnp.float32) / steps, 1.0)
        share = jnp.where(age.astype(jnp.int32) < count, share, 1.0)
        return update * share.astype(update.dtype)

    return jax.tree.map(one, updates, ages)


def bias_corrected(
    moment: Inexact[Array, "..."],
    decay: ArrayLike,
    age: UInt[Array, "..."],
    ahead: int = 0,
) -> Inexact[Array, "..."]:
    """``moment / (1 - decay**(age + ahead))``, weight by weight.

    Written with ``expm1``, which loses nothing where the decay is near 1.
    """
    wide = jnp.promote_types(jnp.float32, jnp.finfo(moment.dtype).dtype)
    # The moments of a weight that has not begun are 0: any divisor will do.
    steps = jnp.maximum(age, 1).astype(wide) + ahead
    correction = -jnp.expm1(steps * _log(decay))
    return moment / correction.astype(moment.dtype)


def _log(decay: ArrayLike) -> ArrayLike:
    if isinstance(decay, numbers.Real):
        return math.log(decay) if float(decay) > 0 else -math.inf
    return jnp.log(decay)
