"""Detection of objects with an SSD: mean average precision on held-out images."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sparsejax import processes
from sparsejax.average_precision import EvaluatedImage, average_precision
from sparsejax.building import ConfigError
from sparsejax.data.pipeline import evaluation_batches
from sparsejax.detection.boxes import decode
from sparsejax.detection.losses import Losses, detection_losses
from sparsejax.detection.matching import targets
from sparsejax.detection.suppression import Detections, best_detections
from sparsejax.extras import require
from sparsejax.tasks import optimization, sparse_network
from sparsejax.tasks.base import Metrics, Task, TrainState

# Images that the report shows.
_SAMPLES = 6


class Settings(NamedTuple):
    """The fields of ``config.detection``; the defaults are SSD's.

    Attributes:
      matching_overlap: Least intersection over union of a box with an anchor that
        predicts it, in (0, 1].
      negatives: Background anchors in the loss for each matched one, above 0.
      least_score: Predictions of a lower probability are dropped, in [0, 1).
      suppression_overlap: Largest intersection over union of two detections of a class,
        in [0, 1].
      maximum: Detections of an image, the surest, at least 1; suppression looks at as
        many predictions of each class.
    """

    matching_overlap: float = 0.5
    negatives: float = 3.0
    least_score: float = 0.01
    suppression_overlap: float = 0.45
    maximum: int = 100


def detect(config: Mapping[str, Any]) -> Task:
    """Builds the detection of ``config.data``'s objects by ``config.model``.

    The loss is that of :func:`sparsejax.detection.losses.detection_losses`, per matched
    anchor of the batch. Fields read:

    - ``data``: ``name`` and arguments of a file in ``sparsejax/data`` whose examples
      have boxes, ``batch_size``.
    - ``model``: ``name`` and arguments of a file in ``sparsejax/models`` whose networks
      have ``anchors()``.
    - ``optimizer``, ``learning_rate_schedule``, ``steps``: see
      :mod:`sparsejax.tasks.optimization`.
    - ``method``, ``initialization``, ``average``: as for
      :func:`sparsejax.tasks.classify.classify`.
    - ``detection``: fields of :class:`Settings`; default: SSD's.

    Args:
      config: The config, a ConfigDict or a mapping of the same shape.

    Returns:
      The task; training metrics are ``loss``, its terms ``classification`` and
      ``localisation``, ``gradient_norm`` (of the raw, dense gradient) and
      ``learning_rate``. Evaluation metrics are ``loss`` and those of
      :func:`sparsejax.average_precision.average_precision`.

    Raises:
      ConfigError: For an unknown name or argument, a value out of range, a dataset
        without boxes, or a model without anchors; and if pycocotools is not installed.

    References:
      Liu et al., "SSD: single shot multibox detector", 2016.
    """
    _check_evaluator()
    settings = _settings(config.get("detection") or {})
    dataset = sparse_network.dataset(config)
    _check_boxes(config, dataset)
    learning_rate = optimization.learning_rate_schedule(config)
    inner = optimization.optimizer(config, learning_rate)
    network = sparse_network.build_network(config, dataset, inner=inner)
    anchors = _anchors(config, network.module)

    def losses(
        outputs: Float[Array, "batch anchors numbers"], batch: Mapping[str, Array]
    ) -> Losses:
        def of_image(boxes, labels, valid):
            overlap = settings.matching_overlap
            return targets(boxes, labels, valid, anchors, threshold=overlap)

        truth = jax.vmap(of_image)(batch["boxes"], batch["labels"], batch["valid"])
        logits, offsets = _divided(outputs)
        return detection_losses(logits, offsets, truth, negatives=settings.negatives)

    def found(outputs: Float[Array, "batch anchors numbers"]) -> Detections:
        def in_image(logits, offsets):
            return best_detections(
                jax.nn.softmax(logits)[:, 1:],
                decode(offsets, anchors),
                least_score=settings.least_score,
                threshold=settings.suppression_overlap,
                per_class=settings.maximum,
                maximum=settings.maximum,
            )

        return jax.vmap(in_image)(*_divided(outputs))

    def train_step(
        state: TrainState, batch: Mapping[str, Array]
    ) -> tuple[TrainState, Metrics]:
        def objective(params, model_state):
            outputs, model_state = network.train_forward(
                params, model_state, batch["image"]
            )
            terms = losses(outputs, batch)
            return terms.mean(), (terms, model_state)

        step = network.step(state, objective)
        terms = step.outputs
        objects = jnp.maximum(terms.objects.sum(), 1)
        metrics = {
            "loss": step.loss,
            "classification": terms.classification.sum() / objects,
            "localisation": terms.localisation.sum() / objects,
            "gradient_norm": step.gradient_norm,
            "learning_rate": jnp.asarray(learning_rate(state.step), jnp.float32),
        }
        return step.state, metrics

    def evaluation_step(
        state: TrainState, batch: Mapping[str, Array]
    ) -> Mapping[str, Any]:
        outputs = network.forward(*network.evaluated(state), batch["image"])
        weight = batch["weight"]
        terms = losses(outputs, batch)
        truth = {k: batch[k] for k in ("boxes", "labels", "valid", "ignored", "weight")}
        return {
            "loss": (weight * (terms.classification + terms.localisation)).sum(),
            "objects": (weight * terms.objects).sum(),
            "found": found(outputs),
            **truth,
        }

    def gather(outputs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        loss, objects, images = 0.0, 0.0, []
        for output in outputs:
            loss += float(output["loss"])
            objects += float(output["objects"])
            real = np.flatnonzero(output["weight"]).tolist()
            images += [_evaluated(output, index) for index in real]
        precision = average_precision(images, maximum=settings.maximum)
        return {"loss": loss / max(objects, 1.0), **precision}

    def samples(state: TrainState) -> dict[str, np.ndarray]:
        batch = next(evaluation_batches(dataset, batch_size=_SAMPLES))
        output = processes.fetch(jax.jit(evaluation_step)(state, batch))
        shown = batch["weight"] > 0
        return {
            "kind": np.array("detections"),
            "image": batch["image"][shown],
            "boxes": batch["boxes"][shown],
            "labels": batch["labels"][shown],
            "valid": batch["valid"][shown],
            "found_boxes": output["found"].boxes[shown],
            "found_labels": output["found"].labels[shown],
            "scores": output["found"].scores[shown],
            "class_names": np.array(dataset.class_names, str),
        }

    return Task(
        dataset,
        network.initialise,
        train_step,
        evaluation_step,
        network.forward,
        jnp.zeros((1, *dataset.input_shape), jnp.float32),
        gather,
        samples,
        start=network.start,
        layout=network.layout,
    )


def _divided(
    outputs: Float[Array, "... numbers"],
) -> tuple[Float[Array, "... classes"], Float[Array, "... 4"]]:
    """The logits of the background and of the classes, and the offsets of boxes."""
    return outputs[..., :-4], outputs[..., -4:]


def _evaluated(output: Mapping[str, Any], index: int) -> EvaluatedImage:
    valid = output["valid"][index]
    boxes, labels, scores = (array[index] for array in output["found"])
    real = scores > 0
    return EvaluatedImage(
        output["boxes"][index][valid],
        output["labels"][index][valid],
        output["ignored"][index][valid],
        boxes[real],
        labels[real],
        scores[real],
    )


def _settings(fields: Mapping[str, Any]) -> Settings:
    for field, value in fields.items():
        if field not in Settings._fields:
            raise ConfigError(
                f"config.detection.{field} = {value!r}: there is no such field; there "
                f"are: {', '.join(Settings._fields)}."
            )
    settings = Settings(**fields)
    for field, allowed, is_allowed in (
        ("matching_overlap", "(0, 1]", 0 < settings.matching_overlap <= 1),
        ("negatives", "(0, inf)", settings.negatives > 0),
        ("least_score", "[0, 1)", 0 <= settings.least_score < 1),
        ("suppression_overlap", "[0, 1]", 0 <= settings.suppression_overlap <= 1),
        ("maximum", "[1, inf)", settings.maximum >= 1),
    ):
        if not is_allowed:
            raise ConfigError(
                f"config.detection.{field} = {getattr(settings, field)} is not in "
                f"{allowed}; SSD's is {Settings._field_defaults[field]}."
            )
    return settings


def _check_evaluator() -> None:
    try:
        require("pycocotools", extra="train")
    except ImportError as error:
        raise ConfigError(f"config.task = 'detect': {error}") from error


def _check_boxes(config: Mapping[str, Any], dataset: Any) -> None:
    example = dataset.evaluation_transform(dataset.evaluation[0])
    if "boxes" not in example:
        raise ConfigError(
            f"config.data.name = {config['data']['name']!r}: its images have no boxes; "
            "use 'digit_scenes', 'voc' or 'coco'."
        )


def _anchors(config: Mapping[str, Any], module: Any) -> Float[Array, "anchors 4"]:
    if not hasattr(module, "anchors"):
        raise ConfigError(
            f"config.model.name = {config['model']['name']!r}: its networks have no "
            "anchors(); use 'ssd_mobilenet_v1'."
        )
    return jnp.asarray(module.anchors())
