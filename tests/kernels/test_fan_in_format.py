"""The fan-in format: round trips, validation, life as a pytree."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsejax_kernels import FanIn
from sparsejax_kernels.fan_in_matmul import cpu
from sparsejax_kernels.formats.transposed import transpose
from sparsejax_kernels.native import available
from weights import layer


@settings(max_examples=15, deadline=None)
@given(
    inputs=st.integers(1, 300),
    outputs=st.integers(1, 20),
    density=st.floats(0, 1),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16]),
    seed=st.integers(0, 99),
)
def test_round_trip(inputs, outputs, density, dtype, seed):
    weights, mask = layer(inputs, outputs, density, seed, dtype)
    w = FanIn.fromdense(weights, mask)
    assert w.values.dtype == dtype and w.shape == weights.shape
    assert np.array_equal(w.todense(), jnp.where(mask, weights, 0))
    assert int(w.count) == int(mask.sum())
    again = FanIn(w.values, w.indices, inputs)
    kept = (again.indices < inputs).sum(axis=1)
    assert np.array_equal(kept, mask.sum(axis=0))
    assert w.indices.dtype == (jnp.uint8 if inputs <= 255 else jnp.uint16)


def test_bytes_and_density():
    weights, mask = layer(1000, 8, density=1.0)
    w = FanIn.fromdense(weights, mask)
    assert w.nbytes == 8 * 1000 * (4 + 2)
    assert w.density == 7 / 8 and w.fan_in == 1000 and w.dtype == jnp.float32
    assert w.with_transpose().nbytes > w.nbytes


@pytest.mark.parametrize("implementation", [transpose, cpu.transpose])
def test_the_transposed_index_visits_every_weight_once(implementation):
    if implementation is cpu.transpose and not available():
        pytest.skip("no native kernels")
    w = FanIn.fromdense(*layer(300, 20))
    index = implementation(w.indices, 300)
    assert sorted(index.positions.tolist()) == list(range(w.indices.size))
    flat, starts = np.asarray(w.indices).reshape(-1), np.asarray(index.starts)
    positions = np.asarray(index.positions)
    for entry in range(starts[-1]):
        owner = np.searchsorted(starts, entry, side="right") - 1
        assert flat[positions[entry]] == owner
        assert positions[entry] // w.fan_in == int(index.outputs[entry])
    expected = transpose(w.indices, 300)
    assert np.array_equal(index.positions, expected.positions)
    assert np.array_equal(index.starts, expected.starts)


@pytest.mark.parametrize("value", [-1, 5, 1000])
def test_an_index_out_of_range_is_named(value):
    indices = jnp.asarray([[0, 1], [2, value]], jnp.int32)
    with pytest.raises(ValueError, match=rf"indices\[1, 1\] is {value}.* 0 to 4"):
        FanIn(jnp.ones((2, 2)), indices, 4)


@pytest.mark.usefixtures("any_type")
def test_wrong_arguments():
    weights, mask = layer(8, 4, density=0.9)
    with pytest.raises(ValueError, match=r"both have to be \(in, out\)"):
        FanIn.fromdense(weights, mask[:4])
    with pytest.raises(ValueError, match="raise it to"):
        FanIn.fromdense(weights, mask, fan_in=1)
    with pytest.raises(ValueError, match="under jit"):
        jax.jit(FanIn.fromdense)(weights, mask)
    with pytest.raises(ValueError, match=r"both have to be \(out, fan-in\)"):
        FanIn(jnp.ones((2, 2)), jnp.zeros((2, 3), jnp.int32), 4)
    with pytest.raises(ValueError, match="integer"):
        FanIn(jnp.ones((2, 2)), jnp.zeros((2, 2)), 4)


def test_it_is_built_under_jit_where_its_fan_in_is_given():
    weights, mask = layer(8, 4)
    w = jax.jit(FanIn.fromdense, static_argnames="fan_in")(weights, mask, fan_in=8)
    assert np.array_equal(w.todense(), jnp.where(mask, weights, 0))


def test_it_goes_through_scan_donation_and_orbax(tmp_path):
    checkpoint = pytest.importorskip("orbax.checkpoint")
    weights, mask = layer(300, 20)
    w = FanIn.fromdense(weights, mask).with_transpose()

    def step(w, _):
        return dataclasses.replace(w, values=w.values * 2), w.values.sum()

    doubled, _ = jax.jit(lambda w: jax.lax.scan(step, w, length=3))(w)
    expected = 8 * jnp.where(mask, weights, 0)
    assert np.array_equal(doubled.todense(), expected)

    with checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "w", doubled)
        checkpointer.wait_until_finished()
        shapes = jax.tree.map(jnp.zeros_like, doubled)
        restored = checkpointer.restore(tmp_path / "w", shapes)
    assert isinstance(restored, FanIn) and restored.in_features == 300
    assert np.array_equal(restored.todense(), expected)

    donated = jax.jit(lambda w: step(w, None)[0], donate_argnums=0)(doubled)
    assert np.array_equal(donated.todense(), 2 * expected)
    assert doubled.values.is_deleted()
