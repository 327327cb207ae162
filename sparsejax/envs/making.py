"""Environments by their names."""

from __future__ import annotations

from typing import Any

from sparsejax.building import ConfigError, build
from sparsejax.envs.base import Environment
from sparsejax.envs.distractors import with_distractors, with_observation_noise

__all__ = ["make"]


def make(
    name: str,
    *,
    distractors: int = 0,
    distractor_scale: float = 1.0,
    observation_noise: float = 0.0,
    **options: Any,
) -> Environment:
    """Makes an environment.

    Args:
      name: ``"LIBRARY:NAME"``: ``"gymnax:Breakout-MinAtar"``, ``"brax:ant"``; the
        library is a file in ``sparsejax/envs``, or a function of yours as
        ``"mypackage.mylibrary:NAME"``.
      distractors: Features of pure noise to append to each observation.
      distractor_scale: Their standard deviation.
      observation_noise: Standard deviation of the noise on the observation itself.
      **options: Arguments of that library's function, such as ``backend`` for brax.

    Returns:
      The environment.

    Raises:
      ConfigError: There is no such library, environment or option, or its observations
        cannot have noise.

    Example:
      >>> make("gymnax:CartPole-v1").number_of_actions
      2
      >>> make("gymnax:CartPole-v1", distractors=36).observation_shape
      (40,)
    """
    library, colon, environment = name.partition(":")
    if not colon or not environment:
        raise ConfigError(
            f"config.data.name = {name!r}: give the library and the environment, such "
            "as 'gymnax:CartPole-v1' or 'brax:ant'."
        )
    spec = {"name": library, "environment": environment, **options}
    made = build("data", spec, "sparsejax.envs")
    made = with_observation_noise(made, scale=observation_noise)
    return with_distractors(made, count=distractors, scale=distractor_scale)
