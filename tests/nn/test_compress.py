"""Compressed models: the same function, trainable, stored and read again."""

import gzip
import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sparsejax_kernels import NM, FanIn, Packed, largest_density, native
from sparsejax_kernels.choosing import pays_to_pack

import sparsejax as sj
from sparsejax.models.mlp import mlp
from sparsejax.nn import (
    BlockLinear,
    CompressedLinear,
    FanInLinear,
    FanInPointwise,
    Indices,
    NMLinear,
)
from sparsejax.nn.compressing import replacement

needs_native = pytest.mark.skipif(not native.available(), reason="no native kernels")


@pytest.fixture(autouse=True)
def nothing_measured(tmp_path, monkeypatch):
    """A machine on which the defaults hold."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def sparse(model, sparsity=0.75, **options):
    """The model with exact zeros, and the state whose masks say where."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    state = sj.static(optax.sgd(0.1), sparsity=sparsity, **options).init(params)
    nnx.update(model, sj.sparsify(params, state))
    return model, state


def perceptron(**options):
    return sparse(mlp((32,), 10, hidden=(48, 24), rngs=nnx.Rngs(0)), **options)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, FanInLinear),
        ({"structure": sj.fan_in(), "sparsity": 0.5}, FanInLinear),
        ({"structure": sj.n_m(2, 4), "sparsity": 0.5}, NMLinear),
        ({"structure": sj.n_m(1, 8), "sparsity": 0.875}, NMLinear),
        ({"structure": sj.n_m(3, 32), "sparsity": {"hidden0/kernel": 0.9}}, NMLinear),
        (
            {"structure": sj.block(8, 8), "sparsity": {"hidden.*/kernel": 0.75}},
            BlockLinear,
        ),
    ],
)
def test_the_function_is_the_same(options, kind):
    model, state = perceptron(distribution=sj.uniform(), **options)
    fast = sj.compress(model, state)
    assert type(fast.hidden0) is kind
    x = jax.random.normal(jax.random.key(1), (5, 32))
    np.testing.assert_allclose(fast(x), model(x), rtol=1e-4, atol=1e-5)
    assert isinstance(model.hidden0, nnx.Linear), "the model itself is left alone"
    kept = sum(count for count, _ in sj.counts(state).values())
    layers = [fast.hidden0, fast.hidden1, fast.head]
    layers = [layer for layer in layers if isinstance(layer, CompressedLinear)]
    assert sum(int(layer.weight.count) for layer in layers) == kept


def test_the_implementation_may_be_named():
    model, state = perceptron()
    fast = sj.compress(model, state, implementation="reference")
    assert fast.head.implementation == "reference"
    with pytest.raises(ValueError, match="implementation is 'gpu'"):
        sj.compress(model, state, implementation="gpu")(jnp.ones((1, 32)))


def test_masks_may_be_given_without_a_state():
    model, state = perceptron(packed=True)
    x = jax.random.normal(jax.random.key(1), (5, 32))
    masks = sj.masks(state)
    np.testing.assert_array_equal(
        sj.compress(model, masks)(x), sj.compress(model, state)(x)
    )
    del masks["head"]
    assert isinstance(sj.compress(model, masks).head, nnx.Linear)


@pytest.mark.parametrize("state", [optax.adam(0.1).init({"kernel": jnp.ones(3)}), {}])
def test_a_state_without_masks_is_refused(state):
    with pytest.raises(ValueError, match="holds no sparsejax method"):
        sj.compress(mlp((32,), 10, hidden=(48,), rngs=nnx.Rngs(0)), state)


def test_layers_without_a_mask_stay():
    model, state = perceptron(sparsity={"hidden.*/kernel": 0.9})
    fast = sj.compress(model, state)
    assert isinstance(fast.head, nnx.Linear)
    assert isinstance(fast.hidden1, FanInLinear)


class Convolutions(nnx.Module):
    """A 3x3 convolution, a strided 1x1 one, one with a bias, a linear layer."""

    def __init__(self, rngs):
        self.first = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.second = nnx.Conv(
            8, 16, (1, 1), strides=2, padding=0, use_bias=False, rngs=rngs
        )
        self.third = nnx.Conv(16, 12, (1, 1), strides=(1, 2), rngs=rngs)
        self.head = nnx.Linear(12, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.second(nnx.relu(self.first(x))))
        return self.head(nnx.relu(self.third(x)).mean(axis=(1, 2)))


