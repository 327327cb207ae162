"""Gradual pruning of a DQN agent that plays MinAtar's Breakout.

Eight seeds are trained side by side, in one program.

Paper: Graesser et al., 2022, "The state of sparse training in deep reinforcement
  learning": its methods and schedules. LayerNorm is ours.
Cost: 37,500 updates of eight agents, 300,000 frames each; 4 to 12 min on a busy 2-core
CPU.
Expected: a return of 8.8 at 95 % sparsity: the interquartile mean over
eight agents in the last tenth of the evaluations, 95 % interval 7.7 to 10.0,
see experiments/sparse_rl.

  python -m sparsejax.train --config=configs/magnitude_dqn_breakout.py
  python -m sparsejax.train --config=magnitude_dqn_breakout --config.seeds=3
  python -m sparsejax.train --config=magnitude_dqn_breakout:cnn
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; arguments: ``breakout``, the default, or ``cnn``."""
    return recipes.dqn_breakout("magnitude", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.9, 0.95, 0.98)})
