"""Trains one network and evaluates it on all held-out files."""

import time
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

import sparsejax as sj
from sparsejax.data.pipeline import evaluation_batches, train_iterator
from sparsejax.tasks.language_model import language_model


class Row(NamedTuple):
    """One trained network.

    Attributes:
      method: as in `settings.Cell`.
      sparsity: as in `settings.Cell`.
      optimizer: as in `settings.Cell`.
      seed: of initial weights, masks and order of the text.
      steps: of training.
      bits_per_byte: of the held-out files.
      parameters: that are not masked.
      corpus: which source was trained on: Python's version and a hash.
      seconds: wall time of training.
    """

    method: str
    sparsity: float
    optimizer: str
    seed: int
    steps: int
    bits_per_byte: float
    parameters: int
    corpus: str
    seconds: float


class Outcome(NamedTuple):
    """What a network ends with; fields as of `Row`."""

    bits_per_byte: float
    parameters: int
    corpus: str
    seconds: float


class Trainer:
    """Trains networks of one config of one config.

    Args:
      config: of the task `language_model`.
    """

    def __init__(self, config: ConfigDict):
        self.config, self.task = config, language_model(config)
        self._initialise = jax.jit(self.task.initialise)
        self._step = jax.jit(self.task.train_step, donate_argnums=0)
        self._evaluate = jax.jit(self.task.evaluation_step)

    def train(self, seed: int) -> Outcome:
        """Trains from a seed as ``python -m sparsejax.train --config.seed`` does.

        Args:
          seed: of the run.

        Raises:
          ValueError: a parameter outside its mask is not zero.
          FloatingPointError: the loss is not finite.
        """
        dataset, batch_size = self.task.dataset, self.config.data.batch_size
        state = self._initialise(jax.random.key(seed))
        iterator = train_iterator(dataset, batch_size=batch_size, seed=seed)
        began = time.monotonic()
        metrics = {}
        for _ in range(self.config.steps):
            state, metrics = self._step(state, next(iterator))
        loss = float(metrics["loss"])
        seconds = time.monotonic() - began
        iterator.close()
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss of seed {seed} is {loss}")
        sj.verify(state.params, state.optimizer_state)
        batches = evaluation_batches(dataset, batch_size=4 * batch_size)
        found = self.task.gather(
            jax.device_get(self._evaluate(state, batch)) for batch in batches
        )
        size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        counts = sj.counts(state.optimizer_state).values()
        zeros = sum(whole - active for active, whole in counts)
        corpus = dataset.identity.removeprefix("source of ")
        return Outcome(found["bits_per_byte"], size - zeros, corpus, seconds)
