"""The product of activations with a compressed weight of any format."""

from __future__ import annotations

from jaxtyping import Array, Float

from sparsejax_kernels import (
    block_matmul,
    fan_in_matmul,
    n_m_matmul,
    packed_matmul,
)
from sparsejax_kernels.formats import NM, Block, FanIn, Packed, TwoFour

__all__ = ["matmul"]

OPERATIONS = {
    FanIn: fan_in_matmul.matmul,
    NM: n_m_matmul.matmul,
    Block: block_matmul.matmul,
    Packed: packed_matmul.matmul,
    TwoFour: n_m_matmul.matmul,
}


def matmul(
    x: Float[Array, "*batch in"],
    w: Block | FanIn | NM | Packed | TwoFour,
    **options,
) -> Float[Array, "*batch out"]:
    """``activation(x @ w + bias)`` without ever building the dense weight.

    Args:
      x: activations, the inputs along the last axis.
      w: a compressed weight; its type decides which operation runs.
      **options: ``bias``, ``activation`` and ``implementation`` of that operation, e.g.
        `sparsejax_kernels.fan_in_matmul.matmul`.

    Raises:
      TypeError: if ``w`` is not a compressed weight.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = jnp.asarray([[0.0, 2.0], [1.0, 0.0], [0.0, 3.0]])
      >>> w = FanIn.fromdense(weights, weights != 0)
      >>> matmul(jnp.asarray([1.0, 2.0, 3.0]), w).tolist()
      [2.0, 11.0]
    """
    if type(w) not in OPERATIONS:
        names = ", ".join(format.__name__ for format in OPERATIONS)
        raise TypeError(
            f"w is a {type(w).__name__}; give one of {names}, e.g. by "
            "`FanIn.fromdense(weights, mask)`"
        )
    return OPERATIONS[type(w)](x, w, **options)
