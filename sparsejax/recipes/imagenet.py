"""Published ways to train on ImageNet, whatever the network and the method."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from sparsejax.recipes.parts import method_fields

_IMAGES = 1_281_167


def stairs(
    method: str,
    model: Mapping[str, Any],
    *,
    epochs: tuple[int, int, int, int] = (5, 30, 70, 90),
    batch_size: int = 4096,
    stretch: int = 1,
) -> ConfigDict:
    """RigL's training: a learning rate in stairs, 32,000 batches of 4,096 images.

    Args:
      method: A method's name.
      model: ``config.model``.
      epochs: When the warm-up ends, and when the learning rate falls to a tenth.
      batch_size: Images; smaller batches take more steps, with a learning rate in
        proportion.
      stretch: Everything takes this many times as long.

    Returns:
      The config: nesterov momentum 0.9, learning rate 0.1 for every 256 images of a
      batch, weight decay 1e-4, label smoothing 0.1, the topology moving for 25,000 of
      32,000 steps, every 100.

    Example:
      >>> stairs("rigl", {"name": "resnet"}).learning_rate_schedule.boundaries
      (9384, 21895, 28151)
    """
    finer = 4096 // batch_size
    longer = finer * stretch
    config = _shared(32_000 * longer, model, batch_size)
    config.optimizer = {
        "name": "sgd",
        "learning_rate": 0.1 * batch_size / 256,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-4,
    }
    steps = [round(epoch * stretch * _IMAGES / batch_size) for epoch in epochs]
    config.learning_rate_schedule = {
        "name": "staircase",
        "warmup_steps": steps[0],
        "boundaries": tuple(steps[1:]),
        "factor": 0.1,
    }
    config.method = method_fields(
        method,
        sparsity=0.8,
        every=100 * finer,
        steps=config.get_ref("steps"),
        stop=25_000 * longer,
    )
    return config


def cosine(
    method: str,
    model: Mapping[str, Any],
    *,
    weight_decay: float,
    stretch: int = 1,
) -> ConfigDict:
    """The training of STR and of AC/DC: 100 epochs of batches of 256 images.

    Args:
      method: A method's name.
      model: ``config.model``.
      weight_decay: Differs between the papers.
      stretch: Everything takes this many times as long.

    Returns:
      The config: momentum 0.875, learning rate 0.256 with a cosine schedule after five
      epochs of warm-up, label smoothing 0.1.

    Example:
      >>> cosine("ac_dc", {"name": "resnet"}, weight_decay=3.05e-5).steps
      500400
    """
    epoch = stretch * (_IMAGES // 256)
    config = _shared(100 * epoch, model, 256)
    config.optimizer = {
        "name": "sgd",
        "learning_rate": 0.256,
        "momentum": 0.875,
        "nesterov": False,
        "weight_decay": weight_decay,
    }
    config.learning_rate_schedule = {"name": "cosine", "warmup_steps": 5 * epoch}
    steps = config.get_ref("steps")
    config.method = method_fields(method, sparsity=0.8, every=5 * epoch, steps=steps)
    return config


def _shared(steps: int, model: Mapping[str, Any], batch_size: int) -> ConfigDict:
    config = ConfigDict({"seed": 0, "task": "classify", "steps": FieldReference(steps)})
    config.model = {**model, "stem": "imagenet", "dtype": "float32"}
    config.data = {
        "name": "imagenet2012",
        "batch_size": batch_size,
        "worker_count": 16,
    }
    config.label_smoothing = 0.1
    config.mixup = 0.0
    config.cutmix = 0.0
    config.average = {"decay": 0.0}
    config.log_every = 100
    config.evaluate_every = steps // 20
    config.checkpoint_every = steps // 40
    config.keep_checkpoints = 3
    return config
