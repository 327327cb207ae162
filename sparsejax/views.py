"""Views: how parameters follow from dense latent weights, and gradients lead back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sparsejax.layers import Layer, leaves_with_paths
from sparsejax.leaves import zero_outside
from sparsejax.rules import remaining_count
from sparsejax.state import ReparametrizedState, find_states, unpack_all
from sparsejax.structures import Structure

__all__ = [
    "Granularity",
    "Snapshot",
    "SoftThreshold",
    "TopK",
    "View",
    "evaluation_values",
    "shared_shape",
    "snapshot",
    "sum_to",
    "values_by_path",
    "view_values",
]

Arrays = list[Float[Array, "..."]]
Masks = list[Bool[Array, "..."]]
Granularity = Literal["layer", "channel", "weight"]


class Snapshot(NamedTuple):
    """What a view is made from; the lists are aligned with ``layers``.

    Attributes:
      layers: the sparsified leaves (static).
      structure: family of masks.
      step: updates made before.
      key: random key of this step.
      latents: the dense weights, float32 or wider.
      masks: where the view can be other than zero.
      extra: what the method trains beside weights.
      memory: what the method keeps and does not train.
      values: current values of the method's schedules.
    """

    layers: Sequence[Layer]
    structure: Structure
    step: Int[Array, ""]
    key: PRNGKeyArray
    latents: Arrays
    masks: Masks
    extra: Any
    memory: Any
    values: Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class View:
    """How parameters follow from latent weights; a base class.

    It is kept in the state as static metadata: fields are numbers and names, so that
    two views of the same arguments are equal. What changes with the step is a schedule
    of the engine's ``values`` and comes in the snapshot.

    Attributes:
      budgeted: whether masks have the counts of a budget.
    """

    budgeted: ClassVar[bool] = True

    def init(
        self, now: Snapshot, budgets: Sequence[Int[Array, "..."]]
    ) -> tuple[Any, Any]:
        """The first ``extra`` and ``memory``; the snapshot's own are None."""
        del now, budgets
        return None, None

    def select(
        self,
        now: Snapshot,
        budgets: Sequence[Int[Array, "..."]],
        where: Masks | None = None,
    ) -> tuple[Masks, Any]:
        """New masks and the memory that goes with them.

        Args:
          now: its masks are those before.
          budgets: weights to keep in the end, per leaf an array over stacked layers.
          where: entries that may be selected, at ``init`` from given masks.
        """
        raise NotImplementedError

    def forward(self, now: Snapshot) -> Arrays:
        """The view's values; the engine zeroes them outside the masks."""
        raise NotImplementedError

    def pull(self, now: Snapshot, gradients: Arrays) -> tuple[Arrays, Any]:
        """Gradients of latents and of ``extra`` from those of the view.

        By default the true ones, of the masked `forward`.
        """

        def forward(latents, extra):
            values = self.forward(now._replace(latents=latents, extra=extra))
            return zero_outside(values, now.masks)

        _, back = jax.vjp(forward, now.latents, now.extra)
        return back(gradients)

    def penalty(self, now: Snapshot) -> Float[Array, ""] | None:
        """What is added to the loss; its gradient joins that of `pull`."""
        del now
        return None

    def trainable(self, now: Snapshot) -> Masks | None:
        """Where latents and their statistics move; None for everywhere."""
        del now
        return None

    def constrain(self, extra: Any) -> Any:
        """Brings ``extra`` back to its domain after a step."""
        return extra

    def evaluate(self, now: Snapshot) -> Arrays | None:
        """The deterministic network's weights, where `forward` draws random ones."""
        del now
        return None


