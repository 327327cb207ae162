"""Kernels for TPUs: they lower for one, and padding never meets an infinity."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sparsejax_kernels import NM, Block, FanIn, matmul, tpu_tiles
from weights import block_layer, layer


def fan_in(inputs, outputs, dtype):
    return FanIn.fromdense(*layer(inputs, outputs, 0.1, dtype=dtype))


def block(inputs, outputs, dtype):
    shape = (128, 128) if inputs % 128 == 0 else (5, 9)
    return Block.fromdense(
        *block_layer(inputs, outputs, shape, dtype=dtype), block=shape
    )


def n_m(inputs, outputs, dtype):
    weights, _ = layer(inputs, outputs, dtype=dtype)
    rows = np.arange(inputs)[:, None] + np.arange(outputs)[None]
    return NM.fromdense(weights, jnp.asarray(rows % 4 < 2), n=2, m=4)


FORMATS = [fan_in, block, n_m]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(1, 384, 256), (600, 301, 37)])
@pytest.mark.parametrize("make", FORMATS)
def test_output_and_gradients_lower_for_a_tpu(make, shape, dtype, monkeypatch):
    monkeypatch.delenv("SPARSEJAX_KERNELS_INTERPRET")
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    batch, inputs, outputs = shape
    w = make(inputs, outputs, dtype)
    x, y = (jax.ShapeDtypeStruct((batch, size), dtype) for size in (inputs, outputs))

    def run(x, values, cotangent):
        def product(x, values):
            one = dataclasses.replace(w, values=values)
            return matmul(x, one, activation="relu", implementation="pallas_tpu")

        y, vjp = jax.vjp(product, x, values)
        return y, vjp(cotangent)

    traced = jax.jit(run).trace(x, w.values, y)
    program = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert program.count("stablehlo.custom_call @tpu_custom_call") == 3


def test_it_needs_a_tpu(monkeypatch):
    monkeypatch.delenv("SPARSEJAX_KERNELS_INTERPRET")
    w = fan_in(20, 9, jnp.float32)
    with pytest.raises(RuntimeError, match="'pallas_tpu' needs a TPU"):
        matmul(jnp.ones((1, 20)), w, implementation="pallas_tpu")


@pytest.mark.parametrize("make", FORMATS)
def test_only_what_reads_a_number_that_is_not_finite_is_not(make):
    w = make(20, 18, jnp.float32)
    ones = dataclasses.replace(w, values=jnp.ones_like(w.values))
    if make is block:
        # A block reads all of its inputs, padding at the end none.
        room = 5 * 2 + 3
        w = Block.fromdense(*block_layer(20, 18, (5, 9)), block=(5, 9), blocks=room)
        ones = dataclasses.replace(w, values=jnp.ones_like(w.values))
    reads = np.asarray(ones.todense()) > 0
    x = jnp.ones((3, 20)).at[1, 3].set(jnp.inf).at[0, 3].set(jnp.nan)
    cotangent = jnp.ones((3, 18)).at[2, 4].set(jnp.inf).at[1, 4].set(jnp.nan)

    @jax.jit
    def run(x, values, cotangent):
        def product(x, values):
            one = dataclasses.replace(w, values=values)
            return matmul(x, one, implementation="pallas_tpu")

        y, vjp = jax.vjp(product, x, values)
        return y, *vjp(cotangent)

    y, dx, dvalues = run(x, w.values, cotangent)
    spoilt = np.zeros((3, 18), bool)
    spoilt[:2] = reads[3]
    np.testing.assert_array_equal(np.isfinite(y), ~spoilt)
    spoilt = np.zeros((3, 20), bool)
    spoilt[1:] = reads[:, 4]
    np.testing.assert_array_equal(np.isfinite(dx), ~spoilt)
    dense = dataclasses.replace(w, values=dvalues).todense()
    spoilt = np.zeros((20, 18), bool)
    spoilt[3], spoilt[:, 4] = reads[3], reads[:, 4]
    np.testing.assert_array_equal(np.isfinite(dense), ~spoilt)
    # What is padding has no gradient.
    assert jnp.isfinite(dvalues).sum() == dvalues.size - spoilt.sum()


@pytest.mark.parametrize("make", FORMATS)
def test_many_tiles_along_every_axis(make, monkeypatch):
    def batch_tile(rows, largest=16):
        return 16

    for operation in ("fan_in_matmul", "block_matmul", "n_m_matmul"):
        module = f"sparsejax_kernels.{operation}.pallas_tpu"
        monkeypatch.setattr(f"{module}.batch_tile", batch_tile)
    w = make(640, 140, jnp.float32)
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.standard_normal((40, 640)), jnp.float32)

    @functools.partial(jax.jit, static_argnums=2)
    def run(x, values, implementation):
        def loss(x, values):
            one = dataclasses.replace(w, values=values)
            y = matmul(x, one, implementation=implementation)
            return jnp.sum(jnp.sin(y)), y

        return jax.grad(loss, (0, 1), has_aux=True)(x, values)

    found, expected = (run(x, w.values, name) for name in ("pallas_tpu", "reference"))
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(0, 3, 2), (3, 0, 2), (3, 3, 0)])
@pytest.mark.parametrize("make", FORMATS)
def test_axes_without_elements(make, sizes):
    inputs, outputs, room = sizes
    if make is fan_in:
        w = FanIn(*_empty((outputs, room), inputs), inputs)
    elif make is n_m:
        w = NM(*_empty((outputs, -(-inputs // 4), room), 4), inputs, 4)
    else:
        grid = jnp.asarray([[-(-inputs // 2), -(-outputs // 2)]] * room, jnp.uint8)
        w = Block(jnp.ones((room, 2, 2)), grid.reshape(room, 2), inputs, outputs)

    @jax.jit
    def run(x, values, cotangent):
        def product(x, values):
            one = dataclasses.replace(w, values=values)
            return matmul(x, one, implementation="pallas_tpu")

        y, vjp = jax.vjp(product, x, values)
        return y, *vjp(cotangent)

    y, dx, dvalues = run(jnp.ones((2, inputs)), w.values, jnp.ones((2, outputs)))
    assert not y.any() and not dx.any() and not dvalues.any()
    assert y.shape == (2, outputs) and dvalues.shape == w.values.shape


def _empty(shape, padding):
    return jnp.ones(shape), jnp.full(shape, padding, jnp.uint8)


def test_tiles_cover_a_size():
    assert [tpu_tiles.tiles_of(size) for size in (0, 1, 128, 129)] == [1, 1, 1, 2]
    assert [tpu_tiles.batch_tile(rows) for rows in (1, 512, 513)] == [16, 512, 272]
