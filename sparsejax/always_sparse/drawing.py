"""Random connections without a permutation of all that are possible."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Integer, PRNGKeyArray

__all__ = ["redraw"]


def redraw(
    key: PRNGKeyArray,
    indices: Integer[Array, "rows k"],
    where: Bool[Array, "rows k"],
    inputs: int,
) -> Integer[Array, "rows k"]:
    """Replaces entries by random inputs, so that no row has an input twice.

    What collides with another entry of its row is drawn again until nothing does, which
    makes every set of new inputs equally likely. Memory and expected time are
    O(rows k log k), as long as ``k`` stays well below ``inputs``.

    Args:
      key: random key.
      indices: which inputs each row reads; what is not replaced must be distinct.
      where: True at entries that are replaced; they may get their old input again.
      inputs: new entries are in ``[0, inputs)``; at least ``k``.

    Example:
      >>> rows = jnp.array([[0, 1, 2], [0, 1, 2]])
      >>> where = jnp.array([[False, True, True]] * 2)
      >>> new = redraw(jax.random.key(0), rows, where, 4)
      >>> new[:, 0].tolist(), [len({*row}) for row in new.tolist()]
      ([0, 0], [3, 3])
    """

    def draw(step, indices, again):
        drawn = jax.random.randint(
            jax.random.fold_in(key, step), indices.shape, 0, inputs
        )
        return jnp.where(again, drawn.astype(indices.dtype), indices)

    def attempt(carry):
        step, indices, again = carry
        indices = draw(step, indices, again)
        return step + 1, indices, where & _repeated(indices, where)

    start = (jnp.zeros((), jnp.int32), indices, where)
    return lax.while_loop(lambda carry: carry[2].any(), attempt, start)[1]


def _repeated(indices: Array, movable: Array) -> Bool[Array, "rows k"]:
    """Entries whose input stands in their row before them, fixed entries first."""
    rows = jnp.arange(indices.shape[0])[:, None]
    places = jnp.broadcast_to(jnp.arange(indices.shape[1]), indices.shape)
    inputs, _, order = lax.sort(
        (indices.astype(jnp.int32), movable.astype(jnp.int32), places), num_keys=2
    )
    same = jnp.pad(inputs[:, 1:] == inputs[:, :-1], ((0, 0), (1, 0)))
    return jnp.zeros(indices.shape, bool).at[rows, order].set(same)
