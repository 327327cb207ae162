"""The reparametrising engine's promises to a user's loop, and its errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import sparsejax as sj


@pytest.fixture
def params():
    keys = jax.random.split(jax.random.key(0), 2)
    return {
        "body": {"kernel": jax.random.normal(keys[0], (12, 10)), "bias": jnp.ones(10)},
        "head": {"kernel": jax.random.normal(keys[1], (10, 4))},
    }


def gradients_of(step, params):
    random = np.random.default_rng(step)
    return jax.tree.map(
        lambda p: jnp.asarray(random.normal(size=p.shape), p.dtype), params
    )


def train(tx, params, steps, check=None):
    state = jax.jit(tx.init)(params)
    params = sj.sparsify(params, state)
    update = jax.jit(tx.update)
    for index in range(steps):
        updates, state = update(gradients_of(index, params), state, params)
        params = optax.apply_updates(params, updates)
        if check:
            check(params, state, index)
    return params, state


def test_the_latent_is_the_truth_after_many_steps(params):
    """Two hundred steps by hand: nothing of the rounding of updates is left."""
    tx = sj.straight_through(optax.sgd(0.1), sparsity=0.5, where="body/kernel")
    trained, state = train(tx, params, 200)
    latent = np.asarray(params["body"]["kernel"])
    for index in range(200):
        gradients = gradients_of(index, params)["body"]["kernel"]
        latent = latent - np.float32(0.1) * np.asarray(gradients)
    np.testing.assert_allclose(state.latents["body"]["kernel"], latent, atol=1e-5)
    largest = np.argsort(-np.abs(state.latents["body"]["kernel"]), axis=None)[:60]
    mask = np.zeros(120, bool)
    mask[largest] = True
    np.testing.assert_array_equal(
        sj.masks(state)["body"]["kernel"], mask.reshape(12, 10)
    )
    view = np.where(mask.reshape(12, 10), state.latents["body"]["kernel"], 0)
    np.testing.assert_allclose(trained["body"]["kernel"], view, rtol=2e-7)
    assert (np.asarray(trained["body"]["kernel"])[view == 0] == 0).all()


def test_dense_leaves_get_exactly_the_inner_update(params):
    inner = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(1e-2))
    tx = sj.straight_through(inner, sparsity=0.5)
    state = tx.init(params)
    sparse = sj.sparsify(params, state)
    gradients = gradients_of(0, params)
    got, after = tx.update(gradients, state, sparse)
    # The dense weights are what the optimizer sees, and so clips and decays.
    want, _ = inner.update(gradients, inner.init(params), params)
    np.testing.assert_array_equal(got["body"]["bias"], want["body"]["bias"])
    np.testing.assert_array_equal(
        after.latents["head"]["kernel"],
        params["head"]["kernel"] + want["head"]["kernel"],
    )


def test_bfloat16_parameters_have_float32_latents():
    params = {"kernel": jnp.ones((4, 4), jnp.bfloat16)}
    tx = sj.straight_through(optax.sgd(2e-4), sparsity=0.5)
    state = tx.init(params)
    gradients = {"kernel": jnp.ones((4, 4), jnp.bfloat16)}
    params, update = sj.sparsify(params, state), jax.jit(tx.update)
    for _ in range(20):
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        assert params["kernel"].dtype == jnp.bfloat16
        sj.verify(params, state)
    # One step is below bfloat16's resolution at 1, which is 2**-8; twenty are not.
    latents = state.latents["kernel"]
    assert latents.dtype == jnp.float32
    np.testing.assert_allclose(latents, 0.996, rtol=1e-5)
    view = jnp.where(sj.masks(state)["kernel"], latents, 0).astype(jnp.bfloat16)
    np.testing.assert_array_equal(params["kernel"], view)


def test_bfloat16_under_a_wrapper_that_may_skip_the_update():
    params = {"kernel": jnp.ones((4, 4), jnp.bfloat16)}
    tx = sj.straight_through(optax.sgd(0.5), sparsity=0.5)
    tx = optax.apply_if_finite(tx, max_consecutive_errors=3)
    updates, state = jax.jit(tx.update)(params, tx.init(params), params)
    assert updates["kernel"].dtype == jnp.bfloat16
    params = optax.apply_updates(params, updates)
    sj.verify(params, state)
    assert sorted(params["kernel"].ravel().tolist()) == [0] * 8 + [0.5] * 8


def test_masks_are_selected_anew_at_the_interval(params):
    tx = sj.straight_through(optax.sgd(1.0), sparsity=0.8, every=3, track=True)
    history = [jax.tree.leaves(sj.masks(tx.init(params)))]

    def check(params, state, index):
        history.append(jax.tree.leaves(sj.masks(state)))

    _, state = train(tx, params, 7, check)
    pairs = itertools.pairwise(history)
    moved = [any((a != b).any() for a, b in zip(*pair, strict=True)) for pair in pairs]
    assert moved == [False, False, True, False, False, True, False]
    assert sj.moves(state) == 2
    explored = np.logical_or.reduce([np.asarray(masks[0]) for masks in history])
    assert sj.exploration(state)["body/kernel"] == pytest.approx(explored.mean())


def test_gradual_selection_arrives_whatever_the_interval(params):
    tx = sj.straight_through(optax.sgd(0.1), sparsity=0.9, start=2, stop=9, every=4)
    budgets = sj.counts(sj.static(optax.sgd(0.1), sparsity=0.9).init(params))
    history = []
    train(tx, params, 12, lambda p, s, i: history.append(sj.counts(s)))
    totals = [sum(active for active, _ in counts.values()) for counts in history]
    # The view after so many updates: dense at 1 (and 0), all zeros from 9 on.
    assert totals[0] == 160
    assert totals == sorted(totals, reverse=True)
    assert history[7] != budgets
    assert history[8:] == [budgets] * 4


def test_transformations_of_the_same_arguments_have_equal_states(params):
    def state(**arguments):
        return sj.top_kast(optax.sgd(0.1), sparsity=0.5, **arguments).init(params)

    assert jax.tree.structure(state()) == jax.tree.structure(state(seed=3))
    assert jax.tree.structure(state()) != jax.tree.structure(state(norm="l1"))


def test_state_survives_flattening_by_path(params):
    tx = sj.autosparse(optax.adam(1e-2), stop=10, packed=True, track=True)
    _, state = train(tx, params, 2)
    with_paths, treedef = jax.tree.flatten_with_path(state)
    names = [jax.tree_util.keystr(path) for path, _ in with_paths]
    assert ".latents['body']['kernel']" in names
    assert len(set(names)) == len(names)
    again = treedef.unflatten([leaf for _, leaf in with_paths])
    assert sj.counts(again) == sj.counts(state)
    assert again.design == state.design


def test_a_state_can_be_donated():
    params = {"kernel": jnp.array([[3.0, -2.0], [1.0, 4.0]])}
    copying = optax.contrib.schedule_free(optax.sgd(0.1), learning_rate=0.1)
    for tx in (
        sj.rigl(optax.sgd(0.1), sparsity=0.5, stop=200, track=True),
        sj.straight_through(copying, sparsity=0.5, track=True),
    ):
        update = jax.jit(lambda g, s, p, tx=tx: tx.update(g, s, p), donate_argnums=1)
        update(params, tx.init(params), params)
    # And it does not take the parameters with it.
    np.testing.assert_array_equal(params["kernel"], [[3, -2], [1, 4]])


def test_evaluation_params_are_the_parameters_of_a_deterministic_view(params):
    for tx in (
        sj.rigl(optax.sgd(0.1), sparsity=0.5, stop=200),
        sj.s_ste(optax.sgd(0.1)),
    ):
        assert sj.evaluation_params(params, tx.init(params)) is params


def test_views_are_found_under_wrappers(params):
    visible = {"body": {"kernel": True, "bias": False}, "head": {"kernel": False}}
    tx = optax.MultiSteps(optax.masked(sj.s_ste(optax.sgd(0.1)), visible), 2)
    state = tx.init(params)
    alone = sj.s_ste(optax.sgd(0.1), where="body/kernel").init(params)
    jax.tree.map(
        np.testing.assert_array_equal,
        sj.sparsify(params, state),
        sj.sparsify(params, alone),
    )


def test_initial_masks_are_where_it_begins(params):
    masks = sj.masks(sj.static(optax.sgd(0.1), sparsity=0.7, seed=5).init(params))
    # An active weight of exactly zero stays active.
    kernel = jnp.where(jnp.arange(10) < 2, 0, params["body"]["kernel"])
    params["body"]["kernel"] = kernel
    tx = sj.straight_through(
        optax.sgd(0.1), sparsity=None, initial_masks=masks, every=2
    )
    state = tx.init(params)
    jax.tree.map(np.testing.assert_array_equal, sj.masks(state), masks)
    outside = ~masks["body"]["kernel"]
    assert (np.asarray(state.latents["body"]["kernel"])[outside] == 0).all()
    _, after = train(tx, params, 4)
    assert sj.counts(after) == sj.counts(state)
    assert (sj.masks(after)["head"]["kernel"] != masks["head"]["kernel"]).any()


def errors(params):
    adam = optax.adam(1e-3)
    mask = {"body": {"kernel": True, "bias": True}, "head": {"kernel": True}}
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params)
    ste = sj.straight_through(adam, sparsity=0.5)

    def replicas():
        sj.sparsify(stacked, jax.vmap(ste.init)(stacked))

    return {
        "needs `initial_masks`": lambda: sj.straight_through(adam, sparsity=None),
        "sparsity=1.5 is outside": lambda: sj.top_kast(adam, sparsity=1.5),
        "params=None": lambda: ste.update(params, ste.init(params)),
        "MultiSteps is inside": lambda: sj.straight_through(
            optax.MultiSteps(adam, 2), sparsity=0.5
        ).init(params),
        "extra_optimizer cannot train": lambda: sj.hard_concrete(
            optax.masked(adam, mask)
        ).init(params),
        "under jax.vmap": replicas,
        "stop=1 is before": lambda: sj.straight_through(
            adam, sparsity=0.5, start=3, stop=1
        ),
        "backward_sparsity=0.6 is above": lambda: sj.top_kast(
            adam, sparsity=0.5, backward_sparsity=0.6
        ),
        "decay=-1.0 is negative": lambda: sj.sr_ste(adam, decay=-1.0),
        "does not go with structure 2:4": lambda: sj.sr_ste(adam, sparsity=0.9).init(
            params
        ),
        "n=5 of every m=4": lambda: sj.s_ste(adam, n=5),
        "granularity='row' is unknown": lambda: sj.soft_threshold(
            adam, granularity="row"
        ),
        "structure without sparsity": lambda: sj.autosparse(
            adam, stop=9, structure=sj.fan_in()
        ),
        "initial_probability=1": lambda: sj.hard_concrete(
            adam, initial_probability=1.0
        ),
        "final_temperature=6": lambda: sj.dynadiag(
            adam, sparsity=0.5, stop=9, final_temperature=6.0
        ),
        "initial_sharpness=0": lambda: sj.soft_top_k(
            adam, sparsity=0.5, stop=9, initial_sharpness=0.0
        ),
    }


@pytest.mark.usefixtures("any_type")
@pytest.mark.parametrize("message", errors({}))
def test_errors_name_argument_value_and_fix(params, message):
    with pytest.raises(ValueError, match=message) as caught:
        errors(params)[message]()
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("any_type")
def test_arguments_without_a_meaning_are_not_taken():
    with pytest.raises(TypeError, match="unexpected keyword argument 'structure'"):
        sj.soft_threshold(optax.sgd(0.1), structure=sj.fan_in())
