"""SynFlow: golden flows, conservation, extreme sparsity, float32's range."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.layers import by_name, choose_layers
from sparsejax.methods.synflow import flows

# Equinox's order, [outputs, inputs]: |W1| = [[1, 2], [3, 4]], |W2| = [[5, 6]].
GOLDEN = {
    "first": {"weight": jnp.array([[1.0, -2.0], [3.0, 4.0]])},
    "second": {"weight": jnp.array([[-5.0, 6.0]])},
}


def two_layers(params):
    hidden = jax.nn.relu(params["first"]["weight"] @ jnp.ones(2))
    return params["second"]["weight"] @ hidden


def golden_flows():
    layers = choose_layers(GOLDEN, where=sj.matmul_weights, layout=by_name())
    weights = [jnp.abs(leaf) for leaf in jax.tree.leaves(GOLDEN)]
    treedef = jax.tree.structure(GOLDEN)

    def total(weights):
        return two_layers(treedef.unflatten(weights)).sum()

    return flows(total, layers, weights, jnp.ones(()))


def test_golden_flows_and_their_conservation():
    (first, second), factor = golden_flows()
    assert float(factor) == 1
    np.testing.assert_allclose(first, [[5, 10], [18, 24]], rtol=1e-6)
    np.testing.assert_allclose(second, [[15, 42]], rtol=1e-6)
    assert round(float(first.sum()), 4) == round(float(second.sum()), 4) == 57


def test_golden_order_of_removal():
    # 42, 24, 18, 15, 10, 5: the smallest flow goes first, whatever its layer.
    for left, first in ((5, [[0, 1], [1, 1]]), (4, [[0, 0], [1, 1]])):
        tx = sj.synflow(
            optax.sgd(0.1),
            sparsity=1 - left / 6,
            network=two_layers,
            iterations=1,
            distribution=sj.uniform(),
        )
        masks = sj.masks(tx.init(GOLDEN))
        np.testing.assert_array_equal(masks["first"]["weight"], first)
        np.testing.assert_array_equal(masks["second"]["weight"], [[1, 1]])


def test_flows_are_computed_anew_on_the_pruned_network():
    # One by one: first [0, 0] goes (5), then [0, 1] (10), which leaves the first
    # neuron without inputs, so that its output (15 at first) is next.
    tx = sj.synflow(optax.sgd(0.1), sparsity=0.5, network=two_layers, iterations=20)
    masks = sj.masks(jax.jit(tx.init)(GOLDEN))
    np.testing.assert_array_equal(masks["first"]["weight"], [[0, 0], [1, 1]])
    np.testing.assert_array_equal(masks["second"]["weight"], [[0, 1]])


def deep(depth, width, scale):
    random = np.random.default_rng(0)
    params = {
        f"layer{i:02}": jnp.asarray(
            scale * random.normal(size=(width, width)), jnp.float32
        )
        for i in range(depth)
    }

    def network(params):
        hidden = jnp.ones(width)
        for name in sorted(params):
            hidden = jax.nn.relu(hidden @ params[name])
        return hidden

    return params, network


def flow_in_float64(params, left, rounds):
    """The masks of a chain of matrices, by plain NumPy."""
    weights = [np.abs(np.asarray(leaf, np.float64)) for leaf in params.values()]
    masks = [np.ones(weight.shape, bool) for weight in weights]
    for k in range(1, rounds + 1):
        sparse = [w * m for w, m in zip(weights, masks, strict=True)]
        before = [np.ones(len(weights[0]))]
        behind = [np.ones(weights[-1].shape[1])]
        for weight in sparse[:-1]:
            before.append(before[-1] @ weight)
        for weight in sparse[:0:-1]:
            behind.insert(0, weight @ behind[0])
        rows = zip(sparse, before, behind, strict=True)
        scores = np.concatenate([(w * np.outer(a, b)).ravel() for w, a, b in rows])
        count = round(scores.size * (left / scores.size) ** (k / rounds))
        kept = np.zeros(scores.size, bool)
        kept[np.argsort(-scores, kind="stable")[:count]] = True
        masks = [part.reshape(8, 8) for part in np.split(kept, len(weights))]
    return dict(zip(params, masks, strict=True))


@pytest.mark.parametrize("scale", [1e6, 1e-6])
def test_float32_is_enough_whatever_the_scale_of_the_weights(scale):
    """R is about 1e80 or 1e-64; float32 ends at 1e38 and 1e-38."""
    params, network = deep(12, 8, scale)
    tx = sj.synflow(
        optax.sgd(0.1),
        network=network,
        sparsity=0.9,
        iterations=10,
        distribution=sj.uniform(),
    )
    found = sj.masks(tx.init(params))
    left = sum(int(mask.sum()) for mask in found.values())
    wanted = flow_in_float64(params, left, 10)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_no_layer_empties_at_an_extreme_sparsity():
    params, network = deep(4, 8, 1.0)
    tx = sj.synflow(
        optax.sgd(0.1),
        sparsity=1 - 8 / 256,
        network=network,
        distribution=sj.uniform(),
    )
    params = sj.sparsify(params, tx.init(params))
    assert sum(int(jnp.count_nonzero(leaf)) for leaf in params.values()) == 8
    positive = jax.tree.map(jnp.abs, params)
    assert float(network(positive).sum()) > 0, "a path from input to output is left"


def test_masks_stay_and_the_kept_weights_train():
    tx = sj.synflow(optax.sgd(1.0), sparsity=0.5, network=two_layers)
    state = tx.init(GOLDEN)
    params = sj.sparsify(GOLDEN, state)
    updates, after = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
    params = optax.apply_updates(params, updates)
    sj.verify(params, after)
    np.testing.assert_array_equal(params["second"]["weight"], [[0, 5]])


def test_a_layer_that_the_output_does_not_see_is_named():
    params = {**GOLDEN, "scale": jnp.zeros(())}

    def zero_scale(params):
        hidden = params["scale"] * (params["first"]["weight"] @ jnp.ones(2))
        return params["second"]["weight"] @ (hidden + 1)

    tx = sj.synflow(optax.sgd(0.1), sparsity=0.5, network=zero_scale)
    with pytest.raises(ValueError, match="synaptic flow of first/weight is zero every"):
        tx.init(params)


def test_sixteen_bit_weights_are_ranked_in_float32():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), GOLDEN)
    tx = sj.synflow(
        optax.sgd(0.1),
        sparsity=1 / 3,
        network=two_layers,
        iterations=1,
        distribution=sj.uniform(),
    )
    masks = sj.masks(tx.init(params))
    np.testing.assert_array_equal(masks["first"]["weight"], [[0, 0], [1, 1]])
