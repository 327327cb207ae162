"""Which leaves of a parameter tree are sparsified, and how each is oriented."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

__all__ = [
    "Layer",
    "Layout",
    "LeafSpec",
    "Where",
    "by_name",
    "choose_layers",
    "equinox",
    "flax",
    "leaves_with_paths",
    "matmul_weights",
    "path_name",
]


class LeafSpec(NamedTuple):
    """Roles of a weight's axes, as non-negative axis numbers.

    Attributes:
      fan_in: axes summed over (the reduction axes); a neuron's inputs, their channels
        last.
      fan_out: axes whose indices are neurons.
      stacked: leading axes along which independent layers are stacked (scan over
        layers).
    """

    fan_in: tuple[int, ...]
    fan_out: tuple[int, ...]
    stacked: tuple[int, ...] = ()


Layout = Callable[[str, tuple[int, ...]], LeafSpec]
"""Maps a leaf's path and shape to its `LeafSpec`."""

Where = Callable[[str, Any], bool] | str | Sequence[str]
"""Chooses leaves: a predicate of (path, leaf), or regular expressions over paths."""


class Layer(NamedTuple):
    """A leaf that is sparsified; static, hashable.

    Attributes:
      path: such as ``"stage1/block0/conv1/kernel"``.
      shape: of the whole leaf.
      spec: roles of its axes.
    """

    path: str
    shape: tuple[int, ...]
    spec: LeafSpec

    @property
    def size(self) -> int:
        """Number of weights in the leaf."""
        return math.prod(self.shape)

    @property
    def slices(self) -> int:
        """Number of layers stacked in the leaf."""
        return math.prod(self.stacked_shape)

    @property
    def stacked_shape(self) -> tuple[int, ...]:
        """Lengths of the stacked axes."""
        return tuple(self.shape[axis] for axis in self.spec.stacked)

    @property
    def slice_shape(self) -> tuple[int, ...]:
        """Shape of one stacked layer: the leaf's without its stacked axes."""
        stacked = self.spec.stacked
        return tuple(n for axis, n in enumerate(self.shape) if axis not in stacked)

    @property
    def slice(self) -> Layer:
        """One of the stacked layers, by itself."""
        depth = len(self.spec.stacked)
        spec = LeafSpec(
            tuple(axis - depth for axis in self.spec.fan_in),
            tuple(axis - depth for axis in self.spec.fan_out),
        )
        return Layer(self.path, self.slice_shape, spec)

    @property
    def fan_in(self) -> int:
        """Inputs of a neuron of the dense layer."""
        return math.prod(self.shape[axis] for axis in self.spec.fan_in)

    @property
    def fan_out(self) -> int:
        """Neurons of the layer."""
        return math.prod(self.shape[axis] for axis in self.spec.fan_out)


