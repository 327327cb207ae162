"""What each leaf of a `Transformer` is in the tensors of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sparsejax.hugging_face.names import PARTS, Source, source_of

__all__ = ["Piece", "grouped", "joined", "pieces_of"]


class Piece(NamedTuple):
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


def pieces_of(family: str, leaves: Mapping[str, Any], layers: int) -> list[Piece]:
    """Every leaf of a network, those of stacked blocks row by row.

    Args:
      family: a name of `sparsejax.hugging_face.names`.
      leaves: path to array, or to its shape.
      layers: blocks in the network.

    Returns:
      The pieces, in the order of the leaves.

    Raises:
      ValueError: a leaf has no place in checkpoints of this family.
    """
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
            found.append(Piece(path, row, shape, source.in_layer(layer), source))
    return found


def grouped(
    pieces: Iterable[Piece], key: Callable[[Piece], str]
) -> dict[str, list[Piece]]:
    """Pieces by path or name, parts of a tensor in their order."""
    groups: dict[str, list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(key(piece), []).append(piece)
    for group in groups.values():
        group.sort(key=lambda piece: piece.source.part or 0)
    return groups


def joined(parts: Sequence[Piece], leaves: Mapping[str, Any]) -> np.ndarray:
    """A tensor as it stands in a checkpoint, of all of its parts."""
    rows = [np.asarray(leaves[part.path][part.row]) for part in parts]
    moved = [
        row.T if part.source.transposed else row
        for row, part in zip(rows, parts, strict=True)
    ]
    return moved[0] if len(moved) == 1 else np.concatenate(moved, axis=-1)
