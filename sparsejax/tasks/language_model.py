"""Language modelling: the next token, in bits per byte on held-out documents."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from sparsejax.building import ConfigError
from sparsejax.tasks import optimization, sparse_network
from sparsejax.tasks.base import Metrics, Task, TrainState

#: What a model of tokens is told beside them, where a dataset has it.
_CONTEXT = ("segments", "positions", "prefix")


def language_model(config: Mapping[str, Any]) -> Task:
    """Builds the prediction of every next token of ``config.data`` by ``config.model``.

    The loss is the mean over targets of ``cross_entropy + z_loss * log(Z)**2``, where
    ``Z`` is the softmax's denominator (Chowdhery et al., 2022, "PaLM"). Fields read:

    - ``data``: ``name`` and arguments of a file in ``sparsejax/data`` that has text,
      ``batch_size`` in rows.
    - ``model``: ``name`` and arguments of a file in ``sparsejax/models`` that reads
      tokens, such as ``transformer``.
    - ``optimizer``, ``learning_rate_schedule``, ``steps``: see
      :mod:`sparsejax.tasks.optimization`.
    - ``method``, ``initialization``, ``average``, ``start_from``: see
      :mod:`sparsejax.tasks.sparse_network`.
    - ``z_loss``: default 0; 1e-4 is usual for large models.
    - ``gradient_accumulation``: into how many parts a batch is split, one after the
      other, to save memory; the gradient is that of the whole batch, for the growth of
      the topology, too. Default 1.

    Args:
      config: The config, a ConfigDict or a mapping of the same shape.

    Returns:
      The task; training metrics are ``loss`` (in nats for each target),
      ``bits_per_byte``, ``gradient_norm`` (of the raw, dense gradient) and
      ``learning_rate``. Evaluation metrics are ``loss`` without the z-loss,
      ``perplexity`` for each token, ``bits_per_byte`` of the held-out text and the
      ``accuracy`` of the likeliest token.

    Raises:
      ConfigError: For an unknown name or argument, a value out of range, or a dataset
        that has no text.
    """
    z_loss = config.get("z_loss", 0.0)
    if not isinstance(z_loss, int | float) or z_loss < 0:
        raise ConfigError(
            f"config.z_loss = {z_loss!r}: use 0, or a small number: 1e-4."
        )
    parts = config.get("gradient_accumulation", 1)
    batch_size = config["data"]["batch_size"]
    if not isinstance(parts, int) or parts < 1 or batch_size % parts:
        raise ConfigError(
            f"config.gradient_accumulation = {parts!r}: use an integer >= 1 that "
            f"divides config.data.batch_size = {batch_size}."
        )
    dataset = sparse_network.dataset(config)
    if dataset.tokenizer is None:
        raise ConfigError(
            f"config.data.name = {config['data']['name']!r} has no text; use "
            "'python_standard_library', or another task."
        )
    learning_rate = optimization.learning_rate_schedule(config)
    inner = optimization.optimizer(config, learning_rate)
    network = sparse_network.build_network(config, dataset, inner=inner)

    def train_step(
        state: TrainState, batch: Mapping[str, Array]
    ) -> tuple[TrainState, Metrics]:
        total = jnp.maximum(batch["target_weights"].sum(), 1)

        def objective(params, model_state, part):
            logits, model_state = network.train_forward(
                params, model_state, part["tokens"], **_told(part)
            )
            nats, log_z = token_losses(logits, part["targets"])
            weights = part["target_weights"]
            nats = (weights * nats).sum() / total
            penalty = z_loss * (weights * log_z**2).sum() / total
            return nats + penalty, (nats, model_state)

        step = network.step(state, objective, parts=_split(batch, parts))
        bits = step.outputs / math.log(2) * total
        metrics = {
            "loss": step.loss,
            "bits_per_byte": bits / jnp.maximum(batch["target_bytes"].sum(), 1),
            "gradient_norm": step.gradient_norm,
            "learning_rate": jnp.asarray(learning_rate(state.step), jnp.float32),
        }
        return step.state, metrics

    def evaluation_step(
        state: TrainState, batch: Mapping[str, Array]
    ) -> Mapping[str, Array]:
        logits = network.forward(
            *network.evaluated(state), batch["tokens"], **_told(batch)
        )
        weights = batch["target_weights"]
        nats, _ = token_losses(logits, batch["targets"])
        correct = logits.argmax(axis=-1) == batch["targets"]
        return {
            "nats": (weights * nats).sum(),
            "correct": (weights * correct).sum(),
            "tokens": weights.sum(),
            "bytes": batch["target_bytes"].sum(),
        }

    return Task(
        dataset,
        network.initialise,
        train_step,
        evaluation_step,
        network.forward,
        jnp.zeros((1, *dataset.input_shape), jnp.int32),
        per_byte,
        start=network.start,
        layout=network.layout,
    )


def token_losses(
    logits: Float[Array, "*batch vocabulary"], targets: Int[Array, "*batch"]
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """The cross-entropy of every target in nats, and the log of the denominator.

    Args:
      logits: Unnormalised log-probabilities.
      targets: Tokens.

    Returns:
      Both for every target.

    Example:
      >>> nats, log_z = token_losses(jnp.zeros((1, 4)), jnp.array([2]))
      >>> nats.round(4), log_z.round(4)
      (Array([1.3863], dtype=float32), Array([1.3863], dtype=float32))
    """
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return nats, jax.nn.logsumexp(logits, axis=-1)


def per_byte(outputs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The metrics of an evaluation whose batches are sums over their tokens.

    Args:
      outputs: Of each batch ``nats``, ``correct``, ``tokens`` and ``bytes``.

    Returns:
      ``loss`` in nats for each token, ``perplexity``, ``bits_per_byte``, ``accuracy``.

    Example:
      >>> sums = {"nats": 8 * math.log(2), "correct": 1, "tokens": 2, "bytes": 4}
      >>> per_byte([sums])["bits_per_byte"]
      2.0
    """
    sums: dict[str, float] = {}
    for output in outputs:
        for name, value in output.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    loss = sums["nats"] / sums["tokens"]
    return {
        "loss": loss,
        # What exceeds a float is no number that anyone wants to read.
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_byte": sums["nats"] / math.log(2) / max(sums["bytes"], 1.0),
        "accuracy": sums["correct"] / sums["tokens"],
    }


def _told(batch: Mapping[str, Array]) -> dict[str, Array]:
    return {name: batch[name] for name in _CONTEXT if name in batch}


def _split(batch: Mapping[str, Array], parts: int) -> dict[str, Array]:
    """The batch in equal parts, along a new first axis."""
    return {
        # Rows of one part come from all over the batch, and so from all devices.
        name: jnp.swapaxes(array.reshape(-1, parts, *array.shape[1:]), 0, 1)
        for name, array in batch.items()
    }
