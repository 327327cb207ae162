"""Finished rounds on the disk, so that a study that was stopped goes on from there."""

import os
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from experiments.lottery_tickets.training import Point
from sparsejax.layers import leaves_with_paths


class Round(NamedTuple):
    """A finished round of a branch, for all seeds along the first axis.

    Attributes:
      point: the trained networks.
      masks: with which they were trained.
      accuracies: one per seed.
    """

    point: Point
    masks: PyTree
    accuracies: Float[np.ndarray, " seeds"]


def write(path: pathlib.Path, tree: PyTree) -> None:
    """Stores the arrays of a tree, whole or not at all.

    Args:
      path: an ``.npz`` file.
      tree: of arrays, such as a `Round`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".partial")
    with scratch.open("wb") as file:
        np.savez(file, **{name: np.asarray(a) for name, a in leaves_with_paths(tree)})
    os.replace(scratch, path)


def read(path: pathlib.Path, like: PyTree) -> PyTree | None:
    """Reads what `write` stored; None if it is not there.

    Args:
      path: the file.
      like: a tree of the same structure.
    """
    if not path.exists():
        return None
    with np.load(path) as stored:
        leaves = [stored[name] for name, _ in leaves_with_paths(like)]
    leaves = [
        leaf if isinstance(old, np.ndarray) else jnp.asarray(leaf)
        for leaf, old in zip(leaves, jax.tree.leaves(like), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
