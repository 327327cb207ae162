"""CIFAR-10: 50,000 colour images of 32x32 pixels to train, 10,000 to evaluate."""

from sparsejax.data import pipeline, small_images

_STATISTICS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def cifar10(
    *, data_dir: str | None = None, padding: str = "symmetric"
) -> pipeline.Dataset:
    """CIFAR-10 with the usual augmentation, from a prepared array_record copy.

    Training images get a border of 4 pixels, are cut to 32x32 at random, and mirrored
    half of the time. All are standardised by the mean and the standard deviation of
    the training images, per channel.

    Args:
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      padding: ``"symmetric"``: the border mirrors the image, as for wide residual
        networks and RigL; ``"zero"``: it is black, as for residual networks.

    Returns:
      The dataset; image shape (32, 32, 3), 10 classes.

    Raises:
      ConfigError: If the padding is unknown, or no prepared copy is found; the message
        says where it looked, and how to prepare one.

    Example:
      >>> cifar10(data_dir="/nowhere")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ...
      sparsejax.building.ConfigError: config.data.name = 'cifar10': not prepared ...

    References:
      Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    return small_images.dataset(
        "cifar10",
        data_dir=data_dir,
        input_shape=(32, 32, 3),
        statistics=_STATISTICS,
        border=4,
        padding=padding,
        mirrors=True,
    )
