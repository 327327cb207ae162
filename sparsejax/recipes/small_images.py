"""Convolutional networks on images that come with the package, or on CIFAR."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from sparsejax.recipes.parts import method_fields


def digits(
    method: str, model: Mapping[str, Any], *, steps: int, every: int, shift: int = 0
) -> ConfigDict:
    """The embedded digits, in minutes on a CPU.

    Args:
      method: A method's name.
      model: ``config.model``, with its small stem.
      steps: Steps of 128 images; an epoch has 11.
      every: Steps between moves of the topology, which end after three quarters.
      shift: Pixels by which training images are moved at random.

    Returns:
      The config: sparsity 0.9, nesterov momentum 0.9, learning rate 0.1 with a cosine
      schedule, weight decay 1e-4.

    Example:
      >>> digits("rigl", {"name": "resnet"}, steps=88, every=10).method.stop
      66
    """
    length = FieldReference(steps)
    config = ConfigDict({"seed": 0, "task": "classify", "steps": length})
    config.model = {**model, "dtype": "float32"}
    shifted = {"shift": shift} if shift else {}
    config.data = {"name": "digits", "batch_size": 128, **shifted}
    config.optimizer = {
        "name": "sgd",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-4,
    }
    config.learning_rate_schedule = {"name": "cosine", "warmup_steps": 0}
    config.label_smoothing = 0.0
    config.mixup = 0.0
    config.cutmix = 0.0
    config.average = {"decay": 0.0}
    config.method = method_fields(method, sparsity=0.9, every=every, steps=length)
    config.log_every = max(1, steps // 60)
    config.evaluate_every = max(1, steps // 7)
    config.checkpoint_every = 2 * config.evaluate_every
    config.keep_checkpoints = 2
    return config
