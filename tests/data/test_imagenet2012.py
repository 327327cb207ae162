import numpy as np
import pytest
import records

from sparsejax.building import ConfigError
from sparsejax.data import photographs
from sparsejax.data.imagenet2012 import imagenet2012
from sparsejax.data.pipeline import evaluation_batches, train_iterator

MEAN, DEVIATION = photographs.MEAN, photographs.DEVIATION


def red(index):
    """Images in RGB, grey and CMYK, all of one colour."""
    image = records.PIL.Image.new("RGB", records.SIZES[index % 6], (255, 0, 0))
    mode = ("RGB", "L", "CMYK")[index % 3]
    return records.encoded(image.convert(mode), "JPEG", quality=95)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("imagenet")
    return records.prepare("imagenet2012", directory, image=red)


def test_training_batches(prepared):
    dataset = imagenet2012(data_dir=prepared, image_size=32)
    assert (dataset.number_of_classes, dataset.input_shape) == (1000, (32, 32, 3))
    batch = next(train_iterator(dataset, batch_size=10, seed=0))
    assert batch["image"].shape == (10, 32, 32, 3)
    assert batch["image"].dtype == np.float32
    assert set(batch["label"]) == set(range(10))


def test_evaluation_batches(prepared):
    dataset = imagenet2012(data_dir=prepared)
    (batch,) = evaluation_batches(dataset, batch_size=8)
    assert batch["image"].shape == (8, 224, 224, 3)
    np.testing.assert_array_equal(batch["weight"], [1] * 6 + [0] * 2)
    assert sorted(batch["label"][:6]) == [0, 1, 2, 3, 4, 5]
    # Image 3 is red; image 1 is grey.
    position = {int(label): i for i, label in enumerate(batch["label"][:6])}
    expected = (np.array([255, 0, 0]) - MEAN) / DEVIATION
    found = batch["image"][position[3]].mean(axis=(0, 1))
    np.testing.assert_allclose(found, expected, atol=0.1)
    grey = batch["image"][position[1]] * DEVIATION + MEAN
    np.testing.assert_allclose(grey[..., 0], grey[..., 2], atol=1e-3)


def test_not_prepared_says_where_it_looked_and_what_to_do(tmp_path):
    with pytest.raises(ConfigError) as caught:
        imagenet2012(data_dir=str(tmp_path))
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "config.data.name = 'imagenet2012'",
        f"{tmp_path}/imagenet2012",
        f"ILSVRC2012_img_val.tar from image-net.org into {tmp_path}/downloads/manual",
        'pip install "sparsejax[prepare]"',
        f"python scripts/prepare_data.py imagenet2012 --data_dir={tmp_path}",
        "TFDS_DATA_DIR",
    ):
        assert part in message


def test_prepared_in_a_format_that_needs_tensorflow(prepared, tmp_path):
    source = f"{prepared}/imagenet2012/5.1.0"
    target = tmp_path / "imagenet2012" / "5.1.0"
    target.mkdir(parents=True)
    for name in ("dataset_info.json", "features.json"):
        with open(f"{source}/{name}") as file:
            (target / name).write_text(file.read().replace("array_record", "tfrecord"))
    with pytest.raises(ConfigError, match="tfds convert_format"):
        imagenet2012(data_dir=str(tmp_path))


def test_image_size_out_of_range():
    with pytest.raises(ConfigError, match=r"config.data.image_size = 0"):
        imagenet2012(image_size=0)
