"""What a policy's outputs say about actions: how likely each is, and which is best."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

__all__ = ["Categorical", "Gaussian"]


class Categorical(NamedTuple):
    """Of numbered actions.

    Attributes:
      logits: Logarithms of how likely each is, up to a constant.

    Example:
      >>> found = Categorical(jnp.log(jnp.array([[1.0, 3.0]])))
      >>> float(jnp.exp(found.log_likelihood(jnp.array([1]))[0])), found.mode().tolist()
      (0.75, [1])
    """

    logits: Float[Array, "batch actions"]

    def sample(self, key: Key[Array, ""]) -> Int[Array, " batch"]:
        """Draws an action each."""
        return jax.random.categorical(key, self.logits).astype(jnp.int32)

    def mode(self) -> Int[Array, " batch"]:
        """The likeliest actions."""
        return self.logits.argmax(axis=-1).astype(jnp.int32)

    def log_likelihood(self, actions: Int[Array, " batch"]) -> Float[Array, " batch"]:
        """The logarithm of how likely actions were."""
        every = jax.nn.log_softmax(self.logits)
        return jnp.take_along_axis(every, actions[:, None], axis=-1)[:, 0]

    def entropy(self) -> Float[Array, " batch"]:
        """In nats."""
        every = jax.nn.log_softmax(self.logits)
        return -(jnp.exp(every) * every).sum(axis=-1)


class Gaussian(NamedTuple):
    """Of vectors, whose entries are independent.

    Attributes:
      mean: Of each entry.
      log_deviation: Logarithm of each entry's standard deviation; may be the same for
        the whole batch.

    Example:
      >>> found = Gaussian(jnp.zeros((1, 2)), jnp.zeros(2))
      >>> round(float(jnp.exp(found.log_likelihood(jnp.zeros((1, 2)))[0])), 4)
      0.1592
    """

    mean: Float[Array, "batch size"]
    log_deviation: Float[Array, "... size"]

    def sample(self, key: Key[Array, ""]) -> Float[Array, "batch size"]:
        """Draws an action each."""
        noise = jax.random.normal(key, self.mean.shape)
        return self.mean + jnp.exp(self.log_deviation) * noise

    def log_likelihood(
        self, actions: Float[Array, "batch size"]
    ) -> Float[Array, " batch"]:
        """The logarithm of the density at actions."""
        noise = (actions - self.mean) * jnp.exp(-self.log_deviation)
        each = -0.5 * jnp.square(noise) - self.log_deviation - 0.5 * np.log(2 * np.pi)
        return each.sum(axis=-1)

    def entropy(self) -> Float[Array, " batch"]:
        """In nats; below 0 where it is narrow."""
        each = jnp.broadcast_to(self.log_deviation, self.mean.shape)
        return (each + 0.5 * np.log(2 * np.pi * np.e)).sum(axis=-1)
