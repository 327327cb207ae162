"""Neurons that say always the same, or that nobody reads, leave; the function stays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sparsejax_kernels import FanIn

import sparsejax as sj
from sparsejax.models.mlp import mlp
from sparsejax.nn import FanInLinear

RNGS = nnx.Rngs


class Network(nnx.Module):
    """Two hidden layers, the first with statistics behind it."""

    def __init__(self, rngs, *, bias=True):
        self.first = nnx.Linear(12, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.second = nnx.Linear(16, 10, use_bias=bias, rngs=rngs)
        self.head = nnx.Linear(10, 4, rngs=rngs)

    def __call__(self, x):
        x = nnx.gelu(self.norm(self.first(x)))
        return self.head(jnp.tanh(self.second(x)))


def randomized(model, seed=0):
    """Biases and statistics that are not those of a new network."""
    state = nnx.state(model)
    leaves, structure = jax.tree.flatten(state)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    leaves = [
        jax.random.uniform(key, leaf.shape, minval=0.5, maxval=1.5)
        if leaf.ndim == 1
        else jax.random.normal(key, leaf.shape)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    nnx.update(model, jax.tree.unflatten(structure, leaves))
    model.eval()
    return model


def masked(model, holes, sparsity=0.5):
    """Random masks in which rows (unread) and columns (no inputs) are empty."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    masks = jax.tree.map(lambda _: None, params)
    for path, (rows, columns) in holes.items():
        shape = params[path]["kernel"].shape
        mask = jax.random.bernoulli(jax.random.key(len(path)), 1 - sparsity, shape)
        # Whatever is not to be empty is not.
        mask = mask.at[..., 0, :].set(True).at[..., :, 0].set(True)
        mask = mask.at[..., jnp.array(rows, int), :].set(False)
        mask = mask.at[..., :, jnp.array(columns, int)].set(False)
        masks[path]["kernel"] = mask
    tx = sj.static(optax.sgd(0.1), sparsity=None, initial_masks=masks)
    state = tx.init(params)
    nnx.update(model, sj.sparsify(params, state))
    return model, state


def widths(model, *names):
    return [getattr(model, name).bias.shape[0] for name in names]


@pytest.mark.parametrize("bias", [True, False])
def test_both_kinds_of_idle_neurons_leave(bias, tmp_path):
    model = randomized(Network(RNGS(0), bias=bias))
    holes = {
        "first": ([], [1, 5, 6]),  # no inputs
        "second": ([2, 3], [7]),  # 2, 3: unread; 7: no inputs
        "head": ([4], []),  # unread
    }
    model, state = masked(model, holes)
    x = jax.random.normal(jax.random.key(3), (6, 12))
    fast = sj.compress(model, state, inputs=x)
    assert widths(fast, "first", "second", "head") == [16 - 5, 10 - 2, 4]
    assert fast.norm.mean.shape == (11,) and fast.norm.num_features == 11
    assert fast.second.weight.shape == (11, 8)
    other = jax.random.normal(jax.random.key(4), (9, 12))
    np.testing.assert_allclose(fast(other), model(other), rtol=1e-4, atol=1e-5)
    assert model.first.kernel.shape == (12, 16), "the model itself is left alone"
    sj.save(tmp_path / "model.safetensors", fast)
    fresh = Network(RNGS(1), bias=bias)
    fresh.eval()
    again = sj.load(tmp_path / "model.safetensors", fresh)
    np.testing.assert_array_equal(again(other), fast(other))
    assert again.norm.num_features == 11


def test_what_leaves_takes_along_what_it_alone_read():
    model = randomized(mlp((8,), 4, hidden=(6, 5), rngs=RNGS(0)))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    masks = {
        f"{name}/kernel": np.ones(params[name]["kernel"].shape, bool)
        for name in ("hidden0", "hidden1", "head")
    }
    masks["hidden0/kernel"][0, 1] = False
    masks["hidden1/kernel"][3, 1:] = False  # read by neuron 0 alone ...
    masks["head/kernel"][0] = False  # ... which nothing reads
    masks["hidden0/kernel"][:, 2] = False  # says nothing ...
    masks["hidden1/kernel"][:, 4] = False
    masks["hidden1/kernel"][2, 4] = True  # ... but to this one
    nested = {
        path.split("/")[0]: {"kernel": jnp.asarray(mask), "bias": None}
        for path, mask in masks.items()
    }
    state = sj.static(optax.sgd(0.1), sparsity=None, initial_masks=nested).init(params)
    nnx.update(model, sj.sparsify(params, state))
    x = jax.random.normal(jax.random.key(3), (6, 8))
    fast = sj.compress(model, state, inputs=x)
    assert widths(fast, "hidden0", "hidden1") == [4, 3]
    np.testing.assert_allclose(fast(x), model(x), rtol=1e-4, atol=1e-5)


