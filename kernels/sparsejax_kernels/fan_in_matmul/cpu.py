"""The product with a fan-in weight by the native kernels, and its two gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparsejax_kernels import native
from sparsejax_kernels.formats import Transposed
from sparsejax_kernels.formats.base import index_dtype

__all__ = [
    "forward_call",
    "fused",
    "gradients",
    "input_gradient",
    "transpose",
    "value_gradient",
]


def fused(
    x: Float[Array, "batch in"],
    values: Float[Array, "out k"],
    indices: Int[Array, "out k"],
    bias: Float[Array, " out"] | None,
    activation: str | None,
) -> Float[Array, "batch out"]:
    """The product, bias and activation in one pass."""
    if bias is None:
        bias = jnp.zeros(0, jnp.float32)
    run = forward_call("fan_in_forward", values.shape[0], activation == "relu")
    return run(_float(x), _float(values), _index(indices), _float(bias))


def input_gradient(
    cotangent: Float[Array, "batch out"],
    values: Float[Array, "out k"],
    indices: Int[Array, "out k"],
    transposed: Transposed | None,
    inputs: int,
) -> Float[Array, "batch in"]:
    """``dx[b, i] = sum over weights that read i of value * cotangent[b, o]``."""
    if transposed is None:
        transposed = transpose(indices, inputs)
    return _call(
        "fan_in_input_gradient",
        jax.ShapeDtypeStruct((cotangent.shape[0], inputs), jnp.float32),
        level=np.int64(native.level()),
    )(
        _float(cotangent),
        _float(values),
        transposed.starts,
        _index(transposed.outputs),
        transposed.positions,
    )


def value_gradient(
    cotangent: Float[Array, "batch out"],
    x: Float[Array, "batch in"],
    indices: Int[Array, "out k"],
) -> Float[Array, "out k"]:
    """``dvalues[o, j] = sum_b cotangent[b, o] * x[b, indices[o, j]]``, sampled."""
    return _call(
        "fan_in_value_gradient",
        jax.ShapeDtypeStruct(indices.shape, jnp.float32),
        level=np.int64(native.level()),
    )(_float(cotangent), _float(x), _index(indices))


def gradients(
    cotangent: Float[Array, "batch out"],
    x: Float[Array, "batch in"],
    values: Float[Array, "out k"],
    indices: Int[Array, "out k"],
    transposed: Transposed | None,
) -> tuple[Float[Array, "batch in"], Float[Array, "out k"]]:
    """Both of the above in one pass, which reads the cotangent once."""
    if transposed is None:
        transposed = transpose(indices, x.shape[1])
    results = (
        jax.ShapeDtypeStruct(x.shape, jnp.float32),
        jax.ShapeDtypeStruct(values.shape, jnp.float32),
    )
    return _call("fan_in_gradients", results, level=np.int64(native.level()))(
        _float(cotangent),
        _float(x),
        _float(values),
        _index(indices),
        transposed.starts,
        _index(transposed.outputs),
        transposed.positions,
    )


def transpose(indices: Int[Array, "out k"], inputs: int) -> Transposed:
    """`sparsejax_kernels.formats.transposed.transpose` by a counting sort."""
    entries = (indices.size,)
    rows = index_dtype(max(indices.shape[0], 256))
    results = (
        jax.ShapeDtypeStruct((inputs + 1,), jnp.int32),
        jax.ShapeDtypeStruct(entries, rows),
        jax.ShapeDtypeStruct(entries, jnp.int32),
    )
    return Transposed(*_call("fan_in_transpose", results)(_index(indices)))


def _call(name, results, **attributes):
    call = jax.ffi.ffi_call(native.PREFIX + name, results, vmap_method="sequential")
    return lambda *operands: call(*operands, **attributes)


def forward_call(name: str, outputs: int, relu: bool):
    """A forward call; mapping it over activations alone is a larger batch."""

    @jax.custom_batching.custom_vmap
    def run(x, values, indices, bias):
        result = jax.ShapeDtypeStruct((x.shape[0], outputs), jnp.float32)
        attributes = {"level": np.int64(native.level()), "relu": relu}
        return _call(name, result, **attributes)(x, values, indices, bias)

    @run.def_vmap
    def batched(size, mapped, x, values, indices, bias):
        if mapped[0] and not any(mapped[1:]):
            y = run(x.reshape(-1, x.shape[-1]), values, indices, bias)
            return y.reshape(size, -1, y.shape[-1]), True

        def one(index):
            operands = (x, values, indices, bias)
            pairs = zip(operands, mapped, strict=True)
            return run(*(each[index] if many else each for each, many in pairs))

        return jax.lax.map(one, jnp.arange(size)), True

    return run


def _float(array):
    return array.astype(jnp.float32)


def _index(array):
    """Kernels read uint16 and int32."""
    narrow = array.dtype in (jnp.uint8, jnp.uint16)
    return array.astype(jnp.uint16 if narrow else jnp.int32)
