"""From a dataset to batches: shuffled and endless to train, padded to evaluate.

The training batches are a function of the seed alone: neither the number of processes
that train, nor that of their worker processes, nor an interruption changes them.
"""

import itertools
import math
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import grain
import numpy as np
from absl import flags
from jax.typing import DTypeLike
from jaxtyping import Int

from sparsejax.building import ConfigError

Example = Mapping[str, Any]
Batch = dict[str, np.ndarray]

# Each process that reads keeps batches of about this size ready, 8 batches at the most:
# a batch of 4,096 ImageNet images has 2.5 GB.
_BUFFER_BYTES = 2**30

# In bytes. Smaller ones are put together faster all at once.
_LARGE_EXAMPLE = 2**16

# Grain counts batches, not epochs: shuffling in NumPy, batch by batch, costs a tenth of
# its own shuffling and batching, which take 7 ms for 128 small images.
_ENDLESS = 2**62
_SHUFFLING, _AUGMENTATION = range(2)


class Source(Protocol):
    """Examples by their index, such as what ``tfds.data_source`` returns."""

    def __len__(self) -> int:
        """The number of examples."""
        ...

    def __getitem__(self, index: int, /) -> Example:
        """One example, as it is stored."""
        ...


class Dataset(NamedTuple):
    """Where the examples of a problem come from, and their shapes.

    Transforms turn a stored example into ``{"image": float32 [h, w, c], "label":
    int32}``; for detection into what :func:`sparsejax.data.objects.example` returns,
    and for text into what :func:`sparsejax.data.text.row` does.
    With worker processes they must be picklable: functions of a module, or
    ``functools.partial`` of one.

    Attributes:
      train: The training examples.
      evaluation: The examples that accuracy is measured on.
      train_transform: Called with an example and a NumPy generator for augmentation.
      evaluation_transform: Called with an example.
      number_of_classes: Labels, or tokens, are 0 to this, exclusive.
      input_shape: Of what a network gets of an example: an image's height, width and
        channels, or the number of tokens in a row.
      class_names: What the labels mean, for people; empty where they speak for
        themselves.
      input_dtype: Of what a network gets.
      input_name: Where that is in a batch.
      references: Numbers to hold a result against, by their names: what can be had
        without a network.
      identity: What exactly the examples are, where that differs between machines.
      tokenizer: A :class:`sparsejax.data.tokenizers.Tokenizer`, for text.
    """

    train: Source
    evaluation: Source
    train_transform: Callable[[Example, np.random.Generator], Example]
    evaluation_transform: Callable[[Example], Example]
    number_of_classes: int
    input_shape: tuple[int, ...]
    class_names: Sequence[str] = ()
    input_dtype: DTypeLike = np.float32
    input_name: str = "image"
    references: Mapping[str, float] = types.MappingProxyType({})
    identity: str = ""
    tokenizer: Any = None


