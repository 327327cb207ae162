"""Accuracy and bytes of each federation, as Markdown."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.digits_methods.tables import markdown
from experiments.records import Interval, interval

NAMES = {"dense": "dense", "static": "static masks", "rigl": "masks move (RigL)"}


class Row(NamedTuple):
    """One federation; the first three fields are its setting, the rest its outcome."""

    method: str
    sparsity: float
    rounds: int
    seed: int
    accuracy: float
    active: int
    download: float
    upload: float


class Cell(NamedTuple):
    """The seeds of one setting.

    Attributes:
      method: a key of `NAMES`.
      sparsity: share of zeros.
      active: weights left in the kernels.
      accuracy: in percent.
      download: kilobytes that a client receives per round, mean over seeds.
      upload: kilobytes that it sends.
    """

    method: str
    sparsity: float
    active: int
    accuracy: Interval
    download: float
    upload: float


def cells(rows: Sequence[Row]) -> list[Cell]:
    """Groups rows by method and sparsity, in the order of their first rows."""
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.sparsity), []).append(row)
    return [
        Cell(
            *setting,
            group[0].active,
            interval([100 * row.accuracy for row in group]),
            sum(row.download for row in group) / len(group) / 1e3,
            sum(row.upload for row in group) / len(group) / 1e3,
        )
        for setting, group in groups.items()
    ]


def table(found: Sequence[Cell]) -> str:
    """One line per cell; the last column compares with the dense one, if there is."""
    dense = next((c.download + c.upload for c in found if c.method == "dense"), None)
    lines = [
        [
            "method",
            "sparsity",
            "weights",
            "accuracy in %",
            "down, kB",
            "up, kB",
            "bytes of dense",
        ]
    ]
    for cell in found:
        total = cell.download + cell.upload
        share = "" if dense is None else f"{100 * total / dense:.1f} %"
        lines.append(
            [
                NAMES[cell.method],
                f"{100 * cell.sparsity:g} %",
                f"{cell.active:,}",
                str(cell.accuracy),
                f"{cell.download:.2f}",
                f"{cell.upload:.2f}",
                share,
            ]
        )
    return markdown(lines)
