"""A network on random features of the digits, compressed or masks of dense weights."""

import functools
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree
from sparsejax_kernels import matmul

import sparsejax as sj
from experiments.digits_methods.training import arrays
from sparsejax import always_sparse
from sparsejax.data.digits import digits
from sparsejax.data.pipeline import evaluation_batches

FAN_IN, BATCH, LAYERS = 32, 128, ("first", "second")


class Row(NamedTuple):
    """A network and what it took.

    Attributes:
      kind: "compressed" or "masked".
      width: neurons of each of the three layers before the head.
      seed: of weights, topology and batches.
      steps: of training.
      weights: in the two sparse layers.
      accuracy: share of the test examples classified correctly.
      step: median seconds of a step without a move, from the middle of the run on.
      move: median seconds of a step with one.
      peak: bytes of the process at its largest.
    """

    kind: str
    width: int
    seed: int
    steps: int
    weights: int
    accuracy: float
    step: float
    move: float
    peak: int


class Network(NamedTuple):
    """Parameters, their optimizer, and the logits of features."""

    params: PyTree
    optimizer: optax.GradientTransformationExtraArgs
    logits: Callable[[PyTree, Any, Array], Array]


def compressed(width: int, seed: int, every: int, stop: int) -> Network:
    """Three layers of which no dense array ever exists, SET in compressed form."""
    params, topology = _connections(width, seed)
    optimizer = always_sparse.set(
        optax.adam(1e-3), topology=topology, every=every, stop=stop, seed=seed
    )

    def logits(params, state, hidden):
        wires = always_sparse.topology(state)
        for name in LAYERS:
            weight = always_sparse.weight(params[name], wires[name])
            bias = params[f"{name}_bias"]
            hidden = matmul(hidden, weight, bias=bias, activation="relu")
        return hidden @ params["head"]

    return Network(params, optimizer, logits)


def masked(width: int, seed: int, every: int, stop: int) -> Network:
    """The same network as masks over dense weights, SET with constant fan-in."""
    params, topology = _connections(width, seed)
    masks = dict.fromkeys(params)
    for name in LAYERS:
        weight = always_sparse.weight(params[name], topology[name])
        there = always_sparse.weight(jnp.ones_like(params[name]), topology[name])
        params[name], masks[name] = weight.todense(), there.todense() != 0
    optimizer = sj.set(
        optax.adam(1e-3),
        sparsity=None,
        initial_masks=masks,
        structure=sj.fan_in(),
        layout=lambda path, shape: sj.flax()("kernel", shape),
        every=every,
        stop=stop,
        seed=seed,
    )

    def logits(params, state, hidden):
        for name in LAYERS:
            bias = params[f"{name}_bias"][None]
            hidden = jax.nn.relu(hidden @ params[name] + bias)
        return hidden @ params["head"]

    return Network(params, optimizer, logits)


KINDS = {"compressed": compressed, "masked": masked}


def _connections(width: int, seed: int) -> tuple[dict[str, Array], dict[str, Any]]:
    first, second, head = jax.random.split(jax.random.key(seed), 3)
    topology: dict[str, Any] = {}
    params = {"head": jax.random.normal(head, (width, 10)) / np.sqrt(width)}
    for name, key in zip(LAYERS, (first, second), strict=True):
        params[name], topology[name] = always_sparse.connect(
            key, width, width, fan_in=FAN_IN
        )
        params[f"{name}_bias"] = jnp.zeros(width)
    return params, {name: topology.get(name) for name in params}


def train(kind: str, width: int, seed: int, steps: int) -> Row:
    """Trains a network, SET moving its weights until three quarters of the steps.

    Args:
      kind: name of `KINDS`.
      width: neurons of each layer, random features included.
      seed: of everything that is random.
      steps: of adam at 1e-3, batches of 128.

    Returns:
      What it took; the peak is that of this process, all that ran before included.
    """
    every = max(steps // 20, 1)
    params, optimizer, logits = KINDS[kind](width, seed, every, steps * 3 // 4)
    data = arrays(digits())
    mixing, wires = always_sparse.connect(jax.random.key(99), 64, width, fan_in=8)
    mixed = always_sparse.weight(mixing, wires)
    state = jax.jit(optimizer.init)(params)
    keys = jax.random.split(jax.random.key(seed + 1_000), steps)

    def outputs(params, state, images):
        features = matmul(
            jnp.asarray(images).reshape(len(images), -1), mixed, activation="relu"
        )
        return logits(params, state, features)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, key):
        batch = jax.random.randint(key, (BATCH,), 0, len(data["label"]))

        def loss(params):
            found = outputs(params, state, data["image"][batch])
            return optax.softmax_cross_entropy_with_integer_labels(
                found, data["label"][batch]
            ).mean()

        updates, after = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), after

    times = []
    for key in keys:
        began = time.perf_counter()
        params, state = jax.block_until_ready(step(params, state, key))
        times.append(time.perf_counter() - began)
    [test] = evaluation_batches(digits(), batch_size=360)
    right = outputs(params, state, test["image"]).argmax(-1) == test["label"]
    moves = [i for i in range(steps) if i and i % every == 0 and i < steps * 3 // 4]
    calm = [t for i, t in enumerate(times) if i not in moves and i >= steps // 2]
    # Linux counts kibibytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return Row(
        kind,
        width,
        seed,
        steps,
        2 * width * FAN_IN,
        float(right.mean()),
        float(np.median(calm)),
        float(np.median([times[i] for i in moves])) if moves else 0.0,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    )
