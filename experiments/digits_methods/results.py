"""The file of results: one row per method, sparsity, number of steps and seed."""

import csv
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """One trained network.

    Attributes:
      method: name of a setting.
      sparsity: share of the weights that are zero; 0 for ``dense``.
      steps: training steps.
      seed: of initial weights, masks and order of examples.
      active: weights that are left.
      accuracy: share of the test examples classified correctly.
    """

    method: str
    sparsity: float
    steps: int
    seed: int
    active: int
    accuracy: float


def read(path: pathlib.Path) -> list[Row]:
    """Reads the rows of a file; none if it does not exist.

    Args:
      path: a CSV file that `write` wrote.

    Raises:
      ValueError: the file has other columns.
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != Row._fields:
            raise ValueError(
                f"{path} has the columns {reader.fieldnames}, not {Row._fields}; "
                "delete it or choose another --output"
            )
        types = Row.__annotations__
        return [
            Row(**{name: types[name](line[name]) for name in line}) for line in reader
        ]


def write(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Replaces the file by these rows, whole or not at all.

    Args:
      path: where to.
      rows: in the order to write.
    """
    scratch = path.with_suffix(".partial")
    with scratch.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(row._replace(accuracy=f"{row.accuracy:.6f}") for row in rows)
    os.replace(scratch, path)
