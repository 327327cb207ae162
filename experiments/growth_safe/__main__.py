"""Compares optimizers for weights that grow: python -m experiments.growth_safe.

Finished cells are kept in results.csv and not trained again.
"""

import argparse
import itertools
import time
from collections.abc import Sequence

from experiments import command_line, records
from experiments.digits_methods.training import train
from experiments.growth_safe import plot, tables
from experiments.growth_safe.settings import (
    METHODS,
    OPTIMIZERS,
    Cell,
    Row,
    cell_of,
    configure,
)


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
        Cell(method, sparsity, every, optimizer, rate, options.steps)
        for rate, method, sparsity, every, optimizer in itertools.product(
            options.learning_rates,
            options.methods,
            options.sparsities,
            options.every,
            OPTIMIZERS,
        )
    ]
    for cell in wanted:
        done = {row.seed for row in rows if cell_of(row) == cell}
        seeds = [seed for seed in range(options.seeds) if seed not in done]
        if not seeds:
            continue
        began = time.monotonic()
        outcomes = train(configure(cell), seeds)
        rows += [
            Row(*cell, seed, outcome.active, outcome.accuracy)
            for seed, outcome in zip(seeds, outcomes, strict=True)
        ]
        records.write(path, rows)
        mean = sum(outcome.accuracy for outcome in outcomes) / len(outcomes)
        seconds = time.monotonic() - began
        print(f"{tuple(cell)}: {100 * mean:.1f} % ({seconds:.0f} s)", flush=True)

    chosen = [row for row in rows if cell_of(row) in wanted]
    chosen = [row for row in chosen if row.seed < options.seeds]
    text = tables.accuracy_table(chosen)
    if options.seeds > 1:
        text += "\nDifferences to `optax.adam`, seed by seed:\n\n"
        text += tables.difference_table(chosen)
    (options.output / "table.md").write_text(text)
    plot.draw(chosen, options.output / "plot.png")
    print(f"\n{text}\nwritten to {options.output}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser("growth_safe", __doc__, seeds=10)
    parser.add_argument(
        "--steps",
        type=command_line.at_least(20, ", which leave time to move masks"),
        default=2_000,
        help="training steps",
    )
    parser.add_argument(
        "--every",
        nargs="+",
        type=command_line.at_least(2, ", or nothing trains between moves"),
        default=(10, 50),
        help="steps between moves",
    )
    parser.add_argument(
        "--methods", nargs="+", choices=tuple(METHODS), default=tuple(METHODS)
    )
    parser.add_argument(
        "--sparsities", nargs="+", type=command_line.share, default=(0.98,)
    )
    parser.add_argument(
        "--learning-rates", nargs="+", type=float, default=(3e-3,), help="their peaks"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
