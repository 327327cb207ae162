"""Compares sparse-training methods on the digits: python -m experiments.digits_methods.

Finished cells are kept in results.csv and not trained again.
"""

import argparse
import pathlib
import time
from collections.abc import Sequence

from experiments import command_line, records
from experiments.digits_methods import plot, tables
from experiments.digits_methods.orderings import orderings_table
from experiments.digits_methods.results import Row
from experiments.digits_methods.settings import SETTINGS, SPARSITIES, configure
from experiments.digits_methods.training import train

PLOTTED = ("dense", "static", "set", "rigl", "srigl", "granet", "magnitude")


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains what is missing, then writes results.csv, table.md and plot.png.

    Args:
      arguments: of the command line; default: the process's own.
    """
    options = _parse(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "results.csv"
    rows = records.read(path, Row)
    wanted = [
        (method, sparsity)
        for method in options.methods
        for sparsity in _sparsities(method, options.sparsities)
    ]
    for method, sparsity in wanted:
        name = f"{method} at {100 * sparsity:g} %"
        done = {
            row.seed for row in rows if _cell(row) == (method, sparsity, options.steps)
        }
        seeds = [seed for seed in range(options.seeds) if seed not in done]
        if not seeds:
            print(f"{name}: already in {path}", flush=True)
            continue
        print(f"{name}: training {len(seeds)} seeds ...", flush=True)
        began = time.monotonic()
        outcomes = train(configure(method, sparsity, options.steps), seeds)
        rows += [
            Row(method, sparsity, options.steps, seed, outcome.active, outcome.accuracy)
            for seed, outcome in zip(seeds, outcomes, strict=True)
        ]
        records.write(path, rows)
        mean = sum(outcome.accuracy for outcome in outcomes) / len(outcomes)
        seconds = time.monotonic() - began
        print(f"{name}: accuracy {100 * mean:.1f} % ({seconds:.0f} s)", flush=True)

    chosen = [
        row
        for cell in wanted
        for row in rows
        if _cell(row) == (*cell, options.steps) and row.seed < options.seeds
    ]
    _report(chosen, options.output)


def _report(rows: Sequence[Row], output: pathlib.Path) -> None:
    found = tables.cells(rows)
    text = tables.accuracy_table(found)
    judged = orderings_table(found)
    if judged:
        text += f"\nOrderings (95 % interval of the difference):\n\n{judged}"
    sparsest = max(cell.sparsity for cell in found)
    compared = [cell for cell in found if cell.sparsity in (0, sparsest)]
    if len(compared) > 1 and all(len(cell.accuracies) > 1 for cell in compared):
        text += f"\nNeighbours at {100 * sparsest:g} %:\n\n"
        text += tables.neighbour_table(compared)
    (output / "table.md").write_text(text)
    # All lines would hide each other.
    drawn = [cell for cell in found if cell.method in PLOTTED and cell.sparsity != 0.5]
    plot.draw(drawn or found, output / "plot.png")
    print(f"\n{text}\nwritten to {output}")


def _cell(row: Row) -> tuple[str, float, int]:
    return row.method, row.sparsity, row.steps


def _sparsities(method: str, asked: Sequence[float] | None) -> tuple[float, ...]:
    """Those of a setting; those asked for, where it can have any."""
    own = SETTINGS[method].sparsities
    if asked is None or own == (0.0,):
        return own
    if own == SPARSITIES:
        return tuple(asked)
    return tuple(sparsity for sparsity in own if sparsity in asked)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser("digits_methods", __doc__, seeds=10)
    parser.add_argument(
        "--steps",
        type=command_line.at_least(20, ", which leave time to move masks"),
        default=2_000,
        help="training steps",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=tuple(SETTINGS),
        default=tuple(SETTINGS),
        metavar="SETTING",
        help="which lines of the table",
    )
    parser.add_argument(
        "--sparsities",
        nargs="+",
        type=command_line.share,
        help="in place of 0.9 0.95 0.98; 0.5 for 2:4 settings",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
