"""MNIST: 60,000 handwritten digits of 28x28 pixels to train, 10,000 to evaluate."""

from sparsejax.data import pipeline, small_images

_STATISTICS = ((0.1307,), (0.3081,))


def mnist(*, data_dir: str | None = None) -> pipeline.Dataset:
    """MNIST from a prepared array_record copy, without augmentation.

    Images are standardised by the mean and standard deviation of all training pixels.

    Args:
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.

    Returns:
      The dataset; image shape (28, 28, 1), 10 classes.

    Raises:
      ConfigError: If no prepared copy is found; the message says where it looked, and
        how to prepare one.

    Example:
      >>> mnist(data_dir="/nowhere")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ...
      sparsejax.building.ConfigError: config.data.name = 'mnist': not prepared in ...

    References:
      LeCun et al., "Gradient-based learning applied to document recognition", 1998.
    """
    return small_images.dataset(
        "mnist", data_dir=data_dir, input_shape=(28, 28, 1), statistics=_STATISTICS
    )
