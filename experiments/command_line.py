"""Options that the studies share, checked where they are parsed."""

import pathlib
from argparse import (
    ArgumentDefaultsHelpFormatter,
    ArgumentParser,
    ArgumentTypeError,
)
from collections.abc import Callable


def parser(study: str, description: str | None, *, seeds: int) -> ArgumentParser:
    """A parser with ``--seeds`` and ``--output``.

    Args:
      study: name of its folder.
      description: for ``--help``.
      seeds: default of ``--seeds``.
    """
    made = ArgumentParser(
        prog=f"python -m experiments.{study}",
        description=description,
        formatter_class=ArgumentDefaultsHelpFormatter,
    )
    made.add_argument(
        "--seeds", type=at_least(1), default=seeds, help="repetitions of each cell"
    )
    made.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("runs") / study,
        help="folder of results.csv, table.md and plot.png",
    )
    return made


def at_least(least: int, reason: str = "") -> Callable[[str], int]:
    """The type of an option that is a whole number of at least so many."""

    def convert(text: str) -> int:
        if not text.lstrip("-").isdigit() or int(text) < least:
            raise ArgumentTypeError(
                f"{text}: give a whole number of at least {least}{reason}"
            )
        return int(text)

    return convert


def share(text: str) -> float:
    """The type of an option that lies strictly between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise ArgumentTypeError(f"{text}: give a number between 0 and 1, such as 0.9")
    return value
