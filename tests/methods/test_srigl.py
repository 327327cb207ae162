"""SRigL: the golden tables, and what holds after every move."""

import functools
import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj

srigl = importlib.import_module("sparsejax.methods.srigl")


def move(weights, gradients, *, masks=None, **options):
    """The mask [neurons, inputs] after one move, without a step of the optimizer."""
    weights, gradients = np.asarray(weights, np.float32), np.asarray(gradients)
    masks = weights != 0 if masks is None else np.asarray(masks, bool)
    arguments = {"sparsity": 0.5, "start": 0, "every": 1, "stop": 1, **options}
    tx = sj.srigl(
        optax.sgd(0.0), initial_masks={"kernel": jnp.array(masks.T)}, **arguments
    )
    params = {"kernel": jnp.array(weights.T)}
    gradients = {"kernel": jnp.array(gradients.T, jnp.float32)}
    _, state = tx.update(gradients, tx.init(params), params)
    return np.asarray(sj.masks(state)["kernel"]).T.astype(int)


def rows(*texts):
    return [[int(digit) for digit in text] for text in texts]


def test_a_neuron_without_salient_weights_is_ablated():
    weights = [
        [0.9, 0.8, 0.7, 0, 0, 0],
        [0, 0.6, 0.55, 0.5, 0, 0],
        [0.45, 0, 0, 0.4, 0.35, 0],
        [0, 0, 0, 0.03, 0.02, 0.01],
    ]
    gradients = np.full((4, 6), 0.1)
    gradients[0, 3], gradients[1, 0], gradients[2, 1] = 1, 0.9, 0.8
    new = move(weights, gradients, drop_fraction=0.25, minimum_salient=0.3)
    assert new.tolist() == rows("111100", "111100", "110110", "000000")


def test_pruning_is_layer_wide_without_ablation():
    weights = [[0.9, 0.8, 0, 0], [0, 0.01, 0, 0.02], [0.5, 0, 0.4, 0]]
    gradients = [[0.1, 0.1, 0.3, 0.2], [0.9, 0.1, 0.8, 0.1], [0.1, 0.2, 0.1, 0.3]]
    new = move(weights, gradients, drop_fraction=0.5, ablation=False)
    assert new.tolist() == rows("1100", "1010", "1001")


def test_what_does_not_divide_is_lost():
    weights = np.array([[2, 2, 0, 0], [2, 2, 0, 0], [2, 2, 0, 0], [0.1, 0.1, 0, 0]])
    gradients = np.ones((4, 4))
    new = move(weights, gradients, drop_fraction=0.25)
    assert new.sum(axis=1).tolist() == [2, 2, 2, 0]


def test_a_neuron_with_too_many_keeps_its_largest():
    # Rows of 3, 1 and 2 weights stay; the fan-in is 2.
    weights = [[0.7, 0.9, 0.8, 0], [0.6, 0, 0, 0], [0, 0.5, 0.4, 0]]
    gradients = np.full((3, 4), 0.1)
    gradients[1, 3] = 1
    new = move(weights, gradients, drop_fraction=0.0, ablation=False)
    assert new.tolist() == rows("0110", "1001", "0110")


def run(params, layers_of, steps=12, **options):
    tx = sj.srigl(
        optax.adam(1e-2),
        **{"sparsity": 0.7, "start": 1, "every": 2, "stop": 11, **options},
    )
    state = tx.init(params)
    params = sj.sparsify(params, state)
    update = jax.jit(functools.partial(tx.update))
    for step in range(steps):
        keys = jax.random.split(jax.random.key(step), len(params))
        gradients = {
            name: jax.random.normal(key, leaf.shape)
            for key, (name, leaf) in zip(keys, params.items(), strict=True)
        }
        # Some neurons get no gradient at all, and so are ablated.
        gradients = layers_of(gradients)
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        yield {name: np.asarray(mask) for name, mask in sj.masks(state).items()}


