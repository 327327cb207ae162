"""WRN-22-2, on digits and on CIFAR-10."""

from ml_collections import ConfigDict

from sparsejax.recipes.parts import check_argument, keep_dense, method_fields
from sparsejax.recipes.small_images import digits


def wide_resnet(method: str, argument: str | None = None) -> ConfigDict:
    """WRN-22-2: on the embedded digits in minutes, or RigL's recipe for CIFAR-10.

    Its first convolution stays dense.

    Args:
      method: A method's name.
      argument: ``None`` or ``"digits"``: 220 steps (20 epochs) of 128 images of 8x8
        pixels, sparsity 0.9. ``"cifar10"``: 97,656 steps (250 epochs) of 128 images,
        the topology moving every 100 steps until step 75,000; gradual pruning from step
        20,000 to 75,000, every 1,000.

    Returns:
      The config: nesterov momentum 0.9, learning rate 0.1, weight decay 1e-4 on digits
      and 5e-4 on CIFAR-10, ERK.

    Raises:
      ConfigError: For another argument.

    Example:
      >>> wide_resnet("rigl", "cifar10").learning_rate_schedule.boundaries
      (30000, 60000, 90000)
    """
    check_argument(f"{method}_wide_resnet", argument, ("digits", "cifar10"))
    model = {"name": "wide_resnet", "depth": 22, "width": 2}
    config = digits(method, model, steps=220, every=10)
    if argument == "cifar10":
        _cifar10(config, method)
        keep_dense(config, "stem/kernel")
    return config


def _cifar10(config: ConfigDict, method: str) -> None:
    config.steps = 97_656
    config.data = {"name": "cifar10", "batch_size": 128, "worker_count": 2}
    config.update({"optimizer": {"weight_decay": 5e-4}})
    config.learning_rate_schedule = {
        "name": "staircase",
        "warmup_steps": 0,
        "boundaries": (30_000, 60_000, 90_000),
        "factor": 0.2,
    }
    config.method = method_fields(
        method,
        sparsity=0.9,
        every=1_000 if method == "magnitude" else 100,
        steps=config.get_ref("steps"),
        stop=75_000,
        start=20_000,
    )
    config.log_every = 400
    config.evaluate_every = 4_000
    config.checkpoint_every = 4_000
