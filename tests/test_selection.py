"""Exact-k selection against a stable sort, and what it exchanges between devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import sparsejax as sj
from sparsejax import selection
from sparsejax.selection import order_key, top_k_mask

select = jax.jit(top_k_mask)


def by_sorting(scores, k, where=None):
    """The definition: stable sort by descending score, NaN and -inf excluded."""
    flat = np.asarray(scores, np.float64).reshape(-1)
    eligible = ~np.isnan(flat) & (flat != -np.inf)
    if where is not None:
        eligible &= np.asarray(where).reshape(-1)
    order = np.argsort(np.where(eligible, -flat, np.inf), kind="stable")
    mask = np.zeros(flat.size, bool)
    mask[order[: min(k, eligible.sum())]] = True
    return mask.reshape(np.shape(scores))


values = st.one_of(
    st.floats(width=32),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(values, min_size=24, max_size=24), st.integers(0, 26), st.data())
def test_equals_stable_sort_for_any_floats(numbers, k, data):
    scores = np.array(numbers, np.float32).reshape(4, 6)
    scores[np.abs(scores) < np.finfo(np.float32).tiny] = 0  # flushed by the backend
    where = np.array(data.draw(st.lists(st.booleans(), min_size=24, max_size=24)))
    where = where.reshape(4, 6)
    np.testing.assert_array_equal(select(scores, k), by_sorting(scores, k))
    got = select(scores, k, where=where)
    np.testing.assert_array_equal(got, by_sorting(scores, k, where))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("k", [0, 1, 50, 999, 1000])
def test_exact_count_with_ties_in_every_float_type(dtype, k):
    scores = jnp.round(jax.random.normal(jax.random.key(k), (20, 50)) * 4).astype(dtype)
    got = select(scores, k)
    assert int(got.sum()) == k
    np.testing.assert_array_equal(got, by_sorting(scores.astype(jnp.float32), k))


def test_all_equal_scores_keep_the_lowest_indices():
    got = select(jnp.full((3, 5), -2.5), 7).reshape(-1)
    np.testing.assert_array_equal(got, np.arange(15) < 7)


def test_nan_is_never_selected_even_when_k_asks_for_all():
    scores = jnp.array([jnp.nan, 1.0, -jnp.nan, -jnp.inf, -3.0])
    assert select(scores, 5).tolist() == [False, True, False, False, True]


def test_heavy_tails_and_wide_ranges():
    scores = jax.random.normal(jax.random.key(0), (100_000,)) ** 15
    for k in (1, 10, 1_000, 99_000):
        np.testing.assert_array_equal(select(scores, k), by_sorting(scores, k))


def test_random_integers_are_their_own_order():
    scores = np.array([0, 2**32 - 1, 5, 2**31, 5], np.uint32)
    assert select(scores, 3).tolist() == [False, True, True, True, False]


def test_signed_integers_are_refused():
    with pytest.raises(TypeError, match="int32"):
        top_k_mask(jnp.arange(3), 1)


def test_traced_k_compiles_once():
    function = jax.jit(lambda scores, k: top_k_mask(scores, k))
    scores = jax.random.normal(jax.random.key(0), (64,))
    for k in range(5):
        assert int(function(scores, k).sum()) == k
    assert function._cache_size() == 1


def test_vmap_selects_in_each_replica():
    scores = jax.random.normal(jax.random.key(0), (5, 40))
    counts = jnp.arange(5) * 7
    got = jax.vmap(top_k_mask)(scores, counts)
    pairs = zip(scores, counts, strict=True)
    want = np.stack([by_sorting(row, int(k)) for row, k in pairs])
    np.testing.assert_array_equal(got, want)


def test_tree_is_ranked_together_in_flattening_order():
    key = jax.random.key(1)
    tree = {
        "a": jnp.round(jax.random.normal(key, (6, 7)) * 2),
        "b": jnp.round(jax.random.normal(key, (9,)) * 2).astype(jnp.bfloat16),
    }
    flat = jnp.concatenate([leaf.reshape(-1).astype(float) for leaf in tree.values()])
    for k in (0, 1, 17, 30, 51):
        got = select(tree, k)
        together = np.concatenate([np.asarray(got[name]).reshape(-1) for name in tree])
        np.testing.assert_array_equal(together, by_sorting(flat, k))


def test_order_key_is_monotone():
    numbers = jnp.sort(jax.random.normal(jax.random.key(0), (1000,)) ** 9)
    keys = np.asarray(order_key(numbers)).astype(np.int64)
    assert (np.diff(keys) >= 0).all()


@pytest.mark.parametrize("spec", [("x", None), (None, "x"), ("x", "y")])
def test_sharded_selection_exchanges_only_unsigned(spec):
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    scores = jnp.round(jax.random.normal(jax.random.key(0), (64, 128)) * 8)
    want = by_sorting(scores, 1234)
    scores = jax.device_put(scores, sharding)
    compiled = jax.jit(top_k_mask, out_shardings=sharding).lower(scores, 1234).compile()
    np.testing.assert_array_equal(compiled(scores, 1234), want)
    program = compiled.as_text()
    collectives = re.findall(
        r"= (\S+) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)",
        program,
    )
    assert collectives
    for shape, kind in collectives:
        assert kind == "all-reduce", f"{kind} of {shape}"
        assert re.fullmatch(r"[uf]32\[1?\]|\([uf]32\[1?\](, [uf]32\[1?\])*\)", shape), (
            shape
        )


@pytest.mark.parametrize("wanted", [2**31 - 1, 2**31, 3_000_000_000, 2**32 - 2, 0])
def test_counts_above_two_to_the_31_are_found_exactly(wanted):
    # Each of 2**32 - 1 keys occurs once: nothing has to be stored to count them.
    largest = 2**32 - 2

    def reaching(thresholds):
        return jnp.uint32(largest) - thresholds + jnp.uint32(1)

    def ends(*numbers):
        return jnp.asarray(numbers, jnp.uint32)

    low, reached = selection._search(
        reaching,
        selection._unsigned(wanted).reshape(1),
        ends(1),
        ends(largest),
        reaching(ends(1)),
    )
    assert int(reached[0]) == max(wanted, 1)
    assert int(low[0]) == largest - max(wanted, 1) + 1


def test_the_most_that_can_be_ranked_together_is_stated():
    big = jax.ShapeDtypeStruct((2**16, 2**16), jnp.float32)
    with pytest.raises(ValueError, match=r"cannot rank 4294967296 .*rank per layer"):
        jax.eval_shape(lambda x: sj.top_k_mask(x, 5), big)
    # Layer by layer a model may be larger than that.
    stacked = [jax.ShapeDtypeStruct((4, 2**15, 2**15), jnp.float32)] * 2
    k = [jax.ShapeDtypeStruct((4,), jnp.int32)] * 2
    found = jax.eval_shape(lambda x, k: selection.top_k_masks(x, k), stacked, k)
    assert [one.shape for one in found] == [(4, 2**15, 2**15)] * 2