def quiet(gradients):
    return {
        name: leaf.at[..., : leaf.shape[-1] // 2].multiply(1e-3)
        for name, leaf in gradients.items()
    }


def initial():
    keys = jax.random.split(jax.random.key(7), 3)
    kernel = jax.random.normal(keys[0], (20, 12))
    return {
        "hidden": kernel.at[:, :6].multiply(1e-3),
        "conv": jax.random.normal(keys[1], (3, 3, 4, 6)),
        "head": jax.random.normal(keys[2], (12, 5)) * 1e-3,
    }


@pytest.mark.parametrize("revive", [True, False])
def test_invariants(revive):
    params = initial()
    budgets = {"hidden": 72, "conv": 65, "head": 18}
    dead = {name: np.zeros(leaf.shape[-1], bool) for name, leaf in params.items()}
    ablated = False
    shares = {"hidden": 0.7, "conv": 1 - 65 / 216, "head": 0.7}
    options = {"sparsity": shares, "minimum_salient": 0.9, "revive": revive}
    for masks in run(params, quiet, **options):
        for name, mask in masks.items():
            per_neuron = mask.reshape(-1, mask.shape[-1]).sum(axis=0)
            active = per_neuron > 0
            assert len({*per_neuron[active]}) == 1
            budget = budgets[name]
            assert 0 <= budget - per_neuron.sum() < active.sum()
            ablated |= not active.all()
            if not revive:
                assert not (active & dead[name]).any(), "a dead neuron came back"
            dead[name] |= ~active
        assert (masks["head"].sum(axis=0) > 0).all()
    assert ablated, "nothing was ablated, so nothing was tested"


def test_stacked_layers_are_ablated_each_on_its_own():
    weights = np.full((2, 4, 4), 2.0, np.float32)
    weights[1, :, 3] = 0.01
    mask = np.zeros((2, 4, 4), bool)
    mask[:, :2] = True
    tx = sj.srigl(
        optax.sgd(0.0),
        sparsity=0.5,
        start=0,
        stop=1,
        drop_fraction=0.25,
        layout=sj.flax(stacked={"kernel": 1}),
        initial_masks={"kernel": jnp.array(mask)},
    )
    params = {"kernel": jnp.array(weights * mask)}
    gradients = {"kernel": jnp.ones((2, 4, 4)).at[:, :, 3].set(0.1)}
    _, state = tx.update(gradients, tx.init(params), params)
    per_neuron = np.asarray(sj.masks(state)["kernel"]).sum(axis=1)
    assert per_neuron.tolist() == [[2, 2, 2, 2], [2, 2, 2, 0]]


def test_nothing_moves_at_fraction_zero_without_ablation():
    masks = np.zeros((3, 6), int)
    for row, columns in enumerate([(0, 1), (2, 5), (3, 4)]):
        masks[row, columns] = 1
    weights = masks * np.array([[0.1], [1e-3], [9.0]])
    sparsity = 1 - 6 / 18
    options = {"drop_fraction": 0.0, "ablation": False, "sparsity": sparsity}
    new = move(weights, np.ones((3, 6)), **options)
    assert new.tolist() == masks.tolist()


def test_a_dense_layer_stays_dense():
    weights = np.array([[0.5, 0.1, 0.3], [1e-6, 2e-6, 3e-6]])
    new = move(weights, np.ones((2, 3)), drop_fraction=0.5, sparsity=0.0)
    assert new.all()


def test_the_number_of_salient_weights_may_be_given():
    weights = [[0.9, 0.8, 0, 0], [0.7, 0.6, 0, 0], [0.5, 1e-3, 0, 0]]
    gradients = np.zeros((3, 4))
    gradients[0, 2] = 1
    options = {"drop_fraction": 1 / 6, "minimum_salient": 2}
    # Salient are 3, 2 and 1 of the rows: five weights, one gradient.
    new = move(weights, gradients, **options)
    assert new.sum(axis=1).tolist() == [3, 3, 0]
    new = move(weights, gradients, drop_fraction=1 / 6, minimum_salient=0.3)
    assert new.sum(axis=1).tolist() == [2, 2, 2]


HEADS = ["head", "model/lm_head/kernel", "classifier/kernel", "fc/weight", "logits"]
BODY = ["header/kernel", "fc1/kernel", "attention/out/kernel", "hidden", "overhead/w"]


@pytest.mark.parametrize(
    ("path", "is_head"), [*((p, True) for p in HEADS), *((p, False) for p in BODY)]
)
def test_what_is_named_like_a_head_is_never_ablated(path, is_head):
    assert bool(re.search(srigl.HEADS, path)) == is_head


def test_bad_arguments_are_named():
    params = {"hidden": jnp.ones((8, 4))}
    with pytest.raises(ValueError, match="minimum_salient=0 "):
        sj.srigl(optax.sgd(0.1), sparsity=0.5, stop=2, every=1, minimum_salient=0)
    tx = sj.srigl(optax.sgd(0.1), sparsity=0.5, stop=2, every=1, never_ablate="last")
    with pytest.raises(ValueError, match="never_ablate='last' matches no path"):
        tx.init(params)
    with pytest.raises(ValueError, match="hidden may keep 3 weights, fewer than its 4"):
        sj.srigl(optax.sgd(0.1), sparsity=0.9, stop=2, every=1).init(params)
