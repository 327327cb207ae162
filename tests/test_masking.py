"""The masking engine's promises to a user's loop, and its errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj


@pytest.fixture
def params():
    keys = jax.random.split(jax.random.key(0), 2)
    return {
        "body": {"kernel": jax.random.normal(keys[0], (12, 10)), "bias": jnp.ones(10)},
        "head": {"kernel": jax.random.normal(keys[1], (10, 4))},
    }


def one_step(tx, params, state=None):
    state = jax.jit(tx.init)(params) if state is None else state
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, state = jax.jit(tx.update)(gradients, state, params)
    return optax.apply_updates(params, updates), state


def test_kept_weights_get_exactly_the_inner_update(params):
    inner = optax.adamw(1e-2)
    tx = sj.static(inner, sparsity=0.5)
    state = tx.init(params)
    sparse = sj.sparsify(params, state)
    masks = sj.masks(state)["body"]["kernel"]
    gradients = jax.tree.map(jnp.ones_like, sparse)
    got, _ = tx.update(gradients, state, sparse)
    masked = sj.apply_masks(gradients, state)
    want, _ = inner.update(masked, inner.init(sparse), sparse)
    np.testing.assert_array_equal(
        got["body"]["kernel"][masks], want["body"]["kernel"][masks]
    )
    np.testing.assert_array_equal(got["body"]["bias"], want["body"]["bias"])


def test_zeros_are_exact_even_if_sparsify_was_forgotten(params):
    params, state = one_step(sj.static(optax.sgd(0.1), sparsity=0.5), params)
    sj.verify(params, state)


def test_sparsify_is_idempotent(params):
    state = sj.static(optax.sgd(0.1), sparsity=0.5).init(params)
    once = sj.sparsify(params, state)
    jax.tree.map(np.testing.assert_array_equal, once, sj.sparsify(once, state))


def test_bfloat16_update_of_float32_parameters_lands_on_zero():
    def to_bfloat16(updates, state, params=None):
        return jax.tree.map(lambda u: u.astype(jnp.bfloat16), updates), state

    narrow = optax.GradientTransformation(lambda p: optax.EmptyState(), to_bfloat16)
    tx = sj.magnitude(optax.chain(optax.sgd(0.1), narrow), sparsity=0.9, start=0)
    params = {"kernel": jax.random.normal(jax.random.key(0), (50, 50))}
    params, _ = one_step(tx, params)
    assert int(jnp.count_nonzero(params["kernel"])) == 250


def test_state_survives_flattening(params):
    tx = sj.rigl(optax.adam(1e-2), sparsity=0.8, stop=150, packed=True, track=True)
    state = tx.init(params)
    leaves, treedef = jax.tree.flatten(state)
    again = treedef.unflatten(leaves)
    assert sj.counts(again) == sj.counts(state)


def test_initial_masks_are_used_and_their_counts_kept(params):
    first = sj.magnitude(optax.sgd(0.1), sparsity=0.8, start=0, scope="global")
    _, state = one_step(first, params)
    masks = sj.masks(state)
    tx = sj.rigl(
        optax.sgd(0.1), sparsity=None, initial_masks=masks, start=0, every=1, stop=9
    )
    _, moved = one_step(tx, params)
    assert sj.counts(moved) == sj.counts(state)
    jax.tree.map(np.testing.assert_array_equal, sj.masks(tx.init(params)), masks)


def test_same_seed_same_masks_and_other_seed_other_masks(params):
    def mask(seed):
        state = sj.static(optax.sgd(0.1), sparsity=0.5, seed=seed).init(params)
        return np.asarray(sj.masks(state)["body"]["kernel"])

    np.testing.assert_array_equal(mask(1), mask(1))
    np.testing.assert_array_equal(mask(1), mask(jax.random.key(1)))
    assert (mask(1) != mask(2)).any()


def test_init_is_the_same_under_jit(params):
    tx = sj.rigl(optax.sgd(0.1), sparsity=0.8, stop=200)
    eager, compiled = sj.masks(tx.init(params)), sj.masks(jax.jit(tx.init)(params))
    jax.tree.map(np.testing.assert_array_equal, eager, compiled)


def test_sparsity_map_chooses_layers(params):
    tx = sj.static(optax.sgd(0.1), sparsity={"head": 0.5, "body": 0.9})
    assert sj.counts(tx.init(params)) == {
        "body/kernel": (12, 120),
        "head/kernel": (20, 40),
    }
    tx = sj.static(optax.sgd(0.1), sparsity={"head": 0.5})
    assert sj.counts(tx.init(params)) == {"head/kernel": (20, 40)}


def test_exploration_and_turnover_count_what_happened(params):
    tx = sj.set(
        optax.sgd(0.0), sparsity=0.8, start=0, every=1, stop=40, track=True, seed=1
    )
    state = tx.init(params)
    union = np.asarray(sj.masks(state)["body"]["kernel"])
    update = jax.jit(tx.update)
    for _ in range(6):
        before = np.asarray(sj.masks(state)["body"]["kernel"])
        _, state = update(params, state, params)
        after = np.asarray(sj.masks(state)["body"]["kernel"])
        union = union | after
        dropped, grown = sj.turnover(state)["body/kernel"]
        assert dropped == (before & ~after).sum()
        assert grown == (after & ~before).sum()
    assert sj.moves(state) == 6
    assert sj.exploration(state)["body/kernel"] == pytest.approx(union.mean())
    assert union.mean() > before.mean()


def test_a_chained_transformation_is_caught_by_verify(params):
    tx = optax.chain(
        sj.static(optax.sgd(0.1), sparsity=0.5),
        optax.add_decayed_weights(0.1),
        optax.add_noise(0.1, 0.5, jax.random.key(0)),
    )
    params, state = one_step(tx, params)
    with pytest.raises(ValueError, match=r"body/kernel: \d+ parameters outside"):
        sj.verify(params, state)


def test_averages_are_masked_again(params):
    tx = sj.rigl(
        optax.sgd(0.1), sparsity=0.8, start=0, every=1, stop=9, drop_fraction=0.9
    )
    state = tx.init(params)
    params = sj.sparsify(params, state)
    average = params
    for _ in range(3):
        params, state = one_step(tx, params, state)
        average = jax.tree.map(lambda a, p: 0.9 * a + 0.1 * p, average, params)
    average = sj.apply_masks(average, state)
    sj.verify(average, state)


def test_any_pytree():
    for tree in (
        jnp.ones((8, 8)),
        [jnp.ones((8, 8)), (jnp.ones((4, 4)), None, jnp.ones(3))],
        {"a": {"w": jnp.ones((8, 8)), "nothing": None}},
    ):
        tx = sj.rigl(
            optax.adam(0.1),
            sparsity=0.5,
            start=0,
            every=1,
            stop=9,
            where=lambda p, x: x.ndim == 2,
        )
        state = tx.init(tree)
        tree = sj.sparsify(tree, state)
        tree, state = one_step(tx, tree, state)
        sj.verify(tree, state)


def errors(params):
    adam = optax.adam(1e-3)
    some = {"body": {"kernel": jnp.ones((12, 10), bool), "bias": None}}
    masks = {**some, "head": {"kernel": None}}
    return {
        "sparsity=1.0 is outside": lambda: sj.static(adam, sparsity=1.0),
        "sparsity=-0.1 is outside": lambda: sj.static(adam, sparsity=-0.1),
        "sparsity='0.9x' is not a number": lambda: sj.static(adam, sparsity="0.9x"),
        "sparsity=True is not a number": lambda: sj.static(adam, sparsity=True),
        "sparsity=nan is not a number": lambda: sj.static(adam, sparsity=float("nan")),
        "names no layer": lambda: sj.static(adam, sparsity={}),
        "sparsity='tail' matches no path": lambda: sj.static(
            adam, sparsity={"tail": 0.5}
        ).init(params),
        "stop=5 is before": lambda: sj.rigl(adam, sparsity=0.5, stop=5),
        "every=0 is not": lambda: sj.set(adam, sparsity=0.5, stop=5, every=0),
        "drop_fraction=1.5": lambda: sj.rigl(
            adam, sparsity=0.5, stop=500, drop_fraction=1.5
        ),
        "scope='whole' is unknown": lambda: sj.magnitude(
            adam, sparsity=0.5, start=0, scope="whole"
        ),
        "without a single weight": lambda: sj.static(adam, sparsity=0.999).init(params),
        "where='tail' matches no path": lambda: sj.static(
            adam, sparsity=0.5, where="tail"
        ).init(params),
        "params=None": lambda: sj.static(adam, sparsity=0.5).update(
            params, sj.static(adam, sparsity=0.5).init(params)
        ),
        "needs `initial_masks`": lambda: sj.static(adam, sparsity=None),
        "initial_masks keep 120 weights": lambda: sj.static(
            adam, sparsity=0.5, initial_masks=masks
        ).init(params),
        "MultiSteps is inside": lambda: sj.static(
            optax.MultiSteps(adam, 2), sparsity=0.5
        ).init(params),
        "no sparsejax method": lambda: sj.masks(adam.init(params)),
        "track=True": lambda: sj.exploration(
            sj.static(adam, sparsity=0.5).init(params)
        ),
    }


@pytest.mark.usefixtures("any_type")
@pytest.mark.parametrize("message", errors({}))
def test_errors_name_argument_value_and_fix(params, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as caught:
        errors(params)[message]()
    assert "\n" not in str(caught.value)


def test_unknown_method_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nomethod"):
        sj.nomethod  # noqa: B018


@pytest.mark.parametrize("jit", [False, True])
def test_initial_masks_have_to_be_of_the_structure(params, jit):
    def init(structure, masks):
        tx = sj.rigl(
            optax.sgd(0.1),
            sparsity=None,
            every=1,
            stop=9,
            structure=structure,
            initial_masks=masks,
        )
        return (jax.jit(tx.init) if jit else tx.init)(params)

    loose = sj.masks(sj.static(optax.sgd(0.1), sparsity=0.5).init(params))
    of_groups = sj.static(optax.sgd(0.1), sparsity=0.475, structure=sj.n_m(2, 4))
    masks = sj.masks(of_groups.init(params))
    init(None, loose)
    jax.tree.map(
        np.testing.assert_array_equal, sj.masks(init(sj.n_m(2, 4), masks)), masks
    )
    with pytest.raises(ValueError, match=r"initial_masks at body/kernel is no mask of"):
        init(sj.n_m(2, 4), loose)
    with pytest.raises(ValueError, match="structure=fan-in"):
        init(sj.fan_in(), loose)


def test_a_leaf_with_too_many_weights_for_a_budget_is_named():
    params = {"kernel": jax.ShapeDtypeStruct((2**16, 2**15), jnp.float32)}
    tx = sj.static(optax.sgd(0.1), sparsity=0.9)
    with pytest.raises(ValueError, match=r"kernel has 2,147,483,648 weights that sh"):
        jax.eval_shape(tx.init, params)
