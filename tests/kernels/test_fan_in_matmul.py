"""The product with a fan-in weight: every implementation is the dense product."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec
from sparsejax_kernels import FanIn, matmul, native
from sparsejax_kernels.fan_in_matmul import xla
from weights import layer

NATIVE = native.available()
PALLAS = ["pallas_gpu", "pallas_tpu"]
IMPLEMENTATIONS = ["reference", "xla", *(["cpu"] if NATIVE else []), *PALLAS]
needs_native = pytest.mark.skipif(not NATIVE, reason="no native kernels")


def normal(*shape, seed=0):
    generator = np.random.default_rng(seed)
    return jnp.asarray(generator.standard_normal(shape), jnp.float32)


def close(found, expected, tolerance=1e-5):
    scale = float(jnp.max(jnp.abs(expected), initial=1e-6))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


def agrees_with_dense(w, batch, implementation, bias=None, activation=None):
    """Output and all gradients are those of the dense product, computed by NumPy."""
    x = normal(batch, w.in_features, seed=1)
    cotangent = normal(batch, w.shape[1], seed=2)

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
        g = g * (expected > 0)
        expected = np.maximum(expected, 0)
    close(y, expected)
    close(dx, g @ dense.T)
    read = np.asarray(w.indices, np.int64)
    sampled = np.append(x.T @ g, np.zeros((1, g.shape[1]), np.float32), axis=0)
    close(dvalues, np.take_along_axis(sampled, read.T, axis=0).T)
    if bias is not None:
        close(dbias, g.sum(0))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("batch", [1, 3, 8, 17, 130])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_output_and_gradients(implementation, batch, activation):
    w = FanIn.fromdense(*layer(300, 37))
    bias = normal(37, seed=3) if activation else None
    agrees_with_dense(w, batch, implementation, bias, activation)
    agrees_with_dense(w.with_transpose(), batch, implementation, bias, activation)


@needs_native
@settings(max_examples=12, deadline=None)
@given(
    inputs=st.integers(1, 400),
    outputs=st.integers(1, 70),
    density=st.floats(0, 1),
    batch=st.integers(1, 140),
    level=st.sampled_from(["portable", "avx2", "avx512"]),
)
def test_every_instruction_set_at_odd_shapes(inputs, outputs, density, batch, level):
    w = FanIn.fromdense(*layer(inputs, outputs, density))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEJAX_KERNELS_INSTRUCTIONS", level)
        agrees_with_dense(w, batch, "cpu", normal(outputs), "relu")


@needs_native
@pytest.mark.parametrize("level", ["portable", "avx2", "avx512"])
def test_more_than_65535_inputs(level, monkeypatch):
    monkeypatch.setenv("SPARSEJAX_KERNELS_INSTRUCTIONS", level)
    w = FanIn.fromdense(*layer(70_000, 5, density=0.001))
    assert w.indices.dtype == jnp.int32
    for batch in (1, 6, 40):
        agrees_with_dense(w, batch, "cpu")


@needs_native
def test_indices_too_narrow_for_padding_have_none():
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 2**16, (3, 8)).astype(np.uint16)
    indices[:, -4:] = 70_000 - 2**16
    w = FanIn(jnp.ones((3, 8)), jnp.asarray(indices), 70_000)
    x = jnp.asarray(rng.standard_normal((9, 70_000)), jnp.float32)
    y = matmul(x, w, implementation="cpu")
    expected = matmul(x, w, implementation="reference")
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (2, 0, 3)])
def test_any_batch_rank(implementation, shape):
    w = FanIn.fromdense(*layer(20, 6))
    x = normal(*shape, 20)
    y = matmul(x, w, implementation=implementation)
    assert y.shape == (*shape, 6)
    close(y, x @ w.todense())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bfloat16_sums_in_float32(implementation):
    w = FanIn.fromdense(*layer(300, 20, dtype=jnp.bfloat16))
    x = normal(9, 300).astype(jnp.bfloat16)
    y = matmul(x, w, implementation=implementation)
    assert y.dtype == jnp.bfloat16
    exact = x.astype(jnp.float32) @ w.todense().astype(jnp.float32)
    assert np.array_equal(y, exact.astype(jnp.bfloat16)) or float(
        jnp.abs(y.astype(jnp.float32) - exact).max()
    ) < 2**-8 * float(jnp.abs(exact).max())
    gradient = jax.grad(lambda x: matmul(x, w, implementation=implementation).sum())(x)
    assert gradient.dtype == jnp.bfloat16


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_jit_vmap_and_scan(implementation):
    w = FanIn.fromdense(*layer(50, 12))
    x = normal(4, 3, 50)
    expected = x @ w.todense()

    def run(x, w):
        return matmul(x, w, implementation=implementation)

    close(jax.jit(run)(x, w), expected)
    close(jax.vmap(run, (0, None))(x, w), expected)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), w)
    close(jax.vmap(run)(x, many), expected)
    close(jax.vmap(run, (None, 0))(x[0], many)[2], expected[0])
    _, scanned = jax.lax.scan(lambda carry, x: (carry, run(x, w)), 0, x)
    close(scanned, expected)

    def loss(values, x):
        return jnp.sum(jnp.sin(run(x, dataclasses.replace(w, values=values))))

    wanted = jax.grad(loss)(w.values, x)
    per_example = jax.vmap(jax.grad(loss), (None, 0))(w.values, x)
    close(per_example.sum(0), wanted)
    mapped = jax.grad(lambda v: jax.vmap(loss, (None, 0))(v, x).sum())(w.values)
    close(mapped, wanted)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_sharded_batch(implementation):
    mesh = jax.make_mesh((len(jax.devices()),), ("data",))
    w = FanIn.fromdense(*layer(50, 12))
    x = normal(16, 50)
    split = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    same = jax.device_put(w, NamedSharding(mesh, PartitionSpec()))

    def run(x, w):
        return matmul(x, w, implementation=implementation)

    # JAX asks for a shard_map around kernels in Pallas.
    if not implementation.startswith("pallas"):
        close(jax.jit(run)(split, same), x @ w.todense())
    rows = jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(PartitionSpec("data"), PartitionSpec()),
        out_specs=PartitionSpec("data"),
        check_vma=False,
    )
    close(jax.jit(rows)(split, same), x @ w.todense())


@needs_native
@pytest.mark.parametrize("batch", [1, 8, 64])
@pytest.mark.parametrize("bad", [51, 255])
@pytest.mark.parametrize("level", ["portable", "avx2", "avx512"])
def test_corrupt_indices_only_ever_raise(batch, bad, level, monkeypatch):
    monkeypatch.setenv("SPARSEJAX_KERNELS_INSTRUCTIONS", level)
    w = FanIn.fromdense(*layer(50, 12)).with_transpose()
    x = normal(batch, 50)
    indices = w.indices.at[3, 1].set(bad)
    corrupt = jax.tree.unflatten(
        jax.tree.structure(dataclasses.replace(w, transposed=None)),
        [w.values, indices],
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of range"):
        matmul(x, corrupt, implementation="cpu").block_until_ready()

    def loss(values, transposed):
        one = dataclasses.replace(w, values=values, transposed=transposed)
        return matmul(x, one, implementation="cpu").sum()

    def dx(transposed):
        def run(x):
            one = dataclasses.replace(w, transposed=transposed)
            return matmul(x, one, implementation="cpu").sum()

        return jax.grad(run)(x)

    good = w.transposed
    for wrong in (
        dataclasses.replace(good, starts=good.starts.at[7].set(-5)),
        dataclasses.replace(good, starts=good.starts.at[-1].set(10**6)),
        dataclasses.replace(good, outputs=good.outputs.at[0].set(200)),
        dataclasses.replace(good, positions=good.positions.at[0].set(-(10**6))),
    ):
        with pytest.raises(jax.errors.JaxRuntimeError, match="out of range"):
            dx(wrong).block_until_ready()


@needs_native
def test_gradients_that_nobody_wants_are_not_computed():
    w = FanIn.fromdense(*layer(50, 12)).with_transpose()
    x = normal(4, 50)

    def loss(values, x):
        one = dataclasses.replace(w, values=values)
        return jnp.sum(jnp.sin(matmul(x, one, implementation="cpu", activation="relu")))

    calls = {
        0: "fan_in_value_gradient",
        1: "fan_in_input_gradient",
        (0, 1): "fan_in_gradients",
    }
    for arguments, call in calls.items():
        gradient = jax.jit(jax.grad(loss, arguments))
        program = gradient.lower(w.values, x).as_text()
        assert [name for name in calls.values() if name in program] == [call]


@needs_native
def test_both_gradients_under_scan_and_vmap():
    w = FanIn.fromdense(*layer(16, 16)).with_transpose()
    x = normal(3, 16)
    layers = jnp.stack([w.values, 0.5 * w.values])
    bias = normal(16)

    def loss(layers, x, product):
        def step(x, values):
            y = product(x, dataclasses.replace(w, values=values))
            return jax.nn.relu(y + bias[None]), None

        return jnp.sum(jnp.sin(jax.lax.scan(step, x, layers)[0]))

    def dense(x, w):
        return x @ w.todense()

    gradient = jax.grad(loss, (0, 1))
    for found, expected in zip(
        gradient(layers, x, matmul), gradient(layers, x, dense), strict=True
    ):
        close(found, expected)
    many = jnp.stack([x, 2 * x])
    found, expected = (
        jax.vmap(lambda x, run=run: gradient(layers, x, run))(many)
        for run in (matmul, dense)
    )
    for one, other in zip(found, expected, strict=True):
        close(one, other)


@pytest.mark.usefixtures("any_type")
def test_wrong_arguments():
    w = FanIn.fromdense(*layer(50, 12))
    with pytest.raises(ValueError, match="w reads 50 inputs"):
        matmul(normal(3, 49), w)
    with pytest.raises(ValueError, match=r"bias has shape \(3,\)"):
        matmul(normal(3, 50), w, bias=normal(3))
    with pytest.raises(ValueError, match="activation is 'gelu'"):
        matmul(normal(3, 50), w, activation="gelu")
    with pytest.raises(ValueError, match="implementation is 'cuda'"):
        matmul(normal(3, 50), w, implementation="cuda")
    with pytest.raises(TypeError, match="FanIn"):
        matmul(normal(3, 50), w.todense())


def test_without_native_kernels_it_falls_back(monkeypatch):
    monkeypatch.setenv("SPARSEJAX_KERNELS_NATIVE", "0")
    w = FanIn.fromdense(*layer(50, 12))
    x = normal(3, 50)
    close(matmul(x, w), x @ w.todense())
    with pytest.raises(RuntimeError, match="unset it"):
        matmul(x, w, implementation="cpu")


def test_a_missing_library_is_said_once(tmp_path):
    script = (
        "import pathlib, warnings; from sparsejax_kernels import native; "
        f"native.__file__ = {str(tmp_path / 'native.py')!r}; "
        "warnings.simplefilter('always'); "
        "w = warnings.catch_warnings(record=True); caught = w.__enter__(); "
        "assert not native.available() and not native.available(); "
        "print(len(caught), caught[0].message)"
    )
    folder = os.path.dirname(os.path.dirname(native.__file__))
    environment = {**os.environ, "PYTHONPATH": folder}
    command = [sys.executable, "-c", script]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("1 compressed weights run on XLA's own operations")
    assert "C++17 compiler" in result.stdout


def test_a_library_built_with_a_newer_jaxlib_is_not_registered():
    script = (
        "import jax, jaxlib.version; from sparsejax_kernels import native; "
        "jaxlib.version.__version__ = '0.4.0'; print(native.why_not()); "
        "print(jax.numpy.ones(3).sum())"
    )
    folder = os.path.dirname(os.path.dirname(native.__file__))
    environment = {**os.environ, "PYTHONPATH": folder}
    command = [sys.executable, "-c", script]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    )
    if NATIVE:
        assert "upgrade jaxlib" in result.stdout
    assert "3.0" in result.stdout


@pytest.mark.parametrize("batch", [1, 5])
def test_layers_too_large_for_a_dense_weight(batch, monkeypatch):
    monkeypatch.setattr(xla, "LARGEST_DENSE_WEIGHT", 10)
    monkeypatch.setattr(xla, "GATHERED", 100)
    agrees_with_dense(FanIn.fromdense(*layer(60, 13)), batch, "xla")
