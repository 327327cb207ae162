"""Every stock dataset, from records as tfds writes them to batches."""

import pathlib
import pickle

import numpy as np
import pytest
import records
import tensorflow_datasets as tfds

from sparsejax.building import ConfigError, build, known
from sparsejax.data.pipeline import evaluation_batches, train_iterator

# Name: classes, shape, evaluation split.
STOCK = {
    "cifar10": (10, (32, 32, 3), "test"),
    "cifar100": (100, (32, 32, 3), "test"),
    "mnist": (10, (28, 28, 1), "test"),
    "imagenette": (10, (224, 224, 3), "validation"),
    "imagenet2012": (1000, (224, 224, 3), "validation"),
}
TRAIN, EVALUATION = 12, 7


@pytest.fixture(scope="module")
def data_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("stock")
    for name, (_, _, split) in STOCK.items():
        records.prepare(name, directory, counts={"train": TRAIN, split: EVALUATION})
    return str(directory)


@pytest.fixture
def make(data_directory):
    def make(name, **arguments):
        spec = {"name": name, "data_dir": data_directory, **arguments}
        return build("data", spec, "sparsejax.data")

    return make


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name, array in batch.items():
            np.testing.assert_array_equal(array, other[name])


def test_names_of_configs_are_datasets_alone():
    shared = {
        "augmentation",
        "images",
        "photographs",
        "pipeline",
        "small_images",
        "stock",
    }
    names = set(known("sparsejax.data"))
    assert set(STOCK) <= names
    assert not shared & names


@pytest.mark.parametrize("name", STOCK)
class TestEveryDataset:
    def test_shapes_and_labels(self, make, name):
        classes, shape, _ = STOCK[name]
        dataset = make(name)
        assert dataset.number_of_classes == classes
        assert dataset.input_shape == shape
        assert (len(dataset.train), len(dataset.evaluation)) == (TRAIN, EVALUATION)
        batch = next(train_iterator(dataset, batch_size=TRAIN, seed=0))
        assert batch["image"].shape == (TRAIN, *shape)
        assert batch["image"].dtype == np.float32
        assert batch["label"].dtype == np.int32
        labels = [index % classes for index in range(TRAIN)]
        assert sorted(batch["label"]) == sorted(labels)
        batches = list(evaluation_batches(dataset, batch_size=4))
        assert [batch["image"].shape for batch in batches] == [(4, *shape)] * 2
        assert sum(batch["weight"].sum() for batch in batches) == EVALUATION

    def test_labels_stay_with_their_images(self, make, name):
        dataset = make(name)
        for index in range(EVALUATION):
            stored = dataset.evaluation[index]
            label, image = stored["label"], stored["image"]
            original = records.example_image(_stored_shape(name), int(label))
            if isinstance(image, bytes):
                assert image == original
            else:
                pixels = np.asarray(original).reshape(image.shape)
                np.testing.assert_array_equal(image, pixels)

    def test_batches_follow_from_the_seed_and_resume(self, make, name):
        def iterate(seed):
            # A new dataset: what one has decoded the other has not.
            return train_iterator(make(name), batch_size=5, seed=seed)

        batches = take(iterate(0), 5)
        assert_same(take(iterate(0), 5), batches)
        assert (next(iterate(1))["image"] != batches[0]["image"]).any()
        iterator = iterate(0)
        take(iterator, 3)
        resumed = iterate(0)
        resumed.set_state(pickle.loads(pickle.dumps(iterator.get_state())))
        assert_same(take(resumed, 2), batches[3:])

    def test_processes_share_the_batches_of_one(self, make, name):
        def iterate(**process):
            return train_iterator(make(name), batch_size=6, seed=0, **process)

        shares = [
            take(iterate(process_index=index, process_count=2), 2) for index in range(2)
        ]
        joined = [
            {k: np.concatenate([batch[k] for batch in pair]) for k in pair[0]}
            for pair in zip(*shares, strict=True)
        ]
        assert_same(joined, take(iterate(), 2))

    def test_not_prepared_is_one_line_that_says_how(self, name, tmp_path):
        spec = {"name": name, "data_dir": str(tmp_path)}
        with pytest.raises(ConfigError) as caught:
            build("data", spec, "sparsejax.data")
        message = str(caught.value)
        assert "\n" not in message
        assert f"config.data.name = {name!r}: not prepared in {tmp_path}" in message
        assert f"python scripts/prepare_data.py {name}" in message
        assert f"--data_dir={tmp_path}" in message

    @pytest.mark.slow
    def test_worker_processes_give_the_same_batches(self, make, name):
        expected = take(train_iterator(make(name), batch_size=4, seed=0), 5)
        iterator = train_iterator(make(name), batch_size=4, seed=0, worker_count=2)
        assert_same(take(iterator, 5), expected)
        iterator.close()
        batches = evaluation_batches(make(name), batch_size=4, worker_count=2)
        assert_same(list(batches), list(evaluation_batches(make(name), batch_size=4)))


