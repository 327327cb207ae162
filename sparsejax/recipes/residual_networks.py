"""ResNet-50, on digits and on ImageNet."""

from ml_collections import ConfigDict

from sparsejax.recipes import imagenet
from sparsejax.recipes.parts import check_argument
from sparsejax.recipes.small_images import digits

_STRETCHES = {"imagenet": 1, "imagenet_5x": 5}
# The weight decays that their authors used.
_BY_COSINE = {"ac_dc": 3.05e-5, "soft_threshold": 2.251757813e-5}


def resnet50(
    method: str, argument: str | None = None, *, batch_size: int = 4096
) -> ConfigDict:
    """ResNet-50: on the embedded digits in minutes, or the published ImageNet recipe.

    Args:
      method: A method's name.
      argument: ``None`` or ``"digits"``: 154 steps (14 epochs) of 128 images of 8x8
        pixels with the small stem, sparsity 0.9. ``"imagenet"``: 32,000 steps (102
        epochs) of 4,096 images, sparsity 0.8, the topology moving every 100 steps until
        step 25,000; for AC/DC and STR the 100 epochs of their papers, in batches of
        256. ``"imagenet_5x"``: all of it five times as long.
      batch_size: Images in a batch of ImageNet, where steps are RigL's; a part of
        4,096.

    Returns:
      The config: nesterov momentum, weight decay 1e-4, ERK, drop fraction 0.3 with a
      cosine schedule.

    Raises:
      ConfigError: For another argument.

    Example:
      >>> resnet50("rigl", "imagenet").optimizer.learning_rate
      1.6
      >>> resnet50("rigl", "imagenet_5x").method.stop
      125000
    """
    check_argument(f"{method}_resnet50", argument, ("digits", *_STRETCHES))
    model = {"name": "resnet", "depth": 50}
    if argument in (None, "digits"):
        small = {**model, "stem": "small"}
        return digits(method, small, steps=154, every=10)
    stretch = _STRETCHES[argument]
    if method in _BY_COSINE:
        decay = _BY_COSINE[method]
        return imagenet.cosine(method, model, weight_decay=decay, stretch=stretch)
    return imagenet.stairs(method, model, batch_size=batch_size, stretch=stretch)
