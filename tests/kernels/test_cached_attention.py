"""Attention over a cache: every implementation is the definition, and jax's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sparsejax_kernels import cached_attention, native

IMPLEMENTATIONS = ("reference", "xla", "cpu")


def drawn(batch, heads, groups, capacity, size, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 3)
    query = jax.random.normal(keys[0], (batch, 1, heads, size), dtype)
    shape = (batch, groups, capacity, size)
    return query, *(jax.random.normal(key, shape, dtype) for key in keys[1:])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("batch", "heads", "groups", "capacity", "size", "last"),
    [
        (1, 4, 4, 40, 64, 39),
        (1, 4, 2, 300, 64, 257),
        (3, 6, 1, 33, 20, 16),
        (2, 2, 2, 5, 1, 0),
        (1, 3, 3, 17, 130, 12),
    ],
)
def test_it_is_attention_over_what_is_visible(
    implementation, batch, heads, groups, capacity, size, last
):
    query, keys, values = drawn(batch, heads, groups, capacity, size)
    padding = jnp.arange(batch, dtype=jnp.int32) % (last + 1)
    found = jax.jit(cached_attention, static_argnames="implementation")(
        query, keys, values, last, padding=padding, implementation=implementation
    )
    for row in range(batch):
        held = slice(int(padding[row]), last + 1)
        one = (x[row : row + 1, :, held].swapaxes(1, 2) for x in (keys, values))
        expected = jax.nn.dot_product_attention(query[row : row + 1], *one)
        np.testing.assert_allclose(found[row], expected[0], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("level", ["portable", "avx2", "avx512"])
def test_every_instruction_set_computes_it(level, monkeypatch):
    monkeypatch.setenv("SPARSEJAX_KERNELS_INSTRUCTIONS", level)
    # Scores that differ by a hundred: exponents of many sizes.
    query, keys, values = drawn(2, 4, 2, 90, 24)
    arguments = (30 * query, keys, values, 70)
    expected = cached_attention(*arguments, implementation="reference")
    found = cached_attention(*arguments, implementation="cpu")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_what_is_not_a_number_is_not_hidden():
    query, keys, values = drawn(1, 1, 1, 40, 16)
    beyond = keys.at[0, 0, 30].set(jnp.nan), values.at[0, 0, 30].set(jnp.nan)
    assert jnp.isfinite(cached_attention(query, *beyond, 29)).all()
    assert jnp.isnan(cached_attention(query, *beyond, 30)).all()


def test_large_scores_do_not_overflow():
    query, keys, values = drawn(1, 2, 2, 40, 16)
    found = cached_attention(1e4 * query, keys, values, 39)
    expected = cached_attention(
        1e4 * query, keys, values, 39, implementation="reference"
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_it_can_be_mapped():
    query, keys, values = drawn(3, 2, 1, 20, 8)
    found = jax.vmap(lambda *parts: cached_attention(*(x[None] for x in parts), 9)[0])(
        query, keys, values
    )
    np.testing.assert_allclose(
        found, cached_attention(query, keys, values, 9), rtol=1e-5
    )


def test_narrow_caches_run_too(implicit_promotion):
    query, keys, values = drawn(1, 2, 1, 20, 8, jnp.bfloat16)
    found = cached_attention(query, keys, values, 9)
    assert found.dtype == jnp.bfloat16
    expected = cached_attention(query, keys, values, 9, implementation="reference")
    np.testing.assert_allclose(
        found.astype(jnp.float32), expected.astype(jnp.float32), rtol=0.05, atol=0.02
    )
    with pytest.raises(ValueError, match="query is bfloat16"):
        cached_attention(query, keys, values, 9, implementation="cpu")


def test_wrong_shapes_are_named(any_type):
    query, keys, values = drawn(1, 3, 2, 20, 8)
    with pytest.raises(ValueError, match="heads being a multiple of groups"):
        cached_attention(query, keys, values, 3)
    query, keys, values = drawn(1, 2, 2, 20, 8)
    with pytest.raises(ValueError, match=r"values \(1, 2, 19, 8\)"):
        cached_attention(query, keys, values[:, :, :19], 3)


@pytest.mark.skipif(not native.available(), reason="needs the native kernels")
def test_the_native_kernel_reads_nothing_behind_the_cache():
    query, keys, values = drawn(1, 2, 2, 20, 8)
    with pytest.raises(jax.errors.JaxRuntimeError, match="is not in it"):
        cached_attention(query, keys, values, 20).block_until_ready()
