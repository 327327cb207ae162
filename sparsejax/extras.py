"""Optional dependencies: importing them, or saying which extra brings them."""

import importlib
import sys
import types


class MissingExtraError(ImportError):
    """A module that an extra of this package brings is not installed; one line."""


def require(module: str, *, extra: str) -> types.ModuleType:
    """Imports a module that the base install does not bring.

    Args:
      module: The module to import: ``"flax"``.
      extra: The extra of this package that installs it: ``"train"``.

    Returns:
      The imported module.

    Raises:
      MissingExtraError: If it is not installed; the message has the command that
        installs it. A module that is installed, but itself fails to import, raises its
        own error.

    Example:
      >>> require("math", extra="train").__name__
      'math'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"{module!r} is not installed, and this part of sparsejax needs it: "
            f'pip install "sparsejax[{extra}]"'
        ) from error


def require_for_program(
    program: str, modules: str, *, extra: str, started: bool
) -> None:
    """Makes sure that all that a program imports is installed, before it does.

    Args:
      program: What messages begin with: ``"sparsejax.train"``.
      modules: The modules' names with spaces between them.
      extra: As for `require`.
      started: Whether the program was started, not imported: then what is missing ends
        it with one line on standard error and exit code 2.

    Raises:
      ImportError: As `require`, in a program that is imported.
      SystemExit: In one that was started.

    Example:
      >>> require_for_program("mine", "math json", extra="train", started=False)
    """
    try:
        for module in modules.split():
            require(module, extra=extra)
    except ImportError as error:
        if not started:
            raise
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(2)
