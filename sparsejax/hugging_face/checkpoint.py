"""A checkpoint of Hugging Face as a `Transformer`, and a `Transformer` as one."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

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
from sparsejax.hugging_face.names import BASES, BUFFERS, PARTS, Source, source_of
from sparsejax.hugging_face.settings import (
    UnsupportedError,
    architecture_of,
    settings_of,
)
from sparsejax.layers import leaves_with_paths
from sparsejax.models.architecture import Architecture
from sparsejax.models.transformer import Transformer

__all__ = ["load", "save"]

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
    settings = _settings(folder)
    shape = architecture_of(settings, context=context)
    made = nnx.eval_shape(
        lambda: Transformer(
            shape, scanned=scanned, remat=remat, dtype=dtype, rngs=nnx.Rngs(0)
        )
    )
    abstract = nnx.to_pure_dict(nnx.state(made))
    leaves = dict(leaves_with_paths(abstract))
    pieces = _pieces(settings["model_type"], leaves, shape.layers)
    by_path = _grouped(pieces, lambda piece: piece.path)
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
    pieces = _pieces(family, leaves, model.shape.layers)
    by_name = _grouped(pieces, lambda piece: piece.name)
    dtypes = _dtypes(source, family, pieces, leaves, dtype)

    def written(name: str, parts: list[_Piece]) -> Written:
        def make() -> np.ndarray:
            rows = [np.asarray(leaves[part.path][part.row]) for part in parts]
            moved = [
                row.T if part.source.transposed else row
                for row, part in zip(rows, parts, strict=True)
            ]
            whole = moved[0] if len(moved) == 1 else np.concatenate(moved, axis=-1)
            return whole.astype(dtypes[name])

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


class _Piece(NamedTuple):
    """What a leaf, or a row of a stacked leaf, is in a checkpoint."""

    path: str
    row: Any  # an index into the leaf
    shape: tuple[int, ...]  # of what the index finds
    name: str
    source: Source

    @property
    def file_shape(self) -> tuple[int, ...]:
        """The shape of the tensor that it is, or is a part of."""
        if self.source.transposed:
            return self.shape[::-1]
        if self.source.part is not None:
            return (*self.shape[:-1], PARTS * self.shape[-1])
        return self.shape

    def taken(self, tensor: np.ndarray) -> np.ndarray:
        """The piece, of the tensor in the file."""
        if self.source.part is not None:
            width = self.shape[-1]
            first = self.source.part * width
            return tensor[..., first : first + width]
        return tensor.T if self.source.transposed else tensor


def _pieces(family: str, leaves: Mapping[str, Any], layers: int) -> list[_Piece]:
    found = []
    for path, leaf in leaves.items():
        listed = re.match(r"blocks/(\d+)/", path)
        stacked = path.startswith("blocks/") and not listed
        inside = f"blocks/{path[listed.end() :]}" if listed else path
        source = source_of(family, inside)
        shape = tuple(leaf.shape[1:] if stacked else leaf.shape)
        rows: list[tuple[int, Any]] = [(int(listed[1]) if listed else 0, ...)]
        if stacked:
            rows = [(layer, layer) for layer in range(layers)]
        for layer, row in rows:
            found.append(_Piece(path, row, shape, source.in_layer(layer), source))
    return found


def _grouped(
    pieces: Iterable[_Piece], key: Callable[[_Piece], str]
) -> dict[str, list[_Piece]]:
    """Pieces by path or name, parts of a tensor in their order."""
    groups: dict[str, list[_Piece]] = {}
    for piece in pieces:
        groups.setdefault(key(piece), []).append(piece)
    for group in groups.values():
        group.sort(key=lambda piece: piece.source.part or 0)
    return groups


def _settings(folder: pathlib.Path) -> dict[str, Any]:
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
    settings = _settings(source)
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
    folder: pathlib.Path, family: str, tensors: Tensors, pieces: list[_Piece]
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
    pieces: list[_Piece],
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
