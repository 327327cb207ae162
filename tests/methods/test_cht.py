"""CHT: golden link scores, removal along a chain, soft sampling, early stopping."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.layers import Layer, LeafSpec
from sparsejax.methods.cht import link_scores, without_dead_ends

scores_of = jax.jit(link_scores, static_argnums=(0, 2))

GOLDEN = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]], bool)
SCORES = {
    "ch2": [[0, 0, 4], [4, 0, 0], [0, 4, 0]],
    "ch3": [[0, 0, 2], [2, 0, 0], [0, 2, 0]],
}


def matrix(path, shape):
    return Layer(path, shape, LeafSpec((0,), (1,)))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("transposed", [False, True])
def test_golden_scores(score, transposed):
    mask, wanted = jnp.asarray(GOLDEN), np.asarray(SCORES[score])
    if transposed:
        mask, wanted = mask.T, wanted.T
    scores = scores_of(matrix("kernel", (3, 3)), mask, score)
    np.testing.assert_array_equal(scores, wanted)


def by_definition(mask, score):
    """Sums over the paths u - x - z - v of the sheet's similarities, link by link."""
    neurons, inputs = mask.shape

    def similarity(rows, u, z):
        shared = int((rows[u] & rows[z]).sum())
        outside = max(int(rows[z].sum()) - shared - 1, 0)
        inside = shared + 1 if score == "ch2" else 1
        return inside / (outside + 1) if shared else 0.0

    found = np.zeros(mask.shape)
    for u, v in zip(*np.nonzero(~mask), strict=True):
        found[u, v] = sum(similarity(mask, u, z) for z in range(neurons) if mask[z, v])
        found[u, v] += sum(
            similarity(mask.T, v, t) for t in range(inputs) if mask[u, t]
        )
    return found


@pytest.mark.parametrize("score", SCORES)
def test_scores_follow_the_definition_in_stacks_and_convolutions(score):
    random = np.random.default_rng(0)
    stacked = random.random((2, 5, 7)) < 0.3
    layer = Layer("blocks", (2, 5, 7), LeafSpec((1,), (2,), (0,)))
    found = scores_of(layer, jnp.asarray(stacked), score)
    wanted = [by_definition(one.T, score).T for one in stacked]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    kernel = random.random((2, 3, 2, 4)) < 0.4
    layer = Layer("conv", kernel.shape, LeafSpec((0, 1, 2), (3,)))
    found = scores_of(layer, jnp.asarray(kernel), score)
    wanted = by_definition(kernel.reshape(12, 4).T, score).T.reshape(kernel.shape)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def move_once(mask, weights, **arguments):
    """The mask after one move of a leaf, [inputs, neurons]."""
    params = {"kernel": jnp.where(mask, jnp.asarray(weights, jnp.float32), 0)}
    tx = sj.cht(
        optax.sgd(0.1),
        sparsity=None,
        initial_masks={"kernel": jnp.asarray(mask)},
        start=0,
        stop=10,
        **arguments,
    )
    update = jax.jit(tx.update)
    updates, state = update(params, tx.init(params), params)
    sj.verify(optax.apply_updates(params, updates), state)
    return np.asarray(sj.masks(state)["kernel"])


def test_a_move_removes_the_smallest_and_grows_the_likeliest():
    # Of the golden network with one more link at (2, 0), the smallest, the rest is the
    # golden one, whose free positions score (0, 2), (1, 0) and (2, 1) alike.
    mask = GOLDEN.copy()
    mask[2, 0] = True
    weights = np.array([[5, 4, 0], [0, 3, 2], [0.1, 0, 1]])
    after = move_once(mask, weights, drop_fraction=0.2)
    wanted = GOLDEN.copy()
    wanted[0, 2] = True
    np.testing.assert_array_equal(after, wanted)


def test_positions_without_a_path_are_drawn_evenly():
    # A lone link predicts nothing; the other one is removed and grows anywhere else.
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = mask[1, 1] = True
    weights = np.diag([2.0, 1.0, 0.0, 0.0])
    hits = np.zeros((4, 4))

    @jax.jit
    @jax.vmap
    def moved(key):
        tx = sj.cht(
            optax.sgd(0.1),
            sparsity=None,
            initial_masks={"kernel": jnp.asarray(mask)},
            start=0,
            stop=10,
            drop_fraction=0.5,
            seed=key,
            early_stop=None,
        )
        params = {"kernel": jnp.asarray(weights, jnp.float32)}
        return sj.masks(tx.update(params, tx.init(params), params)[1])["kernel"]

    count = 3000
    hits = np.asarray(moved(jax.random.split(jax.random.key(0), count))).sum(0)
    assert hits[0, 0] == count
    share = np.delete(hits.ravel(), 0)
    sigma = np.sqrt(count / 15 * 14 / 15)
    assert np.abs(share - count / 15).max() < 5 * sigma


