"""Federated averaging of sparse networks: python -m experiments.federated_digits.

Finished federations are kept in results.csv and not run again.
"""

import argparse
import time
from collections.abc import Sequence

from experiments import command_line, records
from experiments.federated_digits import plot, tables
from experiments.federated_digits.federation import Setting, federate
from experiments.federated_digits.tables import Row


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing, then writes results.csv, table.md and plot.png.

    Args:
      arguments: of the command line; default: the process's own.
    """
    options = _parse(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "results.csv"
    rows = records.read(path, Row)
    wanted = [Setting("dense", 0.0, options.rounds)]
    for method in ("static", "rigl"):
        wanted += [Setting(method, s, options.rounds) for s in options.sparsities]
    for setting in wanted:
        began = time.monotonic()
        for seed in range(options.seeds):
            if any(row[:4] == (*setting[:3], seed) for row in rows):
                continue
            rows.append(Row(*setting[:3], seed, *federate(setting, seed)))
            records.write(path, rows)
        [cell] = tables.cells([r for r in rows if r[:3] == setting[:3]])
        seconds = time.monotonic() - began
        print(
            f"{setting.method} at {100 * setting.sparsity:g} %: "
            f"{cell.accuracy} ({seconds:.0f} s)",
            flush=True,
        )
    settings = [setting[:3] for setting in wanted]
    chosen = [r for r in rows if r[:3] in settings and r.seed < options.seeds]
    found = tables.cells(chosen)
    (options.output / "table.md").write_text(tables.table(found))
    plot.draw(found, options.output / "plot.png")
    print(f"\n{tables.table(found)}\nwritten to {options.output}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser("federated_digits", __doc__, seeds=5)
    parser.add_argument(
        "--rounds", type=command_line.at_least(1), default=40, help="of averaging"
    )
    parser.add_argument(
        "--sparsities",
        nargs="+",
        type=command_line.share,
        default=(0.8, 0.9, 0.95, 0.98),
        help="of the masks",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
