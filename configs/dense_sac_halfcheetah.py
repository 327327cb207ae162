"""Dense training of a SAC agent that makes brax's half-cheetah run.

Eight seeds are trained side by side, in one program.

Paper: Graesser et al., 2022, "The state of sparse training in deep reinforcement
  learning": its methods and schedules. LayerNorm is ours.
Cost: 1,000,000 updates of eight agents: for a GPU; a CPU does for a smoke test.
Expected: not measured.

  python -m sparsejax.train --config=configs/dense_sac_halfcheetah.py
  python -m sparsejax.train --config=dense_sac_halfcheetah --config.seeds=2
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config; the only argument is ``halfcheetah``, the default."""
    return recipes.sac_halfcheetah("dense", argument)


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"seed": range(3)})
