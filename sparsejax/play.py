"""Plays episodes with an agent that was trained, one action at a time.

  python -m sparsejax.play --workdir=RUN [--episodes=N] [--agent=K] [--compressed]
                           [--observation-noise=S] [--seed=S] [--output=FILE]

--workdir            The run directory of an agent, such as that of rigl_dqn_cartpole;
                     its newest checkpoint that is whole is read.
--episodes           How many, one after the other; default 5.
--agent              Which of the agents that were trained side by side; default 0.
--compressed         Acts with compressed weights, which skip the zeros.
--observation-noise  Standard deviation of Gaussian noise on every entry of what the
                     agent sees, for its robustness; default 0.
--seed               Of the episodes; default 0.
--output             Also writes the acting network to this .safetensors file, for
                     `sparsejax.nn.load`.

Returns go to standard output, a line each and their mean; how long an action takes, the
network alone at batch 1, goes to standard error.

Exit codes: 0 played; 2 the command, the run or the installation is at fault; 74 a file
could not be read or written; 130 interrupted by Ctrl-C.
"""

import sys

from sparsejax.extras import MissingExtraError, require_for_program

require_for_program(
    "sparsejax.play",
    "absl flax grain ml_collections orbax.checkpoint tensorflow_datasets",
    extra="train",
    started=__name__ == "__main__",
)

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from jaxtyping import Array, Key

from sparsejax.building import ConfigError
from sparsejax.nn import compress, save
from sparsejax.programs import Parser, failed
from sparsejax.restoring import restored
from sparsejax.runs import RunError
from sparsejax.tasks.base import Policy

DONE, MISUSED, FILE_ERROR, INTERRUPTED = 0, 2, 74, 130


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
        return DONE if arguments else MISUSED
    logging.set_verbosity(logging.FATAL)
    tfds.disable_progress_bar()
    try:
        return run(_parsed(arguments))
    except (ConfigError, RunError, MissingExtraError) as error:
        return failed("sparsejax.play", MISUSED, error)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        return failed("sparsejax.play", FILE_ERROR, error)


def run(options: argparse.Namespace) -> int:
    """Plays the episodes.

    Args:
      options: of the command line.

    Returns:
      The exit code.

    Raises:
      ConfigError: an option is out of range, or the run is not that of an agent.
      RunError: the run cannot be read.
    """
    found = restored(options.workdir)
    config: Any = found.config
    if found.task.policy is None:
        raise ConfigError(
            f"--workdir={options.workdir}: config.task = {config.task!r} has nothing "
            "that acts; name the run of an agent, such as of rigl_dqn_cartpole."
        )
    if options.agent >= config.get("seeds", 1):
        raise ConfigError(
            f"--agent={options.agent}: the run has {config.get('seeds', 1)} agents, "
            "counted from 0."
        )
    state = found.task.one_of(found.state, options.agent)
    policy = found.task.policy(state)
    if options.compressed:
        policy = compressed(policy)
    if options.output:
        save(options.output, policy.model)
    kind = "compressed" if options.compressed else "masked"
    print(f"step {found.step} of {options.workdir}, {kind}", file=sys.stderr)
    play = player(policy, noise=options.observation_noise)
    returns, times = [], []
    for episode in range(options.episodes):
        key = jax.random.fold_in(jax.random.key(options.seed), episode)
        total, seconds = play(key)
        returns.append(total)
        times += seconds
        print(
            f"episode {episode + 1}: return {total:.2f} in {len(seconds)} steps",
            flush=True,
        )
    print(f"mean return {np.mean(returns):.2f} of {len(returns)} episodes")
    print(
        f"an action takes {1e6 * np.median(times):.0f} us (median of {len(times)})",
        file=sys.stderr,
    )
    return DONE


def compressed(policy: Policy) -> Policy:
    """The policy with compressed weights.

    Args:
      policy: of a sparse agent.

    Returns:
      One that acts the same, to rounding.

    Raises:
      ConfigError: the agent is dense.
    """
    try:
        return policy._replace(model=compress(policy.model, policy.masks))
    except ValueError as error:
        raise ConfigError(f"--compressed: {error}") from error


def player(
    policy: Policy, *, noise: float = 0.0
) -> Callable[[Key[Array, ""]], tuple[float, list[float]]]:
    """Makes a function that plays an episode, step by step.

    Args:
      policy: what acts.
      noise: standard deviation of what is added to every entry of an observation.

    Returns:
      A function of a key; it returns the return, and the seconds that each action took.
    """
    environment = policy.environment

    # The weights are constants: as arguments they would be taken apart at every call,
    # which takes longer than a small network.
    @jax.jit
    def act(observation: Array, key: Array) -> Array:
        observation = observation[None]
        if noise:
            shaken = noise * jax.random.normal(key, observation.shape)
            observation = observation + shaken
        return policy.decide(policy.model(policy.prepare(observation)))[0]

    reset, step = jax.jit(environment.reset), jax.jit(environment.step)

    def play(key: Key[Array, ""]) -> tuple[float, list[float]]:
        key, reset_key = jax.random.split(key)
        state, observation = reset(reset_key)
        jax.block_until_ready(act(observation, key))
        total, seconds = 0.0, []
        for number in range(environment.episode_limit):
            act_key, step_key = jax.random.split(jax.random.fold_in(key, number))
            began = time.monotonic()
            action = jax.block_until_ready(act(observation, act_key))
            seconds.append(time.monotonic() - began)
            state, found = step(step_key, state, action)
            observation = found.observation
            total += float(found.reward)
            if found.terminated or found.truncated:
                break
        return total, seconds

    return play


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--agent", type=int, default=0)
    parser.add_argument("--compressed", action="store_true")
    parser.add_argument("--observation-noise", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output")
    options = parser.parse_args(arguments)
    if options.episodes < 1 or options.agent < 0 or options.observation_noise < 0:
        raise ConfigError(
            f"--episodes={options.episodes}, --agent={options.agent}, "
            f"--observation-noise={options.observation_noise}: use at least 1, 0 and 0."
        )
    return options


if __name__ == "__main__":
    sys.exit(main())
