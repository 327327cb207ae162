"""COCO 2017: 80 classes of objects in 118,287 photographs to train, 5,000 to test."""

from functools import partial

from sparsejax.data import images, pipeline, stock, stock_objects

_IGNORED = "is_crowd"


def coco(*, data_dir: str | None = None, image_size: int = 320) -> pipeline.Dataset:
    """COCO 2017, from a prepared array_record copy.

    Training with SSD's random windows, mirrored half of the time, without crowds;
    evaluation on the validation images, whole and resized, where crowds are neither
    asked for nor held against a detector.

    Args:
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      image_size: Height and width of the images.

    Returns:
      The dataset; image shape (image_size, image_size, 3), 80 classes.

    Raises:
      ConfigError: If it is not prepared, or `image_size` is too small.

    Example:
      >>> coco(data_dir="/nowhere")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ...
      sparsejax.building.ConfigError: config.data.name = 'coco': not ...

    References:
      Lin et al., "Microsoft COCO: common objects in context", 2014.
    """
    stock_objects.check_image_size(image_size)
    builder = stock.prepared("coco/2017", data_dir=data_dir)
    shared = {"size": image_size, "ignored": _IGNORED}
    return pipeline.Dataset(
        train=images.encoded_examples(builder, "train"),
        evaluation=images.encoded_examples(builder, "validation"),
        train_transform=partial(
            stock_objects.train_example, **shared, trains_on_ignored=False
        ),
        evaluation_transform=partial(stock_objects.evaluation_example, **shared),
        number_of_classes=80,
        input_shape=(image_size, image_size, 3),
        class_names=stock_objects.class_names(builder),
    )
