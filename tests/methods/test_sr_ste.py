"""SR-STE: masked weights decay, by the published equation."""

import jax.numpy as jnp
import numpy as np
import optax

import sparsejax as sj


def column(*values):
    """One neuron: 2:4 groups run along the inputs, axis 0 of a kernel."""
    return {"kernel": jnp.array(values)[:, None]}


def test_masked_weights_decay():
    params = column(1.0, -2.0, 0.5, 0.1)
    tx = sj.sr_ste(optax.sgd(1.0), decay=2e-4)
    state = tx.init(params)
    view = sj.sparsify(params, state)
    np.testing.assert_array_equal(view["kernel"][:, 0], [1, -2, 0, 0])
    _, after = tx.update(column(0.1, 0.1, 0.1, 0.1), state, view)
    moved = params["kernel"] - after.latents["kernel"]
    np.testing.assert_allclose(moved[:, 0], [0.1, 0.1, 0.1001, 0.10002], rtol=2e-6)


def test_two_of_four_along_the_inputs_at_any_width():
    params = {"kernel": jnp.arange(1.0, 31.0).reshape(10, 3)}
    tx = sj.sr_ste(optax.sgd(0.1), sparsity=0.4)
    mask = np.asarray(sj.masks(tx.init(params))["kernel"])
    assert mask[:4].sum(axis=0).tolist() == [2, 2, 2]
    assert mask[4:8].sum(axis=0).tolist() == [2, 2, 2]
    assert mask[8:].sum(axis=0).tolist() == [2, 2, 2]
