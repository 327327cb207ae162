"""Federated averaging of sparse networks: clients, server and the rounds between."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

import sparsejax as sj
from experiments.federated_digits import messages
from experiments.federated_digits.messages import Leaves
from sparsejax.data.digits import digits
from sparsejax.data.pipeline import evaluation_batches
from sparsejax.layers import leaves_with_paths
from sparsejax.models.mlp import mlp


class Setting(NamedTuple):
    """What one federation is.

    Attributes:
      method: "dense", "static" (random masks that stay) or "rigl" (clients move them).
      sparsity: share of the kernels' weights that are zero; 0 for "dense".
      rounds: of training and averaging; masks move in the first 75 %.
      clients: all take part in every round.
      local_steps: of each client and round.
    """

    method: str
    sparsity: float
    rounds: int
    clients: int = 10
    local_steps: int = 20


class Outcome(NamedTuple):
    """What one federation ends with.

    Attributes:
      accuracy: share of the test examples that the last average classifies correctly.
      active: weights of the kernels that are left.
      download: bytes that a client receives, mean over rounds.
      upload: bytes that a client sends, mean over rounds and clients.
    """

    accuracy: float
    active: int
    download: float
    upload: float


BATCH_SIZE = 32
LEARNING_RATE = 0.05
DROP_FRACTION = 0.3
CONCENTRATION = 0.5


@functools.cache
def _data() -> dict[str, np.ndarray]:
    dataset = digits()
    rng = np.random.default_rng(0)
    train = [dataset.train_transform(example, rng) for example in dataset.train]
    [test] = evaluation_batches(dataset, batch_size=len(dataset.evaluation))
    return {
        "image": np.stack([example["image"] for example in train]),
        "label": np.stack([example["label"] for example in train]),
        "test_image": np.asarray(test["image"]),
        "test_label": np.asarray(test["label"]),
    }


def shards(
    labels: np.ndarray, clients: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Splits the examples of each class over the clients by a Dirichlet distribution.

    Args:
      labels: of all examples.
      clients: how many.
      rng: draws the shares, anew until each client has a batch of examples.

    Returns:
      The examples of each client; every example has one.
    """
    while True:
        parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
        for label in np.unique(labels):
            examples = rng.permutation(np.flatnonzero(labels == label))
            shares = rng.dirichlet(np.full(clients, CONCENTRATION))
            ends = np.round(np.cumsum(shares)[:-1] * len(examples)).astype(int)
            for part, piece in zip(parts, np.split(examples, ends), strict=True):
                part.append(piece)
        found = [np.concatenate(part) for part in parts]
        if min(map(len, found)) >= BATCH_SIZE:
            return found


def federate(setting: Setting, seed: int) -> Outcome:
    """Trains one network by federated averaging.

    Args:
      setting: what to do.
      seed: of shards, initial weights, masks and the order of examples.

    Returns:
      Accuracy, and the sizes of the messages that were really exchanged.
    """
    data, rng = _data(), np.random.default_rng(seed)
    parts = shards(data["label"], setting.clients, rng)
    sizes = np.array([len(part) for part in parts], np.float64)
    params, masks = _initial(setting, seed)
    shapes = {path: leaf.shape for path, leaf in params.items()}
    known: Leaves = {}
    downloads, uploads = [], []
    for index in range(setting.rounds):
        moving = setting.method == "rigl" and index < 0.75 * setting.rounds
        down = messages.encode(params, masks, known)
        received, held = messages.decode(down, shapes, known)
        known = held
        chosen = np.stack(
            [
                rng.choice(part, (setting.local_steps, BATCH_SIZE), replace=True)
                for part in parts
            ]
        )
        batches = {"image": data["image"][chosen], "label": data["label"][chosen]}
        progress = index / (0.75 * setting.rounds)
        fraction = DROP_FRACTION * (1 + math.cos(math.pi * progress)) / 2
        local, moved = _local(
            _tree(received), _tree(held), batches, jnp.float32(fraction), moving=moving
        )
        local, moved = _leaves(local), _leaves(moved)
        ups = [
            messages.encode(_client(local, i), _client(moved, i), known)
            for i in range(setting.clients)
        ]
        replies = [messages.decode(up, shapes, known) for up in ups]
        params = average(replies, sizes)
        if moving:
            pruned, found = sj.pruning.magnitude(
                _tree(params), sparsity=setting.sparsity, distribution=sj.erk()
            )
            params, masks = _leaves(pruned), _leaves(found)
        downloads.append(len(down))
        uploads.append(np.mean([len(up) for up in ups]))
    logits = _apply(_tree(params), data["test_image"])
    kernels = [path for path in shapes if path.endswith("kernel")]
    active = sum(int(masks[p].sum()) if p in masks else params[p].size for p in kernels)
    return Outcome(
        accuracy=float(np.mean(np.argmax(logits, -1) == data["test_label"])),
        active=active,
        download=float(np.mean(downloads)),
        upload=float(np.mean(uploads)),
    )


