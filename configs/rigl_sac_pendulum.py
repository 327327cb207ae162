"""RigL of a SAC agent that swings up a pendulum.

Five seeds are trained side by side, in one program.

Paper: Graesser et al., 2022, "The state of sparse training in deep reinforcement
  learning": its methods and schedules. LayerNorm is ours.
Cost: 10,000 updates of five agents; eight of them took 5 min on a 2-core CPU.
Expected: a return of -145.5 at 95 % sparsity: the interquartile mean of the last
evaluations of eight agents (--config.seeds=8), 95 % interval -155.2 to -132.2.

  python -m sparsejax.train --config=configs/rigl_sac_pendulum.py
  python -m sparsejax.train --config=rigl_sac_pendulum --config.seeds=3
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the only argument is ``pendulum``, the default."""
    return recipes.sac_pendulum("rigl", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"method.sparsity": (0.9, 0.95, 0.98)})
