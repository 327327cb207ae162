"""RigL of a PPO agent that balances a pole.

Five seeds are trained side by side, in one program.

Paper: Schulman et al., 2017, "Proximal policy optimization algorithms". Sparse:
  Graesser et al., 2022, "The state of sparse training in deep reinforcement learning".
  LayerNorm is ours.
Cost: two minutes of processor time; 6.7 minutes on two cores that other work shared.
Expected: return 500 of 500 with each of the five seeds, 95 % sparse.

  python -m sparsejax.train --config=configs/rigl_ppo_cartpole.py
  python -m sparsejax.train --config=rigl_ppo_cartpole --config.seeds=3
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the only argument is ``cartpole``, the default."""
    return recipes.ppo_cartpole("rigl", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.9, 0.95, 0.98)})
