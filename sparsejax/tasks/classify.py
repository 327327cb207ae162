"""Classification of images or texts: cross-entropy, and held-out accuracy."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from sparsejax.building import ConfigError
from sparsejax.tasks import mixing, optimization, sparse_network
from sparsejax.tasks.base import Metrics, Task, TrainState


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
    - ``mixup``, ``cutmix``: alpha of :func:`sparsejax.tasks.mixing.mixed`, for training
      batches; default 0, off. What a batch is mixed by follows from the state's key and
      step, so that a run that was interrupted goes on as it would have.
    - ``initialization``: ``"dense"`` (default) keeps the model's initial values,
      ``"fan_in_corrected"`` rescales them to the inputs that each neuron has;
      ``"gradient_flow"`` and ``"srigl_gradient_flow"`` draw new ones
      (:mod:`sparsejax.initialization`).
    - ``average``: ``{"decay": 0.999}`` evaluates a running average of the weights, as
      sparse as they are (:mod:`sparsejax.tasks.averaging`); default None.

    Args:
      config: The config, a ConfigDict or a mapping of the same shape.

    Returns:
      The task; training metrics are ``loss``, ``accuracy`` (in a mixed batch an answer
      counts as much as its class was mixed in), ``gradient_norm`` (of the raw, dense
      gradient) and ``learning_rate``.

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
    strengths = mixing.strengths(config)
    temperature = config.get("scoring_temperature", 1.0)
    if not temperature > 0:
        raise ConfigError(
            f"config.scoring_temperature = {temperature} is not positive; use 1 or 200."
        )
    dataset = sparse_network.dataset(config)
    if dataset.input_name != "image" and any(strengths.values()):
        raise ConfigError(
            f"config.mixup, config.cutmix = {strengths}: "
            f"{config['data']['name']!r} has no images to mix; use 0."
        )
    learning_rate = optimization.learning_rate_schedule(config)
    inner = optimization.optimizer(config, learning_rate)

    network = sparse_network.build_network(config, dataset, inner=inner)

    def train_step(
        state: TrainState, batch: Mapping[str, Array]
    ) -> tuple[TrainState, Metrics]:
        images, labels = batch[dataset.input_name], batch["label"]
        targets = jax.nn.one_hot(labels, dataset.number_of_classes)
        if any(strengths.values()):
            key = jax.random.fold_in(state.key, state.step)
            images, targets = mixing.mixed(key, images, targets, **strengths)

        def objective(params, model_state, temperature=1.0):
            logits, model_state = network.train_forward(params, model_state, images)
            logits = logits / temperature
            smooth = optax.smooth_labels(targets, smoothing)
            loss = optax.softmax_cross_entropy(logits, smooth).mean()
            return loss, (logits, model_state)

        scored = functools.partial(objective, temperature=temperature)
        step = network.step(state, objective, scored)
        metrics = {
            "loss": step.loss,
            "accuracy": _share_correct(step.outputs, targets).mean(),
            "gradient_norm": step.gradient_norm,
            "learning_rate": jnp.asarray(learning_rate(state.step), jnp.float32),
        }
        return step.state, metrics

    def evaluation_step(state: TrainState, batch: Mapping[str, Array]) -> Metrics:
        logits = network.forward(*network.evaluated(state), batch[dataset.input_name])
        labels, weight = batch["label"], batch["weight"]
        return {
            "loss": (weight * cross_entropy(logits, labels)).sum(),
            "correct": (weight * _is_correct(logits, labels)).sum(),
            "count": weight.sum(),
        }

    example_input = jnp.zeros((1, *dataset.input_shape), dataset.input_dtype)
    return Task(
        dataset,
        network.initialise,
        train_step,
        evaluation_step,
        network.forward,
        example_input,
        start=network.start,
        layout=network.layout,
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


def _share_correct(
    logits: Float[Array, "batch classes"], targets: Float[Array, "batch classes"]
) -> Float[Array, " batch"]:
    answers = logits.argmax(axis=-1, keepdims=True)
    return jnp.take_along_axis(targets, answers, axis=-1)[:, 0]


def _is_correct(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    return (logits.argmax(axis=-1) == labels).astype(jnp.float32)
