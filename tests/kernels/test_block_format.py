"""The block format: round trips, validation, life as a pytree."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsejax_kernels import Block
from weights import block_layer


@settings(max_examples=8, deadline=None)
@given(
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 50),
    block=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    density=st.floats(0, 1),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16]),
    seed=st.integers(0, 99),
)
def test_round_trip(inputs, outputs, block, density, dtype, seed):
    weights, mask = block_layer(inputs, outputs, block, density, seed, dtype)
    w = Block.fromdense(weights, mask, block=block)
    assert w.dtype == dtype and w.shape == weights.shape and w.block == block
    assert np.array_equal(w.todense(), jnp.where(mask, weights, 0))
    assert int(w.count) == int(mask.sum())
    assert w.density == np.float32(mask.sum()) / np.float32(mask.size)
    again = Block(w.values, w.coordinates, inputs, outputs)
    places = [(column, row) for row, column in again.coordinates.tolist()]
    assert places == sorted(set(places))


def test_bytes_and_index_types():
    weights, mask = block_layer(64, 64, (32, 32), density=1.0)
    w = Block.fromdense(weights, mask, block=(32, 32))
    assert w.coordinates.dtype == jnp.uint8 and w.grid == (2, 2)
    assert w.nbytes == 64 * 64 * 4 + 4 * 2
    weights, mask = block_layer(300, 2, (1, 2), density=1.0)
    w = Block.fromdense(weights, mask, block=(1, 2))
    assert w.coordinates.dtype == jnp.uint16


def test_a_weight_without_blocks():
    w = Block.fromdense(jnp.ones((8, 6)), jnp.zeros((8, 6), bool), block=(4, 4))
    assert w.values.shape == (0, 4, 4) and w.nbytes == 0 and int(w.count) == 0
    assert np.array_equal(w.todense(), jnp.zeros((8, 6)))


def test_it_is_built_under_jit_where_its_number_of_blocks_is_given():
    weights, mask = block_layer(20, 9, (4, 4))
    build = jax.jit(Block.fromdense, static_argnames=("block", "blocks"))
    w = build(weights, mask, block=(4, 4), blocks=12)
    assert np.array_equal(w.todense(), jnp.where(mask, weights, 0))
    assert int(w.count) == int(mask.sum())
    assert w.coordinates[-1].tolist() == [5, 3]
    with pytest.raises(ValueError, match="under jit"):
        build(weights, mask, block=(4, 4))


@pytest.mark.usefixtures("any_type")
def test_wrong_arguments():
    weights, mask = block_layer(8, 8, (4, 4), density=1.0)
    with pytest.raises(ValueError, match=r"both have to be \(in, out\)"):
        Block.fromdense(weights, mask[:4], block=(4, 4))
    with pytest.raises(ValueError, match=r"block is \(0, 4\)"):
        Block.fromdense(weights, mask, block=(0, 4))
    with pytest.raises(ValueError, match="raise it to 4"):
        Block.fromdense(weights, mask, block=(4, 4), blocks=3)
    with pytest.raises(ValueError, match=r"mask keeps 63 .* `sj.block\(4, 4\)`"):
        Block.fromdense(weights, mask.at[0, 0].set(False), block=(4, 4))
    with pytest.raises(ValueError, match=r"\(blocks, height, width\)"):
        Block(jnp.ones((2, 0, 2)), jnp.zeros((2, 2), jnp.int32), 4, 4)
    with pytest.raises(ValueError, match=r"it has to be \(2, 2\)"):
        Block(jnp.ones((2, 2, 2)), jnp.zeros((3, 2), jnp.int32), 4, 4)
    with pytest.raises(ValueError, match=r"coordinates\[:, 1\]\[0\] is 3.* 0 to 2"):
        Block(jnp.ones((1, 2, 2)), jnp.asarray([[0, 3]], jnp.int32), 4, 4)
    with pytest.raises(ValueError, match=r"coordinates\[:, 0\]\[0\] is -1"):
        Block(jnp.ones((1, 2, 2)), jnp.asarray([[-1, 0]], jnp.int32), 4, 4)


@pytest.mark.usefixtures("any_type")
def test_coordinates_have_to_be_integers():
    with pytest.raises(ValueError, match="integer type"):
        Block(jnp.ones((1, 2, 2)), jnp.zeros((1, 2)), 4, 4)


def test_it_goes_through_scan_donation_and_orbax(tmp_path):
    checkpoint = pytest.importorskip("orbax.checkpoint")
    weights, mask = block_layer(60, 20, (8, 8))
    w = Block.fromdense(weights, mask, block=(8, 8))

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
    assert isinstance(restored, Block) and restored.shape == (60, 20)
    assert np.array_equal(restored.todense(), expected)

    donated = jax.jit(lambda w: step(w, None)[0], donate_argnums=0)(doubled)
    assert np.array_equal(donated.todense(), 2 * expected)
    assert doubled.values.is_deleted()
