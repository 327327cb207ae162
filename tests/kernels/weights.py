"""Masked dense weights that the tests of the formats compress."""

import jax.numpy as jnp
import numpy as np


def layer(inputs, outputs, density=0.3, seed=0, dtype=jnp.float32):
    """A masked weight with ragged rows, a neuron without inputs and a kept zero."""
    generator = np.random.default_rng(seed)
    mask = generator.random((inputs, outputs)) < density
    mask[:, -1] = False
    weights = generator.standard_normal((inputs, outputs)).astype(np.float32)
    weights[0] = 0.0
    weights = jnp.asarray(weights).astype(dtype)
    return weights, jnp.asarray(mask)
