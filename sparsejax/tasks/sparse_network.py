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
from sparsejax.tasks import averaging, starting, stepping
from sparsejax.tasks.base import TrainState

#: Arguments of methods that are specs themselves, and where those are.
NESTED = {
    "distribution": "sparsejax.distributions",
    "drop_fraction": "sparsejax.schedules",
    "schedule": "sparsejax.schedules",
    "structure": "sparsejax.structures",
}
# Fields of config.data that describe batches, not the dataset.
_BATCH_FIELDS = ("batch_size", "worker_count")
_INITIALISATIONS = ("dense", "fan_in_corrected", "gradient_flow", "srigl_gradient_flow")


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
      step: Maps a state and an objective to what a training step makes of it, as
        :func:`sparsejax.tasks.stepping.stepping` says.
      evaluated: Maps a state to the parameters and the model state to evaluate: the
        last step's, or their average where ``config.average`` asks for one.
    """

    module: Any
    layout: Layout | None
    start: starting.Start | None
    initialise: Callable[[Key[Array, ""]], TrainState]
    forward: Callable[..., Array]
    train_forward: Callable[..., tuple[Array, PyTree]]
    step: Callable[..., stepping.Step]
    evaluated: Callable[[TrainState], averaging.Average]


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
    initialise_weights = initialization_of(config)
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
    graph, _, no_state = split(module)
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
        return outputs, split(model)[2]

    def make_transformation(
        seed: Any, model_state: PyTree, **offered: Any
    ) -> optax.GradientTransformationExtraArgs:
        ones = jnp.ones((1, *dataset.input_shape), dataset.input_dtype)
        return build(
            "method",
            config["method"],
            "sparsejax.methods",
            inner,
            nested=NESTED,
            seed=seed,
            layout=layout,
            network=lambda params: forward(params, model_state, ones),
            **offered,
        )

    # After the initialisation a method draws from the key in its state, not from its
    # seed, and looks at no network, so that one transformation updates the states of
    # all keys.
    _, shapes, _ = split(module)
    started = starting.start_of(config, shapes, no_state)
    kept = None if started is None else started.masks
    given = {} if kept is None else {"initial_masks": kept}
    transformation = make_transformation(0, no_state, **given)

    def initialise(
        key: Key[Array, ""], start: starting.Start | None = started
    ) -> TrainState:
        model_key, mask_key, weight_key, state_key = jax.random.split(key, 4)
        _, params, model_state = split(make_model(model_key))
        offered: dict[str, Any] = {}
        if start is not None:
            params = jax.tree.map(
                lambda new, old: new if old is None else old,
                params,
                start.params,
            )
            model_state = start.model_state or model_state
            if start.masks is not None:
                offered["initial_masks"] = start.masks
        params, optimizer_state = sparse_start(
            lambda **given: make_transformation(
                mask_key, model_state, **{**offered, **given}
            ),
            params,
            key=weight_key,
            initialization=initialise_weights,
            layout=layout,
        )
        step = jnp.zeros((), jnp.int32)
        state = TrainState(step, params, model_state, optimizer_state, state_key)
        if decay is None:
            return state
        average = averaging.first_average(params, model_state, optimizer_state)
        return state._replace(average=average)

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
        stepping.stepping(transformation, decay),
        evaluated,
    )


def initialization_of(config: Mapping[str, Any]) -> str:
    """Reads ``config.initialization``.

    Args:
      config: The config.

    Returns:
      ``"dense"`` by default.

    Raises:
      ConfigError: It names none.
    """
    name = config.get("initialization", "dense")
    if name not in _INITIALISATIONS:
        raise ConfigError(
            f"config.initialization = {name!r}: use one of "
            f"{', '.join(map(repr, _INITIALISATIONS))}."
        )
    return name


def sparse_start(
    make_transformation: Callable[..., optax.GradientTransformationExtraArgs],
    params: PyTree,
    *,
    key: Key[Array, ""],
    initialization: str,
    layout: Layout | None,
) -> tuple[PyTree, optax.OptState]:
    """Makes new parameters sparse, and scales them as their masks ask for.

    Args:
      make_transformation: Makes the method around its optimizer, from further
        arguments of the method.
      params: Dense.
      key: Where the initialisation draws from, if it draws.
      initialization: Of `initialization_of`.
      layout: Roles of the parameters' axes, where the default is wrong.

    Returns:
      The sparse parameters, and the optimizer's state.
    """
    optimizer_state = make_transformation().init(params)
    if initialization != "dense":
        masks = sj.masks(optimizer_state)
        params = _initialised(initialization, params, masks, key, layout)
        # Some optimizers keep a copy of the parameters: theirs, too, are these. The
        # masks stay, even where they would follow from the weights.
        keeps = isinstance(optimizer_state, MaskedState)
        given = {"initial_masks": masks} if keeps else {}
        optimizer_state = make_transformation(**given).init(params)
    return sj.sparsify(params, optimizer_state), optimizer_state


def split(model: nnx.Module) -> tuple[nnx.GraphDef, PyTree, PyTree]:
    """Splits a module into its structure, its parameters and its other arrays.

    Args:
      model: With arrays, or with shapes in their place.

    Returns:
      What `flax.nnx.merge` needs; the two trees are plain dicts.
    """
    graph, params, others = nnx.split(model, nnx.Param, ...)
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(others)


def _initialised(
    name: str, params: PyTree, masks: PyTree, key: Array, layout: Layout | None
) -> PyTree:
    if name == "fan_in_corrected":
        return initialization.fan_in_corrected(params, masks, layout=layout)
    return getattr(initialization, name)(params, masks, key=key, layout=layout)
