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


def block_layer(inputs, outputs, block, density=0.3, seed=0, dtype=jnp.float32):
    """A weight of whole blocks with a kept zero."""
    generator = np.random.default_rng(seed)
    height, width = block
    rows, columns = -(-inputs // height), -(-outputs // width)
    kept = generator.random((rows, columns)) < density
    mask = np.kron(kept, np.ones(block))[:inputs, :outputs] == 1
    weights = generator.standard_normal((inputs, outputs)).astype(np.float32)
    weights[0] = 0.0
    return jnp.asarray(weights).astype(dtype), jnp.asarray(mask)
