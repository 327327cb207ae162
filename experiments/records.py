"""Rows of a study in a CSV file, and means with their intervals."""

import csv
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from scipy import stats

Row = TypeVar("Row", bound=NamedTuple)


class Interval(NamedTuple):
    """A mean, and half of its 95 % interval by Student's t."""

    mean: float
    half_width: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.half_width:.1f}"


def interval(values: Sequence[float]) -> Interval:
    """The mean of some values and how far it may be off.

    Args:
      values: independent ones; the interval of a single one is not a number.
    """
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Interval(mean, float("nan"))
    error = np.std(values, ddof=1) / np.sqrt(count)
    return Interval(mean, float(stats.t.ppf(0.975, count - 1) * error))


def read(path: pathlib.Path, kind: type[Row]) -> list[Row]:
    """Reads the rows of a file; none if it does not exist.

    Args:
      path: a CSV file that `write` wrote.
      kind: the rows' NamedTuple; its annotations convert the columns.

    Raises:
      ValueError: the file has other columns.
    """
    if not path.exists():
        return []
    fields = kind._fields
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != fields:
            raise ValueError(
                f"{path} has the columns {reader.fieldnames}, not {fields}; delete it "
                "or choose another --output"
            )
        types = kind.__annotations__
        return [
            kind(**{name: types[name](line[name]) for name in line}) for line in reader
        ]


def write(path: pathlib.Path, rows: Sequence[NamedTuple]) -> None:
    """Replaces the file by these rows, whole or not at all.

    Args:
      path: where to.
      rows: at least one, all of one kind; floats are written to seven digits.
    """
    scratch = path.with_suffix(".partial")
    with scratch.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0]._fields)
        for row in rows:
            writer.writerow(
                f"{value:.7g}" if isinstance(value, float) else value for value in row
            )
    os.replace(scratch, path)
