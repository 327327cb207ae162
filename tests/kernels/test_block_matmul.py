"""The product with a block weight: every implementation is the dense product."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsejax_kernels import Block, matmul, native
from sparsejax_kernels.block_matmul import cpu, xla
from weights import block_layer

NATIVE = native.available()
PALLAS = ["pallas_gpu", "pallas_tpu"]
IMPLEMENTATIONS = ["reference", "xla", *(["cpu"] if NATIVE else []), *PALLAS]
LEVELS = ["portable", "avx2", "avx512"]
needs_native = pytest.mark.skipif(not NATIVE, reason="no native kernels")


def normal(*shape, seed=0):
    generator = np.random.default_rng(seed)
    return jnp.asarray(generator.standard_normal(shape), jnp.float32)


def close(found, expected, tolerance=1e-5):
    scale = float(jnp.max(jnp.abs(expected), initial=1e-6))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


def blocks(inputs, outputs, block, density=0.3, dtype=jnp.float32):
    layer = block_layer(inputs, outputs, block, density, dtype=dtype)
    return Block.fromdense(*layer, block=block)


def agrees_with_dense(w, batch, implementation, bias=None, activation=None):
    """Output and all gradients are those of the dense product, computed by NumPy."""
    (inputs, outputs), (height, width) = w.shape, w.block
    x, cotangent = normal(batch, inputs, seed=1), normal(batch, outputs, seed=2)

    @jax.jit
    def sparse(x, w, bias, cotangent):
        def run(x, values, bias):
            one = dataclasses.replace(w, values=values)
            options = {"activation": activation, "implementation": implementation}
            return matmul(x, one, bias=bias, **options)

        y, vjp = jax.vjp(run, x, w.values, bias)
        return y, *vjp(cotangent)

    y, dx, dvalues, dbias = sparse(x, w, bias, cotangent)
    dense, x, g = (np.asarray(a) for a in (w.todense(), x, cotangent))
    expected = x @ dense + (0 if bias is None else np.asarray(bias))
    if activation:
        # Sums that end next to zero may fall on either side of it.
        g = g * (np.asarray(y) > 0)
        expected = np.maximum(expected, 0)
    close(y, expected)
    close(dx, g @ dense.T)
    rows, columns = w.grid
    # Beyond the edges, and where padding points, the gradient is zero.
    edges = ((0, (rows + 1) * height - inputs), (0, (columns + 1) * width - outputs))
    full = np.pad(x.T @ g, edges)
    cut = full.reshape(rows + 1, height, columns + 1, width).transpose(0, 2, 1, 3)
    row, column = np.asarray(w.coordinates, int).T
    close(dvalues, cut[row, column])
    if bias is not None:
        close(dbias, g.sum(0))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("batch", [1, 9, 130])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_output_and_gradients(implementation, batch, activation):
    bias = normal(77, seed=3) if activation else None
    agrees_with_dense(
        blocks(300, 77, (32, 32)), batch, implementation, bias, activation
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_empty_and_padded_weights(implementation):
    bias = normal(9)
    empty = Block.fromdense(jnp.ones((20, 9)), jnp.zeros((20, 9), bool), block=(4, 4))
    agrees_with_dense(empty, 5, implementation, bias, "relu")
    weights, mask = block_layer(20, 9, (4, 4))
    padded = Block.fromdense(weights, mask, block=(4, 4), blocks=15)
    agrees_with_dense(padded, 5, implementation, bias)
    # The order of the blocks does not matter, and a repeated one counts twice.
    shuffled = dataclasses.replace(
        padded,
        values=jnp.concatenate([padded.values[::-1], padded.values[:1]]),
        coordinates=jnp.concatenate([padded.coordinates[::-1], padded.coordinates[:1]]),
    )
    agrees_with_dense(shuffled, 5, implementation, bias)


@pytest.mark.slow  # scripts/sanitize_kernels.sh fuzzes the same shapes.
@needs_native
@settings(max_examples=6, deadline=None)
@given(
    inputs=st.integers(1, 200),
    outputs=st.integers(1, 150),
    block=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    density=st.floats(0, 1),
    batch=st.integers(1, 140),
    level=st.sampled_from(LEVELS),
)
def test_every_instruction_set_at_odd_shapes(
    inputs, outputs, block, density, batch, level
):
    w = blocks(inputs, outputs, block, density)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEJAX_KERNELS_INSTRUCTIONS", level)
        agrees_with_dense(w, batch, "cpu", normal(outputs), "relu")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (2, 0, 3)])
def test_any_batch_rank(implementation, shape):
    w = blocks(20, 6, (4, 4))
    x = normal(*shape, 20)
    y = matmul(x, w, implementation=implementation)
    assert y.shape == (*shape, 6)
    close(y, x @ w.todense())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bfloat16_sums_in_float32(implementation):
    w = blocks(300, 40, (16, 8), dtype=jnp.bfloat16)
    x = normal(9, 300).astype(jnp.bfloat16)
    y = matmul(x, w, implementation=implementation)
    assert y.dtype == jnp.bfloat16
    exact = x.astype(jnp.float32) @ w.todense().astype(jnp.float32)
    close(y.astype(jnp.float32), exact, 2**-8)

    def loss(x, values):
        one = dataclasses.replace(w, values=values)
        return matmul(x, one, implementation=implementation).sum()

    gradients = jax.grad(loss, (0, 1))(x, w.values)
    assert all(each.dtype == jnp.bfloat16 for each in gradients)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_jit_vmap_and_scan(implementation):
    w = blocks(50, 12, (8, 4))
    x = normal(4, 3, 50)
    expected = x @ w.todense()

    def run(x, w):
        return matmul(x, w, implementation=implementation)

    close(jax.jit(jax.vmap(run, (0, None)))(x, w), expected)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), w)
    close(jax.vmap(run)(x[:2], many), expected[:2])
    scanned = jax.lax.scan(lambda carry, row: (carry, run(row, w)), 0, x)[1]
    close(scanned, expected)

    def loss(values, x):
        return jnp.sum(jnp.sin(run(x, dataclasses.replace(w, values=values))))

    wanted = jax.grad(loss)(w.values, x)
    close(jax.vmap(jax.grad(loss), (None, 0))(w.values, x).sum(0), wanted)


@needs_native
@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize(
    "bad", [(14, 0), (0, 4), (-1, 0), (0, -(2**31)), (2**31 - 1, 0)]
)
@pytest.mark.parametrize("level", LEVELS)
def test_corrupt_coordinates_only_ever_raise(batch, bad, level, monkeypatch):
    monkeypatch.setenv("SPARSEJAX_KERNELS_INSTRUCTIONS", level)
    w = blocks(50, 12, (4, 4))
    x = normal(batch, 50)
    coordinates = w.coordinates.astype(jnp.int32).at[3].set(jnp.asarray(bad))

    def run(x, values):
        children = [values, coordinates]
        corrupt = jax.tree.unflatten(jax.tree.structure(w), children)
        return matmul(x, corrupt, implementation="cpu")

    with pytest.raises(jax.errors.JaxRuntimeError, match="out of range"):
        run(x, w.values).block_until_ready()

    g = normal(batch, 12)
    for gradient in (
        lambda: cpu.input_gradient(g, w.values, coordinates, 50),
        lambda: cpu.value_gradient(g, x, coordinates, (4, 4)),
    ):
        with pytest.raises(jax.errors.JaxRuntimeError, match="out of range"):
            gradient().block_until_ready()


@pytest.mark.usefixtures("any_type")
def test_wrong_arguments():
    w = blocks(50, 12, (4, 4))
    with pytest.raises(ValueError, match="w reads 50 inputs"):
        matmul(normal(3, 49), w)
    with pytest.raises(ValueError, match=r"bias has shape \(3,\)"):
        matmul(normal(3, 50), w, bias=normal(3))
    with pytest.raises(ValueError, match="activation is 'gelu'"):
        matmul(normal(3, 50), w, activation="gelu")
    with pytest.raises(ValueError, match="implementation is 'cuda'"):
        matmul(normal(3, 50), w, implementation="cuda")


def test_without_native_kernels_it_falls_back(monkeypatch):
    monkeypatch.setenv("SPARSEJAX_KERNELS_NATIVE", "0")
    w = blocks(50, 12, (4, 4))
    x = normal(3, 50)
    close(matmul(x, w), x @ w.todense())
    monkeypatch.setattr(xla, "LARGEST_DENSE_WEIGHT", 10)
    agrees_with_dense(w, 3, "xla")
