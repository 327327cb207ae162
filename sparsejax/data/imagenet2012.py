"""ImageNet (ILSVRC 2012): 1,281,167 images to train, 50,000 to evaluate."""

from sparsejax.data import photographs, pipeline

_MANUAL = (
    "download ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from image-net.org"
)


def imagenet2012(
    *, data_dir: str | None = None, image_size: int = 224, colour_jitter: float = 0.0
) -> pipeline.Dataset:
    """ImageNet with the usual augmentation, from a prepared array_record copy.

    Training: a crop of 8 % to 100 % of the area with an aspect ratio of 3/4 to 4/3,
    resized, and mirrored half of the time. Evaluation: the shorter side resized to 8/7
    of `image_size` (256 for 224), then the central crop. Both bilinear with
    antialiasing, and standardised by ImageNet's mean and standard deviation.

    Args:
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      image_size: Height and width of the images.
      colour_jitter: Brightness, contrast and saturation of training images are
        multiplied by random factors in [1 - colour_jitter, 1 + colour_jitter]; in
        [0, 1], 0.4 is usual, 0 leaves them as they are.

    Returns:
      The dataset; image shape (image_size, image_size, 3), 1000 classes.

    Raises:
      ConfigError: If an argument is out of range, or no prepared copy is found; the
        message says where it looked, and how to prepare one.

    Example:
      >>> imagenet2012(data_dir="/nowhere")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ...
      sparsejax.building.ConfigError: config.data.name = 'imagenet2012': not ...

    References:
      Russakovsky et al., "ImageNet large scale visual recognition challenge", 2015.
    """
    return photographs.dataset(
        "imagenet2012",
        data_dir=data_dir,
        image_size=image_size,
        colour_jitter=colour_jitter,
        manual=_MANUAL,
    )
