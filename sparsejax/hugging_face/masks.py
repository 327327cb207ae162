"""Masks beside the weights of a checkpoint, one bit a weight."""

from __future__ import annotations

import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from sparsejax.hugging_face.checkpoint import read_settings, shapes_of
from sparsejax.hugging_face.pieces import Piece, grouped, joined, pieces_of
from sparsejax.hugging_face.settings import architecture_of
from sparsejax.layers import leaves_with_paths

__all__ = ["MASKS", "load_masks", "save_masks"]

MASKS = "masks.npz"


def save_masks(folder: str | os.PathLike[str], masks: PyTree) -> None:
    """Writes ``masks.npz``: for each sparse tensor ``numpy.packbits`` of its mask.

    They have the names and the orientation of the tensors, with the bits of the last
    axis packed: ``np.unpackbits(file[name], axis=-1, count=tensor.shape[-1])``.

    Args:
      folder: of a checkpoint that was written already.
      masks: like the parameters, None at dense leaves.
    """
    folder = pathlib.Path(folder)
    settings = read_settings(folder)
    found = dict(leaves_with_paths(masks))
    by_name = _by_name(settings, scanned=not any("/0/" in path for path in found))
    packed = {}
    for name, parts in by_name.items():
        if any(part.path in found for part in parts):
            kept = {
                part.path: found.get(part.path, _Everything(part.shape))
                for part in parts
            }
            packed[name] = np.packbits(joined(parts, kept), axis=-1)
    partial = folder / f"{MASKS}.partial"
    with open(partial, "wb") as file:
        np.savez(file, **packed)
    os.replace(partial, folder / MASKS)


def load_masks(folder: str | os.PathLike[str], *, scanned: bool = True) -> PyTree:
    """Reads what `save_masks` wrote, such as for ``sj.static(initial_masks=...)``.

    Args:
      folder: of the checkpoint.
      scanned: whether the network's blocks are stacked; see `load`.

    Returns:
      Masks like the parameters of `load`, None at dense leaves.

    Raises:
      ValueError: there are no masks, or they cannot be read.
    """
    folder = pathlib.Path(folder)
    settings = read_settings(folder)
    abstract = nnx.to_pure_dict(nnx.state(_shapes(settings, scanned)))
    leaves = dict(leaves_with_paths(abstract))
    pieces = grouped(_pieces(settings, scanned), lambda piece: piece.path)
    try:
        with np.load(folder / MASKS) as file:
            packed = dict(file)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{folder / MASKS} cannot be read ({error}); prune the checkpoint again."
        ) from error

    def mask(path: str, leaf: Any) -> jax.Array | None:
        if pieces[path][0].name not in packed:
            return None
        kept = np.empty(leaf.shape, bool)
        for piece in pieces[path]:
            bits = packed[piece.name]
            whole = np.unpackbits(bits, axis=-1, count=piece.file_shape[-1])
            kept[piece.row] = piece.taken(whole)
        return jnp.asarray(kept)

    found = [mask(path, leaf) for path, leaf in leaves.items()]
    return jax.tree.structure(abstract).unflatten(found)


class _Everything:
    """The mask of a dense leaf that shares a tensor with sparse ones."""

    def __init__(self, shape: tuple[int, ...]):
        self._shape = shape

    def __getitem__(self, row: Any) -> np.ndarray:
        return np.ones(self._shape, bool)


def _shapes(settings: Mapping[str, Any], scanned: bool) -> Any:
    # Windows of attention are no matter of the masks.
    settings = {**settings, "sliding_window": None}
    return shapes_of(architecture_of(settings), scanned=scanned)


def _pieces(settings: Mapping[str, Any], scanned: bool) -> list[Piece]:
    made = _shapes(settings, scanned)
    leaves = dict(leaves_with_paths(nnx.to_pure_dict(nnx.state(made))))
    return pieces_of(settings["model_type"], leaves, made.shape.layers)


def _by_name(settings: Mapping[str, Any], *, scanned: bool) -> dict[str, list[Piece]]:
    return grouped(_pieces(settings, scanned), lambda piece: piece.name)
