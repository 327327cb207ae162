"""Kernels for GPUs: they lower for CUDA, and padding reads nothing.

That they compute the dense product is tested with the other implementations.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh
from sparsejax_kernels import NM, Block, FanIn, matmul
from sparsejax_kernels.block_matmul import wgmma
from weights import block_layer, layer


def normal(*shape, dtype=jnp.float32):
    generator = np.random.default_rng(1)
    return jnp.asarray(generator.standard_normal(shape), jnp.float32).astype(dtype)


def n_m(inputs, outputs, n, m, dtype=jnp.float32):
    """At most n weights of every m inputs, the first ones of a random mask."""
    weights, mask = layer(inputs, outputs, 0.4, dtype=dtype)
    place = np.arange(inputs) // m
    kept = np.array(mask)
    for group in range(place[-1] + 1):
        rows = kept[place == group]
        kept[place == group] = rows & (np.cumsum(rows, axis=0) <= n)
    return NM.fromdense(weights, jnp.asarray(kept), n=n, m=m)


def weight(name, dtype):
    """One weight of each format, none of which fills its tiles."""
    if name == "fan_in":
        return FanIn.fromdense(*layer(70, 37, dtype=dtype)).with_transpose()
    if name == "block":
        dense = block_layer(70, 37, (24, 8), dtype=dtype)
        return Block.fromdense(*dense, block=(24, 8), blocks=20)
    return n_m(70, 37, *((2, 4) if name == "2:4" else (3, 32)), dtype)


def gradients(x, w):
    """Output, and gradients with respect to activations and weights."""

    def run(x, values):
        one = dataclasses.replace(w, values=values)
        return matmul(x, one, activation="relu", implementation="pallas_gpu")

    y, vjp = jax.vjp(run, x, w.values)
    return y, *vjp(y)


def lowered(function, *arguments):
    """The program for an H200 that is not there."""
    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=None, platform="cuda")
    mesh = AbstractMesh((1,), ("one",), abstract_device=device)
    with use_abstract_mesh(mesh):
        traced = jax.jit(function).trace(*arguments)
        return traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.fixture
def compiled(monkeypatch):
    """As on a machine with a GPU, as far as the choice of implementation goes."""
    monkeypatch.delenv("SPARSEJAX_KERNELS_INTERPRET")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("name", ["fan_in", "block", "2:4", "3:32"])
@pytest.mark.parametrize(
    ("batch", "dtype"),
    [
        (1, jnp.float32),
        (130, jnp.bfloat16),
        pytest.param(1, jnp.bfloat16, marks=pytest.mark.slow),
        pytest.param(130, jnp.float32, marks=pytest.mark.slow),
    ],
)
def test_products_and_gradients_lower_for_cuda(name, batch, dtype):
    w = weight(name, dtype)
    text = lowered(gradients, normal(batch, 70, dtype=dtype), w)
    # One kernel each for the output and both gradients, and nothing dense.
    assert text.count("@__gpu$xla.gpu.triton") == 3
    assert "tensor<70x37x" not in text and "tensor<37x70x" not in text


@pytest.mark.parametrize("name", ["fan_in", "block", "2:4", "3:32"])
@pytest.mark.parametrize(
    "bad", [jnp.inf, pytest.param(jnp.nan, marks=pytest.mark.slow)]
)
def test_infinite_activations_reach_only_what_reads_them(name, bad):
    w = weight(name, jnp.float32)
    read = np.asarray(w.todense() != 0).any(axis=1)
    x = normal(3, 70).at[1, np.flatnonzero(read)[3]].set(bad)
    y = matmul(x, w, implementation="pallas_gpu")
    expected = matmul(x, w, implementation="reference")
    assert np.isfinite(expected[1]).any() and not np.isfinite(expected[1]).all()
    np.testing.assert_allclose(y, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["fan_in", "block", "2:4", "3:32"])
def test_infinite_cotangents_reach_only_what_is_read(name):
    w = weight(name, jnp.float32)
    reads = np.asarray(w.todense() != 0).any(axis=0)
    x, cotangent = normal(3, 70), normal(3, 37)
    cotangent = cotangent.at[1, np.flatnonzero(reads)[3]].set(jnp.inf)

    def gradient(implementation):
        def run(x, values):
            one = dataclasses.replace(w, values=values)
            return matmul(x, one, implementation=implementation)

        return jax.vjp(run, x, w.values)[1](cotangent)

    dx, dvalues = gradient("pallas_gpu")
    wanted, _ = gradient("reference")
    assert np.isfinite(wanted[1]).any() and not np.isfinite(wanted[1]).all()
    np.testing.assert_allclose(dx, wanted, atol=1e-4)
    assert np.isfinite(dvalues).any() and not np.isfinite(dvalues).all()


def hopper_weight(block, inputs=150, outputs=130):
    """A bfloat16 weight that warpgroups multiply, with an empty column and padding."""
    weights, mask = block_layer(inputs, outputs, block, 0.6, dtype=jnp.bfloat16)
    mask = mask.at[:, : block[1]].set(False)
    return Block.fromdense(weights, mask, block=block, blocks=8)


@pytest.mark.parametrize(
    "block", [(128, 64), pytest.param((64, 64), marks=pytest.mark.slow)]
)
def test_warpgroups_multiply_kept_blocks(block, monkeypatch):
    w = hopper_weight(block)
    x = normal(70, 150, dtype=jnp.bfloat16)
    assert wgmma.fits(block, x, w.values)
    y, dx, dvalues = gradients(x, w)
    monkeypatch.setattr(wgmma, "fits", lambda *_: False)
    for found, expected in zip((y, dx, dvalues), gradients(x, w), strict=True):
        found, expected = (a.astype(jnp.float32) for a in (found, expected))
        scale = float(jnp.abs(expected).max())
        np.testing.assert_allclose(found, expected, atol=2**-7 * scale)
        assert scale > 1


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    ("batch", "block"),
    [(130, (128, 128)), (8, (64, 64)), (8, (64, 128)), (8, (128, 64))],
)
def test_warpgroup_kernels_lower_for_cuda(block, batch, monkeypatch):
    monkeypatch.setattr(wgmma, "fits", lambda *_: True)
    x = normal(batch, 150, dtype=jnp.bfloat16)
    text = lowered(gradients, x, hopper_weight(block))
    assert text.count("@mosaic_gpu_v2") == 3 and "triton" not in text


def test_bfloat16_activations_times_float32_weights():
    for name in ("block", "2:4"):
        w = weight(name, jnp.float32)
        x = normal(5, 70, dtype=jnp.bfloat16)
        y, dx, dvalues = gradients(x, w)
        assert (y.dtype, dx.dtype, dvalues.dtype) == (x.dtype, x.dtype, w.dtype)
        exact = jnp.maximum(x.astype(jnp.float32) @ w.todense(), 0)
        np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=0.1)


def test_without_a_gpu_it_raises(monkeypatch):
    monkeypatch.delenv("SPARSEJAX_KERNELS_INTERPRET")
    with pytest.raises(RuntimeError, match="needs a GPU, and this is a CPU"):
        matmul(normal(3, 70), weight("2:4", jnp.float32), implementation="pallas_gpu")
