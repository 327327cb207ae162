"""How much better actions were than expected: generalised advantage estimation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

__all__ = ["generalized_advantages"]


def generalized_advantages(
    reward: Float[Array, "environments steps"],
    value: Float[Array, "environments steps"],
    next_value: Float[Array, "environments steps"],
    *,
    terminated: Bool[Array, "environments steps"],
    truncated: Bool[Array, "environments steps"],
    discount: float,
    decay: float,
) -> Float[Array, "environments steps"]:
    """Sums the surprises that followed each action.

    ``A_t = d_t + (discount decay) A_(t+1)`` with
    ``d_t = r_t + discount V(o'_t) - V(o_t)``. A termination has no value after it; at a
    time limit there is one, that of the true last observation. The sum ends at both,
    and at the end of the rollout.

    Args:
      reward: Of each step.
      value: Of what was acted on.
      next_value: Of what the action led to, also at an episode's end.
      terminated: Nothing follows.
      truncated: The episode was cut off.
      discount: Of a step.
      decay: Lambda: 0 trusts the values, 1 the rewards alone.

    Returns:
      The advantages. With ``value`` added they are what values are to become.

    Example:
      >>> rewards, zeros = jnp.ones((1, 3)), jnp.zeros((1, 3))
      >>> ended = jnp.array([[False, True, False]])
      >>> generalized_advantages(rewards, zeros, zeros + 8, terminated=ended,
      ...                        truncated=~ended & False, discount=0.5, decay=1.0)
      Array([[5.5, 1. , 5. ]], dtype=float32)

    References:
      Schulman et al., "High-dimensional continuous control using generalized advantage
      estimation", ICLR 2016.
    """
    alive = 1.0 - terminated.astype(jnp.float32)
    goes_on = 1.0 - (terminated | truncated).astype(jnp.float32)
    surprise = reward + discount * alive * next_value - value

    def back(following: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        surprise, goes_on = step
        advantage = surprise + discount * decay * goes_on * following
        return advantage, advantage

    _, advantages = jax.lax.scan(
        back, jnp.zeros_like(reward[:, 0]), (surprise.T, goes_on.T), reverse=True
    )
    return advantages.T
