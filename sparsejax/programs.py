"""What all command lines do alike: options, and one line for what went wrong."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from sparsejax.building import ConfigError

__all__ = ["Parser", "bound_to_parent", "failed"]

# What is born like this: SIGUSR2, which clusters send to all processes of a job, is for
# submitit alone. Not between fork and exec: jax has threads.
_BIRTH = """
import ctypes, os, signal, sys
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
try:
    ctypes.CDLL(None).prctl(1, int(sys.argv[1]))
except (OSError, AttributeError):
    pass
os.execv(sys.argv[2], sys.argv[2:])
"""


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


def bound_to_parent(command: Sequence[str], ending: signal.Signals) -> list[str]:
    """A command whose process does not outlive the one that starts it (Linux only).

    Args:
      command: what to run, its program by its path.
      ending: the signal that it gets when its parent has ended.

    Returns:
      What to start instead.
    """
    return [sys.executable, "-c", _BIRTH, str(int(ending)), *command]
