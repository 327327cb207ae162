"""Trees of blocks that are stacked along an axis, as lists of them, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

__all__ = ["stacked", "unstacked"]

BLOCKS = "blocks"


def unstacked(tree: PyTree) -> PyTree:
    """Takes stacked blocks apart: ``blocks/up`` [layers, ...] to ``blocks/0/up`` ....

    Args:
      tree: parameters, masks or anything of that shape: nested dicts in which
        ``blocks`` holds arrays with a leading axis of layers, or None. What it holds
        by number is left as it is.

    Returns:
      The tree with a dict of layers by their number in the place of ``blocks``.

    Example:
      >>> tree = unstacked({"blocks": {"up": jnp.array([[1], [2]]), "bias": None}})
      >>> tree["blocks"][1]["up"].tolist(), tree["blocks"][1]["bias"]
      ([2], None)
    """

    def split(blocks):
        if all(isinstance(name, int) for name in blocks):
            return blocks
        count = len(jax.tree.leaves(blocks)[0])
        return {i: jax.tree.map(lambda x, i=i: x[i], blocks) for i in range(count)}

    return _replaced(tree, split)


def stacked(tree: PyTree) -> PyTree:
    """Puts blocks that `unstacked` took apart together again.

    Args:
      tree: as `unstacked` returns it.

    Returns:
      The tree with arrays of a leading axis of layers in ``blocks``.

    Example:
      >>> stacked({"blocks": {0: {"up": jnp.ones(3)}, 1: {"up": jnp.ones(3)}}})[
      ...     "blocks"]["up"].shape
      (2, 3)
    """

    def join(blocks):
        if not all(isinstance(name, int) for name in blocks):
            return blocks
        layers = [blocks[number] for number in sorted(blocks)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)

    return _replaced(tree, join)


def _replaced(tree: Any, convert: Callable[[Any], Any]) -> Any:
    if not isinstance(tree, dict):
        return tree
    return {
        name: convert(child) if name == BLOCKS else _replaced(child, convert)
        for name, child in tree.items()
    }
