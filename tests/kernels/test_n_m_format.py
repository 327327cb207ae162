"""The N:M format and its product: round trips, validation, the dense product."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsejax_kernels import NM, PackedNM, matmul, native

NATIVE = native.available()
needs_native = pytest.mark.skipif(not NATIVE, reason="no native kernels")
LEVELS = ["portable", "avx2", "avx512"]
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


@pytest.mark.parametrize("pattern", PATTERNS)
def test_round_trip_of_a_packed_weight(pattern):
    n, m = pattern
    weights, mask = n_m_layer(61, 17, n, m, jnp.bfloat16)
    w = NM.fromdense(weights, mask, n=n, m=m)
    packed = jax.jit(NM.packed)(w)
    assert packed.values.shape == (2, 2, 32 * n // m, 16)
    assert np.array_equal(packed.todense(), w.todense())
    assert int(packed.count) == int(w.count) and packed.shape == w.shape
    assert packed.nbytes == packed.values.size * (2 + 1)
    assert packed.dtype == jnp.bfloat16 and packed.density == w.density


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("pattern", [(2, 4), (3, 32)])
@pytest.mark.parametrize("batch", [1, 40])
@pytest.mark.parametrize("packed", [False, True])
def test_product_and_gradients(implementation, pattern, batch, packed):
    n, m = pattern
    w = NM.fromdense(*n_m_layer(61, 9, n, m), n=n, m=m)
    w = w.packed() if packed else w
    generator = np.random.default_rng(1)
    x = jnp.asarray(generator.standard_normal((batch, 61)), jnp.float32)

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


def packed_layer(inputs, outputs, n, m):
    return NM.fromdense(*n_m_layer(inputs, outputs, n, m), n=n, m=m).packed()


def normal(*shape):
    generator = np.random.default_rng(1)
    return jnp.asarray(generator.standard_normal(shape), jnp.float32)


@pytest.mark.slow  # scripts/sanitize_kernels.sh fuzzes the same shapes.
@needs_native
@settings(max_examples=5, deadline=None)
@given(
    inputs=st.integers(1, 300),
    outputs=st.integers(1, 70),
    pattern=st.sampled_from([(2, 4), (5, 8), (3, 32), (2, 32), (1, 32), (32, 32)]),
    batch=st.integers(1, 8),
    level=st.sampled_from(LEVELS),
)
def test_the_packed_kernel_at_odd_shapes(inputs, outputs, pattern, batch, level):
    w = packed_layer(inputs, outputs, *pattern)
    x, bias = normal(batch, inputs), normal(outputs)

    def run(x, values, bias):
        one = dataclasses.replace(w, values=values)
        return matmul(x, one, bias=bias, activation="relu", implementation="cpu")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEJAX_KERNELS_INSTRUCTIONS", level)
        y, vjp = jax.vjp(run, x, w.values, bias)
        dx, dvalues, dbias = vjp(normal(batch, outputs))
    dense = np.asarray(w.todense())
    expected = np.maximum(np.asarray(x) @ dense + np.asarray(bias), 0)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    cotangent = np.where(expected > 0, normal(batch, outputs), 0)
    np.testing.assert_allclose(dx, cotangent @ dense.T, atol=1e-4)
    np.testing.assert_allclose(dbias, cotangent.sum(0), atol=1e-4)
    sampled = dataclasses.replace(w, values=dvalues).todense()
    kept = dataclasses.replace(w, values=jnp.ones_like(dvalues)).todense() > 0
    wanted = np.where(kept, x.T @ cotangent, 0)
    np.testing.assert_allclose(sampled, wanted, atol=1e-4)


@needs_native
def test_padding_of_a_packed_weight_reads_no_input():
    w = packed_layer(40, 20, 3, 32)
    x = jnp.full((2, 40), jnp.inf).at[:, 1:].set(normal(2, 39))
    first = np.asarray(w.todense()[0])
    y = np.asarray(matmul(x, w, implementation="cpu"))
    reads = np.asarray((w.offsets[:, 0] == 0).any(axis=1)).reshape(-1)[:20]
    assert (first == 0).all() and reads.any() and not reads.all()
    assert np.isfinite(y[:, ~reads]).all() and np.isnan(y[:, reads]).all()


@needs_native
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bad", [33, 128, 255])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_corrupt_packed_offsets_only_ever_raise(level, bad, batch, monkeypatch):
    monkeypatch.setenv("SPARSEJAX_KERNELS_INSTRUCTIONS", level)
    w = packed_layer(50, 20, 3, 32)
    leaves = [w.values, w.offsets.at[1, 1, 2, 3].set(bad)]
    corrupt = jax.tree.unflatten(jax.tree.structure(w), leaves)
    x = normal(batch, 50)
    if batch > 1 and not native.has_avx512():
        # On its way to the fan-in kernels an offset out of range becomes padding.
        assert np.isfinite(matmul(x, corrupt, implementation="cpu")).all()
        return
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of range"):
        matmul(x, corrupt, implementation="cpu").block_until_ready()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_packed_weight_under_vmap_and_scan(implementation):
    w = packed_layer(50, 12, 2, 4)
    x = normal(11, 2, 50)
    expected = x @ w.todense()

    def run(x, w):
        return matmul(x, w, implementation=implementation)

    def close(found, expected):
        np.testing.assert_allclose(found, expected, atol=1e-4)

    # More rows than the kernel takes at once.
    close(jax.vmap(run, (0, None))(x, w), expected)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf] * 11), w)
    close(jax.vmap(run)(x, many), expected)
    close(jax.lax.scan(lambda carry, x: (carry, run(x, w)), 0, x)[1], expected)
    close(run(x[:0, 0], w), expected[:0, 0])
    close(run(x[0, 0], w), expected[0, 0])
    half = run(x.astype(jnp.bfloat16), w)
    assert half.dtype == jnp.bfloat16 and half.shape == expected.shape


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
    packed = NM.fromdense(weights, mask, n=4, m=4).packed()
    with pytest.raises(ValueError, match=r"both have to be \(2, 2, slots, 16\)"):
        dataclasses.replace(packed, out_features=17)
    offsets = packed.offsets.at[0, 1, 0, 0].set(33)
    with pytest.raises(ValueError, match=r"offsets\[0, 1, 0, 0\] is 33.* 0 to 32"):
        PackedNM(packed.values, offsets, 64, 9)
    with pytest.raises(ValueError, match="integer"):
        PackedNM(packed.values, packed.values, 64, 9)
    with pytest.raises(ValueError, match="w reads 64 inputs"):
        matmul(jnp.ones((1, 63)), packed)
    with pytest.raises(ValueError, match=r"bias has shape \(16,\)"):
        matmul(jnp.ones((1, 64)), packed, bias=jnp.ones(16))