def test_one_neuron_stays():
    model = randomized(Network(RNGS(0)))
    holes = {"first": ([], range(16)), "head": (range(10), [])}
    model, state = masked(model, holes)
    x = jax.random.normal(jax.random.key(3), (6, 12))
    fast = sj.compress(model, state, inputs=x)
    assert widths(fast, "first", "second") == [1, 1]
    np.testing.assert_allclose(fast(x), model(x), rtol=1e-4, atol=1e-5)


def test_pruned_neurons_leave_a_smaller_dense_network():
    model = randomized(mlp((12,), 4, hidden=(16, 10), rngs=RNGS(0)))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    tx = sj.static(
        optax.sgd(0.1),
        sparsity={"hidden.*/kernel": 0.5},
        structure=sj.neuron(),
        distribution=sj.uniform(),
    )
    state = tx.init(params)
    nnx.update(model, sj.sparsify(params, state))
    x = jax.random.normal(jax.random.key(3), (6, 12))
    fast = sj.compress(model, state, inputs=x)
    assert isinstance(fast.hidden0, nnx.Linear)
    assert fast.hidden0.kernel.shape == (12, 8)
    assert fast.head.kernel.shape == (5, 4)
    np.testing.assert_allclose(fast(x), model(x), rtol=1e-4, atol=1e-5)


class Pointwise(nnx.Module):
    """A grouped convolution, 1x1 ones, a mean over the image, a linear layer."""

    def __init__(self, rngs):
        self.grouped = nnx.Conv(3, 3, (3, 3), feature_group_count=3, rngs=rngs)
        self.first = nnx.Conv(3, 8, (1, 1), rngs=rngs)
        self.second = nnx.Conv(8, 6, (1, 1), rngs=rngs)
        self.head = nnx.Linear(6, 4, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.second(nnx.silu(self.first(self.grouped(x)))))
        return self.head(x.mean(axis=(1, 2)))


def test_channels_of_pointwise_convolutions_leave():
    model = randomized(Pointwise(RNGS(0)))
    holes = {"first": ([], [2]), "second": ([4], [5]), "head": ([3], [])}
    model, state = masked(model, holes)
    x = jax.random.normal(jax.random.key(3), (2, 5, 5, 3))
    fast = sj.compress(model, state, inputs=x)
    assert widths(fast, "first", "second") == [6, 4]
    assert (fast.grouped.in_features, fast.grouped.out_features) == (3, 3)
    np.testing.assert_allclose(fast(x), model(x), rtol=1e-4, atol=1e-5)


def test_ablated_by_training():
    model = mlp((12,), 4, hidden=(32, 16), rngs=RNGS(0))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    tx = sj.srigl(
        optax.adam(1e-2), sparsity=0.8, every=2, stop=20, minimum_salient=0.95
    )
    state = tx.init(params)
    params = sj.sparsify(params, state)
    x = jax.random.normal(jax.random.key(1), (64, 12))
    y = jnp.argmax(x[:, :4], axis=-1)
    graph = nnx.graphdef(model)

    @jax.jit
    def step(params, state):
        def loss(params):
            logits = nnx.merge(graph, nnx.State(params))(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(20):
        params, state = step(params, state)
    nnx.update(model, params)
    alive = [int(sj.masks(state)[f"hidden{i}"]["kernel"].any(0).sum()) for i in (0, 1)]
    assert alive[0] < 32
    fast = sj.compress(model, state, inputs=x)
    assert fast.hidden0.bias.shape[0] <= alive[0]
    assert isinstance(fast.hidden1, FanInLinear)
    assert isinstance(fast.hidden1.weight, FanIn)
    np.testing.assert_allclose(fast(x), model(x), rtol=1e-4, atol=1e-5)
