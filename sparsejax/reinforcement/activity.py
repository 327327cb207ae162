"""How much of a network is at work: dormant neurons, effective rank."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

__all__ = ["dormant_ratio", "effective_rank"]


def dormant_ratio(
    activations: Float[Array, "batch neurons"], threshold: float = 0.025
) -> Float[Array, ""]:
    """The share of a layer's neurons that hardly answer to any input.

    Neuron ``i`` is dormant if ``E|h_i| / mean_k E|h_k| <= threshold``, expectations
    over the batch.

    Args:
      activations: What the layer's neurons put out, after their nonlinearity.
      threshold: Of the activity, relative to the layer's mean.

    Returns:
      From 0 to 1; 1 if every activation is 0.

    Example:
      >>> activations = jnp.array([[1.0, 0.0, 0.01], [2.0, 0.0, 0.01]])
      >>> round(float(dormant_ratio(activations)), 4)
      0.6667
      >>> float(dormant_ratio(jnp.zeros((2, 3))))
      1.0

    References:
      Sokar et al., "The dormant neuron phenomenon in deep reinforcement learning", ICML
      2023.
    """
    size = jnp.abs(activations.astype(jnp.float32))
    # Of at most 1, so that neither sums nor products leave the range of the type.
    largest = size.max()
    size = size / jnp.where(largest > 0, largest, jnp.float32(1))
    activity = size.mean(axis=0)
    # Without a division: where all are 0, all are dormant.
    return (activity <= threshold * activity.mean()).astype(jnp.float32).mean()


def effective_rank(
    features: Float[Array, "batch features"], delta: float = 0.01
) -> Int[Array, ""]:
    """How many directions hold nearly all of the features.

    The smallest ``k`` with ``sum_(i <= k) sigma_i >= (1 - delta) sum_i sigma_i``, where
    ``sigma`` are the singular values of the feature matrix, largest first.

    Args:
      features: Of a batch, as the last layer gets them: as many rows as columns at
        least, or the batch bounds the rank.
      delta: The share that may be left out, in [0, 1).

    Returns:
      From 1 to the smaller of the matrix's sides; 0 if every feature is 0.

    Example:
      >>> int(effective_rank(jnp.diag(jnp.array([1.0, 1.0, 1e-3]))))
      2
      >>> int(effective_rank(jnp.zeros((4, 3))))
      0

    References:
      Kumar et al., "Implicit under-parameterization inhibits data-efficient deep
      reinforcement learning", ICLR 2021.
    """
    features = features.astype(jnp.float32)
    largest = jnp.abs(features).max()
    features = features / jnp.where(largest > 0, largest, jnp.float32(1))
    values = jnp.linalg.svd(features, compute_uv=False)
    # What is left after k values, summed from the small end: exact where it is small.
    left = jnp.cumsum(values[::-1])[::-1]
    return (left > delta * left[0]).sum().astype(jnp.int32)
