import pickle

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sparsejax.building import ConfigError
from sparsejax.data.images import standardised
from sparsejax.data.pipeline import (
    Dataset,
    data_directory,
    evaluation_batches,
    train_iterator,
)


def augmented(example, rng):
    return {
        "image": np.full((2, 2, 1), rng.random(), np.float32),
        "label": np.int32(example["label"]),
    }


def plain(example):
    return {
        "image": np.full((2, 2, 1), example["label"] + 1, np.float32),
        "label": np.int32(example["label"]),
    }


def make_dataset(size=23):
    examples = [{"label": label} for label in range(size)]
    return Dataset(examples, examples, augmented, plain, size, (2, 2, 1))


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name, array in batch.items():
            np.testing.assert_array_equal(array, other[name])


def labels(batches):
    return np.concatenate([batch["label"] for batch in batches])


def test_shapes_and_dtypes():
    batch = next(train_iterator(make_dataset(), batch_size=5, seed=0))
    assert batch["image"].shape == (5, 2, 2, 1)
    assert batch["image"].dtype == np.float32
    assert batch["label"].shape == (5,)
    assert batch["label"].dtype == np.int32


def test_every_epoch_has_each_example_at_most_once_in_a_new_order():
    batches = take(train_iterator(make_dataset(), batch_size=5, seed=0), 12)
    epochs = [labels(batches[start : start + 4]) for start in (0, 4, 8)]
    for epoch in epochs:
        assert len(set(epoch)) == 20
    orders = {tuple(epoch) for epoch in epochs}
    assert len(orders) == 3
    assert tuple(range(20)) not in orders
    # The examples that are dropped differ between epochs: over enough of them all
    # examples are seen.
    many = take(train_iterator(make_dataset(), batch_size=5, seed=0), 40)
    assert set(labels(many)) == set(range(23))


def test_the_seed_decides():
    first, again, other = (
        take(train_iterator(make_dataset(), batch_size=5, seed=seed), 6)
        for seed in (1, 1, 2)
    )
    assert_same(first, again)
    assert (labels(first) != labels(other)).any()


def test_augmentation_differs_between_examples_and_epochs():
    batches = take(train_iterator(make_dataset(), batch_size=23, seed=0), 3)
    values = np.concatenate([batch["image"][:, 0, 0, 0] for batch in batches])
    assert len(set(values.tolist())) == 3 * 23


@pytest.mark.parametrize("position", [0, 3, 9])
def test_resumes_exactly_from_its_state(position):
    iterator = train_iterator(make_dataset(), batch_size=5, seed=0)
    take(iterator, position)
    state = pickle.loads(pickle.dumps(iterator.get_state()))
    expected = take(iterator, 7)
    resumed = train_iterator(make_dataset(), batch_size=5, seed=0)
    resumed.set_state(state)
    assert_same(take(resumed, 7), expected)


def test_resumes_exactly_from_an_orbax_checkpoint(tmp_path):
    iterator = train_iterator(make_dataset(), batch_size=5, seed=0)
    take(iterator, 6)
    with ocp.CheckpointManager(tmp_path) as manager:
        data = grain.checkpoint.CheckpointSave(iterator)
        manager.save(6, args=ocp.args.Composite(data=data))
        manager.wait_until_finished()
        expected = take(iterator, 5)
        resumed = train_iterator(make_dataset(), batch_size=5, seed=0)
        data = grain.checkpoint.CheckpointRestore(resumed)
        manager.restore(6, args=ocp.args.Composite(data=data))
    assert_same(take(resumed, 5), expected)


@pytest.mark.slow
def test_worker_processes_give_the_same_batches_and_resume():
    expected = take(train_iterator(make_dataset(), batch_size=5, seed=0), 9)
    iterator = train_iterator(make_dataset(), batch_size=5, seed=0, worker_count=2)
    assert_same(take(iterator, 5), expected[:5])
    state = iterator.get_state()
    iterator.close()
    resumed = train_iterator(make_dataset(), batch_size=5, seed=0, worker_count=2)
    resumed.set_state(state)
    assert_same(take(resumed, 4), expected[5:])
    resumed.close()


