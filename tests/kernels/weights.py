"""Masked weights that tests of the formats compress, and what all of them check."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from sparsejax_kernels import matmul


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


def check_product_and_gradients(w, x, implementation):
    """The product and both gradients are those of the dense weight."""

    def sparse(x, values):
        one = dataclasses.replace(w, values=values)
        return jnp.sin(matmul(x, one, implementation=implementation))

    def dense(x, values):
        return jnp.sin(x @ dataclasses.replace(w, values=values).todense())

    np.testing.assert_allclose(sparse(x, w.values), dense(x, w.values), atol=1e-5)
    found, expected = (
        jax.jit(jax.grad(lambda *a, f=f: f(*a).sum(), (0, 1)))(x, w.values)
        for f in (sparse, dense)
    )
    for gradient, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(gradient, wanted, atol=3e-5)
