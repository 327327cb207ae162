"""S-STE: the continuous projection, its frozen scale, its straight gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sparsejax as sj


def column(*values):
    """One neuron: groups run along the inputs, axis 0 of a kernel."""
    return {"kernel": jnp.array(values)[:, None]}


def test_soft_threshold_of_a_group_and_its_scale():
    params = column(1.0, -2.0, 0.5, 0.1)
    tx = sj.s_ste(optax.sgd(1.0))
    state = tx.init(params)
    [beta] = state.memory
    np.testing.assert_allclose(beta, [[1.4]], rtol=1e-6)
    view = sj.sparsify(params, state)
    want = 1.4 * np.array([0.5, -1.5, 0, 0])
    np.testing.assert_allclose(view["kernel"][:, 0], want, rtol=1e-6)


def test_gradient_passes_unscaled_and_the_scale_stays():
    params = column(1.0, -2.0, 0.5, 0.1)
    tx = sj.s_ste(optax.sgd(1.0))
    state = tx.init(params)
    view = sj.sparsify(params, state)
    updates, after = tx.update(column(0.25, 0.25, -1.0, 0.0), state, view)
    latents = after.latents["kernel"][:, 0]
    np.testing.assert_allclose(latents, [0.75, -2.25, 1.5, 0.1], rtol=1e-6)
    # t = 0.75 now, and S = (0, -1.5, 0.75, 0).
    view = optax.apply_updates(view, updates)["kernel"][:, 0]
    np.testing.assert_allclose(view, [0, -2.1, 1.05, 0], rtol=1e-6)
    np.testing.assert_array_equal(after.memory[0], state.memory[0])


def test_ragged_groups_and_other_widths():
    # The last group has two inputs of the four, which both stay as they are.
    params = column(4.0, 3.0, 2.0, 1.0, 0.3, -0.2)
    view = sj.sparsify(params, sj.s_ste(optax.sgd(1.0)).init(params))
    soft = np.array([2, 1, 0, 0, 0.3, -0.2])
    beta = np.sum(soft * np.asarray(params["kernel"])[:, 0]) / np.sum(soft**2)
    np.testing.assert_allclose(view["kernel"][:, 0], beta * soft, rtol=1e-6)
    dense = sj.sparsify(params, sj.s_ste(optax.sgd(1.0), n=4).init(params))
    np.testing.assert_array_equal(dense["kernel"], params["kernel"])
    one = sj.s_ste(optax.sgd(1.0), n=1, m=3).init(params)
    mask = sj.masks(one)["kernel"][:, 0]
    assert mask.tolist() == [True, False, False, True, False, False]


def test_each_stacked_layer_has_its_own_scale():
    values = jax.random.normal(jax.random.key(0), (2, 8, 3))
    layout = sj.flax(stacked={"kernel": 1})
    state = sj.s_ste(optax.sgd(0.1), layout=layout).init({"kernel": values})
    alone = [
        sj.s_ste(optax.sgd(0.1)).init({"kernel": each}).memory[0] for each in values
    ]
    np.testing.assert_allclose(state.memory[0], jnp.stack(alone), rtol=1e-6)


def test_a_layer_of_zeros_has_a_finite_scale():
    params = {"kernel": jnp.zeros((8, 2))}
    tx = sj.s_ste(optax.sgd(0.1))
    assert np.isfinite(sj.sparsify(params, tx.init(params))["kernel"]).all()
