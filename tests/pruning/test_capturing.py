"""The inputs of every weight, found by following the program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.layers import by_name, choose_layers, leaves_with_paths
from sparsejax.pruning.capturing import products

KEY = jax.random.key(0)


def inputs_of(apply, params, batch, where=sj.matmul_weights, layout=None):
    """path -> inputs, one entry per product, in the order of the program."""
    layers = choose_layers(params, where=where, layout=layout or by_name())
    leaves = dict(leaves_with_paths(params))
    found = products(apply, params, batch, layers, leaves)
    return [(one.path, one.index, np.asarray(one.inputs)) for one in found]


BATCH = jax.random.normal(KEY, (4, 6))
KERNEL = jax.random.normal(KEY, (6, 5))


@jax.custom_jvp
def custom_jvp(params, inputs):
    return inputs @ params["kernel"]


@jax.custom_vjp
def custom_vjp(params, inputs):
    return inputs @ params["kernel"]


custom_jvp.defjvp(lambda primals, tangents: (custom_jvp(*primals), None))
custom_vjp.defvjp(
    lambda *inputs: (custom_vjp(*inputs), None), lambda _, one: (one, one)
)

WAYS = {
    "plain": lambda p, x: x @ p["kernel"],
    "jit": jax.jit(lambda p, x: x @ p["kernel"]),
    "remat": jax.checkpoint(lambda p, x: x @ p["kernel"]),
    "vmap": jax.vmap(lambda p, x: x @ p["kernel"], in_axes=(None, 0)),
    "transposed": lambda p, x: (p["kernel"].T @ x.T).T,
    "einsum": lambda p, x: jnp.einsum("...i,io->o...", x, p["kernel"]),
    "bfloat16": lambda p, x: x @ p["kernel"].astype(jnp.bfloat16).astype(jnp.float32),
    "reshaped": lambda p, x: jnp.einsum(
        "bij,ijo->bo", x.reshape(4, 2, 3), p["kernel"].reshape(2, 3, 5)
    ),
    "permuted": lambda p, x: x[:, ::-1] @ p["kernel"][::-1],
    "masked": lambda p, x: x @ (p["kernel"] * (jnp.abs(p["kernel"]) > 0.1)),
    "cond": lambda p, x: jax.lax.cond(
        p["bias"][0] > 0, lambda k, x: x @ (2 * k), lambda k, x: x @ k, p["kernel"], x
    ),
    "custom jvp": custom_jvp,
    "custom vjp": custom_vjp,
}


@pytest.mark.parametrize("way", WAYS)
def test_inputs_are_found_on_the_way(way):
    params = {"kernel": KERNEL, "bias": jnp.zeros(5)}
    [(path, index, inputs)] = inputs_of(WAYS[way], params, BATCH)
    assert (path, index) == ("kernel", 0)
    np.testing.assert_array_equal(inputs, BATCH)


def test_changes_reach_the_product():
    params = {"kernel": KERNEL}
    [layer] = choose_layers(params, where="kernel", layout=by_name())
    current = {"kernel": KERNEL}

    def apply(params, inputs):
        return (inputs @ params["kernel"].T.T) @ params["kernel"].T

    walk = products(apply, params, BATCH, [layer], current)
    next(walk)
    current["kernel"] = 2 * KERNEL
    with pytest.raises(ValueError, match="multiplied along other axes"):
        next(walk)


def test_layers_stacked_for_a_scan():
    layout = sj.flax(stacked={"blocks": 1})
    params = {"blocks": {"kernel": jax.random.normal(KEY, (3, 6, 6))}}

    def scanned(params, inputs):
        def body(hidden, kernel):
            return jnp.tanh(hidden @ kernel), hidden.sum()

        return jax.lax.scan(body, inputs, params["blocks"]["kernel"])

    def unrolled(params, inputs):
        for kernel in params["blocks"]["kernel"]:
            inputs = jnp.tanh(inputs @ kernel)
        return inputs

    reached = inputs_of(scanned, params, BATCH, layout=layout)
    assert [(path, index) for path, index, _ in reached] == [
        ("blocks/kernel", index) for index in range(3)
    ]
    expected = BATCH
    for (_, _, inputs), kernel in zip(reached, params["blocks"]["kernel"], strict=True):
        np.testing.assert_allclose(inputs, expected, rtol=1e-5)
        expected = jnp.tanh(expected @ kernel)
    for one, other in zip(
        *(
            jax.tree.leaves(
                sj.pruning.sparsegpt(
                    apply, params, [BATCH], sparsity=0.5, layout=layout
                )
            )
            for apply in (scanned, unrolled)
        ),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_convolutions_are_seen_by_patches():
    images = jax.random.normal(KEY, (2, 5, 6, 3))
    params = {"kernel": jax.random.normal(KEY, (3, 2, 3, 4))}
    convolve = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(2, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

    def apply(params, images):
        return convolve(images, params["kernel"])

    [(_, _, inputs)] = inputs_of(apply, params, images)
    # Patches times the kernel as a matrix are the convolution.
    outputs = inputs @ np.asarray(params["kernel"]).reshape(-1, 4)
    np.testing.assert_allclose(
        outputs, apply(params, images).reshape(-1, 4), rtol=1e-4, atol=1e-5
    )
    _, masks = sj.pruning.sparsegpt(apply, params, [images], sparsity=0.5)
    assert int(masks["kernel"].sum()) == 36
    torch_like = {"weight": params["kernel"].transpose(3, 2, 0, 1)}
    _, others = sj.pruning.sparsegpt(
        lambda p, x: apply({"kernel": p["weight"].transpose(2, 3, 1, 0)}, x),
        torch_like,
        [images],
        sparsity=0.5,
    )
    np.testing.assert_array_equal(
        others["weight"].transpose(2, 3, 1, 0), masks["kernel"]
    )


def test_a_network_of_flax():
    nnx = pytest.importorskip("flax.nnx")
    block = nnx.MultiHeadAttention(
        num_heads=2, in_features=8, decode=False, rngs=nnx.Rngs(0)
    )
    graph, params, rest = nnx.split(block, nnx.Param, ...)
    params = nnx.to_pure_dict(params)
    tokens = jax.random.normal(KEY, (2, 5, 8))
    apply = lambda params, x: nnx.merge(graph, params, rest)(x)  # noqa: E731
    _, masks = sj.pruning.wanda(apply, params, [tokens], sparsity=0.5)
    for name, inputs, outputs in (
        ("query", (0,), 8),
        ("value", (0,), 8),
        ("out", (0, 1), 8),
    ):
        counts = masks[name]["kernel"].sum(axis=inputs)
        assert counts.size == outputs and set(counts.ravel().tolist()) == {4}


def test_a_leaf_in_a_while_loop_is_named():
    def apply(params, inputs):
        def body(carry):
            return carry[0] + 1, carry[1] @ params["kernel"]

        return jax.lax.while_loop(lambda carry: carry[0] < 3, body, (0, inputs))

    params = {"kernel": jnp.eye(6)}
    with pytest.raises(ValueError, match="kernel is used inside a while"):
        sj.pruning.wanda(apply, params, [BATCH], sparsity=0.5)
