"""The convolution: every implementation is XLA's dense one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sparsejax_kernels import FanIn, convolution, depthwise_convolution, native
from weights import layer

NATIVE = native.available()
IMPLEMENTATIONS = ["reference", "xla", *(["cpu"] if NATIVE else [])]
LEVELS = ["portable", "avx2", "avx512"]
needs_native = pytest.mark.skipif(not NATIVE, reason="no native kernels")
# Height, width, channels, outputs; window, strides, padding.
CASES = {
    "1x1": ((5, 9, 33, 7), (1, 1), (1, 1), "SAME"),
    "1x1 strided": ((9, 8, 20, 3), (1, 1), (2, 2), 0),
    "3x3": ((7, 7, 16, 8), (3, 3), (1, 1), 1),
    "3x3 strided": ((14, 15, 6, 5), (3, 3), (2, 2), "SAME"),
    "7x7 strided": ((15, 9, 3, 8), (7, 7), (2, 2), 3),
    "odd": ((40, 6, 4, 4), (5, 3), (3, 1), ((4, 0), (0, 7))),
    "valid": ((12, 40, 4, 3), (2, 5), (3, 1), "VALID"),
    "wide": ((3, 150, 2, 3), (3, 3), (1, 1), "SAME"),
}


def normal(*shape, seed=0):
    generator = np.random.default_rng(seed)
    return jnp.asarray(generator.standard_normal(shape), jnp.float32)


def case(name, batch=2, density=0.3):
    (height, width, channels, outputs), size, strides, padding = CASES[name]
    weights, mask = layer(size[0] * size[1] * channels, outputs, density)
    w = FanIn.fromdense(weights, mask | (density == 1))
    options = {"kernel_size": size, "strides": strides, "padding": padding}
    return normal(batch, height, width, channels, seed=1), w, options


def dense(x, w, kernel_size, strides, padding):
    if isinstance(padding, int):
        padding = ((padding, padding), (padding, padding))
    return jax.lax.conv_general_dilated(
        x,
        w.todense().reshape(*kernel_size, x.shape[-1], -1),
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )


@needs_native
@pytest.mark.parametrize("density", [0.3, 1.0])
@pytest.mark.parametrize("name", CASES)
def test_every_instruction_set(name, density, monkeypatch):
    x, w, options = case(name, density=density)
    bias = normal(w.values.shape[0], seed=2)
    expected = jax.nn.relu(dense(x, w, **options) + bias[None, None, None])
    for level in LEVELS:
        monkeypatch.setenv("SPARSEJAX_KERNELS_INSTRUCTIONS", level)
        run = {"bias": bias, "activation": "relu", "implementation": "cpu"}
        y = convolution(x, w, **options, **run)
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, atol=3e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ["1x1", "3x3 strided", "odd"])
def test_output_and_gradients(implementation, name):
    x, w, options = case(name)
    bias = normal(w.values.shape[0], seed=2)

    def ours(x, values, bias):
        more = {"bias": bias, "activation": "relu", "implementation": implementation}
        return convolution(x, dataclasses.replace(w, values=values), **options, **more)

    def densely(x, values, bias):
        y = dense(x, dataclasses.replace(w, values=values), **options)
        return jax.nn.relu(y + bias[None, None, None])

    @functools.partial(jax.jit, static_argnums=0)
    def both(function):
        y, vjp = jax.vjp(function, x, w.values, bias)
        return y, *vjp(normal(*y.shape, seed=3))

    for mine, wanted in zip(both(ours), both(densely), strict=True):
        np.testing.assert_allclose(mine, wanted, atol=2e-4)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_any_batch_rank_and_vmap(implementation):
    x, w, options = case("3x3", batch=6)
    options["implementation"] = implementation
    y = convolution(x, w, **options)
    ranked = convolution(x.reshape(2, 3, *x.shape[1:]), w, **options)
    np.testing.assert_allclose(ranked.reshape(y.shape), y, atol=1e-5)
    mapped = jax.vmap(lambda x: convolution(x, w, **options))(x)
    np.testing.assert_allclose(mapped, y, atol=1e-5)
    assert convolution(x[:0], w, **options).shape == (0, 7, 7, 8)


@needs_native
def test_a_chain_of_layers_turns_nothing_around():
    w = FanIn.fromdense(*layer(8, 8))
    taps = normal(8, 3, 3)

    @jax.jit
    def chain(x):
        x = convolution(x, w)
        for _ in range(3):
            y = convolution(x, w)
            y = depthwise_convolution(y, taps, padding=1, channels_last=True)
            x = jax.nn.relu(x + y)
        return convolution(x, w)

    program = chain.lower(normal(1, 6, 6, 8)).compile().as_text()
    # The caller's own order of the axes at both ends.
    assert program.count(" copy(") == 2 and " transpose(" not in program


@needs_native
@pytest.mark.parametrize("name", ["1x1", "3x3"])
@pytest.mark.parametrize("level", LEVELS)
def test_corrupt_indices_only_ever_raise(name, level, monkeypatch):
    monkeypatch.setenv("SPARSEJAX_KERNELS_INSTRUCTIONS", level)
    x, w, options = case(name)
    children = [w.values, w.indices.at[3, 1].set(w.in_features + 1)]
    corrupt = jax.tree.unflatten(jax.tree.structure(w), children)
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of range"):
        jax.block_until_ready(convolution(x, corrupt, **options, implementation="cpu"))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bfloat16_sums_in_float32(implementation):
    x, w, options = case("3x3")
    exact = convolution(x, w, **options, implementation="reference")
    x, values = x.astype(jnp.bfloat16), w.values.astype(jnp.bfloat16)
    w = dataclasses.replace(w, values=values)
    y = convolution(x, w, **options, implementation=implementation)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=0.05, atol=0.3)


@pytest.mark.usefixtures("any_type")
def test_wrong_arguments():
    x, w, options = case("3x3")
    with pytest.raises(ValueError, match=r"windows of \(1, 1\) over the 16 channels"):
        convolution(x, w)
    with pytest.raises(ValueError, match=r"has to be \(\*batch, height"):
        convolution(x[0, 0], w, **options)
    with pytest.raises(ValueError, match=r"strides are \(0, 1\)"):
        convolution(x, w, **{**options, "strides": (0, 1)})
    with pytest.raises(ValueError, match="padding is 'CIRCULAR'"):
        convolution(x, w, **{**options, "padding": "CIRCULAR"})
    with pytest.raises(ValueError, match="numbers of zeros are not negative"):
        convolution(x, w, **{**options, "padding": -1})
    with pytest.raises(ValueError, match="smaller than windows"):
        convolution(x[:, :1, :1], w, **{**options, "padding": 0})
    with pytest.raises(ValueError, match="activation is 'gelu'"):
        convolution(x, w, **options, activation="gelu")
    with pytest.raises(ValueError, match="implementation is 'cuda'"):
        convolution(x, w, **options, implementation="cuda")


def test_without_native_kernels_it_falls_back(monkeypatch):
    x, w, options = case("3x3")
    expected = convolution(x, w, **options, implementation="reference")
    monkeypatch.setenv("SPARSEJAX_KERNELS_NATIVE", "0")
    np.testing.assert_allclose(convolution(x, w, **options), expected, atol=3e-5)
