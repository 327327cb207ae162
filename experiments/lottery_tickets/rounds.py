"""The rounds of the branches, in order; those that are stored are not trained again."""

import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np

import sparsejax as sj
from experiments.lottery_tickets import storage
from experiments.lottery_tickets.settings import BRANCHES, Row, Settings
from experiments.lottery_tickets.storage import Round
from experiments.lottery_tickets.training import (
    Point,
    active,
    dense_masks,
    prune,
    trainer,
)


def study(settings: Settings, number: int, folder: pathlib.Path) -> list[Row]:
    """Trains all rounds of all branches that ``folder`` does not have.

    Weight rewinding prunes what it trained and goes back to the weights of the step of
    rewinding; learning-rate rewinding prunes what it trained and trains that on. Random
    weights get the masks of weight rewinding, and new weights, scaled up to the inputs
    that each neuron has, that are trained from step 0.

    Args:
      settings: of the study.
      number: of the last round.
      folder: where rounds are stored.

    Returns:
      One row per network.
    """
    functions = trainer(settings)
    initial = functions.initial(0)
    masks = dense_masks(initial.params)
    like = Round(initial, masks, np.zeros(settings.seeds))

    def stored(name: str, train: Callable[[], Round]) -> Round:
        path = folder / "rounds" / f"{name}.npz"
        found = storage.read(path, like)
        if found is None:
            began = time.monotonic()
            found = train()
            storage.write(path, found)
            mean, seconds = found.accuracies.mean(), time.monotonic() - began
            print(f"{name}: accuracy {100 * mean:.1f} % ({seconds:.0f} s)", flush=True)
        return found

    first, early = _dense(functions, initial, masks, folder, stored)
    rounds = {("dense", 0): first}
    last = {"weights": first, "rate": first}
    for index in range(1, number + 1):
        found = {}
        for branch in BRANCHES:
            # The control has the masks of weight rewinding in the same round.
            before = last["weights" if branch == "random" else branch]

            def train(branch=branch, before=before, index=index):
                kept = prune(before.point.params, before.masks, index, settings)
                begin, step = _begin(
                    branch, functions, before, early, kept, index, settings
                )
                trained = functions.sparse(begin, kept, step)
                return Round(trained.point, kept, trained.accuracies)

            found[branch] = stored(f"{branch}{index:02}", train)
            rounds[branch, index] = found[branch]
        last = {branch: found[branch] for branch in last}
    return [row for name, one in rounds.items() for row in _rows(*name, one)]


def _dense(functions, initial, masks, folder, stored) -> tuple[Round, Point]:
    """The dense networks, and their weights at the step of rewinding."""
    path = folder / "rounds" / "early.npz"

    def train():
        early, trained = functions.dense(initial)
        storage.write(path, early)
        return Round(trained.point, masks, trained.accuracies)

    first = stored("dense", train)
    early = storage.read(path, initial)
    assert early is not None
    return first, early


def _begin(
    branch: str, functions, before: Round, early: Point, masks, index: int, settings
) -> tuple[Point, int]:
    """Where a branch begins to train in a round, and at which step."""
    if branch == "weights":
        return early, settings.rewind_step
    if branch == "rate":
        # The statistics of batch norms begin again where the learning rate does.
        return before.point._replace(
            model_state=early.model_state
        ), settings.rewind_step
    drawn = functions.initial(index)
    corrected = jax.vmap(sj.fan_in_corrected)(drawn.params, masks)
    return drawn._replace(params=corrected), 0


def _rows(branch: str, number: int, one: Round) -> list[Row]:
    pairs = zip(active(one.masks), one.accuracies.tolist(), strict=True)
    return [
        Row(branch, number, seed, *counts, accuracy)
        for seed, (counts, accuracy) in enumerate(pairs)
    ]