@dataclasses.dataclass(frozen=True)
class TopK(View):
    """The latents of largest magnitude; the gradient passes to all (straight through).

    A schedule ``share`` of the final zeros makes the budget a gradual one.
    """

    def select(self, now, budgets, where=None):
        counts = list(budgets)
        if "share" in now.values:
            counts = [
                remaining_count(now.values["share"], layer.size // layer.slices, count)
                for layer, count in zip(now.layers, budgets, strict=True)
            ]
        scores = [jnp.abs(latent) for latent in now.latents]
        return now.structure.select(now.layers, scores, counts, where), now.memory

    def forward(self, now):
        return now.latents

    def pull(self, now, gradients):
        return gradients, now.extra


@dataclasses.dataclass(frozen=True)
class SoftThreshold(View):
    """``sign(w) relu(|w| - sigmoid(s))`` with trained thresholds ``s``.

    Attributes:
      granularity: what shares a threshold.
      initial: the first ``s``.
    """

    granularity: Granularity
    initial: float

    budgeted: ClassVar[bool] = False

    def init(self, now, budgets):
        shapes = [shared_shape(layer, self.granularity) for layer in now.layers]
        return [jnp.full(shape, self.initial, jnp.float32) for shape in shapes], None

    def select(self, now, budgets, where=None):
        return [above > 0 for above in self.above(now)], now.memory

    def forward(self, now):
        pairs = zip(now.latents, self.above(now), strict=True)
        return [jnp.sign(latent) * jax.nn.relu(above) for latent, above in pairs]

    def above(self, now: Snapshot) -> Arrays:
        """By how much magnitudes exceed their threshold."""
        pairs = zip(now.latents, now.extra, strict=True)
        return [jnp.abs(w) - jax.nn.sigmoid(s).astype(w.dtype) for w, s in pairs]


def shared_shape(layer: Layer, granularity: Granularity) -> tuple[int, ...]:
    """Shape of what is shared by a layer or by a neuron, to broadcast over a leaf.

    Example:
      >>> from sparsejax.layers import Layer, flax
      >>> layer = Layer("kernel", (3, 5), flax()("kernel", (3, 5)))
      >>> [shared_shape(layer, each) for each in ("layer", "channel", "weight")]
      [(1, 1), (1, 5), (3, 5)]
    """
    spec = layer.spec
    own = {
        "layer": spec.stacked,
        "channel": spec.stacked + spec.fan_out,
        "weight": tuple(range(len(layer.shape))),
    }[granularity]
    return tuple(n if axis in own else 1 for axis, n in enumerate(layer.shape))


def sum_to(array: Float[Array, "..."], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Sums an array to the shape of what its entries share (`shared_shape`).

    Example:
      >>> sum_to(jnp.ones((3, 5)), (1, 5)).tolist()
      [[3.0, 3.0, 3.0, 3.0, 3.0]]
    """
    axes = tuple(axis for axis, n in enumerate(array.shape) if n != shape[axis])
    return jnp.sum(array, axis=axes, keepdims=True)


def snapshot(state: ReparametrizedState) -> Snapshot:
    """What the view in the parameters was made from."""
    design = state.design
    latents = dict(leaves_with_paths(state.latents))
    masks = dict(leaves_with_paths(unpack_all(state.masks)))
    for layer in design.layers:
        if latents[layer.path].shape != layer.shape:
            raise ValueError(
                f"{layer.path} has shape {latents[layer.path].shape} in this optimizer "
                f"state, not {layer.shape}; for the states of several replicas call "
                "this under jax.vmap"
            )
    return Snapshot(
        layers=design.layers,
        structure=design.structure,
        step=state.count,
        key=jax.random.fold_in(state.key, state.count),
        latents=[latents[layer.path] for layer in design.layers],
        masks=[masks[layer.path] for layer in design.layers],
        extra=state.extra,
        memory=state.memory,
        values=state.values,
    )


def view_values(view: View, now: Snapshot) -> Arrays:
    """The view: `View.forward`, exactly zero outside the masks."""
    return zero_outside(view.forward(now), now.masks)


def values_by_path(state: optax.OptState) -> dict[str, Float[Array, "..."]]:
    """Path -> value of every leaf that is the view of a latent weight."""
    return _by_path(state, lambda view, now: view_values(view, now))


def evaluation_values(state: optax.OptState) -> dict[str, Float[Array, "..."]]:
    """Path -> weight of the deterministic network, where the view is a random one."""
    return _by_path(state, lambda view, now: view.evaluate(now))


def _by_path(state, make) -> dict[str, Any]:
    found = {}
    for one in find_states(state):
        if isinstance(one, ReparametrizedState):
            paths = [layer.path for layer in one.design.layers]
            values = make(one.design.view, snapshot(one))
            found |= {} if values is None else dict(zip(paths, values, strict=True))
    return found
