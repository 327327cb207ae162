"""Sparse transformers beside dense ones of their size: python -m experiments.stdlib_lm.

Finished networks are kept in results.csv and not trained again. All networks of one
seed are trained before those of the next.
"""

import argparse
from collections.abc import Sequence

from experiments import command_line, records
from experiments.stdlib_lm import tables
from experiments.stdlib_lm.settings import METHODS, SPARSITIES, cells, configure
from experiments.stdlib_lm.training import Row, Trainer
from sparsejax.tasks.sparse_network import dataset


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains what is missing, then writes results.csv, table.md and plot.png.

    Args:
      arguments: of the command line; default: the process's own.
    """
    options = _parse(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "results.csv"
    rows = records.read(path, Row)
    chosen = cells(tuple(options.methods), tuple(options.sparsities))
    for seed in range(options.seeds):
        for cell in chosen:
            if any(row[:5] == (*cell, seed, options.steps) for row in rows):
                continue
            outcome = Trainer(configure(cell, options.steps)).train(seed)
            rows.append(Row(*cell, seed, options.steps, *outcome))
            records.write(path, rows)
            print(
                f"{cell.method} at {cell.sparsity}, {cell.optimizer}, seed {seed}: "
                f"{outcome.bits_per_byte:.3f} bits per byte ({outcome.seconds:.0f} s)",
                flush=True,
            )
    shown = [
        row for row in rows if row.steps == options.steps and row.seed < options.seeds
    ]
    references = dataset(configure(chosen[0], options.steps)).references
    text = tables.table(shown, chosen, references)
    (options.output / "table.md").write_text(text)
    tables.draw(shown, references, options.output / "plot.png")
    print(f"\n{text}\nwritten to {options.output}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser("stdlib_lm", __doc__, seeds=3)
    parser.add_argument(
        "--steps",
        type=command_line.at_least(8, ", which leave time to move masks"),
        default=300,
        help="training steps of 2,048 bytes",
    )
    parser.add_argument(
        "--sparsities",
        nargs="+",
        type=float,
        choices=SPARSITIES,
        default=SPARSITIES,
        metavar="SPARSITY",
        help="of the sparse networks",
    )
    parser.add_argument(
        "--methods",
        nargs="*",
        choices=METHODS,
        default=METHODS,
        metavar="METHOD",
        help="the sparse ones; dense networks are always trained",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
