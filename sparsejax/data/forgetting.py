"""Data-efficient training: leaves out the examples that are never forgotten.

An example is forgotten when it is classified wrongly after it was right the last time.
MEST (Yuan et al., 2021) counts how often that happens and trains on without the
examples of fewest events, which the network has learned for good:

>>> from sparsejax.data.pipeline import Dataset, train_iterator
>>> examples = [{"image": np.zeros((2, 2, 1)), "label": i} for i in range(6)]
>>> dataset = Dataset(examples, examples, lambda x, rng: x, dict, 6, (2, 2, 1))
>>> iterator = train_iterator(with_indices(dataset), batch_size=3, seed=0)
>>> forgetting = begin(len(dataset.train))
>>> for _ in range(8):  # 4 epochs
...     batch = next(iterator)
...     correct = batch["label"] != 5  # what a network would say
...     forgetting = record(forgetting, batch["index"], correct)
>>> kept = most_forgotten(forgetting_counts(forgetting), remove=3)
>>> state = iterator.get_state()
>>> iterator = train_iterator(
...     dataset, batch_size=3, seed=0, later={4: Remaining(examples, kept)})
>>> iterator.set_state(state)
>>> sorted(next(iterator)["label"].tolist())
[3, 4, 5]

To resume a run keep the record in its checkpoint, or what it has kept: the batches
follow from that and the seed alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from sparsejax.building import ConfigError
from sparsejax.data.pipeline import Dataset, Example, Source


class Forgetting(NamedTuple):
    """What is known of every training example.

    Attributes:
      events: How often it was forgotten.
      presentations: How often it was seen.
      correct: Whether it was classified rightly when it was seen last.
      learned: Whether it ever was.
    """

    events: Int[np.ndarray, " examples"]
    presentations: Int[np.ndarray, " examples"]
    correct: Bool[np.ndarray, " examples"]
    learned: Bool[np.ndarray, " examples"]


def begin(examples: int) -> Forgetting:
    """The record before training.

    Args:
      examples: How many there are.
    """
    zeros, no = np.zeros(examples, np.int32), np.zeros(examples, bool)
    return Forgetting(zeros, zeros, no, no)


def record(
    forgetting: Forgetting,
    indices: Int[np.ndarray, " batch"],
    correct: Bool[np.ndarray, " batch"],
) -> Forgetting:
    """The record after a batch.

    Args:
      forgetting: The record before it.
      indices: Which examples are in the batch, each once.
      correct: Whether each was classified rightly.
    """
    events, presentations, last, learned = (array.copy() for array in forgetting)
    events[indices] += last[indices] & ~correct
    presentations[indices] += 1
    last[indices] = correct
    learned[indices] |= correct
    return Forgetting(events, presentations, last, learned)


def forgetting_counts(forgetting: Forgetting) -> Int[np.ndarray, " examples"]:
    """Forgetting events of every example; of one never learned, the epochs so far.

    Args:
      forgetting: The record.

    Example:
      >>> history = np.array([[0, 1, 1, 0, 1, 0], [1] * 6, [0] * 6], bool)
      >>> forgetting = begin(3)
      >>> for correct in history.T:
      ...     forgetting = record(forgetting, np.arange(3), correct)
      >>> forgetting_counts(forgetting).tolist()
      [2, 0, 6]
    """
    epochs = forgetting.presentations.max(initial=0)
    return np.where(forgetting.learned, forgetting.events, epochs).astype(np.int32)


def most_forgotten(
    counts: Int[np.ndarray, " examples"], *, remove: int
) -> Int[np.ndarray, " kept"]:
    """The examples to train on with: all but those of fewest events, in their order.

    Args:
      counts: Forgetting events of every example.
      remove: How many examples go; of those with as many events the first.

    Raises:
      ConfigError: If ``remove`` is negative, or leaves no example.

    Example:
      >>> most_forgotten(np.array([2, 0, 1, 0, 5]), remove=3).tolist()
      [0, 4]
    """
    if not 0 <= remove < len(counts):
        raise ConfigError(
            f"remove = {remove} of {len(counts)} examples is not possible; use 0 to "
            f"{len(counts) - 1}."
        )
    return np.sort(np.argsort(counts, kind="stable")[remove:])


class Remaining:
    """Some of a source's examples, a source in its own right.

    Args:
      source: All examples.
      kept: The indices of those that remain.
    """

    def __init__(self, source: Source, kept: Int[np.ndarray, " kept"]):
        self._source, self._kept = source, kept

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Example:
        return self._source[int(self._kept[index])]


def with_indices(dataset: Dataset) -> Dataset:
    """A dataset whose training batches say as ``"index"`` which examples they hold.

    Args:
      dataset: Any dataset; its transforms do not have to know of indices.
    """
    return dataset._replace(
        train=_Indexed(dataset.train),
        train_transform=functools.partial(_indexed, dataset.train_transform),
    )


class _Indexed:
    def __init__(self, source: Source):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        return {"index": index, "example": self._source[index]}


def _indexed(
    transform: Callable[[Example, np.random.Generator], Example],
    indexed: Example,
    rng: np.random.Generator,
) -> Example:
    return {
        **transform(indexed["example"], rng),
        "index": np.int32(indexed["index"]),
    }
