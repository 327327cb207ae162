"""N:M along the inputs: every width, ragged ends, orientations, schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax as sj
from sparsejax.layers import Layer, by_name, flax


def layer_of(shape, path="kernel", layout=None):
    return Layer(path, shape, (layout or by_name())(path, shape))


def by_sorting(groups, n):
    """The definition: the ``n`` largest of the last axis, ties to the lowest index."""
    order = np.argsort(-groups, axis=-1, kind="stable")
    mask = np.zeros(groups.shape, bool)
    np.put_along_axis(mask, order[..., :n], True, axis=-1)
    return mask


def test_every_width():
    """On both sides of the width up to which all pairs are compared."""
    widths = [*range(1, 35), 37, 40]
    number = {m: m // 2 + 1 for m in widths}

    @jax.jit
    def choose(scores):
        masks = {}
        for m in widths:
            layer = layer_of(scores[m].shape)
            structure = sj.n_m(number[m], m)
            counts = structure.measure([layer], [None])
            [masks[m]] = structure.select([layer], [scores[m]], counts)
        return masks

    random = np.random.default_rng(0)
    # Rounded: with many ties.
    scores = {m: random.normal(size=(2 * m, 2)).astype(np.float32) for m in widths}
    scores = {m: np.round(2 * values) / 2 for m, values in scores.items()}
    for m, mask in choose(scores).items():
        groups = scores[m].T.reshape(2, 2, m)
        want = by_sorting(groups, number[m]).reshape(2, 2 * m).T
        np.testing.assert_array_equal(mask, want, err_msg=f"m={m}")


@pytest.mark.parametrize("shape", [(7, 3), (3, 4), (1, 2), (40, 2)])
def test_ragged_last_groups_keep_at_most_n(shape):
    structure, layer = sj.n_m(2, 4), layer_of(shape)
    scores = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    counts = structure.measure([layer], [None])
    mask = np.asarray(structure.select([layer], [jnp.asarray(scores)], counts)[0])
    total = 0
    for start in range(0, shape[0], 4):
        group = mask[start : start + 4]
        assert (group.sum(axis=0) == min(2, len(group))).all()
        total += int(group.sum())
    assert counts[0].tolist() == total
    assert structure.fit([layer], [(total,)]) == [(total,)]


def test_best_two_of_four_and_ties_to_the_lowest_index():
    rows = [[1.0, -2.0, 0.5, 0.1], [3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 1.0]]
    tx = sj.magnitude(optax.sgd(0.1), sparsity=0.5, start=0, structure=sj.n_m(2, 4))
    params = {"kernel": jnp.array(rows).T}
    _, state = tx.update(params, tx.init(params), params)
    want = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 1]]
    np.testing.assert_array_equal(sj.masks(state)["kernel"].T, want)


LEAVES = {
    "flax": ("kernel", (3, 3, 8, 2), lambda mask: mask.transpose(3, 0, 1, 2)),
    "equinox": ("weight", (2, 8, 3, 3), lambda mask: mask.transpose(0, 2, 3, 1)),
    "attention": ("out/kernel", (2, 8, 2), lambda mask: mask.transpose(2, 0, 1)),
    "query": ("query/kernel", (8, 2, 3), lambda mask: mask.transpose(1, 2, 0)),
}


@pytest.mark.parametrize("name", LEAVES)
def test_groups_are_input_channels_of_one_position(name):
    path, shape, channels_last = LEAVES[name]
    layer = layer_of(shape, path)
    scores = jnp.asarray(np.random.default_rng(0).random(shape, np.float32))
    structure = sj.n_m(1, 4)
    counts = structure.measure([layer], [None])
    [mask] = structure.select([layer], [scores], counts)
    groups = channels_last(np.asarray(scores)).reshape(-1, 2, 4)
    got = channels_last(np.asarray(mask)).reshape(-1, 2, 4)
    np.testing.assert_array_equal(got, by_sorting(groups, 1))


def test_nan_and_minus_infinity_are_never_kept():
    layer, structure = layer_of((4, 2)), sj.n_m(2, 4)
    scores = jnp.array([[jnp.nan, -jnp.inf, 1.0, jnp.nan], [1.0, jnp.inf, -1.0, 0.0]])
    [mask] = structure.select([layer], [scores.T], [jnp.int32(4)])
    np.testing.assert_array_equal(mask.T, [[0, 0, 1, 0], [1, 1, 0, 0]])


def test_stacked_layers_can_have_different_shares():
    layout = flax(stacked={"blocks": 1})
    layer = layer_of((3, 8, 2), "blocks", layout)
    scores = jnp.asarray(np.random.default_rng(0).random((3, 8, 2), np.float32))
    [mask] = sj.n_m(1, 4).select([layer], [scores], [jnp.array([4, 5, 16])])
    for share, each in zip((1, 2, 4), np.asarray(mask), strict=True):
        assert (each.T.reshape(2, 2, 4).sum(-1) == share).all()


@jax.jit
def complete(scores, kept):
    layer = layer_of((8, 2))
    return sj.n_m(2, 4).select([layer], [scores], [jnp.int32(8)], None, [kept])[0]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_what_is_kept_stays_and_the_rest_is_the_best(data):
    numbers = st.lists(st.integers(-3, 3), min_size=16, max_size=16)
    scores = np.array(data.draw(numbers), np.float32).reshape(8, 2)
    # Each group keeps 0, 1 or 2 of its entries.
    kept = np.zeros((2, 2, 4), bool)
    for group in kept.reshape(-1, 4):
        chosen = data.draw(st.sets(st.integers(0, 3), max_size=2))
        group[list(chosen)] = True
    kept = kept.reshape(2, 8).T
    mask = np.asarray(complete(scores, kept))
    assert (mask >= kept).all()
    groups = np.where(kept, np.inf, scores).T.reshape(2, 2, 4)
    np.testing.assert_array_equal(mask.T.reshape(2, 2, 4), by_sorting(groups, 2))


def test_pruning_passes_through_larger_shares(implicit_promotion):
    tx = sj.magnitude(
        optax.sgd(0.0), sparsity=0.75, start=0, stop=6, every=1, structure=sj.n_m(2, 8)
    )
    params = {"kernel": jax.random.normal(jax.random.key(0), (16, 3))}
    state, update = tx.init(params), jax.jit(tx.update)
    shares, before = [], np.ones((16, 3), bool)
    for _ in range(8):
        updates, state = update(params, state, params)
        params = optax.apply_updates(params, updates)
        mask = np.asarray(sj.masks(state)["kernel"])
        per_group = mask.T.reshape(3, 2, 8).sum(-1)
        assert (per_group == per_group[0, 0]).all()
        assert (mask <= before).all()
        shares.append(int(per_group[0, 0]))
        before = mask
    # The cubic share of 36 zeros among 48 is 0, 15, 25, 32, 35, 36 and 36, rounded.
    assert shares == [8, 6, 4, 3, 3, 2, 2, 2]


@pytest.mark.parametrize("sparsity", [0.4, 0.75])
def test_another_sparsity_is_refused_with_the_right_one(sparsity):
    tx = sj.static(optax.sgd(0.1), sparsity=sparsity, structure=sj.n_m(2, 4))
    with pytest.raises(ValueError, match=r"2:4.*pass sparsity=0\.5,"):
        tx.init({"kernel": jnp.ones((64, 64))})


@pytest.mark.parametrize(("n", "m"), [(0, 4), (3, 2), (1, 0), (0.5, 2)])
def test_impossible_shares_are_refused(n, m, any_type):
    with pytest.raises(ValueError, match=r"[nm]="):
        sj.n_m(n, m)
