"""Neurons without inputs or without readers, taken out of a model on both sides."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from sparsejax.links import Link, links
from sparsejax.nn.recording import layer_inputs
from sparsejax.nn.surgery import is_pointwise, mark_narrowed, modules

__all__ = ["without_idle_neurons"]

Masks = dict[str, np.ndarray]


def without_idle_neurons(
    model: nnx.Module,
    masks: Mapping[str, Array],
    inputs: PyTree,
    layers: Collection[str],
) -> tuple[nnx.Module, dict[str, Array]]:
    """Makes layers narrower where that leaves the function as it is.

    A neuron whose inputs are all masked says the same whatever the network sees: what
    its readers make of it becomes part of their biases. A neuron whose readers have
    masked it is not needed at all. Both go, from the layer, from its readers and from
    what lies between, and what they leave without inputs or readers goes with them. One
    neuron of a layer stays in any case, and so does one that says something else than
    zero to a convolution of more than a pixel, which reads zeros beside the image.

    Args:
      model: as it is to be used (statistics of normalisations are constants of it); it
        is changed.
      masks: path -> mask of every masked kernel.
      inputs: what the model is called with, real data.
      layers: paths of the linear layers and convolutions that may be changed.

    Returns:
      The model and the masks, those of the layers that were changed being smaller.
    """
    left = {path: np.asarray(mask) for path, mask in masks.items()}
    found = dict(modules(model))
    kernels = {f"{path}/kernel" if path else "kernel": found[path] for path in layers}
    graph_definition, state = nnx.split(model)

    def apply(state, inputs):
        return nnx.merge(graph_definition, state)(inputs)

    found_links = [
        link
        for link in links(apply, state, inputs, list(kernels))
        if all(path.rpartition("/")[0] in found for path in link.between)
    ]
    constants = _seen(model, {r for link in found_links for r in link.readers}, inputs)
    shapes = {path: layer.kernel.get_value().shape for path, layer in kernels.items()}
    whole = {
        path: np.array(left[path]) if path in left else np.ones(shape, bool)
        for path, shape in shapes.items()
    }
    keeps = {
        link.source: ~_fold(link, kernels, whole, constants) for link in found_links
    }
    for link in reversed(found_links):
        is_read = np.any([_rows(whole[reader]) for reader in link.readers], axis=0)
        whole[link.source][..., ~is_read] = False
        keeps[link.source] &= is_read
    for link in found_links:
        keep = keeps[link.source]
        if keep.all():
            continue
        keep[0] |= not keep.any()
        for path in (link.source, *link.readers):
            left.setdefault(path, whole[path])
        _narrow(kernels[link.source], keep, left, link.source, axis=-1)
        for reader in link.readers:
            _narrow(kernels[reader], keep, left, reader, axis=-2)
        own = f"{link.source.removesuffix('kernel')}bias"
        for path in link.between:
            if path != own:
                _narrow_vector(found, path, keep)
    if not all(keep.all() for keep in keeps.values()):
        mark_narrowed(model)
    return model, {path: jnp.asarray(mask) for path, mask in left.items()}


def _seen(
    model: nnx.Module, kernels: Collection[str], inputs: PyTree
) -> dict[str, np.ndarray]:
    """Kernel -> the inputs of its layer, one row per sample."""
    paths = {kernel: kernel.removesuffix("kernel").rstrip("/") for kernel in kernels}
    found = dict(layer_inputs(nnx.clone(model), inputs))
    seen = {kernel: np.asarray(found[path]) for kernel, path in paths.items()}
    return {kernel: x.reshape(-1, x.shape[-1]) for kernel, x in seen.items()}


def _rows(mask: np.ndarray) -> np.ndarray:
    """Which inputs a layer reads."""
    return np.asarray(mask.any(axis=(*range(mask.ndim - 2), -1)))


def _columns(mask: np.ndarray) -> np.ndarray:
    """Which neurons of a layer have inputs."""
    return np.asarray(mask.any(axis=tuple(range(mask.ndim - 1))))


def _fold(
    link: Link,
    kernels: Mapping[str, Any],
    masks: Masks,
    seen: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Moves what neurons without inputs contribute into the biases of the readers.

    Returns:
      Which neurons these are.
    """
    idle = ~_columns(masks[link.source])
    for reader in link.readers:
        # Not so only if the sight of the layer is not what it seems: they stay then.
        idle &= (seen[reader] == seen[reader][:1]).all(axis=0)
        if isinstance(layer := kernels[reader], nnx.Conv) and not is_pointwise(layer):
            idle &= seen[reader][0] == 0
    for reader in link.readers:
        layer, mask = kernels[reader], masks[reader]
        kernel = layer.kernel.get_value()
        taps = np.where(mask, kernel, 0).reshape(-1, *kernel.shape[-2:])
        weights = taps.sum(axis=0)[idle]
        constant = seen[reader][0, idle].astype(np.float32)
        more = constant @ weights.astype(np.float32)
        mask[..., idle, :] = False
        layer.kernel.set_value(jnp.where(mask, kernel, 0))
        if not more.any():
            continue
        if layer.bias is None:
            layer.bias = nnx.Param(jnp.zeros(kernel.shape[-1], kernel.dtype))
            layer.use_bias = True
        bias = layer.bias.get_value()
        layer.bias.set_value((bias + more).astype(bias.dtype))
    return idle


def _narrow(
    layer: Any, keep: np.ndarray, masks: Masks, path: str, *, axis: int
) -> None:
    layer.kernel.set_value(jnp.compress(keep, layer.kernel.get_value(), axis=axis))
    masks[path] = np.compress(keep, masks[path], axis=axis)
    if axis == -1 and layer.bias is not None:
        layer.bias.set_value(jnp.compress(keep, layer.bias.get_value()))


def _narrow_vector(
    found: Mapping[str, nnx.Module], path: str, keep: np.ndarray
) -> None:
    parent, _, name = path.rpartition("/")
    variable = getattr(found[parent], name)
    variable.set_value(jnp.compress(keep, variable.get_value()))
