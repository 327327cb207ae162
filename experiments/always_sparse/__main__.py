"""Memory and accuracy of always-sparse training: python -m experiments.always_sparse.

Finished networks are kept in results.csv and not trained again. Each trains in a
process of its own, whose peak of memory is measured.
"""

import argparse
import concurrent.futures
import multiprocessing
from collections.abc import Sequence

from experiments import command_line, records
from experiments.always_sparse import report
from experiments.always_sparse.training import Row, train

WIDE = (8_192, 16_384, 32_768, 65_536)
NARROW = (512, 1_024, 2_048)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains what is missing, then writes results.csv, table.md and plot.png.

    Args:
      arguments: of the command line; default: the process's own.
    """
    options = _parse(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "results.csv"
    rows = records.read(path, Row)
    wanted = [("compressed", width, 0, options.steps) for width in options.wide]
    wanted += [
        (kind, width, seed, options.steps)
        for width in options.narrow
        for kind in ("compressed", "masked")
        for seed in range(options.seeds)
    ]
    for one in wanted:
        if any(row[:4] == one for row in rows):
            continue
        rows.append(_alone(*one))
        records.write(path, rows)
        last = rows[-1]
        print(
            f"{last.kind}, width {last.width:,}, seed {last.seed}: accuracy "
            f"{100 * last.accuracy:.1f} %, peak {last.peak / 2**30:.2f} GiB",
            flush=True,
        )
    chosen = [row for row in rows if row[:4] in wanted]
    text = report.tables(chosen, options.wide, options.narrow)
    (options.output / "table.md").write_text(text)
    report.draw([r for r in chosen if r.width in options.wide], options.output)
    print(f"\n{text}\nwritten to {options.output}")


def _alone(*arguments: object) -> Row:
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(train, *arguments).result()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser("always_sparse", __doc__, seeds=5)
    at_least = command_line.at_least
    parser.add_argument(
        "--steps", type=at_least(20), default=200, help="training steps"
    )
    parser.add_argument(
        "--wide",
        nargs="*",
        type=at_least(64),
        default=WIDE,
        help="widths to measure memory and time at, compressed only",
    )
    parser.add_argument(
        "--narrow",
        nargs="*",
        type=at_least(64),
        default=NARROW,
        help="widths at which masks over dense weights are trained, too",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
