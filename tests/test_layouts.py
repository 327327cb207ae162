"""One device, or eight that split batches, states or both: the same sparse networks.

What was seen is in docs/scaling.md: `-m slow -s -k table` prints it.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

import sparsejax as sj
from sparsejax import recipes, sharding
from sparsejax.building import build
from sparsejax.data.pipeline import train_iterator
from sparsejax.tasks.sparse_network import NESTED

LAYOUTS = {"one device": (1, 1), "data=8": (8, 1), "fsdp=8": (1, 8), "4x2": (4, 2)}
METHODS = ("rigl", "srigl", "set", "granet", "sr_ste", "snip")
MODELS = ("mlp", "wide_resnet", "transformer")
MOVES, EVERY = 20, 5
# GraNet cuts all layers at one magnitude, about which the weights of this network lie
# as close as 1e-4 times their gradients are rounded: at 1e-4 some fall on the other
# side at the third move, and one network becomes another.
RATES = {("granet", "wide_resnet"): 1e-6}


def mesh_of(layout):
    data, fsdp = LAYOUTS[layout]
    devices = jax.devices()[: data * fsdp]
    types = (AxisType.Auto,) * 2
    return jax.make_mesh((data, fsdp), ("data", "fsdp"), types, devices=devices)


def config_of(method, model):
    config = getattr(recipes, model)(method)
    with config.unlocked():
        config.steps = MOVES * EVERY + 4
        if "every" in config.method:
            config.method.every = EVERY
        if "stop" in config.method:
            config.method.stop = MOVES * EVERY
        if "start" in config.method:
            config.method.start = 0
        if config.get("learning_rate_schedule"):
            config.learning_rate_schedule.warmup_steps = 0
        if config.optimizer.get("learning_rate"):
            # Of no use if one rounding error makes another network of it.
            config.optimizer.learning_rate = RATES.get((method, model), 1e-4)
        if method == "sr_ste":
            config.method.sparsity = 0.5
        config.data.batch_size = 16
        if model == "wide_resnet":
            config.model.depth, config.model.width = 10, 2
        if model == "transformer":
            config.data.context, config.data.evaluation_rows = 32, 8
            config.model.layers, config.model.width = 2, 64
    return config


def moved_masks(state):
    return [np.asarray(mask) for mask in jax.tree.leaves(sj.masks(state))]


def train(method, model, layout):
    """Losses of all steps, and the masks after every move."""
    config, mesh = config_of(method, model), mesh_of(layout)
    task = build("task", config.task, "sparsejax.tasks", config)
    abstract = jax.eval_shape(task.initialise, jax.random.key(0))
    placed = sharding.of_state(abstract, mesh)
    state = jax.jit(task.initialise, out_shardings=placed)(jax.random.key(0))
    everywhere, split = sharding.everywhere(mesh), sharding.of_batch(mesh)
    step = jax.jit(task.train_step, out_shardings=(placed, everywhere))
    batches = train_iterator(task.dataset, batch_size=16, seed=0)
    losses, masks = [], []
    for index in range(config.steps):
        batch = jax.device_put(next(batches), split)
        # One program at a time: simulated devices share the machine's threads.
        state, scalars = jax.block_until_ready(step(state, batch))
        losses.append(float(scalars["loss"]))
        if index % EVERY == 0:
            masks.append(moved_masks(state.optimizer_state))
    sj.verify(state.params, state.optimizer_state)
    return np.array(losses), masks


@functools.cache
def trained_alone(method, model):
    return train(method, model, "one device")


def overlap(left, right):
    """Of the active weights of either, the share that is active in both."""
    pairs = list(zip(left, right, strict=True))
    both = sum(int((a & b).sum()) for a, b in pairs)
    return both / sum(int((a | b).sum()) for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_table(method, model, data_dir):
    losses, masks = trained_alone(method, model)
    changed = sum(
        any(not np.array_equal(a, b) for a, b in zip(left, right, strict=True))
        for left, right in itertools.pairwise(masks)
    )
    cells = []
    for layout in list(LAYOUTS)[1:]:
        other_losses, other_masks = train(method, model, layout)
        differences = np.abs(other_losses - losses)
        shared = list(map(overlap, masks, other_masks))
        cells.append(f"{differences.max():.0e}, {100 * min(shared):.3f} %")
        assert differences.max() < 1e-4
        assert min(shared) >= 0.999
    print(f"\n| {method} | {model} | {changed} | {' | '.join(cells)} |")
    # SNIP has made its one move in the first step.
    assert changed >= (0 if method == "snip" else 15)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_identical_gradients_move_the_same_masks(method, model, data_dir):
    config = config_of(method, model)
    if "every" in config.method:
        config.method.every = 1
    task = build("task", config.task, "sparsejax.tasks", config)
    first = jax.jit(task.initialise)(jax.random.key(0))
    rng = np.random.default_rng(0)
    gradients = [
        jax.tree.map(
            lambda leaf: rng.standard_normal(leaf.shape, np.float32), first.params
        )
        for _ in range(3)
    ]

    def moves(layout):
        mesh = mesh_of(layout)
        tx = build(
            "method",
            config.method,
            "sparsejax.methods",
            optax.adam(1e-2),
            nested=NESTED,
            seed=0,
            layout=task.layout,
        )
        place = functools.partial(sharding.of_state, mesh=mesh)
        params = jax.device_put(first.params, place(first.params))
        state = jax.eval_shape(tx.init, params)
        placed = place(first.params), place(state)
        state = jax.jit(tx.init, out_shardings=placed[1])(params)

        @functools.partial(jax.jit, out_shardings=placed)
        def step(params, state, gradients):
            updates, state = tx.update(gradients, state, params)
            return jax.tree.map(jnp.add, params, updates), state

        params = sj.sparsify(params, state)
        found = []
        for each in gradients:
            each = jax.device_put(each, placed[0])
            params, state = jax.block_until_ready(step(params, state, each))
            found.append(moved_masks(state))
        return found

    want = moves("one device")
    assert any((a != b).any() for a, b in zip(want[0], want[-1], strict=True)) or (
        method == "snip"
    )
    for layout in list(LAYOUTS)[1:]:
        for got, expected in zip(moves(layout), want, strict=True):
            for a, b in zip(got, expected, strict=True):
                np.testing.assert_array_equal(a, b, strict=True)
