"""What a sparse network costs: parameters, FLOPs and bytes, counted exactly.

`sparsejax.cost(function, params, masks, *inputs)` counts any JAX function;
`python -m sparsejax.cost --config=NAME` counts what a config would train.
"""

from sparsejax.cost.counting import cost
from sparsejax.cost.records import (
    ActivationBytes,
    Cost,
    LayerCost,
    Number,
    StoredBytes,
    TrainingCost,
)
from sparsejax.cost.training import training_cost

__all__ = [
    "ActivationBytes",
    "Cost",
    "LayerCost",
    "Number",
    "StoredBytes",
    "TrainingCost",
    "cost",
    "training_cost",
]
