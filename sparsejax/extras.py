"""Optional dependencies: importing them, or saying which extra brings them."""

import importlib
import types


def require(module: str, *, extra: str) -> types.ModuleType:
    """Imports a module that the base install does not bring.

    Args:
      module: The module to import: ``"flax"``.
      extra: The extra of this package that installs it: ``"train"``.

    Returns:
      The imported module.

    Raises:
      ImportError: If it is not installed; the message has the command that installs
        it. A module that is installed, but itself fails to import, raises its own
        error.

    Example:
      >>> require("math", extra="train").__name__
      'math'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise ImportError(
            f"{module!r} is not installed, and this part of sparsejax needs it: "
            f'pip install "sparsejax[{extra}]"'
        ) from error
