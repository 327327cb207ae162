"""Observations at mean 0 and variance 1, as far as they have been seen."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

__all__ = ["ObservationStatistics", "normalized", "seen", "unseen"]


class ObservationStatistics(NamedTuple):
    """Of every observation so far.

    Attributes:
      count: How many.
      mean: Of each entry.
      deviation: Mean squared deviation of each entry.
    """

    count: Int[Array, ""]
    mean: Float[Array, "..."]
    deviation: Float[Array, "..."]


def unseen(shape: tuple[int, ...]) -> ObservationStatistics:
    """The statistics before the first observation, which change nothing.

    Args:
      shape: Of an observation.

    Returns:
      Mean 0, variance 1.
    """
    return ObservationStatistics(
        jnp.zeros((), jnp.int32), jnp.zeros(shape), jnp.ones(shape)
    )


def seen(
    statistics: ObservationStatistics, observations: Float[Array, "batch ..."]
) -> ObservationStatistics:
    """The statistics with a batch more.

    Args:
      statistics: Those so far.
      observations: The batch.

    Returns:
      Exactly the mean and the variance of all together, to rounding.

    Example:
      >>> found = seen(unseen(()), jnp.array([1.0, 3.0]))
      >>> found = seen(found, jnp.array([5.0, 7.0]))
      >>> int(found.count), float(found.mean), float(found.deviation)
      (4, 4.0, 5.0)

    References:
      Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
      sample variances", 1979.
    """
    batch = observations.shape[0]
    count = statistics.count + batch
    share = batch / count.astype(jnp.float32)
    mean, deviation = observations.mean(axis=0), observations.var(axis=0)
    apart = mean - statistics.mean
    # What was said before the first observation has no weight.
    return ObservationStatistics(
        count,
        statistics.mean + share * apart,
        (1 - share) * statistics.deviation
        + share * deviation
        + share * (1 - share) * jnp.square(apart),
    )


def normalized(
    statistics: ObservationStatistics | None, observations: Array, *, limit: float = 10
) -> Array:
    """Observations less their mean, over their standard deviation.

    Args:
      statistics: Of the observations; None leaves them as they are.
      observations: Of any batch shape.
      limit: Of the result's magnitude.

    Returns:
      The same shape.
    """
    if statistics is None:
        return observations
    spread = jnp.sqrt(statistics.deviation + 1e-8)
    return jnp.clip((observations - statistics.mean) / spread, -limit, limit)
