"""Perceptrons on the embedded digits."""

from ml_collections import ConfigDict, FieldReference

from sparsejax.recipes.parts import check_argument, method_fields


def mlp(method: str, argument: str | None = None) -> ConfigDict:
    """A multilayer perceptron of 128-128 hidden units on the embedded digits.

    Args:
      method: A method's name.
      argument: ``None`` or ``"digits"``.

    Returns:
      The config: adam with a cosine schedule from 3e-3, batches of 128, 2,000 steps,
      sparsity 0.95 by ERK, the topology moving every 50 steps until 75 %.

    Raises:
      ConfigError: For another argument.

    Example:
      >>> mlp("rigl").method.stop
      1500
    """
    check_argument(f"{method}_mlp", argument, ("digits",))
    steps = FieldReference(2_000)
    config = ConfigDict({"seed": 0, "task": "classify", "steps": steps})
    config.model = {"name": "mlp", "hidden": (128, 128)}
    config.data = {"name": "digits", "batch_size": 128}
    config.optimizer = {"name": "adam", "learning_rate": 3e-3, "weight_decay": 0.0}
    config.learning_rate_schedule = {"name": "cosine", "warmup_steps": 0}
    config.label_smoothing = 0.0
    config.mixup = 0.0
    config.cutmix = 0.0
    config.average = {"decay": 0.0}
    config.initialization = "fan_in_corrected"
    config.method = method_fields(method, sparsity=0.95, every=50, steps=steps)
    config.log_every = 50
    config.evaluate_every = 200
    config.checkpoint_every = 500
    config.keep_checkpoints = 3
    return config
