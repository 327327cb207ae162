"""Finding the step and the layer at which a run stopped being finite."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from sparsejax.layers import leaves_with_paths


class DivergedError(Exception):
    """The loss or a parameter is not finite any more; one line."""


class Health(NamedTuple):
    """What one step leaves behind for the diagnosis; small, to be read a step later.

    Attributes:
      loss: The training loss.
      largest: Per parameter leaf, the largest magnitude before the step.
      finite: Per parameter leaf, whether all entries are finite after the step.
    """

    loss: Float[Array, ""]
    largest: Float[Array, "leaves"]
    finite: Bool[Array, "leaves"]


def health(loss: Float[Array, ""], before: PyTree, after: PyTree) -> Health:
    """Measures, within the compiled step, what :func:`check` needs.

    Args:
      loss: The training loss.
      before: Parameters before the step.
      after: Parameters after it.

    Returns:
      A few numbers per leaf.
    """
    largest = [_largest(leaf) for leaf in jax.tree.leaves(before)]
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(after)]
    return Health(loss, jnp.stack(largest), jnp.stack(finite))


def check(step: int, measured: Health, params: PyTree) -> None:
    """Raises if a step was not finite.

    Args:
      step: The number of the step, counted from 1.
      measured: What :func:`health` returned in it.
      params: Any tree with the same paths as the parameters.

    Raises:
      DivergedError: Naming the step and the layer.
    """
    loss, finite = float(measured.loss), np.asarray(measured.finite)
    if np.isfinite(loss) and finite.all():
        return
    paths = [path for path, _ in leaves_with_paths(params)]
    if finite.all():
        culprit = "all parameters are finite"
    elif finite.any():
        broken = [path for path, ok in zip(paths, finite, strict=True) if not ok]
        culprit = f"not finite: {', '.join(broken[:3])}"
        culprit += f" and {len(broken) - 3} more" if len(broken) > 3 else ""
    else:
        largest = np.asarray(measured.largest)
        layer = paths[int(largest.argmax())]
        culprit = (
            f"not finite: {paths[0]} and every other; before it the largest weights "
            f"were those of {layer} ({largest.max():.3g})"
        )
    raise DivergedError(
        f"step {step}: loss = {loss} ({culprit}); lower config.optimizer.learning_rate,"
        " warm it up, or clip the gradient."
    )


def _largest(leaf: Array) -> Float[Array, ""]:
    return jnp.max(jnp.abs(leaf), initial=0).astype(jnp.float32)