def test_soft_removal_keeps_in_proportion_to_powers_of_the_magnitude():
    # One of two is kept, with probability |w|^tau / sum: 1 / 4 and 3 / 4 at tau = 1;
    # 1 / 28 and 27 / 28 at the last exponent, 3.
    mask = np.array([[True, True, False, False]])

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def moved(key, step):
        tx = sj.cht(
            optax.sgd(0.1),
            sparsity=None,
            initial_masks={"kernel": jnp.asarray(mask)},
            start=0,
            every=999,
            stop=1000,
            drop_fraction=0.5,
            removal="sampled",
            growth="sampled",
            early_stop=None,
            seed=key,
        )
        params = {"kernel": jnp.array([[1.0, 3.0, 0.0, 0.0]])}
        state = tx.init(params)._replace(count=step)
        return sj.masks(tx.update(params, state, params)[1])["kernel"]

    keys = jax.random.split(jax.random.key(1), 4000)
    for step, share in ((0, 1 / 4), (999, 1 / 28)):
        # What was removed grows again in one of three positions, evenly.
        left = float(moved(keys, jnp.array(step))[:, 0, 0].mean())
        assert abs(left - (share + (1 - share) / 3)) < 0.03


def test_relative_importance_saves_the_only_link_of_a_neuron():
    # The smallest link is all that its neuron and its input have: 1 + 1; that of the
    # block is 0.7 / 1.6 + 0.7 / 1.5, and grows again, being in a block.
    mask = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 1]], bool)
    weights = np.array([[0.1, 0, 0], [0, 1.0, 0.9], [0, 0.8, 0.7]])
    arguments = {"drop_fraction": 0.2, "early_stop": None, "seed": 0}
    assert not move_once(mask, weights, **arguments)[0, 0]
    relative = move_once(mask, weights, importance="relative", **arguments)
    np.testing.assert_array_equal(relative, mask)


def chain_of(*masks):
    layers = [matrix(f"layer{i}", mask.shape) for i, mask in enumerate(masks)]
    cleaned = without_dead_ends(
        layers, [jnp.asarray(mask) for mask in masks], [one.path for one in layers]
    )
    return [np.asarray(mask).astype(int).tolist() for mask in cleaned]


def test_links_into_unread_neurons_go_backwards():
    # Nothing reads neuron 1 of the last hidden layer, so that what only feeds it goes.
    first = np.array([[1, 1], [0, 1]], bool)
    second = np.array([[1, 0], [0, 1]], bool)
    third = np.array([[1, 1], [0, 0]], bool)
    assert chain_of(first, second, third) == [
        [[1, 0], [0, 0]],
        [[1, 0], [0, 0]],
        [[1, 1], [0, 0]],
    ]


def test_links_from_neurons_without_inputs_go_forwards():
    first = np.array([[1, 0], [1, 0]], bool)
    second = np.array([[1, 0], [0, 1]], bool)
    third = np.array([[1, 1], [1, 0]], bool)
    assert chain_of(first, second, third) == [
        [[1, 0], [1, 0]],
        [[1, 0], [0, 0]],
        [[1, 1], [0, 0]],
    ]


def test_a_flattened_image_is_read_channel_by_channel():
    conv = Layer("conv", (1, 1, 1, 2), LeafSpec((0, 1, 2), (3,)))
    head = matrix("head", (4, 1))
    masks = [jnp.ones((1, 1, 1, 2), bool), jnp.array([[1], [0], [1], [0]], bool)]
    found = without_dead_ends([conv, head], masks, ["conv", "head"])
    np.testing.assert_array_equal(found[0].ravel(), [True, False])
    np.testing.assert_array_equal(found[1], masks[1])


def test_counts_are_kept_through_chain_removal():
    random = np.random.default_rng(0)
    params = {
        name: jnp.asarray(random.normal(size=shape), jnp.float32)
        for name, shape in zip(("first", "second", "third"), [(8, 8)] * 3, strict=True)
    }
    tx = sj.cht(
        optax.sgd(0.1),
        sparsity=0.8,
        every=1,
        stop=9,
        chain=("first", "second", "third"),
    )
    state, update = tx.init(params), jax.jit(tx.update)
    params, before = sj.sparsify(params, state), sj.counts(state)
    for _ in range(4):
        updates, state = update(params, state, params)
        params = optax.apply_updates(params, updates)
        sj.verify(params, state)
        assert sj.counts(state) == before


@pytest.mark.parametrize(
    ("chain", "named"),
    [
        (("first", "second"), "must name sparsified layers.*first, third"),
        (("first", "first"), "each once"),
        (("third", "first"), "first with 6 inputs cannot read third with 4 neurons"),
    ],
)
def test_bad_chains_are_named(chain, named):
    params = {"first": jnp.ones((6, 9)), "third": jnp.ones((9, 4))}
    tx = sj.cht(optax.sgd(0.1), sparsity=0.5, start=0, stop=9, chain=chain)
    with pytest.raises(ValueError, match=named):
        tx.update(params, tx.init(params), params)


def test_a_layer_that_puts_back_what_it_removes_is_left_alone():
    # Of two links that are removed one is the corner of a block, the only likely
    # position, and comes back; the other has no path. Half is not more than half.
    mask = np.zeros((4, 4), bool)
    mask[:2, :3] = mask[3, 3] = True
    weights = np.array([[9, 8, 7, 0], [6, 5, 1, 0], [0] * 4, [0, 0, 0, 0.5]])
    moves = move_once(mask, weights, drop_fraction=0.3, early_stop=0.5)
    assert not moves[3, 3] and moves.sum() == mask.sum()
    left = move_once(mask, weights, drop_fraction=0.3, early_stop=0.4)
    np.testing.assert_array_equal(left, mask)


def test_nothing_dropped_is_nothing_moved():
    soft = {"removal": "sampled", "growth": "sampled"}
    after = move_once(GOLDEN, np.eye(3) + 1, drop_fraction=0.0, **soft)
    np.testing.assert_array_equal(after, GOLDEN)
