"""MobileNetV1, on digits and on ImageNet."""

from ml_collections import ConfigDict

from sparsejax.building import plain
from sparsejax.recipes import imagenet
from sparsejax.recipes.parts import check_argument, keep_dense
from sparsejax.recipes.small_images import digits


def mobilenet_v1(method: str, argument: str | None = None) -> ConfigDict:
    """MobileNetV1: on the embedded digits in minutes, or the ImageNet recipe.

    Its first convolution stays dense, and so do its depthwise ones.

    Args:
      method: A method's name.
      argument: ``None`` or ``"digits"``: at half of the width, 600 steps (55 epochs) of
        128 images of 8x8 pixels with the small stem, sparsity 0.9. ``"imagenet"``: at
        full width, 32,000 steps (102 epochs) of 4,096 images, sparsity 0.75, the
        topology moving every 100 steps until step 25,000.

    Returns:
      The config: nesterov momentum, weight decay 1e-4, ERK.

    Raises:
      ConfigError: For another argument.

    Example:
      >>> mobilenet_v1("rigl", "imagenet").learning_rate_schedule.boundaries
      (12511, 23459, 29715)
    """
    check_argument(f"{method}_mobilenet_v1", argument, ("digits", "imagenet"))
    if argument != "imagenet":
        # Its kernel for images of one channel counts as a depthwise one.
        model = {"name": "mobilenet_v1", "width": 0.5, "stem": "small"}
        config = digits(method, model, steps=600, every=20, shift=1)
        config.update({"learning_rate_schedule": {"warmup_steps": 30}})
        return config
    model = {"name": "mobilenet_v1", "width": 1.0}
    config = imagenet.stairs(method, model, epochs=(8, 40, 75, 95))
    if "sparsity" in plain(config)["method"]:
        config.update({"method": {"sparsity": 0.75}})
    keep_dense(config, "stem/kernel")
    return config
