"""The N:M format and its product: round trips, validation, the dense product."""

import jax.numpy as jnp
import numpy as np
import pytest
from sparsejax_kernels import NM, native
from weights import check_product_and_gradients

NATIVE = native.available()
PALLAS = ["pallas_gpu", "pallas_tpu"]
IMPLEMENTATIONS = ["reference", "xla", *(["cpu"] if NATIVE else []), *PALLAS]


def n_m_layer(inputs, outputs, n, m, dtype=jnp.float32):
    """Up to n of every m inputs, some groups with fewer, and a kept zero."""
    generator = np.random.default_rng(0)
    groups = -(-inputs // m)
    rank = np.argsort(
        np.argsort(generator.random((groups, m, outputs)), axis=1), axis=1
    )
    mask = (rank < generator.integers(0, n + 1, (groups, 1, outputs))).reshape(
        groups * m, outputs
    )[:inputs]
    weights = generator.standard_normal((inputs, outputs)).astype(np.float32)
    weights[0] = 0.0
    return jnp.asarray(weights).astype(dtype), jnp.asarray(mask)


PATTERNS = [(2, 4), (1, 4), (1, 8), (3, 32), (4, 4)]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("inputs", [64, 61, 3])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_round_trip(pattern, inputs, dtype):
    n, m = pattern
    weights, mask = n_m_layer(inputs, 9, n, m, dtype)
    w = NM.fromdense(weights, mask, n=n, m=m)
    assert np.array_equal(w.todense(), jnp.where(mask, weights, 0))
    assert int(w.count) == int(mask.sum()) and w.shape == weights.shape
    assert w.dtype == dtype and w.offsets.dtype == jnp.uint8 and w.n == n
    assert w.nbytes == w.values.size * (w.values.dtype.itemsize + 1)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("pattern", [(2, 4), (3, 32)])
@pytest.mark.parametrize("batch", [1, 40])
def test_product_and_gradients(implementation, pattern, batch):
    n, m = pattern
    w = NM.fromdense(*n_m_layer(61, 9, n, m), n=n, m=m)
    generator = np.random.default_rng(1)
    x = jnp.asarray(generator.standard_normal((batch, 61)), jnp.float32)
    check_product_and_gradients(w, x, implementation)


@pytest.mark.usefixtures("any_type")
def test_wrong_arguments():
    weights, mask = n_m_layer(64, 9, 4, 4)
    with pytest.raises(ValueError, match="raise n to"):
        NM.fromdense(weights, mask, n=1, m=4)
    with pytest.raises(ValueError, match="n has to be from 1 to m"):
        NM.fromdense(weights, mask, n=5, m=4)
    offsets = jnp.zeros((2, 3, 1), jnp.uint8).at[1, 2, 0].set(9)
    with pytest.raises(ValueError, match=r"offsets\[1, 2, 0\] is 9.* 0 to 4"):
        NM(jnp.ones((2, 3, 1)), offsets, 12, 4)
    with pytest.raises(ValueError, match=r"\(out, 4, n\)"):
        NM(jnp.ones((2, 3, 1)), jnp.zeros((2, 3, 1), jnp.uint8), 13, 4)
    with pytest.raises(ValueError, match=r"m is 5; .* or multiply by the weight"):
        NM.fromdense(weights, mask, n=5, m=5).packed()
