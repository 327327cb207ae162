"""Compressed models in safetensors files."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from sparsejax_kernels import NM, Block, FanIn, Packed, TwoFour

from sparsejax.extras import require
from sparsejax.nn.compressing import replaceable, replacement
from sparsejax.nn.convolutions import (
    DepthwiseConvolution,
    convolution_twin,
    depthwise_twin,
    is_convolution,
    is_depthwise,
)
from sparsejax.nn.folding import Folded
from sparsejax.nn.layers import CompressedLinear
from sparsejax.nn.rectifying import Rectified
from sparsejax.nn.surgery import is_narrowed, mark_narrowed, modules, put

__all__ = ["load", "save"]

FORMATS = {
    "block": (Block, 1, ("in_features", "out_features")),
    "fan-in": (FanIn, 1, ("in_features",)),
    "n:m": (NM, 1, ("in_features", "m")),
    "2:4": (TwoFour, 1, ("in_features",)),
    "packed": (Packed, 2, ("in_features", "out_features")),
}
"""Name in the file -> format, how many arrays say where its values belong, and its
static fields."""


def save(path: str | os.PathLike[str], model: nnx.Module) -> int:
    """Writes all arrays of a model, compressed layers as values and indices.

    The file is replaced whole or not at all. Its metadata say of which format each
    compressed layer is; names of tensors are paths in the model.

    Args:
      path: of the file, by convention ``.safetensors``.
      model: any NNX model, from `compress` or not, for inference or not.

    Returns:
      The size of the file in bytes.

    Example:
      >>> import tempfile
      >>> model = nnx.Linear(8, 4, rngs=nnx.Rngs(0))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     size = save(f"{folder}/model.safetensors", model)
      ...     again = load(f"{folder}/model.safetensors", nnx.clone(model))
      >>> size > 8 * 4 * 4, bool((again.kernel == model.kernel).all())
      (True, True)
    """
    safetensors = require("safetensors.flax", extra="train")
    inference = isinstance(model, Rectified)
    model = model.model if isinstance(model, Rectified) else model
    tensors, formats, depthwise, folded = {}, {}, {}, []
    for name, module in modules(model):
        if isinstance(module, CompressedLinear):
            formats[name] = {**_describe(module), **_settings(module)}
        elif isinstance(module, DepthwiseConvolution):
            depthwise[name] = _settings(module)
        elif isinstance(module, Folded):
            folded.append(name)
    for name, leaf in _arrays(model):
        tensors[name] = leaf
    path = pathlib.Path(path)
    scratch = path.with_name(f"{path.name}.partial")
    described = {"version": 1, "layers": formats, "narrowed": is_narrowed(model)}
    if inference:
        described["inference"] = {"depthwise": depthwise, "folded": folded}
    metadata = {"sparsejax": json.dumps(described)}
    try:
        safetensors.save_file(tensors, scratch, metadata)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    return path.stat().st_size


def load(path: str | os.PathLike[str], model: nnx.Module) -> nnx.Module:
    """Reads what `save` wrote into a copy of a model of the same architecture.

    Args:
      path: of the file.
      model: the dense model; layers that are compressed in the file are replaced, and
        those that are narrower there (`compress` with ``inputs``) become so.

    Returns:
      The model with the arrays of the file.

    Raises:
      ValueError: the file is not of `save`, or its layers and arrays are not those of
        the model.
    """
    safetensors = require("safetensors", extra="train")
    with safetensors.safe_open(path, framework="flax") as file:
        described = (file.metadata() or {}).get("sparsejax")
        if described is None:
            raise ValueError(
                f"{path} has no metadata of sparsejax; write it by sparsejax.nn.save"
            )
        names = file.keys()
        tensors = {name: jnp.asarray(file.get_tensor(name)) for name in names}
    copy = nnx.clone(model)
    described = json.loads(described)
    narrowed, inference = described.get("narrowed", False), described.get("inference")
    found = {
        name: layer
        for name, layer in modules(copy)
        if replaceable(layer) or (inference and is_convolution(layer))
    }
    filtered = {name: layer for name, layer in modules(copy) if is_depthwise(layer)}
    for name, layer in {**found, **filtered}.items():
        # Neurons that were removed may have left a bias to a layer that had none, and
        # normalisations that were folded, too.
        bias = tensors.get(f"{name}/bias" if name else "bias")
        may_gain_one = getattr(layer, "bias", None) is None and (narrowed or inference)
        if may_gain_one and bias is not None:
            layer.bias, layer.use_bias = nnx.Param(jnp.zeros_like(bias)), True
    made = {}
    if inference:
        made.update({name: Folded() for name in inference["folded"]})
        for name, settings in inference["depthwise"].items():
            _set_dtype(filtered[name], settings)
            activation = settings["activation"]
            made[name] = depthwise_twin(filtered[name], activation=activation)
    for name, fields in described["layers"].items():
        if name not in found:
            raise ValueError(
                f"{path} has a compressed layer {name or 'model'}, which the model "
                f"lacks; its layers are {', '.join(found) or 'none'}"
            )
        twin = replacement
        if inference:
            _set_dtype(found[name], fields)
            twin = convolution_twin if is_convolution(found[name]) else replacement
        weight = _rebuilt(name, fields, tensors)
        made[name] = twin(found[name], weight, activation=fields.get("activation"))
    copy = put(copy, made)
    wanted = dict(_arrays(copy))
    if {*wanted} != {*tensors}:
        raise ValueError(
            f"{path} and the model differ in {sorted({*wanted} ^ {*tensors})[:5]}; "
            "build the model as it was when the file was written"
        )
    state = nnx.state(copy)
    with_paths, treedef = jax.tree.flatten_with_path(state)
    for keys, leaf in with_paths:
        shape = tensors[_name(keys)].shape
        if shape != leaf.shape and not (narrowed and _is_part(shape, leaf.shape)):
            raise ValueError(
                f"{_name(keys)} has shape {shape} in {path}, but {leaf.shape} in the "
                "model; build the model as it was when the file was written"
            )
    leaves = [tensors[_name(keys)] for keys, _ in with_paths]
    nnx.update(copy, treedef.unflatten(leaves))
    if narrowed:
        mark_narrowed(copy)
    return Rectified(copy) if inference else copy


def _is_part(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    return len(shape) == len(whole) and all(
        size <= most for size, most in zip(shape, whole, strict=True)
    )


def _describe(module: CompressedLinear) -> dict[str, Any]:
    weight = module.weight
    for name, (kind, _, fields) in FORMATS.items():
        if isinstance(weight, kind):
            static = {field: getattr(weight, field) for field in fields}
            transposed = getattr(weight, "transposed", None) is not None
            return {"format": name, "transposed": transposed, **static}
    raise TypeError(f"a {type(weight).__name__} cannot be saved yet")


def _settings(module: CompressedLinear | DepthwiseConvolution) -> dict[str, Any]:
    dtype = None if module.dtype is None else jnp.dtype(module.dtype).name
    return {"activation": module.activation, "dtype": dtype}


def _set_dtype(layer: Any, settings: dict[str, Any]) -> None:
    name = settings["dtype"]
    layer.dtype = None if name is None else jnp.dtype(name)


def _rebuilt(name: str, fields: dict[str, Any], tensors: dict[str, Any]) -> Any:
    kind, places, static = FORMATS[fields["format"]]
    prefix = f"{name}/" if name else ""
    needed = [f"{prefix}values", *(f"{prefix}indices/{i}" for i in range(places))]
    for each in needed:
        if each not in tensors:
            raise ValueError(f"the file has no {each}, which its metadata promise")
    arrays = [tensors[each] for each in needed]
    weight = kind(*arrays, **{field: fields[field] for field in static})
    return weight.with_transpose() if fields["transposed"] else weight


def _arrays(model: nnx.Module) -> list[tuple[str, Any]]:
    return [
        (_name(keys), leaf)
        for keys, leaf in jax.tree.leaves_with_path(nnx.state(model))
    ]


def _name(keys: Any) -> str:
    # A variable's array is its attribute `value`; layers may have that name, too.
    array = jax.tree_util.GetAttrKey("value")
    named = (key for key in keys if key != array)
    return "/".join(jax.tree_util.keystr((key,), simple=True) for key in named)
