"""Imagenette: ten easy classes of ImageNet, 9,469 images to train, 3,925 to evaluate.

Those are the counts of its second version, the default.
"""

import tensorflow_datasets as tfds

from sparsejax.building import ConfigError
from sparsejax.data import photographs, pipeline


def imagenette(
    *,
    data_dir: str | None = None,
    image_size: int = 224,
    colour_jitter: float = 0.0,
    variant: str = "full-size-v2",
) -> pipeline.Dataset:
    """Imagenette with ImageNet's augmentation, from a prepared array_record copy.

    Args:
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      image_size: Height and width of the images.
      colour_jitter: As for ``imagenet2012``; default none.
      variant: The stored size, a config of the dataset in tfds: ``"full-size-v2"``, or
        ``"320px-v2"`` or ``"160px-v2"`` for photographs whose shorter side was resized
        to that. Prepared as ``imagenette/VARIANT``.

    Returns:
      The dataset; image shape (image_size, image_size, 3), 10 classes.

    Raises:
      ConfigError: If an argument is out of range, or no prepared copy is found; the
        message says where it looked, and how to prepare one.

    Example:
      >>> imagenette(data_dir="/nowhere")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ...
      sparsejax.building.ConfigError: config.data.name = 'imagenette': not ...

    References:
      Howard, "Imagenette", https://github.com/fastai/imagenette, 2019.
    """
    variants = [
        config.name for config in tfds.builder_cls("imagenette").BUILDER_CONFIGS
    ]
    if variant not in variants:
        raise ConfigError(
            f"config.data.variant = {variant!r}: use one of "
            f"{', '.join(map(repr, variants))}."
        )
    return photographs.dataset(
        f"imagenette/{variant}",
        data_dir=data_dir,
        image_size=image_size,
        colour_jitter=colour_jitter,
    )
