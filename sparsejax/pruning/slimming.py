"""Network slimming: an L1 penalty on norm scales tells which channels to remove."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from sparsejax.checks import check_sparsity
from sparsejax.distributions import budget_of
from sparsejax.layers import check_pattern, leaves_with_paths
from sparsejax.leaves import flatten

__all__ = ["scale_penalty", "slim"]

SCALES = r"(^|/)(scale|gamma)$"
"""Default pattern of norm scales: leaves named ``scale`` or ``gamma``."""


def scale_penalty(
    strength: float = 1e-4, *, where: str = SCALES
) -> optax.GradientTransformation:
    """Adds ``strength * sign(scale)`` to the gradients of norm scales.

    The subgradient of an L1 penalty: it drives the scales of channels that are not
    needed towards zero, for `slim` to find. Put it before the optimizer:
    ``optax.chain(sj.pruning.scale_penalty(1e-4), optax.sgd(0.1))``.

    Args:
      strength: of the penalty; 1e-4 in the paper.
      where: regular expression over paths.

    Raises:
      ValueError: a negative strength; at ``init``, a pattern that matches no leaf.

    Example:
      >>> import jax.numpy as jnp, sparsejax as sj
      >>> penalty = sj.pruning.scale_penalty(0.5)
      >>> params = {"norm": {"scale": jnp.array([2.0, -1.0, 0.0])}}
      >>> gradients = {"norm": {"scale": jnp.ones(3)}}
      >>> updates, _ = penalty.update(gradients, penalty.init(params), params)
      >>> updates["norm"]["scale"].tolist()
      [1.5, 0.5, 1.0]
    """
    if not strength >= 0:
        raise ValueError(f"strength={strength!r} is negative; the paper has 1e-4")

    def init_fn(params):
        check_pattern("where", where, [path for path, _ in leaves_with_paths(params)])
        return optax.EmptyState()

    def update_fn(updates, state, params=None):
        if params is None:
            raise ValueError(
                "params=None: the penalty is on the parameters; call tx.update(grads, "
                "state, params)"
            )
        paths, leaves, treedef = flatten(params)
        penalised = [
            gradient + strength * jnp.sign(leaf) if re.search(where, path) else gradient
            for path, leaf, gradient in zip(
                paths, leaves, treedef.flatten_up_to(updates), strict=True
            )
        ]
        return treedef.unflatten(penalised), state

    return optax.GradientTransformation(init_fn, update_fn)


def slim(
    params: PyTree, *, sparsity: float, where: str = SCALES
) -> tuple[PyTree, PyTree]:
    """Zeroes the smallest norm scales of a network, and the biases that go with them.

    All scales are ranked together; the largest of each norm stays, so that no layer
    vanishes. A channel with scale and bias zero is zero behind the norm.

    Args:
      params: the trained parameters.
      sparsity: share of all channels that is removed, in [0, 1).
      where: regular expression over the paths of the scales; a ``bias`` (or ``beta``,
        or ``offset``) beside a scale goes with it.

    Returns:
      The parameters; and a tree like them of bool masks at scales and their biases,
      None elsewhere.

    Raises:
      ValueError: ``sparsity`` out of range, or a pattern that matches no leaf.

    Example:
      >>> import jax.numpy as jnp, sparsejax as sj
      >>> norm = {"scale": jnp.array([1.0, -2.0, 0.1]), "bias": jnp.ones(3)}
      >>> params, _ = sj.pruning.slim({"norm": norm}, sparsity=0.34)
      >>> params["norm"]["scale"].tolist(), params["norm"]["bias"].tolist()
      ([1.0, -2.0, 0.0], [1.0, 1.0, 0.0])

    References:
      Liu et al., "Learning efficient convolutional networks through network slimming",
      ICCV 2017. Deviations: exact counts where the paper compares with a threshold,
      and every layer keeps a channel.
    """
    check_sparsity("sparsity", sparsity)
    paths, leaves, treedef = flatten(params)
    check_pattern("where", where, paths)
    scales = {
        p: leaf for p, leaf in zip(paths, leaves, strict=True) if re.search(where, p)
    }
    kept = _largest(scales, sparsity)
    masks = [
        _mask_of(path, leaf, kept) for path, leaf in zip(paths, leaves, strict=True)
    ]
    slimmed = [
        leaf if mask is None else jnp.where(mask, leaf, jnp.zeros_like(leaf))
        for leaf, mask in zip(leaves, masks, strict=True)
    ]
    return treedef.unflatten(slimmed), treedef.unflatten(masks)


def _largest(scales: Mapping[str, Array], sparsity: float) -> dict[str, np.ndarray]:
    """The channels to keep: the largest of each norm, then the largest of all."""
    sizes = [np.abs(np.asarray(scale, np.float32)).ravel() for scale in scales.values()]
    ranked = [size.copy() for size in sizes]
    for size in ranked:
        size[size.argmax()] = np.inf
    every = np.concatenate(ranked)
    count = max(budget_of(every.size, sparsity), len(ranked))
    keep = np.zeros(every.size, bool)
    keep[np.argsort(-every, kind="stable")[:count]] = True
    ends = np.cumsum([size.size for size in sizes])[:-1]
    return dict(zip(scales, np.split(keep, ends), strict=True))


def _mask_of(path: str, leaf: Any, kept: Mapping[str, np.ndarray]) -> Array | None:
    folder, _, name = path.rpartition("/")
    for scale, keep in kept.items():
        beside = scale.rpartition("/")[0] == folder and name in (
            "bias",
            "beta",
            "offset",
        )
        if path == scale or (beside and leaf.size == keep.size):
            return jnp.asarray(keep).reshape(leaf.shape)
    return None
