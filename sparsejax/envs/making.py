"""Environments by their names."""

from __future__ import annotations

from typing import Any

from sparsejax.building import ConfigError, build
from sparsejax.envs.base import Environment

__all__ = ["make"]


def make(name: str, **options: Any) -> Environment:
    """Makes an environment.

    Args:
      name: ``"LIBRARY:NAME"``: ``"gymnax:Breakout-MinAtar"``, ``"brax:ant"``; the
        library is a file in ``sparsejax/envs``, or a function of yours as
        ``"mypackage.mylibrary:NAME"``.
      **options: Arguments of that library's function, such as ``backend`` for brax.

    Returns:
      The environment.

    Raises:
      ConfigError: There is no such library, environment or option.

    Example:
      >>> make("gymnax:CartPole-v1").number_of_actions
      2
    """
    library, colon, environment = name.partition(":")
    if not colon or not environment:
        raise ConfigError(
            f"config.data.name = {name!r}: give the library and the environment, such "
            "as 'gymnax:CartPole-v1' or 'brax:ant'."
        )
    spec = {"name": library, "environment": environment, **options}
    return build("data", spec, "sparsejax.envs")
