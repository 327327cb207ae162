"""Lottery tickets on the digits: python -m experiments.lottery_tickets.

Finished rounds are kept in the output folder and not trained again.
"""

import argparse
from collections.abc import Sequence

from experiments import command_line, records
from experiments.lottery_tickets import plot, tables
from experiments.lottery_tickets.rounds import study
from experiments.lottery_tickets.settings import Row, Settings, check_folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains what is missing, then writes results.csv, table.md and plot.png.

    Args:
      arguments: of the command line; default: the process's own.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    settings = Settings(
        options.seeds,
        options.steps,
        options.rewind_step,
        options.fraction,
        options.output_fraction,
    )
    _check(parser, settings)
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        check_folder(options.output, settings)
    except ValueError as error:
        parser.error(str(error))
    rows = study(settings, options.rounds, options.output)
    path = options.output / "results.csv"
    records.write(path, rows)
    # What is shown is what is stored, to the last digit.
    rows = records.read(path, Row)
    text = tables.accuracy_table(rows)
    if settings.seeds > 1:
        text += f"\nDifferences in round {options.rounds}, seed by seed:\n\n"
        text += tables.difference_table(rows, options.rounds)
    (options.output / "table.md").write_text(text)
    plot.draw(rows, options.output / "plot.png")
    print(f"\n{text}\nwritten to {options.output}")


def _parser() -> argparse.ArgumentParser:
    parser = command_line.parser("lottery_tickets", __doc__, seeds=10)
    positive = command_line.at_least(1)
    parser.add_argument("--rounds", type=positive, default=16, help="prunings")
    parser.add_argument(
        "--steps", type=positive, default=400, help="steps of a training"
    )
    parser.add_argument(
        "--rewind-step",
        type=command_line.at_least(0),
        default=20,
        help="step to rewind to",
    )
    parser.add_argument(
        "--fraction",
        type=command_line.share,
        default=0.2,
        help="share that a round removes",
    )
    parser.add_argument(
        "--output-fraction",
        type=command_line.share,
        default=0.1,
        help="the same of the output layer",
    )
    return parser


def _check(parser: argparse.ArgumentParser, settings: Settings) -> None:
    if settings.rewind_step >= settings.steps:
        parser.error(
            f"--rewind-step {settings.rewind_step}: not below --steps "
            f"{settings.steps}, after which nothing would be trained"
        )


if __name__ == "__main__":
    main()
