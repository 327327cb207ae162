import io

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from sparsejax.building import ConfigError
from sparsejax.data import imagenet2012 as imagenet_module
from sparsejax.data.imagenet2012 import imagenet2012
from sparsejax.data.pipeline import evaluation_batches, train_iterator

SIZES = [(300, 200), (64, 500), (500, 33), (40, 40), (224, 224)]
MEAN, DEVIATION = imagenet_module._MEAN, imagenet_module._DEVIATION


def jpeg(size, mode="RGB", color=(255, 0, 0)):
    buffer = io.BytesIO()
    image = PIL.Image.new("RGB", size, color).convert(mode)
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


with tfds.core.registered.skip_registration():

    class Imagenet2012(tfds.core.GeneratorBasedBuilder):
        """A few images under the name, version and features of the real dataset."""

        VERSION = tfds.core.Version("5.1.0")

        def _info(self):
            features = tfds.builder_cls("imagenet2012")(data_dir="/nowhere").info
            return tfds.core.DatasetInfo(builder=self, features=features.features)

        def _split_generators(self, dl_manager):
            return {
                "train": self._generate_examples(10),
                "validation": self._generate_examples(len(SIZES)),
            }

        def _generate_examples(self, count):
            for index in range(count):
                # The real dataset has images in grey and in CMYK as well.
                mode = ("RGB", "L", "CMYK")[index % 3]
                image = io.BytesIO(jpeg(SIZES[index % len(SIZES)], mode))
                name = f"{index}.JPEG"
                yield name, {"file_name": name, "image": image, "label": index}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("imagenet")
    builder = Imagenet2012(data_dir=directory, file_format="array_record")
    builder.download_and_prepare()
    return str(directory)


def test_training_batches(prepared):
    dataset = imagenet2012(data_dir=prepared, image_size=32)
    assert (dataset.number_of_classes, dataset.image_shape) == (1000, (32, 32, 3))
    batch = next(train_iterator(dataset, batch_size=10, seed=0))
    assert batch["image"].shape == (10, 32, 32, 3)
    assert batch["image"].dtype == np.float32
    assert set(batch["label"]) == set(range(10))


def test_evaluation_batches(prepared):
    dataset = imagenet2012(data_dir=prepared)
    (batch,) = evaluation_batches(dataset, batch_size=8)
    assert batch["image"].shape == (8, 224, 224, 3)
    np.testing.assert_array_equal(batch["weight"], [1] * 5 + [0] * 3)
    assert sorted(batch["label"][:5]) == [0, 1, 2, 3, 4]
    # Image 3 is red; image 1 is grey.
    position = {int(label): i for i, label in enumerate(batch["label"][:5])}
    red = (np.array([255, 0, 0]) - MEAN) / DEVIATION
    found = batch["image"][position[3]].mean(axis=(0, 1))
    np.testing.assert_allclose(found, red, atol=0.1)
    grey = batch["image"][position[1]] * DEVIATION + MEAN
    np.testing.assert_allclose(grey[..., 0], grey[..., 2], atol=1e-3)


def test_evaluation_takes_the_centre_of_the_resized_image():
    # 512 x 256, black but for a white square of 224 in the centre.
    pixels = np.zeros((256, 512, 3), np.uint8)
    pixels[16:240, 144:368] = 255
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    example = {"image": buffer.getvalue(), "label": 3}
    image = imagenet_module._evaluation_example(example, size=224)["image"]
    white = (255 - MEAN) / DEVIATION
    np.testing.assert_allclose(image, np.broadcast_to(white, image.shape), rtol=1e-5)


def test_half_of_the_training_images_are_mirrored():
    pixels = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (64, 1, 3))
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    example = {"image": buffer.getvalue(), "label": 0}
    rng = np.random.default_rng(0)
    rising = 0
    for _ in range(200):
        image = imagenet_module._train_example(example, rng, size=16)["image"]
        rising += image[8, -1, 0] > image[8, 0, 0]
    assert 70 < rising < 130


def test_crops_have_the_published_area_and_ratio():
    rng = np.random.default_rng(0)
    boxes = [imagenet_module._random_crop((400, 300), rng) for _ in range(500)]
    left, top, right, bottom = np.array(boxes).T
    width, height = right - left, bottom - top
    area, ratio = width * height / (400 * 300), width / height
    assert left.min() >= 0
    assert top.min() >= 0
    assert right.max() <= 400
    assert bottom.max() <= 300
    assert 0.07 < area.min() < 0.15
    assert 0.85 < area.max() <= 1
    assert 0.74 < ratio.min() < 0.80
    assert 1.27 < ratio.max() < 1.35


@pytest.mark.parametrize("size", [(1000, 10), (10, 1000), (1, 1)])
def test_crops_of_extreme_images_fall_back_to_the_centre(size):
    rng = np.random.default_rng(0)
    for _ in range(20):
        left, top, right, bottom = imagenet_module._random_crop(size, rng)
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]


def test_not_prepared_says_where_it_looked_and_what_to_do(tmp_path):
    with pytest.raises(ConfigError) as caught:
        imagenet2012(data_dir=str(tmp_path))
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "config.data.name = 'imagenet2012'",
        f"{tmp_path}/imagenet2012/5.1.0",
        'pip install "sparsejax[prepare]"',
        "file_format='array_record').download_and_prepare()",
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
