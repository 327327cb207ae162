"""SNIP: the score's golden values, accumulated batches, layers without a signal."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj

EVEN = {"distribution": sj.uniform()}


def pruned(tx, params, gradients):
    """The parameters after the updates of these gradients, and the last state."""
    state, step = tx.init(params), jax.jit(tx.update)
    for gradient in gradients:
        updates, state = step(gradient, state, params)
        params = optax.apply_updates(params, updates)
    sj.verify(params, state)
    return params, state


def random_tree(seed, scale=1.0):
    random = np.random.default_rng(seed)
    shapes = {"first": (6, 8), "second": (8, 4)}
    return {
        name: jnp.asarray(scale * random.normal(size=shape), jnp.float32)
        for name, shape in shapes.items()
    }


def test_golden_loss_keeps_the_largest_products():
    # (w.x - y)^2 with w = (1, 2, 3), x = 1, y = 5: g = 2, |w g| = 2, 4, 6.
    params = {"kernel": jnp.array([[1.0, 2.0, 3.0]])}
    gradients = jax.grad(lambda p: (p["kernel"].sum() - 5.0) ** 2)(params)
    np.testing.assert_array_equal(gradients["kernel"], [[2, 2, 2]])
    params, _ = pruned(sj.snip(optax.sgd(0.1), sparsity=1 / 3), params, [gradients])
    np.testing.assert_array_equal(params["kernel"], [[0, 2, 3]])


def test_signs_and_weights_count_as_much_as_gradients():
    params = {"kernel": jnp.array([[4.0, -1.0, 2.0, 3.0]])}
    gradients = {"kernel": jnp.array([[0.1, -3.0, -2.0, 0.2]])}
    params, _ = pruned(sj.snip(optax.sgd(0.1), sparsity=0.5), params, [gradients])
    np.testing.assert_array_equal(params["kernel"], [[0, -1, 2, 0]])


def test_scaling_the_loss_leaves_the_masks():
    params, gradients = random_tree(0), random_tree(1)
    tx = sj.snip(optax.adam(1e-2), sparsity=0.7)
    _, state = pruned(tx, params, [gradients])
    scaled = jax.tree.map(lambda g: g * 1e-6, gradients)
    _, after = pruned(tx, params, [scaled])
    jax.tree.map(np.testing.assert_array_equal, sj.masks(state), sj.masks(after))


def test_all_layers_are_ranked_together():
    small = jnp.array([[1.0, 0.1], [0.2, 0.3]])
    params = {"first": jnp.full((2, 4), 10.0), "second": small}
    gradients = jax.tree.map(jnp.ones_like, params)
    _, state = pruned(
        sj.snip(optax.sgd(0.1), sparsity=0.25, **EVEN), params, [gradients]
    )
    assert sj.counts(state) == {"first": (8, 8), "second": (1, 4)}
    tx = sj.snip(optax.sgd(0.1), sparsity=0.25, scope="layer", **EVEN)
    _, state = pruned(tx, params, [gradients])
    assert sj.counts(state) == {"first": (6, 8), "second": (3, 4)}


def test_gradients_of_several_batches_are_summed_before_anything_moves():
    params = {"kernel": jnp.array([[1.0, 1.0, 1.0]]), "bias": jnp.ones(3)}
    # The sums of three are 1, 2 and 0; the last alone would keep the third weight.
    rows = [[-1.0, 0.5, -5.0], [1.0, 0.5, -4.0], [1.0, 1.0, 9.0], [0.0, 0.0, 0.0]]
    gradients = [{"kernel": jnp.array([row]), "bias": jnp.ones(3)} for row in rows]
    tx = sj.snip(optax.sgd(0.1), sparsity=2 / 3, batches=3)
    held, state = pruned(tx, params, gradients[:2])
    jax.tree.map(np.testing.assert_array_equal, held, params)
    assert sj.counts(state) == {"kernel": (3, 3)}
    after, state = pruned(tx, params, gradients[:3])
    np.testing.assert_array_equal(after["kernel"], [[0, 1, 0]])
    np.testing.assert_array_equal(after["bias"], params["bias"])
    # From then on it trains.
    after, _ = pruned(tx, params, gradients)
    np.testing.assert_allclose(after["bias"], params["bias"] - 0.1)


def test_one_batch_needs_no_memory():
    params = random_tree(0)
    assert sj.snip(optax.sgd(0.1), sparsity=0.5).init(params).memory is None


def failing(tx, params, gradients, transform=jax.jit):
    """The message of the error that an update ends in."""
    state = tx.init(params)
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError)) as raised:
        jax.block_until_ready(transform(tx.update)(gradients, state, params))
    return str(raised.value)


@pytest.mark.parametrize("transform", [jax.jit, lambda update: update])
def test_a_layer_without_gradient_is_named(transform):
    params, gradients = random_tree(0), random_tree(1)
    gradients["second"] = jnp.zeros_like(gradients["second"])
    tx = sj.snip(optax.sgd(0.1), sparsity=0.5)
    message = failing(tx, params, gradients, transform)
    assert "the gradient of second is zero everywhere" in message
    assert "gradient of first" not in message


def test_the_error_is_raised_under_vmap_and_scan():
    params = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), random_tree(0))
    gradients = jax.tree.map(lambda leaf: leaf.at[1].set(0.0), params)
    tx = sj.snip(optax.sgd(0.1), sparsity=0.5)

    @jax.jit
    def train(params, gradients):
        def body(carry, _):
            updates, state = tx.update(gradients, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(body, (params, tx.init(params)), length=2)[0]

    jax.block_until_ready(jax.vmap(train)(params, params))
    with pytest.raises(jax.errors.JaxRuntimeError, match="gradient of first is zero"):
        jax.block_until_ready(jax.vmap(train)(params, gradients))


def test_one_silent_layer_of_a_stack_is_found():
    params = {"blocks": jnp.ones((2, 3, 3))}
    gradients = {"blocks": jnp.ones((2, 3, 3)).at[1].set(0.0)}
    tx = sj.snip(optax.sgd(0.1), sparsity=0.5, layout=sj.flax(stacked={"blocks": 1}))
    assert "gradient of blocks is zero" in failing(tx, params, gradients)


def test_layer_collapse_is_an_error():
    params = {"first": jnp.ones((4, 4)), "second": jnp.full((2, 2), 1e-3)}
    gradients = jax.tree.map(jnp.ones_like, params)
    tx = sj.snip(optax.sgd(0.1), sparsity=0.5)
    message = failing(tx, params, gradients)
    assert "leaves second without a single weight" in message
    assert "scope='layer'" in message


def test_structures_need_ranking_within_layers():
    with pytest.raises(ValueError, match="structure=2:4 does not go with scope='glo"):
        sj.snip(optax.sgd(0.1), sparsity=0.5, structure=sj.n_m(2, 4))
    params = {"kernel": jnp.array([[1.0, 3.0], [3.5, 3.0]])}
    tx = sj.snip(optax.sgd(0.1), sparsity=0.5, structure=sj.neuron(), scope="layer")
    params, _ = pruned(tx, params, [{"kernel": jnp.array([[1.0, 1.0], [1.0, -1.0]])}])
    np.testing.assert_array_equal(params["kernel"], [[0, 3], [0, 3]])
