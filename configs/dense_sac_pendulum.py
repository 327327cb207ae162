"""Dense training of a SAC agent that swings up a pendulum.

Five seeds are trained side by side, in one program.

Paper: Graesser et al., 2022, "The state of sparse training in deep reinforcement
  learning": its methods and schedules. LayerNorm is ours.
Cost: 10,000 updates of five agents; eight of them took 5 min on a 2-core CPU.
Expected: a return of -146.3: the interquartile mean of the last
evaluations of eight agents (--config.seeds=8), 95 % interval -158.7 to -136.6.

  python -m sparsejax.train --config=configs/dense_sac_pendulum.py
  python -m sparsejax.train --config=dense_sac_pendulum --config.seeds=2
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the only argument is ``pendulum``, the default."""
    return recipes.sac_pendulum("dense", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"seed": range(3)})
