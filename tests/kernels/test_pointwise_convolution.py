"""The 1x1 convolution: every implementation is the dense product per pixel."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsejax_kernels import FanIn, native, pointwise_convolution
from weights import layer

NATIVE = native.available()
IMPLEMENTATIONS = ["reference", "xla", *(["cpu"] if NATIVE else [])]
LEVELS = ["portable", "avx2", "avx512"]
needs_native = pytest.mark.skipif(not NATIVE, reason="no native kernels")


def normal(*shape, seed=0):
    generator = np.random.default_rng(seed)
    return jnp.asarray(generator.standard_normal(shape), jnp.float32)


def close(found, expected, tolerance=1e-5):
    scale = float(jnp.max(jnp.abs(expected), initial=1e-6))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


def agrees_with_dense(w, batch, pixels, implementation, bias=None, activation=None):
    """Output and all gradients are those of the dense product, computed by NumPy."""
    inputs, outputs = w.shape
    x = normal(batch, inputs, pixels, seed=1)
    cotangent = normal(batch, outputs, pixels, seed=2)

    @jax.jit
    def sparse(x, w, bias, cotangent):
        def run(x, values, bias):
            one = dataclasses.replace(w, values=values)
            options = {"activation": activation, "implementation": implementation}
            return pointwise_convolution(x, one, bias=bias, **options)

        y, vjp = jax.vjp(run, x, w.values, bias)
        return y, *vjp(cotangent)

    y, dx, dvalues, dbias = sparse(x, w, bias, cotangent)
    dense, x, g = (np.asarray(a) for a in (w.todense(), x, cotangent))
    expected = np.einsum("io,bip->bop", dense, x)
    if bias is not None:
        expected = expected + np.asarray(bias)[:, None]
    if activation:
        # Sums that end next to zero may fall on either side of it.
        g = g * (np.asarray(y) > 0)
        expected = np.maximum(expected, 0)
    close(y, expected)
    close(dx, np.einsum("io,bop->bip", dense, g))
    full = np.pad(np.einsum("bip,bop->io", x, g), ((0, 1), (0, 0)))
    read = np.asarray(w.indices, np.int64)
    close(dvalues, np.take_along_axis(full, read.T, axis=0).T)
    if bias is not None:
        close(dbias, g.sum((0, 2)))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_output_and_gradients(implementation, batch, activation):
    w = FanIn.fromdense(*layer(60, 17))
    if batch == 1:
        w = w.with_transpose()
    bias = normal(17, seed=3) if activation else None
    agrees_with_dense(w, batch, 49, implementation, bias, activation)


@pytest.mark.slow  # scripts/sanitize_kernels.sh fuzzes the same shapes.
@needs_native
@settings(max_examples=5, deadline=None)
@given(
    inputs=st.integers(1, 300),
    outputs=st.integers(1, 70),
    density=st.floats(0, 1),
    batch=st.integers(1, 3),
    pixels=st.integers(1, 400),
    level=st.sampled_from(LEVELS),
)
def test_every_instruction_set_at_odd_shapes(
    inputs, outputs, density, batch, pixels, level
):
    w = FanIn.fromdense(*layer(inputs, outputs, density))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEJAX_KERNELS_INSTRUCTIONS", level)
        agrees_with_dense(w, batch, pixels, "cpu", normal(outputs), "relu")


@needs_native
@pytest.mark.parametrize("level", LEVELS)
def test_every_width_of_a_panel(level, monkeypatch):
    monkeypatch.setenv("SPARSEJAX_KERNELS_INSTRUCTIONS", level)
    w = FanIn.fromdense(*layer(33, 7))
    dense = w.todense().T
    # Too little work for a second thread, so that one panel has all pixels.
    for pixels in (1, 17, 40, 64, 75, 128):
        x = normal(33, pixels)
        close(pointwise_convolution(x, w, implementation="cpu"), dense @ x)


@needs_native
def test_more_than_65535_channels():
    w = FanIn.fromdense(*layer(70_000, 5, density=0.001))
    assert w.indices.dtype == jnp.int32
    agrees_with_dense(w, 1, 20, "cpu")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_any_batch_rank(implementation, shape):
    w = FanIn.fromdense(*layer(20, 6))
    for pixels in (0, 5):
        x = normal(*shape, 20, pixels)
        y = pointwise_convolution(x, w, implementation=implementation)
        assert y.shape == (*shape, 6, pixels)
        close(y, jnp.einsum("io,...ip->...op", w.todense(), x))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bfloat16_sums_in_float32(implementation):
    w = FanIn.fromdense(*layer(300, 20, dtype=jnp.bfloat16))
    x = normal(300, 9).astype(jnp.bfloat16)
    y = pointwise_convolution(x, w, implementation=implementation)
    assert y.dtype == jnp.bfloat16
    exact = w.todense().T.astype(jnp.float32) @ x.astype(jnp.float32)
    close(y.astype(jnp.float32), exact, 2**-8)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_vmap_and_scan(implementation):
    w = FanIn.fromdense(*layer(50, 12))
    x = normal(4, 3, 50, 6)
    expected = jnp.einsum("io,...ip->...op", w.todense(), x)

    def run(x, w):
        return pointwise_convolution(x, w, implementation=implementation)

    close(jax.jit(jax.vmap(run, (0, None)))(x, w), expected)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), w)
    close(jax.vmap(run)(x[:2], many), expected[:2])
    scanned = jax.lax.scan(lambda carry, row: (carry, run(row, w)), 0, x)[1]
    close(scanned, expected)


@needs_native
@pytest.mark.parametrize("bad", [51, 255])
@pytest.mark.parametrize("level", LEVELS)
def test_corrupt_indices_only_ever_raise(bad, level, monkeypatch):
    monkeypatch.setenv("SPARSEJAX_KERNELS_INSTRUCTIONS", level)
    w = FanIn.fromdense(*layer(50, 12))
    children = [w.values, w.indices.at[3, 1].set(bad)]
    corrupt = jax.tree.unflatten(jax.tree.structure(w), children)
    for pixels in (1, 500):
        x = normal(50, pixels)
        with pytest.raises(jax.errors.JaxRuntimeError, match="out of range"):
            jax.block_until_ready(
                pointwise_convolution(x, corrupt, implementation="cpu")
            )


@pytest.mark.usefixtures("any_type")
def test_wrong_arguments():
    w = FanIn.fromdense(*layer(50, 12))
    x = normal(50, 4)
    with pytest.raises(ValueError, match="w reads 50 channels"):
        pointwise_convolution(x.T, w)
    with pytest.raises(ValueError, match=r"bias has shape \(3,\)"):
        pointwise_convolution(x, w, bias=normal(3))
    with pytest.raises(ValueError, match="activation is 'gelu'"):
        pointwise_convolution(x, w, activation="gelu")
    with pytest.raises(ValueError, match="implementation is 'cuda'"):
        pointwise_convolution(x, w, implementation="cuda")


def test_without_native_kernels_it_falls_back(monkeypatch):
    monkeypatch.setenv("SPARSEJAX_KERNELS_NATIVE", "0")
    w = FanIn.fromdense(*layer(50, 12))
    x = normal(50, 4)
    close(pointwise_convolution(x, w), w.todense().T @ x)
