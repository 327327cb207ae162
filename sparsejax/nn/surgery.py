"""Modules of a model by path, and others in their places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flax import nnx

__all__ = ["is_narrowed", "is_pointwise", "mark_narrowed", "modules", "put"]


def modules(model: nnx.Module) -> Iterator[tuple[str, Any]]:
    """All modules with their paths, each once."""
    for path, module in nnx.iter_modules(model):
        yield "/".join(map(str, path)), module


def put(model: nnx.Module, made: Mapping[str, nnx.Module]) -> nnx.Module:
    """Replaces modules of a model by path, wherever they are referred to."""
    found = dict(modules(model))
    twins = {id(found[path]): new for path, new in made.items()}
    if "" in made:
        return made[""]
    for parent in found.values():
        if isinstance(parent, nnx.List):
            for index, child in enumerate(parent):
                if id(child) in twins:
                    parent[index] = twins[id(child)]
            continue
        for name, child in [*vars(parent).items()]:
            if id(child) in twins:
                setattr(parent, name, twins[id(child)])
    left = {name for name, module in modules(model) if id(module) in twins}
    if left:
        raise ValueError(
            f"{', '.join(sorted(left))} cannot be replaced where the model holds it; "
            "keep layers as attributes, in nnx.List or in nnx.Dict"
        )
    return model


def is_pointwise(layer: Any) -> bool:
    """Whether a layer is a convolution of single pixels, and of no border."""
    return (
        isinstance(layer, nnx.Conv)
        and layer.feature_group_count == 1
        and all(size == 1 for size in layer.kernel_size)
        and _is_unpadded(layer.padding)
    )


def _is_unpadded(padding: Any) -> bool:
    """Whether padding adds nothing around an image that 1x1 kernels walk over."""
    if isinstance(padding, str):
        return padding in ("SAME", "VALID")
    return not np.any(np.asarray(padding))


def mark_narrowed(model: Any) -> None:
    """Lets a model say that its layers are narrower than its code makes them."""
    model._narrowed = True
    for _, module in modules(model):
        if isinstance(module, nnx.Linear | nnx.Conv):
            inputs, module.out_features = module.kernel.get_value().shape[-2:]
            module.in_features = inputs * getattr(module, "feature_group_count", 1)
        elif isinstance(module, nnx.BatchNorm):
            module.num_features = module.mean.get_value().shape[0]


def is_narrowed(model: nnx.Module) -> bool:
    """Whether neurons have been removed from a model."""
    return getattr(model, "_narrowed", False)
