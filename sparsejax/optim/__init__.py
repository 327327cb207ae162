"""Optimizers that keep every weight's age, and so are safe for weights that grow.

Weight ``i`` of age ``a`` was updated ``a`` times since it began, or began again after a
topology move: the reset of an optimizer's statistics outside the mask resets the age
with them. Without regrown weights each is optax's optimizer of the same name.
"""

from sparsejax.optim.adam import AdamState, adam, adamw, scale_by_adam
from sparsejax.optim.ages import WarmUpState, warm_up_regrown
from sparsejax.optim.density import scale_by_density
from sparsejax.optim.rmsprop import RmsState, rmsprop, scale_by_rms

__all__ = [
    "AdamState",
    "RmsState",
    "WarmUpState",
    "adam",
    "adamw",
    "rmsprop",
    "scale_by_adam",
    "scale_by_density",
    "scale_by_rms",
    "warm_up_regrown",
]
