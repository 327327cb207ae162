"""The network that a config describes, initialised sparse, and its updates."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Key, Num, PyTree

import sparsejax as sj
from sparsejax import initialization
from sparsejax.building import ConfigError, build
from sparsejax.data.pipeline import Dataset, check_batch_size
from sparsejax.layers import Layout
from sparsejax.state import MaskedState
from sparsejax.tasks import averaging, starting
from sparsejax.tasks.base import TrainState

_NESTED = {
    "distribution": "sparsejax.distributions",
    "drop_fraction": "sparsejax.schedules",
    "schedule": "sparsejax.schedules",
    "structure": "sparsejax.structures",
}
# Fields of config.data that describe batches, not the dataset.
_BATCH_FIELDS = ("batch_size", "worker_count")
_INITIALISATIONS = ("dense", "fan_in_corrected", "gradient_flow", "srigl_gradient_flow")


Objective = Callable[[PyTree, PyTree], tuple[Float[Array, ""], tuple[Any, PyTree]]]


class Step(NamedTuple):
    """What a training step made.

    Attributes:
      state: The state after it.
      loss: The objective, before it.
      outputs: What the objective returned beside the loss.
      gradient_norm: Of the raw, dense gradient.
    """

    state: TrainState
    loss: Float[Array, ""]
    outputs: Any
    gradient_norm: Float[Array, ""]


class SparseNetwork(NamedTuple):
    """A network as pure functions; parameters and other arrays are plain trees.

    Attributes:
      module: The network with shapes in place of arrays.
      layout: Roles of the parameters' axes, where the default is wrong.
      start: What ``initialise`` begins with, from another run; None for new weights.
      initialise: Maps a key to the state before the first step, already sparse. Where
        there is a ``start``, hand it over as the second argument: a compiled function
        would else hold its arrays as constants.
      forward: Maps parameters, model state and inputs to the outputs in inference;
        keyword arguments are the model's own.
      train_forward: The same in training; returns outputs and the new model state.
      step: Maps a state and an objective to what a training step makes of it. The
        objective takes parameters and model state, and returns the loss with a pair of
        outputs and new model state. A second objective, by default the same, is what a
        method that asks for ``grad_fn`` differentiates.
      evaluated: Maps a state to the parameters and the model state to evaluate: the
        last step's, or their average where ``config.average`` asks for one.
      step_by_parts: A ``step`` of which the objective, its outputs and its gradient are
        sums over parts of the batch, made one after the other. Takes the state, the
        objective of parameters, model state and a part, and all parts, stacked.
    """

    module: Any
    layout: Layout | None
    start: starting.Start | None
    initialise: Callable[[Key[Array, ""]], TrainState]
    forward: Callable[..., Array]
    train_forward: Callable[..., tuple[Array, PyTree]]
    step: Callable[..., Step]
    evaluated: Callable[[TrainState], averaging.Average]
    step_by_parts: Callable[..., Step]


def dataset(config: Mapping[str, Any]) -> Dataset:
    """Builds ``config.data``.

    Args:
      config: The config; ``data`` has a file's name and arguments, ``batch_size`` and
        ``worker_count``.

    Returns:
      The dataset.

    Raises:
      ConfigError: For an unknown name or argument, or a batch that is too large.
    """
    fields = dict(config["data"])
    spec = {k: v for k, v in fields.items() if k not in _BATCH_FIELDS}
    found = build("data", spec, "sparsejax.data")
    check_batch_size(found, fields["batch_size"])
    return found


def build_network(
    config: Mapping[str, Any], dataset: Dataset, *, inner: optax.GradientTransformation
) -> SparseNetwork:
    """Builds ``config.model`` and ``config.method`` for the inputs of a dataset.

    Unless ``method.seed`` is set, the masks are drawn from the key of the
    initialisation. Methods that ask for it get ``network``, the initial network's
    outputs in inference for one input of ones. A model whose leaves are stacked layers
    says so by an attribute ``layout`` (`sparsejax.layers.Layout`).

    Args:
      config: The config: ``model``, ``method``, ``initialization``, ``average`` and
        ``start_from`` (`sparsejax.tasks.starting`).
      dataset: Whose inputs the network takes, and whose classes it tells apart.
      inner: The optimizer.

    Returns:
      The network.

    Raises:
      ConfigError: For an unknown name or argument, or a value out of range.
    """
    initialise_weights = config.get("initialization", "dense")
    if initialise_weights not in _INITIALISATIONS:
        raise ConfigError(
            f"config.initialization = {initialise_weights!r}: use one of "
            f"{', '.join(map(repr, _INITIALISATIONS))}."
        )
    decay = averaging.average_decay(config)

    def make_model(key: Key[Array, ""]) -> nnx.Module:
        return build(
            "model",
            config["model"],
            "sparsejax.models",
            dataset.input_shape,
            dataset.number_of_classes,
            rngs=nnx.Rngs(key),
        )

    module = nnx.eval_shape(lambda: make_model(jax.random.key(0)))
    graph, _, no_state = _split(module)
    layout = getattr(module, "layout", None)

    def forward(
        params: PyTree,
        model_state: PyTree,
        inputs: Num[Array, "batch ..."],
        **context: Any,
    ) -> Float[Array, "batch ..."]:
        return nnx.merge(graph, params, model_state)(inputs, train=False, **context)

    def train_forward(
        params: PyTree,
        model_state: PyTree,
        inputs: Num[Array, "batch ..."],
        **context: Any,
    ) -> tuple[Float[Array, "batch ..."], PyTree]:
        model = nnx.merge(graph, params, model_state)
        outputs = model(inputs, train=True, **context)
        return outputs, _split(model)[2]

    def make_transformation(
        seed: Any, model_state: PyTree, **offered: Any
    ) -> optax.GradientTransformationExtraArgs:
        ones = jnp.ones((1, *dataset.input_shape), dataset.input_dtype)
        return build(
            "method",
            config["method"],
            "sparsejax.methods",
            inner,
            nested=_NESTED,
            seed=seed,
            layout=layout,
            network=lambda params: forward(params, model_state, ones),
            **offered,
        )

    # After the initialisation a method draws from the key in its state, not from its
    # seed, and looks at no network, so that one transformation updates the states of
    # all keys.
    _, shapes, _ = _split(module)
    started = starting.start_of(config, shapes, no_state)
    kept = None if started is None else started.masks
    given = {} if kept is None else {"initial_masks": kept}
    transformation = make_transformation(0, no_state, **given)

    def initialise(
        key: Key[Array, ""], start: starting.Start | None = started
    ) -> TrainState:
        model_key, mask_key, weight_key, state_key = jax.random.split(key, 4)
        _, params, model_state = _split(make_model(model_key))
        offered = {}
        if start is not None:
            params = jax.tree.map(
                lambda new, old: new if old is None else old,
                params,
                start.params,
            )
            model_state = start.model_state or model_state
            if start.masks is not None:
                offered["initial_masks"] = start.masks
        transformation = make_transformation(mask_key, model_state, **offered)
        optimizer_state = transformation.init(params)
        if initialise_weights != "dense":
            masks = sj.masks(optimizer_state)
            params = _initialised(initialise_weights, params, masks, weight_key, layout)
            # Some optimizers keep a copy of the parameters: theirs, too, are these. The
            # masks stay, even where they would follow from the weights.
            keeps = isinstance(optimizer_state, MaskedState)
            given = {"initial_masks": masks} if keeps else {}
            again = make_transformation(mask_key, model_state, **given)
            optimizer_state = again.init(params)
        params = sj.sparsify(params, optimizer_state)
        step = jnp.zeros((), jnp.int32)
        state = TrainState(step, params, model_state, optimizer_state, state_key)
        if decay is None:
            return state
        average = averaging.first_average(params, model_state, optimizer_state)
        return state._replace(average=average)

    def step(
        state: TrainState, objective: Objective, scored: Objective | None = None
    ) -> Step:
        differentiate = jax.value_and_grad(objective, has_aux=True)

        def gradients_at(params: PyTree) -> PyTree:
            differentiate = jax.grad(scored or objective, has_aux=True)
            return differentiate(params, state.model_state)[0]

        found = differentiate(state.params, state.model_state)
        return updated(state, found, gradients_at)

    def step_by_parts(
        state: TrainState, objective: Callable[..., Any], parts: PyTree
    ) -> Step:
        differentiate = jax.value_and_grad(objective, has_aux=True)
        first, others = parting(parts)

        def summed(params: PyTree) -> Any:
            def add(found, part):
                (loss, (outputs, model_state)), gradients = found
                (more, (others, next_state)), steps = differentiate(
                    params, model_state, part
                )
                sums = jax.tree.map(
                    jnp.add, (loss, outputs, gradients), (more, others, steps)
                )
                return ((sums[0], (sums[1], next_state)), sums[2]), None

            found = differentiate(params, state.model_state, first)
            if others is None:
                return found
            return jax.lax.scan(add, found, others)[0]

        def gradients_at(params: PyTree) -> PyTree:
            return summed(params)[1]

        return updated(state, summed(state.params), gradients_at)

    def updated(
        state: TrainState, found: Any, gradients_at: Callable[[PyTree], PyTree]
    ) -> Step:
        (loss, (outputs, model_state)), gradients = found
        updates, optimizer_state = transformation.update(
            gradients, state.optimizer_state, state.params, grad_fn=gradients_at
        )
        params = optax.apply_updates(state.params, updates)
        average = None
        if decay is not None:
            average = averaging.next_average(
                state.average,
                params,
                model_state,
                optimizer_state=optimizer_state,
                step=state.step,
                decay=decay,
            )
        new_state = state._replace(
            step=state.step + 1,
            params=params,
            model_state=model_state,
            optimizer_state=optimizer_state,
            average=average,
        )
        return Step(new_state, loss, outputs, optax.tree.norm(gradients))

    def evaluated(state: TrainState) -> averaging.Average:
        if state.average is not None:
            return state.average
        params = sj.evaluation_params(state.params, state.optimizer_state)
        return averaging.Average(params, state.model_state)

    return SparseNetwork(
        module,
        layout,
        started,
        initialise,
        forward,
        train_forward,
        step,
        evaluated,
        step_by_parts,
    )


def parting(parts: PyTree) -> tuple[PyTree, PyTree | None]:
    """The first of some stacked parts of a batch, and the others if there are any.

    Args:
      parts: Arrays of the same first axis.

    Returns:
      The first without that axis, and the others with it; None for none.

    Example:
      >>> parting({"tokens": jnp.arange(2)})[0]["tokens"].item()
      0
    """
    first = jax.tree.map(lambda array: array[0], parts)
    if len(jax.tree.leaves(parts)[0]) == 1:
        return first, None
    return first, jax.tree.map(lambda array: array[1:], parts)


def _split(model: nnx.Module) -> tuple[nnx.GraphDef, PyTree, PyTree]:
    """Splits a module into its structure, its parameters and its other arrays."""
    graph, params, others = nnx.split(model, nnx.Param, ...)
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(others)


def _initialised(
    name: str, params: PyTree, masks: PyTree, key: Array, layout: Layout | None
) -> PyTree:
    if name == "fan_in_corrected":
        return initialization.fan_in_corrected(params, masks, layout=layout)
    return getattr(initialization, name)(params, masks, key=key, layout=layout)