def _stored_shape(name):
    config = {"config": "full-size-v2"} if name == "imagenette" else {}
    builder = tfds.builder_cls(name)(data_dir="/nowhere", **config)
    return builder.info.features["image"].shape


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist"])
def test_small_images_are_standardised_by_their_statistics(make, name):
    dataset = make(name)
    mean, deviation = {
        "cifar10": ([125.307, 122.961, 113.8575], [62.985, 62.0925, 66.708]),
        "cifar100": ([129.3105, 124.0575, 112.4295], [68.1615, 65.382, 70.431]),
        "mnist": ([33.3285], [78.5655]),
    }[name]
    stored = dataset.evaluation[0]
    found = dataset.evaluation_transform(stored)["image"]
    np.testing.assert_allclose(found * deviation + mean, stored["image"], atol=1e-3)


def test_training_images_of_cifar_are_cropped_and_mirrored(make):
    dataset = make("cifar10")
    stored, rng = dataset.train[0], np.random.default_rng(0)
    seen = {
        dataset.train_transform(stored, rng)["image"].tobytes() for _ in range(2000)
    }
    # 9 x 9 places, each also mirrored.
    assert len(seen) == 162


def test_training_images_of_mnist_stay_as_they_are(make):
    dataset = make("mnist")
    stored = dataset.train[0]
    augmented = dataset.train_transform(stored, np.random.default_rng(0))
    plain = dataset.evaluation_transform(stored)
    np.testing.assert_array_equal(augmented["image"], plain["image"])


def test_small_images_are_decoded_once_in_each_process(make, monkeypatch):
    dataset = make("mnist")
    assert dataset.train[1] is dataset.train[1]
    sent = pickle.loads(pickle.dumps(dataset.train))
    assert len(pickle.dumps(dataset.train)) < 10_000
    np.testing.assert_array_equal(sent[1]["image"], dataset.train[1]["image"])


def test_borders_may_be_black(make):
    dataset = make("cifar10", padding="zero")
    rng = np.random.default_rng(0)
    black = dataset.evaluation_transform({"image": np.zeros((1, 1, 3)), "label": 0})
    images = [
        dataset.train_transform(dataset.train[i % TRAIN], rng)["image"]
        for i in range(50)
    ]
    corners = [(image[0, 0] == black["image"][0, 0]).all() for image in images]
    assert 20 < sum(corners) < 50


def test_variants_of_imagenette(make, data_directory, tmp_path):
    records.prepare("imagenette/160px-v2", tmp_path)
    dataset = make(
        "imagenette", data_dir=str(tmp_path), variant="160px-v2", image_size=64
    )
    assert dataset.input_shape == (64, 64, 3)
    assert pathlib.Path(tmp_path, "imagenette", "160px-v2", "1.0.0").is_dir()
    with pytest.raises(ConfigError, match="imagenette/160px-v2 --data_dir="):
        make("imagenette", variant="160px-v2")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("imagenette", {"variant": "huge"}, "config.data.variant = 'huge': use one of"),
        ("imagenette", {"image_size": 0}, "config.data.image_size = 0 is not positive"),
        ("cifar10", {"padding": "wrap"}, "config.data.padding = 'wrap': use one of"),
        ("mnist", {"image_size": 32}, "config.data.image_size = 32: 'mnist' has no"),
    ],
)
def test_bad_arguments(make, name, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make(name, **arguments)
