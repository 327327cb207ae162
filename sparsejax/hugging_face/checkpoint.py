"""A checkpoint of Hugging Face as a `Transformer`, and a `Transformer` as one."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from sparsejax.hugging_face.files import (
    DTYPES,
    INDEX,
    SINGLE,
    Tensors,
    Written,
    read_json,
    write_files,
)
from sparsejax.hugging_face.names import BASES, BUFFERS
from sparsejax.hugging_face.pieces import Piece, grouped, joined, pieces_of
from sparsejax.hugging_face.settings import (
    UnsupportedError,
    architecture_of,
    settings_of,
)
from sparsejax.layers import leaves_with_paths
from sparsejax.models.architecture import Architecture
from sparsejax.models.transformer import Transformer

__all__ = ["load", "read_settings", "save", "shapes_of"]

# Beside weights and settings, a copy of a checkpoint has these of its own.
_COPIED = (
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


def load(
    folder: str | os.PathLike[str],
    *,
    scanned: bool = True,
    remat: bool = False,
    dtype: DTypeLike = jnp.float32,
    parameter_dtype: DTypeLike = jnp.float32,
    context: int | None = None,
) -> Transformer:
    """Reads a Llama, Mistral, Qwen2 or GPT-2.

    One leaf after the other is read, so that beside the parameters there is never more
    than one of them in memory.

    Args:
      folder: with ``config.json`` and ``model.safetensors``, or its parts and their
        index, such as ``hf download`` fetches.
      scanned: see `sparsejax.models.transformer.Transformer`.
      remat: see there.
      dtype: of the computation.
      parameter_dtype: of the parameters; ``"bfloat16"`` to hold large networks.
      context: tokens of the longest sequence that will be read; see `architecture_of`.

    Returns:
      The network, whose logits are those of transformers.

    Raises:
      ValueError: there is no such checkpoint, or it is not whole.
      UnsupportedError: a setting that our network has no form for.

    Example:
      >>> import tempfile
      >>> from sparsejax.models.transformer import transformer
      >>> model = transformer((16,), 257, layers=1, width=32, rngs=nnx.Rngs(0))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save(folder, model)
      ...     again = load(folder)
      >>> tokens = jnp.zeros((1, 16), jnp.int32)
      >>> bool((again(tokens) == model(tokens)).all())
      True
    """
    folder = pathlib.Path(folder)
    settings = read_settings(folder)
    shape = architecture_of(settings, context=context)
    made = shapes_of(shape, scanned=scanned, remat=remat, dtype=dtype)
    abstract = nnx.to_pure_dict(nnx.state(made))
    leaves = dict(leaves_with_paths(abstract))
    pieces = pieces_of(settings["model_type"], leaves, shape.layers)
    by_path = grouped(pieces, lambda piece: piece.path)
    with Tensors(folder) as tensors:
        names = _found_names(folder, settings["model_type"], tensors, pieces)
        values = []
        for path, leaf in leaves.items():
            value = np.empty(leaf.shape, jnp.dtype(parameter_dtype))
            for piece in by_path[path]:
                value[piece.row] = piece.taken(tensors.read(names[piece.name]))
            values.append(jnp.asarray(value))
            del value
    tree = jax.tree.structure(abstract).unflatten(values)
    return nnx.merge(nnx.graphdef(made), tree)


def save(
    folder: str | os.PathLike[str],
    model: Transformer,
    *,
    like: str | os.PathLike[str] | None = None,
    dtype: DTypeLike | None = None,
    shard_bytes: int = 5_000_000_000,
    **fields: Any,
) -> None:
    """Writes a checkpoint that ``from_pretrained`` of transformers reads.

    Args:
      folder: made if need be; its older weights are replaced.
      model: its blocks may be stacked or not.
      like: the checkpoint that the model was read from: its settings and its tokenizer
        are copied, and each tensor is of its type there.
      dtype: of all tensors in the files; default that of ``like``, or else of the
        parameters.
      shard_bytes: the most bytes in a file.
      **fields: of ``config.json``, added or replaced: ``eos_token_id=256``.

    Raises:
      UnsupportedError: none of the families has such a network.
      ValueError: ``like`` is another network, or the folder itself.
    """
    folder = pathlib.Path(folder)
    source = None if like is None else pathlib.Path(like)
    if source is None:
        settings = settings_of(model.shape)
    else:
        settings = _settings_like(source, model.shape, folder)
    family = settings["model_type"]
    leaves = dict(leaves_with_paths(nnx.to_pure_dict(nnx.state(model))))
    pieces = pieces_of(family, leaves, model.shape.layers)
    by_name = grouped(pieces, lambda piece: piece.name)
    dtypes = _dtypes(source, family, pieces, leaves, dtype)

    def written(name: str, parts: list[Piece]) -> Written:
        def make() -> np.ndarray:
            return joined(parts, leaves).astype(dtypes[name])

        count = sum(math.prod(part.shape) for part in parts)
        return Written(count * dtypes[name].itemsize, make)

    folder.mkdir(parents=True, exist_ok=True)
    for old in (folder / SINGLE, folder / INDEX, *folder.glob("model-*.safetensors")):
        old.unlink(missing_ok=True)
    tensors = {name: written(name, parts) for name, parts in by_name.items()}
    write_files(folder, tensors, shard_bytes=shard_bytes)
    if source is not None:
        for name in _COPIED:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
    kinds = collections.Counter(dtype.name for dtype in dtypes.values())
    settings.pop("dtype", None)
    settings |= {"torch_dtype": kinds.most_common(1)[0][0], **fields}
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")


def shapes_of(shape: Architecture, **options: Any) -> Transformer:
    """A network with shapes in the place of arrays; options as of `Transformer`."""
    return nnx.eval_shape(lambda: Transformer(shape, rngs=nnx.Rngs(0), **options))


def read_settings(folder: pathlib.Path) -> dict[str, Any]:
    """Reads the ``config.json`` of a checkpoint.

    Raises:
      ValueError: there is none; one line.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is not a folder; download the checkpoint first: hf download "
            "NAME --local-dir FOLDER."
        )
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} has no config.json; name the folder of a checkpoint of "
            "transformers."
        )
    return read_json(folder / "config.json")


