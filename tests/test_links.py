"""What treats each neuron alike is a link from layer to layer; all else ends it."""

import jax
import jax.numpy as jnp
import pytest

from sparsejax.links import Link, links


def with_norm(p, x):
    x = x @ p["a"] + p["bias"]
    return (x - x.mean(-1, keepdims=True)) @ p["b"]


def with_residual(p, x):
    x = x @ p["a"]
    return (x @ p["b"]) @ p["b2"] + x


def with_softmax(p, x):
    return jax.nn.softmax(x @ p["a"]) @ p["b"]


def with_a_gate(p, x):
    return ((x @ p["a"]) * (x @ p["c"])) @ p["b"]


def with_flipped_neurons(p, x):
    return (x @ p["a"])[..., ::-1] @ p["b"]


def with_heads(p, x):
    x = (x @ p["a"]).reshape(len(x), 2, 2).swapaxes(1, 2).reshape(len(x), 4)
    return x @ p["b"]


def with_a_result(p, x):
    x = x @ p["a"]
    return x, x @ p["b"]


def with_two_uses(p, x):
    return (jnp.tanh(x @ p["a"]) @ p["a"]) @ p["b"]


def with_a_function_of_the_kernel(p, x):
    return (x @ jnp.exp(p["a"])) @ p["b"]


def with_a_function_of_the_readers_kernel(p, x):
    return (x @ p["a"]) @ jnp.tanh(p["b"])


def with_a_position(p, x):
    return ((x @ p["a"]) * jnp.arange(4.0)) @ p["b"]


def with_a_shared_vector(p, x):
    return (((x @ p["a"] + p["bias"]) @ p["b"]) + p["bias"]) @ p["b2"]


@pytest.mark.parametrize(
    "function",
    [
        with_norm,
        with_residual,
        with_softmax,
        with_a_gate,
        with_flipped_neurons,
        with_heads,
        with_a_result,
        with_two_uses,
        with_a_function_of_the_kernel,
        with_a_function_of_the_readers_kernel,
        with_a_position,
        with_a_shared_vector,
    ],
)
def test_what_mixes_neurons_ends_a_link(function, implicit_promotion):
    params = {name: jnp.ones((4, 4)) for name in ("a", "b", "b2", "c")}
    params["bias"] = jnp.ones(4)
    found = links(function, params, jnp.ones((3, 4)), ["a", "b", "b2", "c"])
    assert all(link.source != "a" for link in found)


def test_links_pass_what_treats_each_neuron_alike(implicit_promotion):
    def function(p, x):
        x = x @ p["a"] + p["bias"]
        x = jax.jit(jax.nn.gelu)(x.astype(jnp.float32))[:, None]
        x = jnp.where(x > 0.1, x, jnp.clip(0.2 * x, -1, 1)) * p["scale"][None]
        x = x.transpose(2, 0, 1).max(axis=2).T
        return x @ p["b"] + jax.checkpoint(lambda x: jnp.exp(x))(x) @ p["c"]

    params = {name: jnp.ones((4, 4)) for name in ("a", "b", "c")}
    params |= {"bias": jnp.ones(4), "scale": jnp.ones(4)}
    found = links(function, params, jnp.ones((3, 4)), ["a", "b", "c"])
    assert found == [Link("a", ("b", "c"), ("bias", "scale"))]
