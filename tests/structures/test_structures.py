"""Every structure through random masks and moves: exact counts, always a member."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj

LAYOUT = sj.by_name(stacked={"blocks": 1})
SHAPES = {"blocks": (2, 8, 8), "weight": (8, 8, 2, 1)}


def rows_of(name, mask):
    """``[layers, neurons, positions, channels]`` of a leaf, written out."""
    mask = np.asarray(mask)
    if name == "blocks":
        return mask.transpose(0, 2, 1)[:, :, None]
    return mask.transpose(0, 2, 3, 1).reshape(1, 8, 2, 8)


def all_or_none(units):
    """Whether the last axis holds only ones or only zeros."""
    return bool((units.all(-1) | ~units.any(-1)).all())


def is_n_m(n, m, rows):
    return bool((rows.reshape(*rows.shape[:-1], -1, m).sum(-1) == n).all())


def has_one_fan_in(rows):
    per_row = rows.sum((-2, -1))
    return bool((per_row == per_row[:, :1]).all())


def is_neurons(rows):
    return all_or_none(rows.reshape(*rows.shape[:2], -1))


def is_blocks(rows):
    matrix = rows.reshape(*rows.shape[:2], -1)
    layers, neurons, inputs = matrix.shape
    tiles = matrix.reshape(layers, neurons // 2, 2, inputs // 2, 2)
    return all_or_none(tiles.transpose(0, 1, 3, 2, 4).reshape(layers, -1, 4))


def is_diagonals(rows):
    for matrix in rows.reshape(*rows.shape[:2], -1):
        wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        rolled = [np.roll(row, -i) for i, row in enumerate(wide)]
        if not all_or_none(np.stack(rolled, axis=-1)):
            return False
    return True


def is_transposable(n, m, rows):
    layers, neurons, positions, channels = rows.shape
    tiles = rows.reshape(layers, neurons // m, m, positions, channels // m, m)
    return bool((tiles.sum(2) == n).all() and (tiles.sum(-1) == n).all())


# The structure, and whether rows are a member of it.
STRUCTURES = {
    "unstructured": (sj.unstructured(), lambda rows: True),
    "2:4": (sj.n_m(2, 4), functools.partial(is_n_m, 2, 4)),
    "fan-in": (sj.fan_in(), has_one_fan_in),
    "block": (sj.block(2, 2), is_blocks),
    "neuron": (sj.neuron(), is_neurons),
    "diagonal": (sj.diagonal(), is_diagonals),
    "transposable 2:4": (
        sj.transposable(2, 4),
        functools.partial(is_transposable, 2, 4),
    ),
}


def initial_params(dtype=jnp.float32):
    random = np.random.default_rng(0)
    return {
        name: jnp.asarray(random.normal(size=shape), dtype)
        for name, shape in SHAPES.items()
    }


def assert_members(name, masks):
    for leaf, mask in masks.items():
        assert STRUCTURES[name][1](rows_of(leaf, mask)), f"{leaf} left {name}"


def counts(masks):
    return {
        name: np.asarray(rows_of(name, m)).sum((1, 2, 3)) for name, m in masks.items()
    }


def build(method, name, **options):
    return getattr(sj, method)(
        optax.sgd(0.05),
        sparsity=0.5,
        structure=STRUCTURES[name][0],
        layout=LAYOUT,
        distribution=sj.uniform(),
        **options,
    )


def history(tx, steps, *, tied=False, dtype=jnp.float32):
    """The masks at init and after every update, by gradients that differ each time."""
    params = initial_params(dtype)
    if tied:
        params = jax.tree.map(jnp.ones_like, params)

    @jax.jit
    def train(params):
        state = tx.init(params)

        def body(carry, key):
            params, state = carry
            keys = dict(zip(params, jax.random.split(key, len(params)), strict=True))
            gradients = {
                name: jax.random.normal(keys[name], leaf.shape, leaf.dtype)
                for name, leaf in params.items()
            }
            if tied:
                gradients = jax.tree.map(jnp.ones_like, gradients)
            updates, state = tx.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
            stray = [jnp.sum((params[n] != 0) & ~m) for n, m in sj.masks(state).items()]
            return (params, state), (sj.masks(state), sum(stray))

        keys = jax.random.split(jax.random.key(1), steps)
        start = sj.sparsify(params, state), state
        return sj.masks(state), jax.lax.scan(body, start, keys)[1]

    first, (rest, strays) = train(params)
    assert int(strays.sum()) == 0
    return [first, *({n: m[i] for n, m in rest.items()} for i in range(steps))]


@pytest.mark.usefixtures("implicit_promotion")
@pytest.mark.parametrize("method", ["rigl", "set"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_topologies_move_within_their_family(name, method):
    masks = history(
        build(method, name, start=0, every=1, stop=100, drop_fraction=0.5), 5
    )
    want = counts(masks[0])
    for leaf, number in want.items():
        assert number.sum() * 2 == initial_params()[leaf].size
    for now in masks:
        assert_members(name, now)
        for leaf, number in counts(now).items():
            assert number.tolist() == want[leaf].tolist()
    for leaf in SHAPES:
        seen = {np.asarray(now[leaf]).tobytes() for now in masks}
        assert len(seen) >= 4, f"{leaf} hardly moves"


@pytest.mark.usefixtures("implicit_promotion")
@pytest.mark.parametrize("name", STRUCTURES)
def test_without_regrowth_the_count_is_kept_where_candidates_run_out(name):
    # Other positions are as many as weights, but not always where they are needed.
    options = {"start": 0, "every": 1, "stop": 100, "drop_fraction": 0.9}
    masks = history(build("rigl", name, regrow_dropped=False, **options), 3)
    for now in masks:
        assert_members(name, now)
        for leaf, number in counts(now).items():
            assert number.sum() * 2 == initial_params()[leaf].size


def test_without_regrowth_a_dense_layer_keeps_its_count():
    tx = sj.rigl(
        optax.sgd(0.1),
        sparsity=0.2,
        start=0,
        every=1,
        stop=9,
        drop_fraction=0.5,
        regrow_dropped=False,
    )
    params = {"kernel": jnp.ones((4, 5))}
    state = tx.init(params)
    _, after = tx.update(params, state, sj.sparsify(params, state))
    before, mask = sj.masks(state)["kernel"], sj.masks(after)["kernel"]
    assert int(mask.sum()) == 16
    # All that was free is taken first.
    assert bool((before | mask).all())


@pytest.mark.usefixtures("implicit_promotion")
@pytest.mark.parametrize("name", STRUCTURES)
def test_gradual_pruning_ends_in_the_family(name):
    masks = history(build("magnitude", name, start=1, every=1, stop=5), 7)
    assert all(bool(mask.all()) for mask in masks[1].values())
    for before, after in itertools.pairwise(masks[1:]):
        for leaf in SHAPES:
            assert bool((after[leaf] <= before[leaf]).all()), "a pruned weight is back"
    assert_members(name, masks[-1])
    for leaf, number in counts(masks[-1]).items():
        assert number.sum() * 2 == initial_params()[leaf].size


@pytest.mark.usefixtures("implicit_promotion")
@pytest.mark.parametrize("name", STRUCTURES)
def test_ties_everywhere_in_bfloat16(name):
    options = {"start": 0, "every": 1, "stop": 100, "drop_fraction": 0.5}
    masks = history(build("rigl", name, **options), 3, tied=True, dtype=jnp.bfloat16)
    for now in masks:
        assert_members(name, now)
        for leaf, number in counts(now).items():
            assert number.sum() * 2 == initial_params()[leaf].size


@pytest.mark.usefixtures("implicit_promotion")
@pytest.mark.parametrize("name", STRUCTURES)
def test_random_masks_have_exact_counts_and_differ(name):
    @jax.jit
    @jax.vmap
    def draw(key):
        tx = build("static", name, seed=key)
        return sj.masks(tx.init(initial_params()))

    drawn = draw(jax.random.split(jax.random.key(0), 4))
    for leaf, masks in drawn.items():
        for mask in masks:
            assert STRUCTURES[name][1](rows_of(leaf, mask))
            assert int(mask.sum()) * 2 == initial_params()[leaf].size
        assert len({np.asarray(mask).tobytes() for mask in masks}) > 1


@pytest.mark.parametrize("method", ["magnitude", "snip", "granet"])
def test_a_global_ranking_refuses_structures(method):
    options = {"snip": {}, "granet": {"start": 0, "stop": 10}}.get(
        method, {"start": 0, "scope": "global"}
    )
    for name in STRUCTURES:
        if name == "unstructured":
            build(method, name, **options)
            continue
        with pytest.raises(ValueError, match=r"structure=.* does not go with"):
            build(method, name, **options)


def test_signwise_removal_refuses_units():
    for name in STRUCTURES:
        if name in ("block", "neuron", "diagonal"):
            with pytest.raises(ValueError, match=r"signwise=True does not go with"):
                build("set", name, stop=10, every=1, signwise=True)
        else:
            build("set", name, stop=10, every=1, signwise=True)
