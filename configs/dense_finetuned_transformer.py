"""Dense fine-tuning of a transformer that was trained sparse.

Paper: Thangarasa et al., 2023, "SPDF: sparse pre-training and dense fine-tuning for
large language models".
Cost: python, 1,000 steps of 2,048 bytes, about 5 min on a 2-core CPU; lm1b and
c4, 100,000 steps of 65,536 and 262,144 tokens, on accelerators.
Expected: not measured.

  python -m sparsejax.train --config=static_transformer --config.method.sparsity=0.75
  python -m sparsejax.train --config=configs/dense_finetuned_transformer.py
  python -m sparsejax.train --config=configs/dense_finetuned_transformer.py:c4
  python -m sparsejax.train --config=dense_finetuned_transformer --config.seed=1
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sparsejax import recipes


def get_config(argument: str | None = None) -> ConfigDict:
    """Builds the config for ``python``, the default, ``lm1b`` or ``c4``."""
    config = recipes.transformer("dense", argument, variant="finetuned")
    config.start_from.workdir = "runs/static_transformer"
    config.start_from.topology = "densify"
    config.steps = config.steps // 4
    config.optimizer.learning_rate = config.optimizer.learning_rate / 4
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Yields the overrides of a small study."""
    return recipes.grid({"seed": range(3)})
