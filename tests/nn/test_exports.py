"""What is exported is the masked layer: its output and both of its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental.sparse import BCOO, BCSR
from sparsejax_kernels import NM, Block, FanIn, matmul

import sparsejax as sj

INPUTS, OUTPUTS = 48, 24


def trained(method=sj.rigl, **options):
    """A kernel after two moves, one kept weight of it zero, and its mask."""
    params = {
        "kernel": jax.random.normal(jax.random.key(0), (INPUTS, OUTPUTS)),
        "bias": jax.random.normal(jax.random.key(1), (OUTPUTS,)),
    }
    if method is not sj.static:
        options |= {"every": 1, "start": 0, "stop": 3}
    tx = method(optax.adam(1e-2), distribution=sj.uniform(), **options)
    state = tx.init(params)
    params = sj.sparsify(params, state)
    for step in range(2):
        key = jax.random.key(2 + step)
        # The first neurons get small gradients: those that SRigL does without.
        scale = jnp.where(jnp.arange(OUTPUTS) < 4, 1e-6, 1.0)
        gradients = jax.tree.map(
            lambda leaf, key=key, scale=scale: (
                scale * jax.random.normal(key, leaf.shape)
            ),
            params,
        )
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    mask = sj.masks(state)["kernel"]
    row, column = np.argwhere(np.asarray(mask))[5]
    kernel = params["kernel"].at[row, column].set(0.0)
    return kernel, mask, params["bias"]


def ablated():
    kernel, mask, bias = trained(sj.srigl, sparsity=0.8, minimum_salient=0.9)
    dead = np.asarray(~mask.any(axis=0))
    assert 0 < dead.sum() < OUTPUTS and (np.asarray(bias)[dead] != 0).all()
    return kernel, mask, bias


def by_pattern(n, m):
    return lambda: trained(sparsity=1 - n / m, structure=sj.n_m(n, m))


EXPORTS = {
    "condensed": (ablated, FanIn.fromdense),
    "condensed, ragged": (lambda: trained(sparsity=0.9), FanIn.fromdense),
    "BCOO": (ablated, lambda w, mask: FanIn.fromdense(w, mask).to_bcoo()),
    "BCSR": (
        ablated,
        lambda w, mask: BCSR.from_bcoo(FanIn.fromdense(w, mask).to_bcoo().T),
    ),
    "2:4": (by_pattern(2, 4), lambda w, mask: NM.fromdense(w, mask, n=2, m=4)),
    "2:4 for tensor cores, both ways": (
        lambda: trained(sparsity=0.5, structure=sj.transposable(2, 4)),
        lambda w, mask: (
            NM.fromdense(w, mask, n=2, m=4).for_tensor_cores().with_transpose()
        ),
    ),
    "3:16 packed": (
        by_pattern(3, 16),
        lambda w, mask: NM.fromdense(w, mask, n=3, m=16).packed(),
    ),
    "blocks": (
        lambda: trained(sparsity=0.75, structure=sj.block(8, 8)),
        lambda w, mask: Block.fromdense(w, mask, block=(8, 8)),
    ),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_forward_and_both_gradients_are_the_masked_layers(name):
    make, export = EXPORTS[name]
    kernel, mask, bias = make()
    exported = export(kernel, mask)
    if isinstance(exported, BCOO):
        # JAX counts its padding; that of rows that were ablated is none of ours.
        assert int((exported.indices[:, 0] < INPUTS).sum()) == int(mask.sum())
    elif not isinstance(exported, BCSR):
        assert int(exported.count) == int(mask.sum()), "kept zeros are kept"
    x = jax.random.normal(jax.random.key(7), (5, INPUTS))

    def dense(kernel, x):
        return x @ jnp.where(mask, kernel, 0) + bias

    def sparse(values, x):
        if isinstance(exported, BCOO):
            return x @ BCOO((values, exported.indices), shape=exported.shape) + bias
        if isinstance(exported, BCSR):
            parts = (values, exported.indices, exported.indptr)
            return (BCSR(parts, shape=exported.shape) @ x.T).T + bias
        values_of = jax.tree.leaves(exported)
        weight = jax.tree.unflatten(
            jax.tree.structure(exported), [values, *values_of[1:]]
        )
        return matmul(x, weight, bias=bias)

    values = exported.data if isinstance(exported, BCOO | BCSR) else exported.values
    expected, pull = jax.vjp(dense, kernel, x)
    found, pull_sparse = jax.vjp(sparse, values, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    cotangent = jax.random.normal(jax.random.key(8), found.shape)
    of_kernel, of_x = pull(cotangent)
    of_values, of_x_sparse = pull_sparse(cotangent)
    np.testing.assert_allclose(of_x_sparse, of_x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        _scattered(exported, of_values), of_kernel, rtol=1e-4, atol=1e-5
    )


def _scattered(exported, values):
    """Values of an exported weight as a dense array."""
    leaves = [values, *jax.tree.leaves(exported)[1:]]
    dense = jax.tree.unflatten(jax.tree.structure(exported), leaves).todense()
    return dense.T if isinstance(exported, BCSR) else dense
