"""A whole training step in compressed form against masks over dense weights.

An MLP with two large sparse layers, momentum SGD, batch 128, buffers donated. Both
train the same network: their losses over the first five steps are compared before
anything is timed, and they take turns, so that a noisy machine slows both. Printed is
the ratio of the 10th percentiles.

    python scripts/bench_training.py            # about two minutes on two cores
    python scripts/bench_training.py --width 1024 --sparsities 0.9
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sparsejax_kernels import matmul
from sparsejax_kernels.timing import interleaved

import sparsejax as sj
from sparsejax import always_sparse

CLASSES, LAYERS = 10, ("first", "second")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=3072)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=3.0, help="per contender")
    parser.add_argument(
        "--sparsities", type=float, nargs="+", default=[0.9, 0.95, 0.98, 0.99]
    )
    options = parser.parse_args()
    sizes = f"{options.width}-{options.width}-{options.width}-{CLASSES}"
    print(f"device: {jax.devices()[0].device_kind}, jax {jax.__version__}")
    print(f"MLP {sizes}, batch {options.batch}, momentum SGD")
    for sparsity in options.sparsities:
        compare(options.width, options.batch, sparsity, options.seconds)


def compare(width, batch, sparsity, seconds):
    """Prints how much faster a compressed step is at one sparsity."""
    steps = {"sparse": compressed(width, sparsity), "masked": masked(width, sparsity)}
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal((batch, width)), jnp.float32)
    y = jnp.asarray(random.integers(0, CLASSES, batch))
    runs, losses = {}, {}
    for name, (step, carry) in steps.items():
        run = runs[name] = Runner(step, carry, x, y)
        losses[name] = [run() for _ in range(5)]
    np.testing.assert_allclose(losses["sparse"], losses["masked"], rtol=1e-5)
    times = interleaved(runs, seconds=seconds)
    dense, sparse = times["masked"], times["sparse"]
    print(
        f"{100 * sparsity:g} %: masked {1e3 * dense.p10:.1f} ms, sparse "
        f"{1e3 * sparse.p10:.2f} ms, {dense.p10 / sparse.p10:.1f}x "
        f"(medians {dense.median / sparse.median:.1f}x); losses after five steps "
        f"{losses['sparse'][-1]:.6f} and {losses['masked'][-1]:.6f}",
        flush=True,
    )


class Runner:
    """Calls a step with what the call before returned, as training does."""

    def __init__(self, step, carry, x, y):
        self.step, self.carry, self.batch = step, carry, (x, y)

    def __call__(self):
        *self.carry, loss = self.step(*self.carry, *self.batch)
        return float(loss)


def connections(width, sparsity):
    """Values, topology and dense head of the network."""
    keys = jax.random.split(jax.random.key(0), 3)
    fan_in = max(1, round(width * (1 - sparsity)))
    params = {"head": jax.random.normal(keys[2], (width, CLASSES)) / np.sqrt(width)}
    topology = {"head": None}
    for name, key in zip(LAYERS, keys, strict=False):
        params[name], topology[name] = always_sparse.connect(
            key, width, width, fan_in=fan_in
        )
        params[f"{name}_bias"], topology[f"{name}_bias"] = jnp.zeros(width), None
    return params, topology


def stepper(tx, logits, params):
    """A jitted, donating training step, and what it starts from."""

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, x, y):
        def loss(params):
            found = logits(params, state, x)
            losses = optax.softmax_cross_entropy_with_integer_labels(found, y)
            return losses.mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    return step, (params, tx.init(params))


def compressed(width, sparsity):
    params, topology = connections(width, sparsity)
    tx = always_sparse.static(optax.sgd(1e-3, momentum=0.9), topology=topology)

    def logits(params, state, x):
        wires = always_sparse.topology(state)
        for name in LAYERS:
            weight = always_sparse.weight(params[name], wires[name])
            x = matmul(x, weight, bias=params[f"{name}_bias"], activation="relu")
        return x @ params["head"]

    return stepper(tx, logits, params)


def masked(width, sparsity):
    params, topology = connections(width, sparsity)
    masks = dict.fromkeys(params)
    for name in LAYERS:
        ones = always_sparse.weight(jnp.ones_like(params[name]), topology[name])
        masks[name] = ones.todense() != 0
        params[name] = always_sparse.weight(params[name], topology[name]).todense()
    tx = sj.static(optax.sgd(1e-3, momentum=0.9), sparsity=None, initial_masks=masks)

    def logits(params, state, x):
        for name in LAYERS:
            x = jax.nn.relu(x @ params[name] + params[f"{name}_bias"])
        return x @ params["head"]

    return stepper(tx, logits, params)


if __name__ == "__main__":
    main()