def test_evaluation_sees_every_example_once_in_order_and_pads():
    batches = list(evaluation_batches(make_dataset(7), batch_size=3))
    assert [batch["image"].shape for batch in batches] == [(3, 2, 2, 1)] * 3
    weight = np.concatenate([batch["weight"] for batch in batches])
    np.testing.assert_array_equal(weight, [1] * 7 + [0] * 2)
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(labels(batches), [*range(7), 0, 0])
    assert not batches[-1]["image"][1:].any()


def test_evaluation_batches_may_be_larger_than_the_dataset():
    (batch,) = evaluation_batches(make_dataset(3), batch_size=8)
    assert batch["label"].shape == (8,)
    assert batch["weight"].sum() == 3


@pytest.mark.parametrize("width", [2, 300])
def test_images_of_two_shapes_make_no_batch(width):
    def uneven(example, rng):
        channels = 1 if example["label"] == 1 else 3
        return {"image": np.zeros((width, width, channels), np.float32)}

    dataset = make_dataset(3)._replace(train_transform=uneven)
    with pytest.raises(ValueError, match=r"shape"):
        next(train_iterator(dataset, batch_size=3, seed=0))


def test_large_images_are_put_together_like_small_ones():
    def large(example):
        image = np.full((200, 200, 1), example["label"], np.float32)
        return {"image": image, "label": np.int32(example["label"])}

    dataset = make_dataset(5)._replace(evaluation_transform=large)
    batch = next(evaluation_batches(dataset, batch_size=4))
    assert batch["image"].shape == (4, 200, 200, 1)
    assert (batch["image"].dtype, batch["label"].dtype) == (np.float32, np.int32)
    assert (batch["image"] == batch["label"][:, None, None, None]).all()
    np.testing.assert_array_equal(batch["label"], range(4))


def joined(shares):
    """Batches put together from those of every process."""
    return [
        {name: np.concatenate([b[name] for b in pieces]) for name in pieces[0]}
        for pieces in zip(*shares, strict=True)
    ]


@pytest.mark.parametrize("count", [2, 3, 6])
def test_processes_share_the_batches_of_one(count):
    def batches(**process):
        return take(train_iterator(make_dataset(), batch_size=6, seed=0, **process), 8)

    shares = [batches(process_index=i, process_count=count) for i in range(count)]
    assert {b["image"].shape[0] for share in shares for b in share} == {6 // count}
    assert_same(joined(shares), batches())


@pytest.mark.parametrize("size", [7, 12, 13])
def test_processes_share_the_evaluation_of_one(size):
    def batches(**process):
        return list(evaluation_batches(make_dataset(size), batch_size=6, **process))

    # With 13 examples only the first process has one of the last batch.
    shares = [batches(process_index=i, process_count=3) for i in range(3)]
    assert_same(joined(shares), batches())


def test_batches_that_cannot_be_shared():
    message = "config.data.batch_size = 5 cannot be split over 2 processes"
    with pytest.raises(ConfigError, match=message):
        train_iterator(make_dataset(), batch_size=5, seed=0, process_count=2)
    with pytest.raises(ConfigError, match=message):
        next(evaluation_batches(make_dataset(), batch_size=5, process_count=2))


@pytest.mark.parametrize("batch_size", [24, 0, -1])
def test_impossible_batch_sizes_name_the_field(batch_size):
    with pytest.raises(ConfigError, match=rf"config.data.batch_size = {batch_size} "):
        train_iterator(make_dataset(), batch_size=batch_size, seed=0)


def test_a_batch_of_the_whole_dataset_is_allowed():
    batch = next(train_iterator(make_dataset(), batch_size=23, seed=0))
    assert set(batch["label"]) == set(range(23))


def test_standardised_is_per_channel():
    pixels = np.array([[[1, 10], [3, 30]]], np.uint8)
    result = standardised(pixels, np.array([1.0, 10.0]), np.array([2.0, 5.0]))
    np.testing.assert_array_equal(result, [[[0, 0], [1, 4]]])
    assert result.dtype == np.float32


def test_data_directory_prefers_the_argument(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/from/environment")
    assert data_directory("/from/config") == "/from/config"
    assert data_directory(None) == "/from/environment"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert data_directory(None) is None
