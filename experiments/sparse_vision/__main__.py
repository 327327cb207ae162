"""Trains sparse vision networks beside dense ones: python -m experiments.sparse_vision.

Each network trains by its config, in a process of its own. Finished networks are kept
in results.csv and not trained again; one that was interrupted goes on.
"""

import argparse
from collections.abc import Sequence

from experiments import command_line, records
from experiments.sparse_vision import report
from experiments.sparse_vision.training import CONFIGS, Row, train


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains what is missing, then writes results.csv, table.md and plot.png.

    Args:
      arguments: of the command line; default: the process's own.
    """
    options = _parse(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "results.csv"
    rows = records.read(path, Row)
    # A seed of every config first, so that a part of the study is one, too.
    wanted = [(name, seed) for seed in range(options.seeds) for name in options.configs]
    for name, seed in wanted:
        if _chosen(rows, [(name, seed)], options.steps):
            continue
        row = train(name, seed, options.steps, options.output / "networks")
        rows.append(row)
        records.write(path, rows)
        print(
            f"{name}, seed {seed}: {100 * row.score:.1f} % ({row.seconds:.0f} s)",
            flush=True,
        )
    chosen = _chosen(rows, wanted, options.steps)
    text = report.tables(chosen)
    (options.output / "table.md").write_text(text)
    report.draw(chosen, options.output / "plot.png")
    print(f"\n{text}\nwritten to {options.output}")


def _chosen(
    rows: Sequence[Row], wanted: Sequence[tuple[str, int]], steps: int | None
) -> list[Row]:
    return [
        row
        for row in rows
        if (row.config, row.seed) in wanted
        and row.steps == (steps or CONFIGS[row.config].steps)
    ]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser("sparse_vision", __doc__, seeds=3)
    parser.add_argument(
        "--steps",
        type=command_line.at_least(80, ", which leave time to move masks"),
        help="training steps in place of the configs' own, warm-up in proportion",
    )
    parser.add_argument(
        "--configs",
        nargs="+",
        choices=tuple(CONFIGS),
        default=tuple(CONFIGS),
        metavar="CONFIG",
        help="which networks",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
