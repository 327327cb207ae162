"""Trains sparse agents beside dense ones: python -m experiments.sparse_rl.

All agents of an arm are trained side by side, each arm in a process of its own.
Finished arms are kept in results.csv and not trained again; one that was interrupted
goes on. Breakout and pendulum take minutes an arm on a CPU; halfcheetah and ant want a
GPU: --problems halfcheetah ant.
"""

import argparse
from collections.abc import Sequence

from experiments import command_line, records
from experiments.sparse_rl import report
from experiments.sparse_rl.settings import ARMS, PROBLEMS
from experiments.sparse_rl.training import Row, train


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains what is missing, then writes results.csv, table.md and plot.png.

    Args:
      arguments: of the command line; default: the process's own.
    """
    options = _parse(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    path, networks = options.output / "results.csv", options.output / "networks"
    rows = records.read(path, Row)
    for problem in options.problems:
        updates = options.updates or PROBLEMS[problem].updates
        for arm in options.arms:
            if len(_of(rows, problem, arm, updates)) == options.seeds:
                continue
            found = train(problem, arm, options.seeds, options.updates, networks)
            rows = [*_without(rows, problem, arm, updates), *found]
            records.write(path, rows)
            scores = [row.score for row in found]
            print(
                f"{problem}, {ARMS[arm].title}: {report.middle(scores):.1f} "
                f"({found[0].seconds:.0f} s)",
                flush=True,
            )
    shown = [
        row
        for problem in options.problems
        for arm in options.arms
        for row in _of(rows, problem, arm, options.updates or PROBLEMS[problem].updates)
    ]
    text = report.tables(shown)
    (options.output / "table.md").write_text(text)
    report.draw(shown, networks, options.updates, options.output / "plot.png")
    print(f"\n{text}\nwritten to {options.output}")


def _of(rows: Sequence[Row], problem: str, arm: str, updates: int) -> list[Row]:
    wanted = (problem, arm, updates)
    return [row for row in rows if (row.problem, row.arm, row.updates) == wanted]


def _without(rows: Sequence[Row], problem: str, arm: str, updates: int) -> list[Row]:
    taken = _of(rows, problem, arm, updates)
    return [row for row in rows if row not in taken]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser("sparse_rl", __doc__, seeds=8)
    parser.add_argument(
        "--problems",
        nargs="+",
        choices=tuple(PROBLEMS),
        default=("breakout", "pendulum"),
        metavar="PROBLEM",
        help=f"which of {', '.join(PROBLEMS)}",
    )
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=tuple(ARMS),
        default=tuple(ARMS),
        metavar="ARM",
        help=f"which of {', '.join(ARMS)}",
    )
    parser.add_argument(
        "--updates",
        type=command_line.at_least(500),
        help="of the networks, in place of the configs' own; a multiple of what these "
        "have between evaluations",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
