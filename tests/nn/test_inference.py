"""Whole networks for inference: folded, fused, compressed, and the same function."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import sparsejax as sj
from sparsejax.models.layers import Depthwise
from sparsejax.models.mobilenet_v1 import mobilenet_v1
from sparsejax.models.resnet import resnet
from sparsejax.nn import (
    DepthwiseConvolution,
    FanInConvolution,
    FanInLinear,
    Rectified,
)
from sparsejax.nn.folding import Folded


class Network(nnx.Module):
    """What networks are made of, and each thing that is not to be folded or fused."""

    def __init__(self, rngs):
        def norm(features, **options):
            return nnx.BatchNorm(
                features, use_running_average=True, rngs=rngs, **options
            )

        self.stem = nnx.Conv(3, 8, (5, 3), strides=2, padding=(2, 1), rngs=rngs)
        self.stem_norm = norm(8)
        self.filter = Depthwise(8, 2, dtype=jnp.float32, rngs=rngs)
        self.filter_norm = norm(8, use_scale=False)
        self.mix = nnx.Conv(8, 12, (1, 1), use_bias=False, rngs=rngs)
        self.mix_norm = norm(12)
        self.grouped = nnx.Conv(
            12, 12, (3, 3), feature_group_count=12, use_bias=False, rngs=rngs
        )
        self.grouped_norm = norm(12, use_bias=False)
        self.read_twice = nnx.Conv(12, 12, (3, 3), rngs=rngs)
        self.late_norm = norm(12)
        self.hidden = nnx.Linear(12, 16, rngs=rngs)
        self.hidden_norm = norm(16)
        self.head = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.stem_norm(self.stem(x)))
        x = nnx.relu(self.filter_norm(self.filter(x)))
        x = jax.nn.relu(self.mix_norm(self.mix(x)))
        x = x + self.grouped_norm(self.grouped(x))
        raw = self.read_twice(x)
        x = jnp.maximum(self.late_norm(raw), 0) + raw
        x = nnx.relu(self.hidden_norm(self.hidden(x.mean(axis=(1, 2)))))
        return self.head(x)


def trained(model, sparsity=0.7, **options):
    """The model with exact zeros and statistics of no regularity, and the state."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    state = sj.static(optax.sgd(0.1), sparsity=sparsity, **options).init(params)
    nnx.update(model, sj.sparsify(params, state))
    generator = np.random.default_rng(0)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm):
            for name in ("mean", "var", "scale", "bias"):
                variable = getattr(module, name)
                if variable is not None:
                    numbers = generator.uniform(0.5, 1.5, variable.get_value().shape)
                    shift = 1.0 if name in ("mean", "bias") else 0.0
                    variable.set_value(jnp.asarray(numbers - shift, jnp.float32))
    return model, state


def outputs(model, x):
    definition, state = nnx.split(model)
    return jax.jit(lambda state, x: nnx.merge(definition, state)(x))(state, x)


def close(found, expected, tolerance=1e-4):
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


@pytest.fixture(scope="module")
def network():
    x = jax.random.normal(jax.random.key(1), (2, 21, 16, 3))
    model, state = trained(Network(nnx.Rngs(0)))
    return model, sj.compress(model, state, inputs=x, inference=True), x


def test_the_function_is_the_same(network):
    model, fast, x = network
    assert isinstance(fast, Rectified)
    close(outputs(fast, x), outputs(model, x))
    close(outputs(fast, x[:1]), outputs(model, x[:1]))
    assert isinstance(model.stem_norm, nnx.BatchNorm), "the model itself is left alone"


def test_what_can_be_is_folded_and_fused(network):
    _, fast, x = network
    inner = fast.model
    for name in ("stem", "mix", "read_twice"):
        assert isinstance(getattr(inner, name), FanInConvolution)
    for name in ("filter", "grouped"):
        assert isinstance(getattr(inner, name), DepthwiseConvolution)
    assert isinstance(inner.hidden, FanInLinear)
    names = ("stem", "filter", "mix", "grouped", "read_twice", "hidden", "head")
    rectified = [name for name in names if getattr(inner, name).activation == "relu"]
    assert rectified == ["stem", "filter", "mix", "hidden"]
    folded = {name for name, each in vars(inner).items() if isinstance(each, Folded)}
    before = ("stem", "filter", "mix", "grouped", "hidden")
    assert folded == {f"{name}_norm" for name in before}
    # Only the ReLU that no layer computes is left to the program.
    assert str(jax.make_jaxpr(fast)(x)).count("= max ") == 1
    assert str(jax.make_jaxpr(inner)(x)).count("= max ") == 5


