"""The tracer names the leaf behind every product, whatever lies between."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

from sparsejax.graph import uses

X = jax.ShapeDtypeStruct((2, 3), "float32")
SQUARE = jax.ShapeDtypeStruct((3, 3), "float32")
ONE_DOT = 2 * 3 * 3

# What the tracer reads are programs of users.
pytestmark = pytest.mark.usefixtures("implicit_promotion")


def named(function, params, *inputs):
    return [(use.path, use.macs) for use in uses(function, params, *inputs)]


@pytest.mark.parametrize(
    "view",
    {
        "cast": lambda w: w.astype("bfloat16").astype("float32"),
        "reshape": lambda w: w.reshape(9).reshape(3, 3),
        "transpose": lambda w: w.T,
        "slice": lambda w: jnp.concatenate([w[:1], w[1:]]),
        "gather": lambda w: w[jnp.array([2, 1, 0])],
        "constant mask": lambda w: w * (jnp.arange(9).reshape(3, 3) % 2 == 0),
        "straight through": lambda w: w + jax.lax.stop_gradient(jnp.sign(w) - w),
        "threshold": lambda w: jnp.sign(w) * jax.nn.relu(jnp.abs(w) - 0.1),
        "standardised": lambda w: (w - w.mean(0)) / jnp.sqrt(w.var(0) + 1e-5),
        "jit": jax.jit(lambda w: w * 2),
        "remat": jax.checkpoint(lambda w: jnp.sin(w)),
        "broadcast": lambda w: jnp.broadcast_to(w[None], (4, 3, 3))[2],
    }.items(),
    ids=lambda item: item[0],
)
def test_follows_a_weight_through(view):
    _, function = view

    def forward(params, x):
        return x @ function(params["kernel"]) + params["bias"]

    params = {"bias": jax.ShapeDtypeStruct((3,), "float32"), "kernel": SQUARE}
    assert named(forward, params, X) == [("kernel", ONE_DOT)]


def test_masks_and_noise_may_be_inputs():
    def forward(w, mask, key, x):
        noisy = w + 0.1 * jax.random.normal(key, w.shape)
        return x @ (noisy * mask)

    mask = jax.ShapeDtypeStruct((3, 3), "bool")
    assert named(forward, {"w": SQUARE}["w"], mask, jax.random.key(0), X) == [
        ("", ONE_DOT)
    ]


def test_scales_from_the_models_state_leave_a_weight_a_weight():
    def forward(params, state, x):
        folded = params["w"] * (params["scale"] / jnp.sqrt(state["variance"]))
        return x @ (folded / state["norm"])

    vector, scalar = (jax.ShapeDtypeStruct(s, "float32") for s in ((3,), ()))
    params = {"w": SQUARE, "scale": vector}
    state = {"variance": vector, "norm": scalar}
    assert named(forward, params, state, X) == [("w", ONE_DOT)]


def test_activations_are_no_weights():
    def forward(params, x):
        h = jax.nn.relu(x * params["scale"] + params["bias"])
        h = h @ params["w1"] + params["bias"]
        scores = h @ h.T
        return scores @ (h @ params["w2"])

    vector = jax.ShapeDtypeStruct((3,), "float32")
    params = {"scale": vector, "bias": vector, "w1": SQUARE, "w2": SQUARE}
    assert named(forward, params, X) == [
        ("w1", 18),
        (None, 2 * 2 * 3),
        ("w2", 18),
        (None, 2 * 2 * 3),
    ]


def test_position_embeddings_do_not_pass_for_the_next_layers_weight():
    def forward(params, x):
        return (x + params["position"]) @ params["w"]

    params = {"position": jax.ShapeDtypeStruct((50, 3), "float32"), "w": SQUARE}
    x = jax.ShapeDtypeStruct((1, 3), "float32")
    assert named(forward, params, x) == [("w", 50 * 9)]


def test_without_data_the_weight_is_the_one_with_no_product_behind_it():
    constant = jnp.ones((2, 3))

    def forward(params):
        return jax.nn.relu(constant @ params["w1"] + params["b"]) @ params["w2"]

    params = {"w1": SQUARE, "b": jax.ShapeDtypeStruct((3,), "float32"), "w2": SQUARE}
    assert named(forward, params) == [("w1", 18), ("w2", 18)]


def test_a_low_rank_addition_counts_for_the_whole_weight():
    def forward(params, x):
        return x @ (params["w"] + params["a"] @ params["b"])

    params = {
        "w": SQUARE,
        "a": jax.ShapeDtypeStruct((3, 1), "float32"),
        "b": jax.ShapeDtypeStruct((1, 3), "float32"),
    }
    assert named(forward, params, X) == [("a", 9), ("w", 18)]


def test_custom_derivatives_are_looked_into():
    @jax.custom_vjp
    def first(x, w):
        return x @ w

    first.defvjp(lambda x, w: (x @ w, (x, w)), lambda r, g: (g @ r[1].T, r[0].T @ g))

    @jax.custom_jvp
    def second(x, w):
        return x @ w

    second.defjvp(lambda primals, tangents: (second(*primals), tangents[0]))

    def forward(params, x):
        return second(first(x, params["a"]), params["b"])

    assert named(forward, {"a": SQUARE, "b": SQUARE}, X) == [("a", 18), ("b", 18)]


def test_scan_counts_every_iteration_of_stacked_and_of_shared_weights():
    def forward(params, x):
        def block(h, w):
            return jnp.tanh(h @ w @ params["shared"]), h.sum()

        return jax.lax.scan(block, x, params["stack"])

    params = {"stack": jax.ShapeDtypeStruct((5, 3, 3), "float32"), "shared": SQUARE}
    expected = [("stack", 5 * 18), ("shared", 5 * 18)]
    assert named(forward, params, X) == expected


def test_scan_whose_carry_turns_from_zeros_into_data():
    def forward(w, x):
        def cell(h, column):
            return jnp.tanh(h @ w + column), None

        return jax.lax.scan(cell, jnp.zeros((2, 3)), jnp.stack([x] * 4))[0]

    assert named(forward, SQUARE, X) == [("", 4 * 18)]


def test_vmap_over_seeds_counts_every_replica():
    def forward(w, x):
        return x @ w

    stacked = jax.ShapeDtypeStruct((7, 3, 3), "float32")
    (use,) = uses(jax.vmap(forward, in_axes=(0, None)), stacked, X)
    assert (use.macs, use.outputs, use.weights_per_output) == (7 * 18, 42, 3)


def test_cond_counts_its_costliest_branch():
    def forward(params, x):
        def cheap(h):
            return h

        def costly(h):
            return h @ params["a"] @ params["b"]

        return jax.lax.cond(x.sum() > 0, costly, cheap, x)

    assert named(forward, {"a": SQUARE, "b": SQUARE}, X) == [("a", 18), ("b", 18)]


def test_loops_with_known_bounds_count_and_others_raise():
    def known(w, x):
        return jax.lax.fori_loop(0, 3, lambda _, h: h @ w, x)

    def unknown(w, x):
        return jax.lax.while_loop(lambda h: h.sum() < 1, lambda h: h @ w, x)

    assert named(known, SQUARE, X) == [("", 3 * 18)]
    with pytest.raises(ValueError, match=r"inside a while.*lax\.scan"):
        uses(unknown, SQUARE, X)


def test_shard_map_counts_all_devices():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    forward = jax.shard_map(
        lambda w, x: x @ w,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec("data"),
    )
    assert named(forward, SQUARE, X) == [("", ONE_DOT)]


@pytest.mark.parametrize(
    ("settings", "kernel", "macs", "fan_in"),
    [
        ({}, (3, 3, 4, 8), 8 * 8 * 8 * 36, 36),
        ({"window_strides": (2, 2)}, (3, 3, 4, 8), 4 * 4 * 8 * 36, 36),
        ({"feature_group_count": 4}, (3, 3, 1, 8), 8 * 8 * 8 * 9, 9),
        ({"rhs_dilation": (2, 2)}, (3, 3, 4, 8), 8 * 8 * 8 * 36, 36),
    ],
    ids=["plain", "strided", "depthwise", "dilated"],
)
def test_convolutions(settings, kernel, macs, fan_in):
    def forward(w, x):
        defaults = {"window_strides": (1, 1), "padding": "SAME"}
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, w, **{**defaults, **settings}, dimension_numbers=numbers
        )

    image = jax.ShapeDtypeStruct((1, 8, 8, 4), "float32")
    (use,) = uses(forward, jax.ShapeDtypeStruct(kernel, "float32"), image)
    assert (use.kind, use.macs, use.weights_per_output) == ("convolution", macs, fan_in)


def test_a_transposed_convolution_does_no_work_at_its_zeros():
    def forward(w, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_transpose(x, w, (2, 2), "SAME", dimension_numbers=numbers)

    kernel = jax.ShapeDtypeStruct((2, 2, 4, 8), "float32")
    image = jax.ShapeDtypeStruct((1, 5, 5, 4), "float32")
    (use,) = uses(forward, kernel, image)
    assert use.outputs == 10 * 10 * 8
    assert use.macs == 25 * 4 * (2 * 2 * 8)


def test_only_a_strided_convolution_of_the_input_is_framed():
    def forward(params, x):
        def convolve(x, w):
            numbers = ("NHWC", "HWIO", "NHWC")
            border = [(3, 3), (3, 3)]
            return jax.lax.conv_general_dilated(
                x, w, (2, 2), border, dimension_numbers=numbers
            )

        return convolve(convolve(x / 255, params["a"]), params["b"])

    kernel = jax.ShapeDtypeStruct((7, 7, 4, 4), "float32")
    image = jax.ShapeDtypeStruct((1, 224, 224, 4), "float32")
    first, second = uses(forward, {"a": kernel, "b": kernel}, image)
    assert (first.outputs, first.framed_outputs) == (112 * 112 * 4, 115 * 115 * 4)
    assert second.outputs == second.framed_outputs == 56 * 56 * 4


def test_a_kernel_that_cannot_be_looked_into_raises():
    def forward(w, x):
        shape = jax.ShapeDtypeStruct((2, 3), "float32")
        return jax.ffi.ffi_call("some_kernel", shape)(x, w)

    with pytest.raises(ValueError, match="reads kernel in a ffi_call"):
        uses(lambda p, x: forward(p["kernel"], x), {"kernel": SQUARE}, X)


def test_agrees_with_the_count_of_the_compiler():
    def forward(params, x):
        h = jnp.einsum("bi,oi->bo", x, params["a"])
        return jax.vmap(lambda row: row @ params["b"])(h)

    shapes = {"a": (64, 32), "b": (64, 16)}
    params = {name: jax.ShapeDtypeStruct(s, "float32") for name, s in shapes.items()}
    x = jax.ShapeDtypeStruct((8, 32), "float32")
    counted = jax.jit(forward).lower(params, x).cost_analysis()["flops"]
    assert 2 * sum(use.macs for use in uses(forward, params, x)) == counted
