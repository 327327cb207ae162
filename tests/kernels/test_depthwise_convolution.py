"""The depthwise convolution: every implementation is XLA's grouped convolution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsejax_kernels import depthwise_convolution, native

NATIVE = native.available()
IMPLEMENTATIONS = ["xla", *(["cpu"] if NATIVE else [])]
LEVELS = ["portable", "avx2", "avx512"]
needs_native = pytest.mark.skipif(not NATIVE, reason="no native kernels")


def normal(*shape, seed=0):
    generator = np.random.default_rng(seed)
    return jnp.asarray(generator.standard_normal(shape), jnp.float32)


def by_hand(x, kernel, bias, stride, activation):
    """The definition, one output at a time, in float64."""
    *_, height, width = x.shape
    rows, columns = -(-height // stride), -(-width // stride)
    before = [
        max((count - 1) * stride + 3 - size, 0) // 2
        for count, size in ((rows, height), (columns, width))
    ]
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (0, 0), (3, 3), (3, 3)))
    y = np.zeros((*x.shape[:2], rows, columns))
    for h, w in np.ndindex(rows, columns):
        top, left = h * stride - before[0] + 3, w * stride - before[1] + 3
        window = padded[:, :, top : top + 3, left : left + 3]
        y[:, :, h, w] = (window * np.asarray(kernel)).sum((2, 3))
    y = y + np.asarray(bias)[:, None, None]
    return np.maximum(y, 0) if activation else y


@needs_native
@settings(max_examples=10, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 9),
    height=st.integers(1, 40),
    width=st.integers(1, 70),
    stride=st.sampled_from([1, 2]),
    activation=st.sampled_from([None, "relu"]),
)
def test_every_instruction_set_at_odd_shapes(
    batch, channels, height, width, stride, activation
):
    x, kernel = normal(batch, channels, height, width), normal(channels, 3, 3, seed=1)
    bias = normal(channels, seed=2)
    expected = by_hand(x, kernel, bias, stride, activation)
    for level in LEVELS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SPARSEJAX_KERNELS_INSTRUCTIONS", level)
            options = {"activation": activation, "implementation": "cpu"}
            y = depthwise_convolution(x, kernel, stride=stride, bias=bias, **options)
        np.testing.assert_allclose(y, expected, atol=3e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", [(7, 14), (8, 5)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_output_and_gradients(implementation, shape, stride, activation):
    x, kernel, bias = normal(2, 6, *shape), normal(6, 3, 3, seed=1), normal(6, seed=2)

    def run(x, kernel, bias, implementation):
        options = {"activation": activation, "implementation": implementation}
        return depthwise_convolution(x, kernel, stride=stride, bias=bias, **options)

    def both(implementation):
        function = functools.partial(run, implementation=implementation)
        y, vjp = jax.vjp(function, x, kernel, bias)
        return y, *vjp(normal(*y.shape, seed=3))

    found, expected = jax.jit(lambda: (both(implementation), both("reference")))()
    assert found[0].shape[2:] == (-(-shape[0] // stride), -(-shape[1] // stride))
    for mine, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, wanted, atol=3e-5)


@pytest.mark.parametrize("implementation", ["reference", *IMPLEMENTATIONS])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_on_all_sides_and_channels_last(implementation, stride):
    x, kernel, bias = normal(2, 6, 8, 7), normal(6, 3, 3, seed=1), normal(6, seed=2)
    # A border of the image's own, of which only the inner part is left.
    bordered = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    whole = by_hand(
        jnp.pad(bordered, ((0, 0), (0, 0), (1, 1), (1, 1))), kernel, bias, 1, 0
    )
    expected = whole[:, :, 2:-2, 2:-2][:, :, ::stride, ::stride]
    options = {"stride": stride, "padding": 1, "bias": bias}
    options["implementation"] = implementation
    y = depthwise_convolution(x, kernel, **options)
    np.testing.assert_allclose(y, expected, atol=3e-5)
    x = x.transpose(0, 2, 3, 1)

    def last(x, kernel):
        return depthwise_convolution(x, kernel, channels_last=True, **options)

    y, vjp = jax.vjp(last, x, kernel)
    np.testing.assert_allclose(y, expected.transpose(0, 2, 3, 1), atol=3e-5)
    options["implementation"] = "reference"
    _, wanted = jax.vjp(last, x, kernel)
    for mine, theirs in zip(vjp(y), wanted(y), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-3)


@pytest.mark.parametrize("implementation", ["reference", *IMPLEMENTATIONS])
def test_any_batch_rank_and_vmap(implementation):
    kernel = normal(4, 3, 3)
    x = normal(2, 3, 4, 5, 6)

    def run(x, kernel):
        return depthwise_convolution(x, kernel, implementation=implementation)

    y = run(x, kernel)
    one = jnp.stack([jnp.stack([run(each, kernel) for each in row]) for row in x])
    np.testing.assert_allclose(y, one, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(run, (0, None))(x, kernel), y, atol=1e-5)
    kernels = jnp.stack([kernel, 2 * kernel])
    twice = jax.vmap(run)(x, kernels)
    np.testing.assert_allclose(twice[1], 2 * y[1], atol=1e-5)
    assert run(x[:0], kernel).shape == (0, 3, 4, 5, 6)
    assert run(x[..., :0], kernel).shape == (2, 3, 4, 5, 0)


@pytest.mark.parametrize("implementation", ["reference", *IMPLEMENTATIONS])
def test_bfloat16_sums_in_float32(implementation):
    x, kernel = normal(3, 9, 9).astype(jnp.bfloat16), normal(3, 3, 3, seed=1)
    y = depthwise_convolution(x, kernel, implementation=implementation)
    exact = depthwise_convolution(x.astype(jnp.float32), kernel)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=2**-8, atol=1e-4)


@pytest.mark.usefixtures("any_type")
def test_wrong_arguments():
    x, kernel = normal(3, 9, 9), normal(3, 3, 3)
    with pytest.raises(ValueError, match="stride is 3"):
        depthwise_convolution(x, kernel, stride=3)
    with pytest.raises(ValueError, match="padding is 'VALID'"):
        depthwise_convolution(x, kernel, padding="VALID")
    with pytest.raises(ValueError, match=r"for 3 channels .* \(3, 3, 3\)"):
        depthwise_convolution(x, normal(4, 3, 3))
    with pytest.raises(ValueError, match=r"bias has shape \(2,\)"):
        depthwise_convolution(x, kernel, bias=normal(2))
    with pytest.raises(ValueError, match="activation is 'gelu'"):
        depthwise_convolution(x, kernel, activation="gelu")
    with pytest.raises(ValueError, match="implementation is 'cuda'"):
        depthwise_convolution(x, kernel, implementation="cuda")


def test_without_native_kernels_it_falls_back(monkeypatch):
    expected = depthwise_convolution(
        normal(3, 9, 9), normal(3, 3, 3), implementation="reference"
    )
    monkeypatch.setenv("SPARSEJAX_KERNELS_NATIVE", "0")
    y = depthwise_convolution(normal(3, 9, 9), normal(3, 3, 3))
    np.testing.assert_allclose(y, expected, atol=3e-5)