def test_saved_and_loaded_it_is_the_same(network, tmp_path):
    _, fast, x = network
    sj.save(tmp_path / "model.safetensors", fast)
    again = sj.load(tmp_path / "model.safetensors", Network(nnx.Rngs(1)))
    assert isinstance(again, Rectified)
    assert again.model.mix.activation == "relu"
    np.testing.assert_array_equal(outputs(again, x), outputs(fast, x))


@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_the_implementation_may_be_named(implementation):
    model, state = trained(nnx.Sequential(nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))))
    x = jax.random.normal(jax.random.key(1), (1, 5, 6, 3))
    options = {"inputs": x, "inference": True, "implementation": implementation}
    fast = sj.compress(model, state, **options)
    close(outputs(fast, x), outputs(model, x))


class Windows(nnx.Module):
    """Convolutions that read each other's channels over more than a pixel."""

    def __init__(self, rngs):
        self.first = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)
        self.second = nnx.Conv(8, 6, (3, 3), padding=1, rngs=rngs)
        self.head = nnx.Linear(6, 4, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.first(x)))
        return self.head(nnx.relu(self.second(x)).mean(axis=(1, 2)))


def test_idle_channels_leave_convolutions_of_any_window(tmp_path):
    model, _ = trained(Windows(nnx.Rngs(0)))
    masks = {
        name: {"kernel": np.ones(getattr(model, name).kernel.shape, bool)}
        for name in ("first", "second", "head")
    }
    # Without inputs are channels 1 and 2, of which 1 says nothing and 2 a constant, and
    # channel 5 of the second; nobody reads channel 3.
    masks["first"]["kernel"][..., [1, 2]] = False
    masks["second"]["kernel"][..., 3, :] = False
    masks["second"]["kernel"][..., 5] = False
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    everywhere = jax.tree.map(lambda _: None, params)
    initial = {
        name: everywhere[name] | jax.tree.map(jnp.asarray, masks.get(name, {}))
        for name in params
    }
    tx = sj.static(optax.sgd(0.1), sparsity=None, initial_masks=initial)
    state = tx.init(params)
    nnx.update(model, sj.sparsify(params, state))
    says = jnp.where(jnp.arange(8) == 1, -2.0, 2.0)
    model.norm.bias.set_value(says)
    model.norm.mean.set_value(jnp.zeros(8))
    model.first.bias.set_value(jnp.zeros(8))
    x = jax.random.normal(jax.random.key(1), (2, 6, 7, 3))
    fast = sj.compress(model, state, inputs=x, inference=True)
    widths = [len(getattr(fast.model, name).bias) for name in ("first", "second")]
    assert widths == [6, 5]
    close(outputs(fast, x), outputs(model, x))
    sj.save(tmp_path / "model.safetensors", fast)
    again = sj.load(tmp_path / "model.safetensors", Windows(nnx.Rngs(1)))
    np.testing.assert_array_equal(outputs(again, x), outputs(fast, x))


def test_errors_name_what_is_wrong():
    model, state = trained(Network(nnx.Rngs(0)))
    x = jnp.ones((1, 8, 8, 3))
    with pytest.raises(ValueError, match="needs `inputs`"):
        sj.compress(model, state, inference=True)
    with pytest.raises(ValueError, match="not trainable"):
        sj.compress(model, state, inference=True, inputs=x, trainable=True)
    model.train()
    with pytest.raises(ValueError, match=r"_norm normalises by the statistics of a"):
        sj.compress(model, state, inference=True, inputs=x)


@pytest.mark.slow
@pytest.mark.parametrize("build", [mobilenet_v1, resnet])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_networks_of_the_papers(build, dtype, tmp_path):
    options = {"zero_initialised_scale": False} if build is resnet else {}

    def made(seed):
        return build((64, 64, 3), 10, dtype=dtype, rngs=nnx.Rngs(seed), **options)

    model, state = trained(made(0), sparsity=0.9)
    x = jax.random.normal(jax.random.key(1), (1, 64, 64, 3))
    fast = sj.compress(model, state, inputs=x, inference=True)
    close(outputs(fast, x), outputs(model, x), 1e-4 if dtype == "float32" else 0.1)
    kinds = {type(module) for _, module in nnx.iter_modules(fast)}
    assert not kinds & {nnx.Conv, nnx.BatchNorm, Depthwise}
    sj.save(tmp_path / "model.safetensors", fast)
    again = sj.load(tmp_path / "model.safetensors", made(1))
    np.testing.assert_array_equal(outputs(again, x), outputs(fast, x))
