"""Training on of a transformer that was pruned at once, with the masks that it got.

Paper: Sun et al., 2024, "A simple and effective pruning approach for large language
models" (Wanda), which trains on, too; `sparsejax.prune` knows other ways.
Cost: python, 250 steps of 2,048 bytes, about 2 min on a 2-core CPU; lm1b and c4, 25,000
steps of 65,536 and 262,144 tokens, on accelerators.
Expected: python, 1.913 bits per byte (one seed; 1.901 dense, 2.173 as it was pruned);
lm1b and c4, not measured.

  python -m sparsejax.train --config=dense_transformer
  python -m sparsejax.prune --checkpoint=runs/dense_transformer --method=wanda \\
      --structure=2:4
  python -m sparsejax.train --config=configs/static_pruned_transformer.py
  python -m sparsejax.train --config=configs/static_pruned_transformer.py:c4
  python -m sparsejax.train --config=static_pruned_transformer --config.seed=1
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config for ``python``, the default, ``lm1b`` or ``c4``."""
    config = recipes.transformer("static", argument, variant="pruned")
    config.start_from.workdir = "runs/dense_transformer-wanda-2of4"
    config.start_from.topology = "keep"
    config.method.sparsity = 0.5
    config.method.distribution = "uniform"
    config.steps = config.steps // 4
    config.optimizer.learning_rate = config.optimizer.learning_rate / 4
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"seed": range(3)})
