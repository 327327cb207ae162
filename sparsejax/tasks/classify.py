"""Classification of images: cross-entropy, and accuracy on held-out examples."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key, PyTree

import sparsejax as sj
from sparsejax import initialization
from sparsejax.building import ConfigError, build
from sparsejax.data.pipeline import check_batch_size
from sparsejax.state import MaskedState
from sparsejax.tasks import optimization
from sparsejax.tasks.base import Metrics, Task, TrainState

_NESTED = {
    "distribution": "sparsejax.distributions",
    "drop_fraction": "sparsejax.schedules",
    "schedule": "sparsejax.schedules",
    "structure": "sparsejax.structures",
}
# Fields of config.data that describe batches, not the dataset.
_BATCH_FIELDS = ("batch_size", "worker_count")
_INITIALISATIONS = ("dense", "fan_in_corrected", "gradient_flow", "srigl_gradient_flow")


def classify(config: Mapping[str, Any]) -> Task:
    """Builds the classification of ``config.data`` by ``config.model``.

    The loss is the cross-entropy against labels smoothed by ``config.label_smoothing``
    (without smoothing in evaluation). Fields read:

    - ``data``: ``name`` and arguments of a file in ``sparsejax/data``, ``batch_size``.
    - ``model``: ``name`` and arguments of a file in ``sparsejax/models``.
    - ``optimizer``, ``learning_rate_schedule``, ``steps``: see
      :mod:`sparsejax.tasks.optimization`.
    - ``method``: ``name`` and arguments of a file in ``sparsejax/methods``. Unless
      ``method.seed`` is set, the masks are drawn from the key of the initialisation.
      Methods that ask for them get ``network``, the initial network's outputs in
      inference for one image of ones, and in every update ``grad_fn``, from parameters
      to the gradients on the batch.
    - ``scoring_temperature``: divides the logits in ``grad_fn``; default 1. GraSP's
      authors use 200.
    - ``label_smoothing``: in [0, 1); default 0.
    - ``initialization``: ``"dense"`` (default) keeps the model's initial values,
      ``"fan_in_corrected"`` rescales them to the inputs that each neuron has;
      ``"gradient_flow"`` and ``"srigl_gradient_flow"`` draw new ones
      (:mod:`sparsejax.initialization`).

    Args:
      config: The config, a ConfigDict or a mapping of the same shape.

    Returns:
      The task; training metrics are ``loss``, ``accuracy``, ``gradient_norm`` (of the
      raw, dense gradient) and ``learning_rate``.

    Raises:
      ConfigError: For an unknown name or argument, or a value out of range.

    References:
      Label smoothing: Szegedy et al., "Rethinking the Inception architecture for
      computer vision", 2016.
    """
    smoothing = config.get("label_smoothing", 0.0)
    if not 0 <= smoothing < 1:
        raise ConfigError(
            f"config.label_smoothing = {smoothing} is not in [0, 1); use 0 or 0.1."
        )
    temperature = config.get("scoring_temperature", 1.0)
    if not temperature > 0:
        raise ConfigError(
            f"config.scoring_temperature = {temperature} is not positive; use 1 or 200."
        )
    initialise_weights = config.get("initialization", "dense")
    if initialise_weights not in _INITIALISATIONS:
        raise ConfigError(
            f"config.initialization = {initialise_weights!r}: use one of "
            f"{', '.join(map(repr, _INITIALISATIONS))}."
        )
    fields = dict(config["data"])
    spec = {k: v for k, v in fields.items() if k not in _BATCH_FIELDS}
    dataset = build("data", spec, "sparsejax.data")
    check_batch_size(dataset, fields["batch_size"])
    learning_rate = optimization.learning_rate_schedule(config)
    inner = optimization.optimizer(config, learning_rate)

    def make_model(key: Key[Array, ""]) -> nnx.Module:
        return build(
            "model",
            config["model"],
            "sparsejax.models",
            dataset.image_shape,
            dataset.number_of_classes,
            rngs=nnx.Rngs(key),
        )

    graph, _, no_state = _split(nnx.eval_shape(lambda: make_model(jax.random.key(0))))

    def forward(
        params: PyTree, model_state: PyTree, inputs: Float[Array, "batch ..."]
    ) -> Float[Array, "batch classes"]:
        return nnx.merge(graph, params, model_state)(inputs, train=False)

    def make_transformation(
        seed: Any, model_state: PyTree, **offered: Any
    ) -> optax.GradientTransformationExtraArgs:
        image = jnp.ones((1, *dataset.image_shape), jnp.float32)
        return build(
            "method",
            config["method"],
            "sparsejax.methods",
            inner,
            nested=_NESTED,
            seed=seed,
            network=lambda params: forward(params, model_state, image),
            **offered,
        )

    # After the initialisation a method draws from the key in its state, not from its
    # seed, and looks at no network, so that one transformation updates the states of
    # all keys.
    transformation = make_transformation(0, no_state)

    def initialise(key: Key[Array, ""]) -> TrainState:
        model_key, mask_key, weight_key, state_key = jax.random.split(key, 4)
        _, params, model_state = _split(make_model(model_key))
        optimizer_state = make_transformation(mask_key, model_state).init(params)
        if initialise_weights != "dense":
            masks = sj.masks(optimizer_state)
            params = _initialised(initialise_weights, params, masks, weight_key)
            # Some optimizers keep a copy of the parameters: theirs, too, are these. The
            # masks stay, even where they would follow from the weights.
            keeps = isinstance(optimizer_state, MaskedState)
            given = {"initial_masks": masks} if keeps else {}
            again = make_transformation(mask_key, model_state, **given)
            optimizer_state = again.init(params)
        params = sj.sparsify(params, optimizer_state)
        step = jnp.zeros((), jnp.int32)
        return TrainState(step, params, model_state, optimizer_state, state_key)

    def loss_and_outputs(params, model_state, batch, temperature=1.0):
        model = nnx.merge(graph, params, model_state)
        logits = model(batch["image"], train=True) / temperature
        _, _, model_state = _split(model)
        loss = cross_entropy(logits, batch["label"], smoothing=smoothing).mean()
        return loss, (logits, model_state)

    def train_step(
        state: TrainState, batch: Mapping[str, Array]
    ) -> tuple[TrainState, Metrics]:
        differentiate = jax.value_and_grad(loss_and_outputs, has_aux=True)
        (loss, (logits, model_state)), gradients = differentiate(
            state.params, state.model_state, batch
        )

        def gradients_at(params: PyTree) -> PyTree:
            differentiate = jax.grad(loss_and_outputs, has_aux=True)
            return differentiate(params, state.model_state, batch, temperature)[0]

        updates, optimizer_state = transformation.update(
            gradients, state.optimizer_state, state.params, grad_fn=gradients_at
        )
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": loss,
            "accuracy": _is_correct(logits, batch["label"]).mean(),
            "gradient_norm": optax.tree.norm(gradients),
            "learning_rate": jnp.asarray(learning_rate(state.step), jnp.float32),
        }
        new_state = TrainState(
            state.step + 1, params, model_state, optimizer_state, state.key
        )
        return new_state, metrics

    def evaluation_step(state: TrainState, batch: Mapping[str, Array]) -> Metrics:
        params = sj.evaluation_params(state.params, state.optimizer_state)
        logits = forward(params, state.model_state, batch["image"])
        labels, weight = batch["label"], batch["weight"]
        return {
            "loss": (weight * cross_entropy(logits, labels)).sum(),
            "correct": (weight * _is_correct(logits, labels)).sum(),
            "count": weight.sum(),
        }

    example_input = jnp.zeros((1, *dataset.image_shape), jnp.float32)
    return Task(
        dataset, initialise, train_step, evaluation_step, forward, example_input
    )


def cross_entropy(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    *,
    smoothing: float = 0.0,
) -> Float[Array, " batch"]:
    """Cross-entropy per example, against labels mixed with the uniform distribution.

    The target is ``(1 - smoothing) onehot(label) + smoothing / classes``.

    Args:
      logits: Unnormalised log-probabilities.
      labels: Classes, 0 to the number of classes, exclusive.
      smoothing: Share of the uniform distribution, in [0, 1).

    Returns:
      The loss of each example, in nats.

    Example:
      >>> cross_entropy(jnp.zeros((1, 4)), jnp.array([2])).round(4)
      Array([1.3863], dtype=float32)
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))


def _is_correct(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    return (logits.argmax(axis=-1) == labels).astype(jnp.float32)


def _split(model: nnx.Module) -> tuple[nnx.GraphDef, PyTree, PyTree]:
    """Splits a module into its structure, its parameters and its other arrays."""
    graph, params, others = nnx.split(model, nnx.Param, ...)
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(others)


def _initialised(name: str, params: PyTree, masks: PyTree, key: Array) -> PyTree:
    if name == "fan_in_corrected":
        return initialization.fan_in_corrected(params, masks)
    return getattr(initialization, name)(params, masks, key=key)