def _settings_like(
    source: pathlib.Path, shape: Architecture, folder: pathlib.Path
) -> dict[str, Any]:
    if folder.exists() and folder.samefile(source):
        raise ValueError(
            f"{folder} is the checkpoint that is to be copied; name another folder."
        )
    settings = read_settings(source)
    context = shape.context if shape.positions == "rotary" else None
    there = architecture_of(settings, context=context)
    for field in dataclasses.fields(shape):
        ours, theirs = getattr(shape, field.name), getattr(there, field.name)
        if ours != theirs:
            raise ValueError(
                f"{source} has {field.name} = {theirs!r}, the model {ours!r}; give "
                "the checkpoint that the model was read from, or none."
            )
    return settings


def _base(family: str) -> str:
    return BASES["gpt2" if family == "gpt2" else "llama"]


def _found_names(
    folder: pathlib.Path, family: str, tensors: Tensors, pieces: list[Piece]
) -> dict[str, str]:
    """Our name of each tensor -> its name in the files, all of them accounted for."""
    base = _base(family)
    names = {}
    for piece in pieces:
        short = piece.name.removeprefix(base)
        name = piece.name if piece.name in tensors else short
        if name not in tensors:
            raise ValueError(
                f"{folder} has no tensor {piece.name}, which its config.json asks for; "
                "download the whole checkpoint."
            )
        if tensors.shape(name) != piece.file_shape:
            raise ValueError(
                f"{name} in {folder} has shape {tensors.shape(name)}, but its "
                f"config.json asks for {piece.file_shape}; the two are not of the same "
                "network."
            )
        names[piece.name] = name
    # A tied head may be stored nevertheless.
    known = {*names.values(), "lm_head.weight"}
    unknown = [name for name in tensors if name not in known]
    unknown = [name for name in unknown if not BUFFERS.search(name)]
    if unknown:
        raise UnsupportedError(
            f"{folder} has {len(unknown)} tensors that a {family} of its config.json "
            f"does not have, such as {unknown[0]}: what they do is not supported."
        )
    return names


def _dtypes(
    source: pathlib.Path | None,
    family: str,
    pieces: list[Piece],
    leaves: Mapping[str, Any],
    dtype: DTypeLike | None,
) -> dict[str, np.dtype]:
    """What type each tensor is written in."""
    if dtype is not None:
        return {piece.name: jnp.dtype(dtype) for piece in pieces}
    if source is None:
        return {piece.name: leaves[piece.path].dtype for piece in pieces}
    with Tensors(source) as tensors:
        names = _found_names(source, family, tensors, pieces)
        return {
            name: jnp.dtype(DTYPES[tensors.dtype(there)])
            for name, there in names.items()
        }
