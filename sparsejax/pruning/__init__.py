"""Pruning networks that are trained already, from their weights and a little data.

Each function returns the pruned parameters and their masks, from which any method goes
on: ``sj.static(optax.adam(1e-4), sparsity=None, initial_masks=masks)``.
"""

from sparsejax.pruning.magnitude import magnitude
from sparsejax.pruning.slimming import scale_penalty, slim
from sparsejax.pruning.sparsegpt import prune_rows, sparsegpt
from sparsejax.pruning.wanda import input_scores, wanda

__all__ = [
    "input_scores",
    "magnitude",
    "prune_rows",
    "scale_penalty",
    "slim",
    "sparsegpt",
    "wanda",
]
