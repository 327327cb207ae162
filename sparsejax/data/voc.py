"""Pascal VOC: 20 classes of objects in 16,551 photographs to train, 4,952 to test."""

from functools import partial

from sparsejax.data import images, pipeline, stock, stock_objects

_IGNORED = "is_difficult"


def voc(*, data_dir: str | None = None, image_size: int = 320) -> pipeline.Dataset:
    """VOC 2007 and 2012, from prepared array_record copies.

    Training on the training and validation images of both years, difficult objects too,
    with SSD's random windows, mirrored half of the time; evaluation on the test images
    of 2007, whole and resized, where difficult objects are neither asked for nor held
    against a detector.

    Args:
      data_dir: Where tfds keeps its datasets; by default ``$TFDS_DATA_DIR``, or else
        ``~/tensorflow_datasets``.
      image_size: Height and width of the images.

    Returns:
      The dataset; image shape (image_size, image_size, 3), 20 classes.

    Raises:
      ConfigError: If one of the years is not prepared, or `image_size` is too small.

    Example:
      >>> voc(data_dir="/nowhere")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ...
      sparsejax.building.ConfigError: config.data.name = 'voc': not ...

    References:
      Everingham et al., "The Pascal visual object classes challenge", 2010; the splits
      are the "07+12" of Liu et al., "SSD: single shot multibox detector", 2016.
    """
    stock_objects.check_image_size(image_size)
    years = [stock.prepared(f"voc/{year}", data_dir=data_dir) for year in (2007, 2012)]
    train = [
        images.encoded_examples(builder, split)
        for builder in years
        for split in ("train", "validation")
    ]
    shared = {"size": image_size, "ignored": _IGNORED}
    return pipeline.Dataset(
        train=stock_objects.Joined(train),
        evaluation=images.encoded_examples(years[0], "test"),
        train_transform=partial(
            stock_objects.train_example, **shared, trains_on_ignored=True
        ),
        evaluation_transform=partial(stock_objects.evaluation_example, **shared),
        number_of_classes=20,
        input_shape=(image_size, image_size, 3),
        class_names=stock_objects.class_names(years[0]),
    )