def test_pointwise_convolutions_with_strides():
    model, state = sparse(Convolutions(nnx.Rngs(0)))
    fast = sj.compress(model, state)
    kinds = [type(layer) for layer in (fast.first, fast.second, fast.third, fast.head)]
    assert kinds == [nnx.Conv, FanInPointwise, FanInPointwise, FanInLinear]
    x = jax.random.normal(jax.random.key(0), (2, 9, 7, 3))
    np.testing.assert_allclose(fast(x), model(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("trainable", [False, True])
def test_training_goes_on_in_compressed_form(trainable):
    model, state = perceptron()
    fast = sj.compress(model, state, trainable=trainable)
    optimizer = nnx.Optimizer(fast, optax.adam(1e-2), wrt=nnx.Param)
    before = nnx.to_pure_dict(nnx.state(fast, Indices))
    x = jax.random.normal(jax.random.key(1), (16, 32))

    @nnx.jit
    def step(fast, optimizer):
        def loss(fast):
            return jnp.mean((fast(x) - 1) ** 2)

        value, gradients = nnx.value_and_grad(loss)(fast)
        optimizer.update(fast, gradients)
        return value

    losses = [float(step(fast, optimizer)) for _ in range(30)]
    assert losses[-1] < losses[0] / 2
    after = nnx.to_pure_dict(nnx.state(fast, Indices))
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_gradients_are_those_of_the_masked_model():
    model, state = perceptron()
    fast = sj.compress(model, state)
    x = jax.random.normal(jax.random.key(1), (6, 32))

    def loss(model):
        return jnp.sum(model(x) ** 2)

    dense = nnx.grad(loss)(model)["hidden0"]["kernel"].get_value()
    mask = sj.masks(state)["hidden0"]["kernel"]
    layer = fast.hidden0
    found = nnx.grad(loss)(fast)["hidden0"]["values"].get_value()
    weight = layer.format.unflatten([found, *layer.indices.get_value()])
    np.testing.assert_allclose(
        weight.todense(), jnp.where(mask, dense, 0), rtol=1e-3, atol=1e-4
    )


def test_a_shared_layer_is_replaced_everywhere():
    class Twice(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(8, 8, rngs=rngs)
            self.again = self.first

        def __call__(self, x):
            return self.again(self.first(x))

    model, state = sparse(Twice(nnx.Rngs(0)))
    fast = sj.compress(model, state)
    assert fast.first is fast.again
    x = jnp.ones((2, 8))
    np.testing.assert_allclose(fast(x), model(x), atol=1e-5)


def test_layers_in_containers_are_replaced():
    class Branches(nnx.Module):
        def __init__(self, rngs):
            self.many = nnx.List([nnx.Linear(8, 6, rngs=rngs)])
            self.named = nnx.Dict({"one": nnx.Linear(8, 6, rngs=rngs)})

        def __call__(self, x):
            return self.many[0](x) + self.named["one"](x)

    model, state = sparse(Branches(nnx.Rngs(0)))
    fast = sj.compress(model, state)
    assert isinstance(fast.many[0], FanInLinear)
    assert isinstance(fast.named["one"], FanInLinear)
    x = jnp.ones((2, 8))
    np.testing.assert_allclose(fast(x), model(x), atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_saved_and_loaded_it_is_the_same_and_small(tmp_path, dtype):
    model = mlp((300,), 10, hidden=(400,), rngs=nnx.Rngs(0))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    nnx.update(model, jax.tree.map(lambda leaf: leaf.astype(dtype), params))
    model, state = sparse(model, sparsity=0.9, structure=sj.fan_in())
    fast = sj.compress(model, state)
    size = sj.save(tmp_path / "model.safetensors", fast)
    assert size == (tmp_path / "model.safetensors").stat().st_size
    again = sj.load(
        tmp_path / "model.safetensors", mlp((300,), 10, hidden=(400,), rngs=nnx.Rngs(1))
    )
    x = jax.random.normal(jax.random.key(0), (3, 300), dtype)
    np.testing.assert_array_equal(again(x), fast(x))
    assert again.hidden0.values.dtype == dtype

    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model))]
    dense = sum(leaf.nbytes for leaf in leaves)
    buffer = io.BytesIO()
    for leaf in leaves:
        np.save(buffer, leaf.view(np.uint8) if dtype == jnp.bfloat16 else leaf)
    zipped = len(gzip.compress(buffer.getvalue()))
    assert size < dense / 4
    if dtype == jnp.float32:
        assert size < 1.25 * zipped
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("structure", "sparsity"), [(sj.n_m(2, 4), 0.5), (sj.block(8, 8), 0.75)]
)
def test_every_format_is_saved_and_loaded(tmp_path, structure, sparsity):
    model, state = perceptron(
        structure=structure, sparsity={"hidden.*/kernel": sparsity}
    )
    fast = sj.compress(model, state)
    sj.save(tmp_path / "model.safetensors", fast)
    again = sj.load(tmp_path / "model.safetensors", model)
    assert type(again.hidden0.weight) is type(fast.hidden0.weight)
    x = jax.random.normal(jax.random.key(0), (3, 32))
    np.testing.assert_array_equal(again(x), fast(x))


