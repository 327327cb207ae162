"""brax: robots that learn to move, in JAX."""

from __future__ import annotations

import contextlib
import difflib
import io
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from sparsejax.building import ConfigError
from sparsejax.envs.base import Environment, Step, auto_reset
from sparsejax.extras import require

__all__ = ["brax"]

BACKENDS = ("generalized", "positional", "spring", "mjx")


class Episode(NamedTuple):
    """A robot in its episode.

    Attributes:
      state: Of brax.
      steps: Taken in this episode.
    """

    state: Any
    steps: Int[Array, ""]


def brax(
    environment: str, *, backend: str | None = None, episode_limit: int = 1_000
) -> Environment:
    """Makes an environment of brax.

    A new episode begins in a state drawn anew, where brax's own wrapper goes back to
    the first one of its copy: on a CPU the draw took a fifth of a step's time for
    inverted_pendulum, a ninth for ant, less for hopper, reacher and halfcheetah.

    Args:
      environment: Its name there: ``"inverted_pendulum"``, ``"reacher"``,
        ``"hopper"``, ``"walker2d"``, ``"halfcheetah"``, ``"ant"``, ``"humanoid"``, or
        another; ``"fast"`` is a point without physics, for tests. (Of brax 0.14.2,
        ``"swimmer"`` does not run with today's jax.)
      backend: The physics, ``"generalized"``, ``"positional"``, ``"spring"`` or
        ``"mjx"``; None is the environment's own default. Returns of one do not compare
        with those of another.
      episode_limit: Steps after which an episode is cut off.

    Returns:
      The environment; actions are in [-1, 1].

    Raises:
      ConfigError: There is no such environment or backend, or the limit is below 1.
      ImportError: brax is not installed.

    Example:
      >>> found = brax("fast", episode_limit=50)
      >>> found.observation_shape, found.action_low.tolist(), found.episode_limit
      ((2,), [-1.0], 50)

    References:
      Freeman et al., "Brax: A differentiable physics engine for large scale rigid body
      simulation", NeurIPS datasets and benchmarks, 2021. It is no longer extended; its
      authors name MuJoCo Playground as the successor.
    """
    if not isinstance(episode_limit, int) or episode_limit < 1:
        raise ConfigError(
            f"config.data.episode_limit = {episode_limit!r}: give an integer >= 1."
        )
    made = _made(environment, backend)

    def reset(key: Key[Array, ""]) -> tuple[Episode, Array]:
        state = made.reset(key)
        return Episode(state, jnp.zeros((), jnp.int32)), state.obs

    def step(
        key: Key[Array, ""], episode: Episode, action: Array
    ) -> tuple[Episode, Step]:
        del key
        state = made.step(episode.state, action)
        episode = Episode(state, episode.steps + 1)
        terminated = jnp.asarray(state.done) > 0
        return episode, Step(
            state.obs,
            state.obs,
            jnp.asarray(state.reward, jnp.float32),
            terminated,
            (episode.steps >= episode_limit) & ~terminated,
        )

    observation = jax.eval_shape(reset, jax.random.key(0))[1]
    actions = np.ones((made.action_size,), np.float32)
    return Environment(
        name=f"brax:{environment}",
        reset=reset,
        step=auto_reset(reset, step),
        observation_shape=tuple(observation.shape),
        observation_dtype=observation.dtype,
        episode_limit=episode_limit,
        action_low=-actions,
        action_high=actions,
    )


def _made(environment: str, backend: str | None) -> Any:
    with _quiet():
        library: Any = require("brax.envs", extra="rl")
    names = sorted(library._envs)
    if environment not in names:
        near = difflib.get_close_matches(environment, names, n=2)
        hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
        raise ConfigError(
            f"config.data.name = 'brax:{environment}': unknown{hint}; known: "
            f"{', '.join(names)}."
        )
    if backend is not None and backend not in BACKENDS:
        raise ConfigError(
            f"config.data.backend = {backend!r}: unknown; give one of "
            f"{', '.join(BACKENDS)}, or None for the environment's own."
        )
    options = {} if backend is None else {"backend": backend}
    try:
        with _quiet():
            return library.get_environment(environment, **options)
    except ValueError as error:
        raise ConfigError(
            f"config.data.backend = {backend!r}: brax has none such for "
            f"{environment!r} ({error}); leave it None for the environment's own."
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what brax says of packages it can do without, and of its maintenance.

    MuJoCo's warnings of files that are brax's own would also be kept in a file.
    """
    mujoco: Any = require("mujoco", extra="rl")
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            mujoco.set_mju_user_warning(before)
