"""Tasks: what one training step and one evaluation are, one file per task.

Every task file has one function of its own name that takes the config and returns a
:class:`sparsejax.tasks.base.Task`.
"""

from sparsejax.extras import require

require("flax", extra="train")