def path_name(path: tuple[Any, ...]) -> str:
    """The name of a leaf as patterns and messages see it.

    The ``.value`` of a boxed parameter (Flax's variables and partitioned arrays) is not
    part of its name.

    Example:
      >>> import jax
      >>> [(path, _)] = jax.tree.leaves_with_path({"dense": {"kernel": 1.0}})
      >>> path_name(path)
      'dense/kernel'
    """
    if len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaves_with_paths(tree: Any) -> list[tuple[str, Any]]:
    """All leaves of a tree with their names, in flattening order."""
    return [(path_name(path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]


def flax(*, stacked: Mapping[str, int] | None = None) -> Layout:
    """Flax, Haiku and plain ``x @ w``: inputs first, outputs last.

    ``(in, out)``, ``(height, width, in, out)``; rank-3 kernels of attention modules are
    ``(in, heads, dim)`` for query, key and value and ``(heads, dim, out)`` for out.

    Args:
      stacked: regular expression over paths -> number of leading axes along which
        layers are stacked, for ``nnx.scan``-ed blocks: ``{"blocks/": 1}``.
    """
    rules = _stacking(stacked)

    def layout(path, shape):
        depth = rules(path, shape)
        axes = tuple(range(depth, len(shape)))
        if len(axes) == 3 and _is_attention_input(path):
            return LeafSpec(axes[:1], axes[1:], tuple(range(depth)))
        return LeafSpec(axes[:-1], axes[-1:], tuple(range(depth)))

    return layout


def equinox(*, stacked: Mapping[str, int] | None = None) -> Layout:
    """Equinox and PyTorch: outputs first, ``(out, in)``, ``(out, in, height, width)``.

    Args:
      stacked: as in `flax`.
    """
    rules = _stacking(stacked)

    def layout(path, shape):
        depth = rules(path, shape)
        axes = tuple(range(depth, len(shape)))
        channels_last = axes[2:] + axes[1:2]
        return LeafSpec(channels_last, axes[:1], tuple(range(depth)))

    return layout


def by_name(*, stacked: Mapping[str, int] | None = None) -> Layout:
    """Leaves named ``weight`` are read as `equinox`, all others as `flax`.

    Args:
      stacked: as in `flax`.
    """
    outputs_first, inputs_first = equinox(stacked=stacked), flax(stacked=stacked)

    def layout(path, shape):
        chosen = outputs_first if path.split("/")[-1] == "weight" else inputs_first
        return chosen(path, shape)

    return layout


def _stacking(stacked: Mapping[str, int] | None):
    rules = dict(stacked or {})

    def depth_of(path, shape):
        for pattern, depth in rules.items():
            if re.search(pattern, path):
                if depth >= len(shape) - 1:
                    raise ValueError(
                        f"stacked[{pattern!r}]={depth} leaves fewer than two axes of "
                        f"{path} with shape {shape}; it is the number of leading axes "
                        "along which whole layers are stacked"
                    )
                return depth
        return 0

    return depth_of


def _is_attention_input(path: str) -> bool:
    module = path.split("/")[-2:-1]
    return bool(module) and module[0] in ("query", "key", "value")


_NOT_WEIGHTS = re.compile(r"(^|_)(bias|scale|offset|gamma|beta|mean|var|b)$")
_NOT_MATMULS = re.compile(r"norm|^bn\d*$|embed", re.IGNORECASE)


def matmul_weights(path: str, leaf: Any) -> bool:
    """The default choice: every floating matrix or convolution kernel.

    Leaves out biases, norms and embeddings (by name), vectors, and depthwise kernels:
    convolutions with one input channel per filter, in Flax's order (a leaf named
    ``weight`` is read in Equinox's). The first convolution of a one-channel image has
    the same shape and so stays dense too; name it in ``where`` to sparsify it.

    Args:
      path: such as ``"block0/conv1/kernel"``.
      leaf: anything with ``shape`` and ``dtype``.
    """
    *modules, name = path.split("/")
    if leaf.ndim < 2 or _NOT_WEIGHTS.search(name) or _NOT_MATMULS.search(name):
        return False
    if any(_NOT_MATMULS.search(module) for module in modules):
        return False
    channels = leaf.shape[1] if name == "weight" else leaf.shape[-2]
    return not (leaf.ndim >= 4 and channels == 1)


def choose_layers(params: Any, *, where: Where, layout: Layout) -> list[Layer]:
    """Lists the leaves to sparsify, in flattening order.

    Args:
      params: the parameter tree (arrays or shape structs).
      where: predicate, or regular expressions (searched in the path; any may match).
      layout: axis roles.

    Raises:
      ValueError: a pattern matches nothing, nothing at all is chosen, or a chosen leaf
        is not a floating array of rank 2 or more.
    """
    leaves = leaves_with_paths(params)
    chosen = _predicate(where, [path for path, _ in leaves])
    layers = []
    for path, leaf in leaves:
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        if not chosen(path, leaf):
            continue
        if leaf.ndim < 2:
            raise ValueError(
                f"`where` chooses {path}, whose shape {tuple(leaf.shape)} is not a "
                "matrix; choose weights of rank 2 or more"
            )
        shape = tuple(leaf.shape)
        layers.append(Layer(path, shape, layout(path, shape)))
    if not layers:
        names = ", ".join(path for path, _ in leaves[:8]) or "none"
        raise ValueError(
            "`where` chooses no leaf to sparsify; the parameters are: "
            f"{names}{', ...' if len(leaves) > 8 else ''}"
        )
    return layers


def _predicate(where: Where, paths: list[str]) -> Callable[[str, Any], bool]:
    if callable(where):
        return where
    patterns = [where] if isinstance(where, str) else list(where)
    for pattern in patterns:
        check_pattern("where", pattern, paths)
    return lambda path, leaf: any(re.search(pattern, path) for pattern in patterns)


def check_pattern(name: str, pattern: str, paths: Sequence[str]) -> None:
    """Raises unless a regular expression is valid and matches one of the paths."""
    try:
        matches = any(re.search(pattern, path) for path in paths)
    except re.error as error:
        raise ValueError(
            f"{name}={pattern!r} is not a regular expression: {error}"
        ) from error
    if not matches:
        shown = ", ".join(paths[:8]) + (", ..." if len(paths) > 8 else "")
        raise ValueError(f"{name}={pattern!r} matches no path; the paths are: {shown}")
