"""Anchors: the boxes that a detector's predictions are offsets from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

__all__ = ["anchor_boxes", "anchors_per_cell"]


def anchor_boxes(
    grids: Sequence[tuple[int, int]],
    *,
    ratios: Sequence[Sequence[float]],
    scales: tuple[float, float] = (0.2, 0.95),
) -> Float[np.ndarray, "anchors 4"]:
    """The anchors of all feature maps, as SSD defines them.

    The ``k``-th of ``m`` maps has the scale ``s_k = s_1 + (s_m - s_1) (k - 1) /
    (m - 1)``, as a fraction of the image's side. Around the centre of each of its cells
    there is a square of side ``s_k``, one of ``sqrt(s_k s_(k + 1))`` (the scale after
    the last is 1), and for each ratio ``r`` a box of width ``s_k sqrt(r)`` and height
    ``s_k / sqrt(r)``, and the same box turned.

    Args:
      grids: Rows and columns of each feature map, the finest first.
      ratios: For each map, the ratios of width to height beside 1.
      scales: Of the first and of the last map.

    Returns:
      Boxes (top, left, bottom, right) as fractions of the image, in float32; map by
      map, row by row, cell by cell. They may reach beyond the image.

    Raises:
      ValueError: If there are not as many ratios as grids, or the scales are not in
        ascending order above 0.

    Example:
      >>> ssd300 = [(n, n) for n in (38, 19, 10, 5, 3, 1)]
      >>> ratios = [(2,), (2, 3), (2, 3), (2, 3), (2,), (2,)]
      >>> anchor_boxes(ssd300, ratios=ratios).shape
      (8732, 4)

    References:
      Liu et al., "SSD: single shot multibox detector", 2016, section 2.2. The scales of
      0.2 to 0.95 are those of SSDLite (Sandler et al., 2018) as released.
    """
    if len(ratios) != len(grids):
        raise ValueError(
            f"ratios = {ratios!r} are for {len(ratios)} feature maps, but there are "
            f"{len(grids)}: give one sequence for each."
        )
    smallest, largest = scales
    if not 0 < smallest <= largest:
        raise ValueError(
            f"scales = {tuple(scales)}: give the smallest and the largest, above 0."
        )
    steps = np.linspace(smallest, largest, len(grids)).tolist()
    boxes = [
        _grid(rows, columns, _shapes(scale, following, of_map))
        for (rows, columns), scale, following, of_map in zip(
            grids, steps, [*steps[1:], 1.0], ratios, strict=True
        )
    ]
    return np.concatenate(boxes).astype(np.float32)


def anchors_per_cell(ratios: Sequence[float]) -> int:
    """How many anchors each cell of a feature map has.

    Args:
      ratios: The ratios of that map, as in :func:`anchor_boxes`.

    Returns:
      Two squares, and two boxes for each ratio.

    Example:
      >>> anchors_per_cell((2, 3))
      6
    """
    return 2 + 2 * len(ratios)


def _shapes(
    scale: float, following: float, ratios: Sequence[float]
) -> list[tuple[float, float]]:
    """Height and width of the anchors of a cell."""
    between = math.sqrt(scale * following)
    shapes = [(scale, scale), (between, between)]
    for ratio in ratios:
        longer, shorter = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
        shapes += [(shorter, longer), (longer, shorter)]
    return shapes


def _grid(
    rows: int, columns: int, shapes: Sequence[tuple[float, float]]
) -> Float[np.ndarray, "anchors 4"]:
    middle = np.stack(
        np.meshgrid(
            (np.arange(rows) + 0.5) / rows,
            (np.arange(columns) + 0.5) / columns,
            indexing="ij",
        ),
        axis=-1,
    ).reshape(-1, 1, 2)
    half = np.array(shapes).reshape(1, -1, 2) / 2
    return np.concatenate([middle - half, middle + half], axis=-1).reshape(-1, 4)