def average(replies: list[tuple[Leaves, Leaves]], sizes: np.ndarray) -> Leaves:
    """The mean of each weight over the clients that hold it, by their examples.

    Args:
      replies: parameters and masks of each client.
      sizes: examples of each client.
    """
    found = {}
    for path in replies[0][0]:
        total = np.zeros(replies[0][0][path].shape)
        weight = np.zeros(total.shape)
        for (values, masks), size in zip(replies, sizes, strict=True):
            held = masks.get(path, np.ones(total.shape, bool))
            total += size * held * values[path]
            weight += size * held
        found[path] = (total / np.maximum(weight, 1e-9)).astype(np.float32)
    return found


@functools.cache
def _graph() -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: mlp((8, 8, 1), 10, rngs=nnx.Rngs(0))))[0]


def _apply(params: Any, images: Any) -> Any:
    return nnx.merge(_graph(), params)(images)


def _initial(setting: Setting, seed: int) -> tuple[Leaves, Leaves]:
    params = nnx.to_pure_dict(nnx.split(mlp((8, 8, 1), 10, rngs=nnx.Rngs(seed)))[1])
    if setting.method == "dense":
        return _leaves(params), {}
    tx = sj.static(optax.identity(), sparsity=setting.sparsity, seed=seed)
    state = tx.init(params)
    masks = sj.masks(state)
    params = sj.sparsify(sj.fan_in_corrected(params, masks), state)
    return _leaves(params), _leaves(masks)


@functools.partial(jax.jit, static_argnames="moving")
def _local(params, masks, batches, fraction, *, moving: bool):
    """Trains all clients side by side, from the same parameters and masks."""
    steps = batches["label"].shape[1]
    inner = optax.sgd(LEARNING_RATE, momentum=0.9)
    given = {
        layer: {name: masks.get(layer, {}).get(name) for name in leaves}
        for layer, leaves in params.items()
    }
    if not masks:
        tx = sj.dense(inner)
    elif moving:
        tx = sj.rigl(
            inner,
            sparsity=None,
            initial_masks=given,
            # One move, with as many steps before as after it.
            start=steps // 2,
            every=steps,
            stop=steps,
            drop_fraction=lambda progress: fraction,
        )
    else:
        tx = sj.static(inner, sparsity=None, initial_masks=given)

    def loss(params, batch):
        logits = _apply(params, batch["image"])
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, batch["label"]
        ).mean()

    def client(batches):
        def step(carry, batch):
            params, state = carry
            gradients = jax.grad(loss)(params, batch)
            updates, state = tx.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        (trained, state), _ = lax.scan(step, (params, tx.init(params)), batches)
        return trained, sj.masks(state)

    return jax.vmap(client)(batches)


def _client(leaves: Leaves, index: int) -> Leaves:
    return {path: leaf[index] for path, leaf in leaves.items()}


def _leaves(tree: Any) -> Leaves:
    return {path: np.asarray(leaf) for path, leaf in leaves_with_paths(tree)}


def _tree(leaves: Leaves) -> dict[str, dict[str, np.ndarray]]:
    tree: dict[str, dict[str, np.ndarray]] = {}
    for path, leaf in leaves.items():
        layer, name = path.split("/")
        tree.setdefault(layer, {})[name] = leaf
    return tree
