"""What all command lines do alike: options, and one line for what went wrong."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from sparsejax.building import ConfigError

__all__ = ["Parser", "failed"]


class Parser(argparse.ArgumentParser):
    """Options of a program whose ``--help`` is its docstring.

    What cannot be parsed is a `ConfigError`, not the end of the process.
    """

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raises a ConfigError with the message."""
        raise ConfigError(f"{message}; see --help")


def failed(program: str, code: int, error: Exception | str) -> int:
    """Says on standard error what went wrong, in one line.

    Args:
      program: its module: ``"sparsejax.train"``.
      code: the exit code that it is to have.
      error: what went wrong; line breaks become spaces.

    Returns:
      The exit code.
    """
    print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
    return code
