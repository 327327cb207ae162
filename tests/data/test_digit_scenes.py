import numpy as np
import pytest
import tensorflow_datasets as tfds

from sparsejax.data import digit_scenes as module
from sparsejax.data.digit_scenes import digit_scenes
from sparsejax.data.digits import stored_digits
from sparsejax.data.pipeline import evaluation_batches, train_iterator


@pytest.fixture(scope="module")
def dataset(data_dir):
    return digit_scenes(data_dir=str(data_dir))


def test_sizes_and_shapes(dataset):
    assert (len(dataset.train), len(dataset.evaluation)) == (4000, 500)
    batch = next(train_iterator(dataset, batch_size=16, seed=0))
    assert batch["image"].shape == (16, *dataset.input_shape)
    assert batch["boxes"].shape == (16, 5, 4)
    assert batch["valid"].any(axis=1).all()
    assert not batch["ignored"].any()
    batches = list(evaluation_batches(dataset, batch_size=128))
    assert sum(batch["weight"].sum() for batch in batches) == 500
    labels = np.concatenate([b["labels"][b["valid"]] for b in batches])
    assert np.bincount(labels, minlength=10).min() > 80


def test_training_images_are_standardised(dataset):
    plain = digit_scenes(augment=False)
    images = np.stack([plain.train_transform(e, None)["image"] for e in plain.train])
    assert images.dtype == np.float32
    assert images.mean() == pytest.approx(0, abs=1e-4)
    assert images.std() == pytest.approx(1, abs=1e-4)


def test_boxes_are_tight_and_apart(dataset):
    for example in dataset.evaluation:
        boxes = np.round(example["objects"].boxes * 64).astype(int)
        alone = example["image"].copy()
        for top, left, bottom, right in boxes:
            inside = example["image"][top:bottom, left:right] >= module._INK
            edges = inside[0], inside[-1], inside[:, 0], inside[:, -1]
            assert all(edge.any() for edge in edges)
            alone[top:bottom, left:right] = 0
        assert not alone.any(), "every digit is in a box"
        for i, box in enumerate(boxes):
            for other in boxes[:i]:
                assert module._overlap(box, other) <= 0.1


def test_scenes_show_digits_of_their_own_split():
    """Draws scenes of a single digit at its own size and finds it among the digits."""
    splits = [
        {pixels.tobytes() for _, pixels, _ in stored_digits(split)}
        for split in ("train", "test")
    ]
    assert not splits[0] & splits[1]
    indices = [{i for i, _, _ in stored_digits(split)} for split in ("train", "test")]
    assert not indices[0] & indices[1] and len(indices[0] | indices[1]) == 1797


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_builder_uses_the_split(split, monkeypatch, tmp_path):
    asked = []

    def recorded(name):
        asked.append(name)
        return stored_digits(name)

    monkeypatch.setattr(module, "stored_digits", recorded)
    builder = module.DigitScenes(data_dir=tmp_path, file_format="array_record")
    index, example = next(builder._generate_examples(split))
    assert (index, asked) == (0, [split])
    assert example["image"].size == (64, 64)


def test_scenes_are_the_same_everywhere(dataset):
    digits = [(pixels, label) for _, pixels, label in stored_digits("test")]
    shown = set()
    for index in (0, 7, 499):
        canvas, boxes, labels = module._scene(digits, np.random.default_rng([1, index]))
        shown.add(canvas.tobytes())
        stored = {e["image"].tobytes(): e["objects"] for e in dataset.evaluation}
        found = stored[canvas.tobytes()]
        np.testing.assert_allclose(found.boxes * 64, boxes, atol=1e-4)
        assert found.labels.tolist() == labels
    assert len(shown) == 3


def test_without_augmentation_training_sees_the_scenes(data_dir, dataset):
    plain = digit_scenes(data_dir=str(data_dir), augment=False)
    stored, rng = dataset.train[5], np.random.default_rng(0)
    expected = dataset.evaluation_transform(stored)
    for name, value in plain.train_transform(stored, rng).items():
        np.testing.assert_array_equal(value, expected[name])
    windows = [dataset.train_transform(stored, rng)["image"] for _ in range(8)]
    assert any((window != expected["image"]).any() for window in windows)


def test_readable_by_tfds_itself(data_dir, dataset):
    source = tfds.data_source("digit_scenes", data_dir=str(data_dir), split="test")
    image = source[3]["image"][..., 0]
    np.testing.assert_array_equal(image, dataset.evaluation[3]["image"])
