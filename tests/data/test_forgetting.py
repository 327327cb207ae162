"""Forgetting events, and training on without the examples that have none."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejax.building import ConfigError
from sparsejax.data.forgetting import (
    Remaining,
    begin,
    forgetting_counts,
    most_forgotten,
    record,
    with_indices,
)
from sparsejax.data.pipeline import Dataset, train_iterator


def transformed(example, rng):
    return {
        "image": np.full((2, 2, 1), rng.random(), np.float32),
        "label": np.int32(example["label"]),
    }


def make_dataset(size=12):
    examples = [{"label": 10 * label} for label in range(size)]
    return Dataset(examples, examples, transformed, dict, size, (2, 2, 1))


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def labels(batches):
    return np.concatenate([batch["label"] for batch in batches])


def counted(history):
    """Counts of examples that are seen in every epoch: ``history[example][epoch]``."""
    forgetting = begin(len(history))
    for correct in np.array(history, bool).T:
        forgetting = record(forgetting, np.arange(len(history)), correct)
    return forgetting_counts(forgetting).tolist()


@pytest.mark.parametrize(
    ("history", "count"), [([0, 1, 1, 0, 1, 0], 2), ([1, 1, 1], 0), ([0, 0, 0], 3)]
)
def test_golden_counts(history, count):
    assert counted([history]) == [count]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=5)
)
def test_counts_are_falls_of_the_history(histories):
    falls = ["".join("01"[c] for c in history).count("10") for history in histories]
    learned = [any(history) for history in histories]
    want = [n if ever else 7 for n, ever in zip(falls, learned, strict=True)]
    assert counted(histories) == want


def test_presentations_count_not_batches():
    # Example 1 is not in the second batch: right, then wrong, is one event.
    forgetting = begin(3)
    for indices, correct in (([0, 1], [1, 1]), ([2, 0], [0, 1]), ([1, 2], [0, 0])):
        forgetting = record(forgetting, np.array(indices), np.array(correct, bool))
    assert forgetting.events.tolist() == [0, 1, 0]
    assert forgetting.presentations.tolist() == [2, 2, 2]
    assert forgetting_counts(forgetting).tolist() == [0, 1, 2]


def test_an_example_that_was_never_seen_stays():
    forgetting = record(begin(2), np.array([0]), np.array([True]))
    assert forgetting_counts(forgetting).tolist() == [0, 1]


def test_recording_leaves_the_record_before_as_it_was():
    before = begin(2)
    record(before, np.array([1]), np.array([True]))
    assert not before.learned.any()


def test_the_least_forgotten_go_ties_by_position():
    counts = np.array([1, 0, 3, 1, 0, 1])
    assert most_forgotten(counts, remove=0).tolist() == [0, 1, 2, 3, 4, 5]
    assert most_forgotten(counts, remove=2).tolist() == [0, 2, 3, 5]
    assert most_forgotten(counts, remove=4).tolist() == [2, 5]


@pytest.mark.parametrize("remove", [-1, 6])
def test_nothing_would_be_left(remove):
    with pytest.raises(ConfigError, match=f"remove = {remove} of 6 examples"):
        most_forgotten(np.zeros(6, int), remove=remove)


def test_batches_say_which_examples_they_hold():
    plain = take(train_iterator(make_dataset(), batch_size=5, seed=0), 4)
    told = take(train_iterator(with_indices(make_dataset()), batch_size=5, seed=0), 4)
    for batch, other in zip(plain, told, strict=True):
        np.testing.assert_array_equal(10 * other["index"], batch["label"])
        assert other["index"].dtype == np.int32
        for name, array in batch.items():
            np.testing.assert_array_equal(other[name], array)


KEPT = np.array([1, 4, 5, 7, 8, 9, 11])


def reduced(**options):
    """Two batches of five in each of three epochs, then one."""
    dataset = make_dataset()
    later = {3: Remaining(dataset.train, KEPT)}
    return train_iterator(dataset, batch_size=5, seed=0, later=later, **options)


def test_examples_are_left_out_from_their_epoch_on():
    usual = take(train_iterator(make_dataset(), batch_size=5, seed=0), 6)
    batches = take(reduced(), 40)
    for batch, other in zip(usual, batches, strict=False):
        for name, array in batch.items():
            np.testing.assert_array_equal(other[name], array)
    rest = batches[6:]
    assert set(labels(rest)) == set(10 * KEPT)
    # An epoch is a batch, which has no example twice; the order is new in each.
    assert all(len(set(batch["label"])) == 5 for batch in rest)
    assert len({tuple(batch["label"]) for batch in rest}) > 20
    # Augmentation goes on where it was.
    images = np.concatenate([batch["image"][:, 0, 0, 0] for batch in batches])
    assert len(set(images.tolist())) == len(images)


def test_a_run_goes_on_from_the_state_of_an_iterator_without_the_change():
    iterator = train_iterator(make_dataset(), batch_size=5, seed=0)
    take(iterator, 6)
    state = pickle.loads(pickle.dumps(iterator.get_state()))
    resumed = reduced()
    resumed.set_state(state)
    expected = take(reduced(), 10)[6:]
    np.testing.assert_array_equal(labels(take(resumed, 4)), labels(expected))


@pytest.mark.parametrize("position", [4, 9])
def test_resumes_exactly(position):
    iterator = reduced()
    take(iterator, position)
    state = iterator.get_state()
    expected = labels(take(iterator, 5))
    resumed = reduced()
    resumed.set_state(state)
    np.testing.assert_array_equal(labels(take(resumed, 5)), expected)


def test_several_changes():
    dataset = make_dataset()
    later = {
        1: Remaining(dataset.train, np.arange(6)),
        3: Remaining(dataset.train, np.arange(4)),
    }
    iterator = train_iterator(dataset, batch_size=4, seed=0, later=later)
    # Epochs of three batches, of one, of one, and of one of all that is left.
    batches = take(iterator, 8)
    assert set(labels(batches[:3])) == set(range(0, 120, 10))
    assert set(labels(batches[3:5])) <= set(range(0, 60, 10))
    for batch in batches[5:]:
        assert set(batch["label"]) == set(range(0, 40, 10))


def test_too_few_examples_for_a_batch_are_refused():
    dataset = make_dataset()
    few = Remaining(dataset.train, np.array([0, 1]))
    with pytest.raises(ConfigError, match="larger than the 2 training examples"):
        train_iterator(dataset, batch_size=3, seed=0, later={1: few})