def test_a_layer_for_tensor_cores_is_saved_and_loaded(tmp_path):
    model, state = perceptron(
        structure=sj.transposable(2, 4), sparsity={"hidden0/kernel": 0.5}
    )
    fast = nnx.clone(model)
    kernel, mask = model.hidden0.kernel.get_value(), sj.masks(state)["hidden0"]
    weight = NM.fromdense(kernel, mask["kernel"], n=2, m=4).for_tensor_cores()
    fast.hidden0 = replacement(model.hidden0, weight.with_transpose())
    sj.save(tmp_path / "model.safetensors", fast)
    again = sj.load(tmp_path / "model.safetensors", model)
    assert again.hidden0.weight.transposed is not None
    x = jax.random.normal(jax.random.key(0), (3, 32))
    np.testing.assert_array_equal(again(x), fast(x))
    np.testing.assert_allclose(again(x), model(x), rtol=1e-5, atol=1e-5)


def test_errors_name_what_is_wrong(tmp_path):
    model, state = perceptron()
    other = nnx.Sequential(nnx.Linear(8, 4, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="no linear layer of the model has a mask"):
        sj.compress(other, state)
    wider = mlp((32,), 10, hidden=(50, 24), rngs=nnx.Rngs(0))
    _, first = perceptron(sparsity={"hidden0/kernel": 0.75})
    with pytest.raises(ValueError, match=r"hidden0/kernel has shape \(32, 48\)"):
        sj.compress(wider, first)
    dense = mlp((32,), 10, hidden=(48, 24), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="is not zero outside its mask"):
        sj.compress(dense, state)

    path = tmp_path / "model.safetensors"
    sj.save(path, sj.compress(model, state))
    with pytest.raises(ValueError, match=r"compressed layer .*, which the model lacks"):
        sj.load(path, other)
    with pytest.raises(ValueError, match="has shape"):
        sj.load(path, wider)
    sj.save(path, model)
    with pytest.raises(ValueError, match="differ in"):
        sj.load(path, other)


def test_compress_leaves_dense_what_is_faster_dense():
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(32, 16, rngs=rngs), nnx.Linear(16, 8, rngs=rngs))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    sparsity = {"layers/0/kernel": 0.95, "layers/1/kernel": 0.02}
    state = sj.static(optax.sgd(0.1), sparsity=sparsity).init(params)
    nnx.update(model, sj.sparsify(params, state))
    limit = largest_density(1)
    fast = sj.compress(model, state, batch=1)
    found = [isinstance(layer, CompressedLinear) for layer in fast.layers]
    assert found == [limit >= 0.05, False] and limit < 0.98
    assert all(
        isinstance(one, CompressedLinear) for one in sj.compress(model, state).layers
    )


@needs_native
@pytest.mark.parametrize("batch", [1, 9])
def test_layers_for_small_batches_are_packed_where_that_is_faster(tmp_path, batch):
    model, state = perceptron(sparsity={"hidden.*/kernel": 0.8})
    fast = sj.compress(model, state, batch=batch)
    packed = isinstance(fast.hidden0.weight, Packed)
    assert packed or isinstance(fast.hidden0, FanInLinear)
    assert packed == pays_to_pack(batch, 0) == (batch == 1 and native.has_avx512())
    x = jax.random.normal(jax.random.key(0), (batch, 32))
    np.testing.assert_allclose(fast(x), model(x), atol=1e-5)
    sj.save(tmp_path / "model.safetensors", fast)
    again = sj.load(tmp_path / "model.safetensors", model)
    assert type(again.hidden0.weight) is type(fast.hidden0.weight)
    np.testing.assert_array_equal(again(x), fast(x))
    # What is to be trained needs an index for its backward pass.
    trained = sj.compress(model, state, batch=batch, trainable=True)
    assert isinstance(trained.hidden0.weight, FanIn)


@needs_native
def test_weights_that_no_cache_keeps_are_not_packed(monkeypatch):
    model, state = perceptron(sparsity={"hidden0/kernel": 0.8})
    read = sum(leaf.nbytes for leaf in jax.tree.leaves(sj.compress(model, state)))
    for limit in (read - 1, read):
        monkeypatch.setattr("sparsejax_kernels.choosing.LARGEST_PACKED_BYTES", limit)
        fast = sj.compress(model, state, batch=1)
        # The layers that stay dense are read as well.
        packed = limit == read and native.has_avx512()
        assert isinstance(fast.hidden0.weight, Packed) == packed
