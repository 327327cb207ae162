"""The product with an N:M weight, by the kernels of the fan-in format."""

from __future__ import annotations

from jaxtyping import Array, Float

from sparsejax_kernels import fan_in_matmul
from sparsejax_kernels.formats import NM

__all__ = ["matmul"]


def matmul(
    x: Float[Array, "*batch in"],
    w: NM,
    *,
    bias: Float[Array, " out"] | None = None,
    activation: str | None = None,
    implementation: str | None = None,
) -> Float[Array, "*batch out"]:
    """``activation(x @ w + bias)``, summed in float32 and returned in the type of x.

    Offsets become indices in each call, at a cost that grows with the kept weights and
    not with the batch. Arguments, result and errors are those of
    `sparsejax_kernels.fan_in_matmul.matmul`.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = jnp.asarray([[1.0], [0.0], [2.0], [0.0]])
      >>> w = NM.fromdense(weights, weights != 0, n=2, m=4)
      >>> matmul(jnp.asarray([1.0, 2.0, 3.0, 4.0]), w)
      Array([7.], dtype=float32)
    """
    return fan_in_matmul.matmul(
        x,
        w.to_fan_in(),
        bias=bias,
        activation=activation,
        implementation=implementation,
    )