def train_iterator(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    worker_count: int = 0,
    later: Mapping[int, Source] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    first: int = 0,
) -> grain.DatasetIterator[Batch]:
    """Iterates over training batches without end.

    Every epoch is shuffled anew from the seed, and its last incomplete batch dropped.
    To go on after some batches, their number is enough; ``get_state`` and ``set_state``
    of the iterator, and grain's checkpoints of it, do as well.

    Args:
      dataset: What to read.
      batch_size: Examples in a batch.
      seed: Determines shuffling and augmentation; not negative.
      worker_count: Processes that read and transform, each a few batches ahead; 0 reads
        in threads of this process. The batches are the same.
      later: Epoch to the examples that are read from it on in place of
        ``dataset.train``; nothing before it changes, so that the state of an iterator
        without it fits.
      process_index: Which of the processes that train together this one is.
      process_count: How many they are. Each reads and gets its share of every batch
        alone, in the order of their indices: put together, with
        ``jax.make_array_from_process_local_data``, they are the batch that one process
        gets.
      first: The index of the batch to begin with.

    Returns:
      An iterator of ``{"image": float32 [batch, h, w, c], "label": int32 [batch]}``.

    Raises:
      ConfigError: If the batch is larger than the dataset, not positive, or not a
        multiple of the number of processes.

    Example:
      >>> import numpy as np
      >>> examples = [{"image": np.zeros((2, 2, 1)), "label": i} for i in range(5)]
      >>> dataset = Dataset(examples, examples, lambda x, rng: x, dict, 5, (2, 2, 1))
      >>> batch = next(train_iterator(dataset, batch_size=4, seed=0))
      >>> batch["image"].shape
      (4, 2, 2, 1)
    """
    batches = train_batches(
        dataset,
        batch_size=batch_size,
        seed=seed,
        later=later,
        process_index=process_index,
        process_count=process_count,
    )
    ahead = _bytes(dataset, batch_size // process_count)
    return _iterate(batches, worker_count, ahead, first=first)


def train_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    later: Mapping[int, Source] | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> "TrainBatches":
    """The training batches of all epochs by their index, read when they are asked for.

    Args:
      dataset: As for :func:`train_iterator`.
      batch_size: As for :func:`train_iterator`.
      seed: As for :func:`train_iterator`.
      later: As for :func:`train_iterator`.
      process_index: As for :func:`train_iterator`.
      process_count: As for :func:`train_iterator`.

    Returns:
      A random-access sequence of what :func:`train_iterator` iterates over.

    Raises:
      ConfigError: As for :func:`train_iterator`.

    Example:
      >>> import numpy as np
      >>> examples = [{"image": np.zeros((2, 2, 1)), "label": i} for i in range(5)]
      >>> dataset = Dataset(examples, examples, lambda x, rng: x, dict, 5, (2, 2, 1))
      >>> train_batches(dataset, batch_size=4, seed=0)[10]["image"].shape
      (4, 2, 2, 1)
    """
    sources = {0: dataset.train, **(later or {})}
    for source in sources.values():
        check_batch_size(dataset._replace(train=source), batch_size)
    share = _share(batch_size, process_index, process_count)
    return TrainBatches(sources, dataset.train_transform, batch_size, seed, share)


def evaluation_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    worker_count: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Iterates once over all evaluation examples, in order, in batches of one size.

    Args:
      dataset: What to read.
      batch_size: Examples in a batch; the last batch is padded with zeros.
      worker_count: As for :func:`train_iterator`.
      process_index: As for :func:`train_iterator`.
      process_count: As for :func:`train_iterator`.

    Yields:
      ``{"image": float32 [batch, h, w, c], "label": int32 [batch], "weight": float32
      [batch]}``; the weight is 1 for examples and 0 for padding.

    Raises:
      ConfigError: If the batch size is not positive, or not a multiple of the number
        of processes.

    Example:
      >>> import numpy as np
      >>> examples = [{"image": np.zeros((2, 2, 1)), "label": i} for i in range(5)]
      >>> dataset = Dataset(examples, examples, lambda x, rng: x, dict, 5, (2, 2, 1))
      >>> [float(b["weight"].sum()) for b in evaluation_batches(dataset, batch_size=4)]
      [4.0, 1.0]
    """
    _check_positive(batch_size)
    share = _share(batch_size, process_index, process_count)
    iterator = _iterate(
        _EvaluationBatches(dataset, batch_size, share),
        worker_count,
        _bytes(dataset, len(share)),
    )
    try:
        yield from iterator
    finally:
        iterator.close()


def check_batch_size(dataset: Dataset, batch_size: int) -> None:
    """Raises a ConfigError unless the training examples fill a batch.

    Args:
      dataset: What the batches are drawn from.
      batch_size: Examples in a batch.

    Raises:
      ConfigError: If the batch is larger than the dataset, or not positive.

    Example:
      >>> check_batch_size(Dataset([0] * 5, [], None, None, 5, (1, 1, 1)), 4)
    """
    _check_positive(batch_size)
    if batch_size > len(dataset.train):
        raise ConfigError(
            f"config.data.batch_size = {batch_size} is larger than the "
            f"{len(dataset.train)} training examples; use at most "
            f"{len(dataset.train)}."
        )


def _check_positive(batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(
            f"config.data.batch_size = {batch_size} is not positive; use at least 1."
        )


def _share(batch_size: int, process_index: int, process_count: int) -> range:
    """Which positions in each batch a process reads."""
    if batch_size % process_count:
        raise ConfigError(
            f"config.data.batch_size = {batch_size} cannot be split over "
            f"{process_count} processes; use a multiple of {process_count}."
        )
    size = batch_size // process_count
    return range(process_index * size, (process_index + 1) * size)


class TrainBatches:
    """The batches of all epochs by their index; made by :func:`train_batches`."""

    def __init__(
        self,
        sources: Mapping[int, Source],
        transform: Callable[[Example, np.random.Generator], Example],
        batch_size: int,
        seed: int,
        share: range,
    ):
        self._transform = transform
        self._batch_size = batch_size
        self._seed = seed
        self._share = share
        self._epoch_and_order: tuple[int, Any] = (-1, None)
        self._phases: list[tuple[int, int, Source]] = []
        for epoch in sorted(sources):
            first_batch = 0
            if self._phases:
                start, since, source = self._phases[-1]
                first_batch = start + (epoch - since) * (len(source) // batch_size)
            self._phases.append((first_batch, epoch, sources[epoch]))

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> Batch:
        first, since, source = next(
            phase for phase in reversed(self._phases) if phase[0] <= index
        )
        epochs, position = divmod(index - first, len(source) // self._batch_size)
        start = position * self._batch_size
        order = self._order(since + epochs, len(source))
        generators = _generators([self._seed, _AUGMENTATION, index], self._share)
        examples = (
            self._transform(source[int(order[start + i])], rng)
            for i, rng in zip(self._share, generators, strict=True)
        )
        return _stacked(examples, len(self._share))

    def _order(self, epoch: int, size: int) -> Int[np.ndarray, " {size}"]:
        # Read once and replaced whole, so that threads in two epochs do not mix them.
        known_epoch, order = self._epoch_and_order
        if known_epoch != epoch:
            rng = np.random.default_rng([self._seed, _SHUFFLING, epoch])
            order = rng.permutation(size)
            self._epoch_and_order = (epoch, order)
        return order


class _EvaluationBatches:
    """The batches of the evaluation examples, in order; the last one padded."""

    def __init__(self, dataset: Dataset, batch_size: int, share: range):
        self._share = share
        self._examples = dataset.evaluation
        self._transform = dataset.evaluation_transform
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._examples) // self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        start = index * self._batch_size + self._share.start
        count = min(max(len(self._examples) - start, 0), len(self._share))
        # Where a process has only padding, an example says of which shapes.
        indices = range(start, start + count) or range(1)
        examples = (self._transform(self._examples[i]) for i in indices)
        batch = _stacked(examples, len(indices))
        batch["weight"] = np.ones(len(indices), np.float32)
        padding = len(self._share) - count
        return {
            name: np.pad(array[:count], [(0, padding)] + [(0, 0)] * (array.ndim - 1))
            for name, array in batch.items()
        }


def _generators(
    seed: Sequence[int], positions: Iterable[int]
) -> Iterator[np.random.Generator]:
    """One generator after the other, each a function of the seed and its position.

    They are one object, counting from elsewhere each time: making a new one takes
    longer than all that is done to a small image.
    """
    bits = np.random.Philox(np.random.SeedSequence(seed))
    state: Any = bits.state
    rng = np.random.Generator(bits)
    for position in positions:
        state["state"]["counter"][:] = (0, 0, 0, position)
        bits.state = state
        yield rng


def _stacked(examples: Iterator[Example], count: int) -> Batch:
    first = next(examples)
    examples = itertools.chain([first], examples)
    if sum(np.asarray(value).nbytes for value in first.values()) < _LARGE_EXAMPLE:
        collected = list(examples)
        return {name: np.stack([e[name] for e in collected]) for name in first}
    # One by one, so that the next image takes the memory of the last: new memory for
    # each costs a tenth of all that is done to a photograph.
    batch = {
        name: np.empty((count, *np.shape(value)), np.result_type(value))
        for name, value in first.items()
    }
    for position, example in enumerate(examples):
        for name, value in example.items():
            # An assignment would spread a smaller array over a larger one.
            if np.shape(value) != batch[name].shape[1:]:
                raise ValueError(
                    f"two transformed examples have {name!r} of shapes "
                    f"{batch[name].shape[1:]} and {np.shape(value)}; a batch needs one."
                )
            batch[name][position] = value
    return batch


def _bytes(dataset: Dataset, batch_size: int) -> int:
    return batch_size * math.prod(dataset.input_shape) * 4


def _iterate(
    batches: TrainBatches | _EvaluationBatches,
    worker_count: int,
    batch_bytes: int,
    *,
    first: int = 0,
) -> grain.DatasetIterator[Batch]:
    ahead = min(max(_BUFFER_BYTES // batch_bytes, 1), 8)
    options = grain.ReadOptions(num_threads=min(ahead, 4), prefetch_buffer_size=ahead)
    dataset = grain.MapDataset.source(batches)[first:].to_iter_dataset(options)
    if worker_count:
        if not flags.FLAGS.is_parsed():
            # Grain hands the parsed flags to its workers; in a program without absl's
            # command line there are none to hand over.
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=worker_count)
        )
    return iter(dataset)


def data_directory(data_dir: str | None) -> str | None:
    """Where tfds keeps its datasets: the argument, or else ``$TFDS_DATA_DIR``.

    tfds reads the variable too, but only once, when it is imported.

    Args:
      data_dir: The directory that a config asks for, or None.

    Returns:
      The directory; None stands for the default of tfds, ``~/tensorflow_datasets``.

    Example:
      >>> data_directory("/data")
      '/data'
    """
    found = data_dir or os.environ.get("TFDS_DATA_DIR")
    if found == "":
        # To tfds that is where the program happens to run.
        return os.path.expanduser("~/tensorflow_datasets")
    return found
