"""SSDLite on MobileNetV1, on scenes of digits and on photographs."""

from ml_collections import ConfigDict, FieldReference

from sparsejax.recipes.parts import check_argument, method_fields, sparsify_only


def ssd_mobilenet_v1(method: str, argument: str | None = None) -> ConfigDict:
    """SSDLite on MobileNetV1: on the embedded scenes in minutes, on VOC or on COCO.

    Args:
      method: A method's name.
      argument: ``None`` or ``"scenes"``: 1,500 steps (6 epochs) of 16 scenes of 64x64
        pixels. ``"voc"``: 120,000 steps (232 epochs) of 32 images of VOC 2007 and 2012.
        ``"coco"``: 406,000 steps (659 epochs) of 192 images of COCO 2017. Both at
        320x320, from random weights.

    Returns:
      The config: sparsity 0.9 by ERK for all convolutions but the first and the
      depthwise ones, SSD's loss and suppression.

    Raises:
      ConfigError: For another argument.

    Example:
      >>> ssd_mobilenet_v1("rigl", "coco").optimizer.learning_rate
      0.15
    """
    check_argument(f"{method}_ssd_mobilenet_v1", argument, ("scenes", "voc", "coco"))
    of_photographs = argument in ("voc", "coco")
    config = _photographs(method, argument) if of_photographs else _scenes(method)
    # As MobileNets are published: these few weights are worth more than others.
    sparsify_only(config, r"^(?!stem/).*(?<!depthwise)/kernel$")
    config.average = {"decay": 0.0}
    config.detection = {
        "matching_overlap": 0.5,
        "negatives": 3.0,
        "least_score": 0.01,
        "suppression_overlap": 0.45,
        "maximum": 100,
    }
    return config


def _scenes(method: str) -> ConfigDict:
    steps = FieldReference(1_500)
    config = ConfigDict({"seed": 0, "task": "detect", "steps": steps})
    config.model = {
        "name": "ssd_mobilenet_v1",
        "width": 0.5,
        "stem": "small",
        "dtype": "float32",
    }
    config.data = {"name": "digit_scenes", "batch_size": 16, "augment": False}
    config.optimizer = {"name": "adam", "learning_rate": 3e-3, "weight_decay": 0.0}
    config.learning_rate_schedule = {"name": "cosine", "warmup_steps": 100}
    config.method = method_fields(method, sparsity=0.9, every=50, steps=steps)
    config.log_every = 50
    config.evaluate_every = 250
    config.checkpoint_every = 250
    config.keep_checkpoints = 2
    return config


def _photographs(method: str, argument: str) -> ConfigDict:
    # COCO: the settings with which torchvision trains its SSDLite at 320. VOC: the
    # steps, batch and weight decay of the paper of SSD; the learning rate is ours, for
    # the paper's is for weights that were trained before.
    steps, batch_size, learning_rate, weight_decay = {
        "voc": (120_000, 32, 0.05, 5e-4),
        "coco": (406_000, 192, 0.15, 4e-5),
    }[argument]
    steps = FieldReference(steps)
    config = ConfigDict({"seed": 0, "task": "detect", "steps": steps})
    config.model = {
        "name": "ssd_mobilenet_v1",
        "width": 1.0,
        "stem": "imagenet",
        "dtype": "float32",
    }
    config.data = {
        "name": argument,
        "image_size": 320,
        "batch_size": batch_size,
        "worker_count": 16,
    }
    config.optimizer = {
        "name": "sgd",
        "learning_rate": learning_rate,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": weight_decay,
    }
    config.learning_rate_schedule = {"name": "cosine", "warmup_steps": 1_000}
    config.method = method_fields(method, sparsity=0.9, every=100, steps=steps)
    config.log_every = 100
    config.evaluate_every = 10_000
    config.checkpoint_every = 2_000
    config.keep_checkpoints = 3
    return config
