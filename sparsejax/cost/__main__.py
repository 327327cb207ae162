"""Prints what the network of a config costs, before anyone trains it.

  python -m sparsejax.cost --config=NAME[:ARGUMENT] [--config.FIELD=VALUE ...]
                           [--mode=exact|micronet] [--json=FILE]

--config          A config, as for sparsejax.train: rigl_resnet50, a file, or
                  rigl_resnet50:imagenet. Its dataset need not be there.
--config.FIELD    Overrides a field: --config.method.sparsity=0.95.
--mode            exact (default): two FLOPs for each multiply-accumulate, everything
                  else free; micronet: as published tables count.
--json            Also writes everything to a file.

Exit codes: 0 printed; 2 the command, the config or the installation is at fault; 74 the
file could not be written.
"""

import sys

from sparsejax.extras import require_for_program

require_for_program(
    "sparsejax.cost",
    "absl flax ml_collections rich tensorflow_datasets",
    extra="train",
    started=__name__ == "__main__",
)

import argparse
import json
import pathlib
import shlex
from collections.abc import Sequence

from absl import logging

from sparsejax import configuration, validation
from sparsejax.building import ConfigError
from sparsejax.cost_table import print_cost
from sparsejax.expected_cost import expected_cost
from sparsejax.programs import failed

DONE, MISUSED, FILE_ERROR = 0, 2, 74


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
      arguments: without the program's name; default: the process's own.

    Returns:
      The exit code; for what went wrong there is one line on standard error.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or {"--help", "-help", "-h"} & set(arguments):
        print(__doc__)
        print("Configs:\n  " + "\n  ".join(configuration.available()))
        return DONE if arguments else MISUSED
    logging.set_verbosity(logging.FATAL)
    own = argparse.ArgumentParser(
        prog="sparsejax.cost", add_help=False, allow_abbrev=False
    )
    own.add_argument("--mode", default="exact", choices=("exact", "micronet"))
    own.add_argument("--json", type=pathlib.Path)
    try:
        flags, others = own.parse_known_args(arguments)
    except SystemExit:
        return MISUSED
    try:
        command = configuration.parse(others)
        validation.check(command.config)
        found = expected_cost(command.config, mode=flags.mode)
        print_cost(found.cost, command.name, remarks=found.remarks)
        if flags.json is not None:
            report = {
                "config": command.name,
                "command": _text(arguments),
                "remarks": list(found.remarks),
                "cost": found.cost.as_dict(),
            }
            flags.json.write_text(json.dumps(report, indent=2) + "\n")
    except ConfigError as error:
        return failed("sparsejax.cost", MISUSED, error)
    except OSError as error:
        return failed("sparsejax.cost", FILE_ERROR, error)
    return DONE


def _text(arguments: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "sparsejax.cost", *arguments])


if __name__ == "__main__":
    sys.exit(main())
