"""What a sparse method costs beside the plain optimizer: ratios, not seconds.

Every round times all contenders in turn, so that a noisy machine slows all of them;
printed are the median ratio and the 10th to 90th percentile over the rounds.

    python scripts/bench_overhead.py            # about two minutes on two cores
    python scripts/bench_overhead.py --weights 1000000 --rounds 5
"""

import argparse
import functools
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sparsejax as sj

WIDTHS = (784, 1024, 1024, 10)
BATCH = 128
EVERY = 100


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30, help="interleaved rounds")
    parser.add_argument(
        "--weights",
        type=int,
        default=25_000_000,
        help="size of the selection benchmark",
    )
    options = parser.parse_args()
    print(f"device: {jax.devices()[0].device_kind}, jax {jax.__version__}")
    bench_step(options.rounds)
    bench_selection(options.weights, max(options.rounds // 10, 3))
    report_memory()


def bench_step(rounds):
    """One training step of an MLP: plain adam, RigL between moves, RigL at a move."""
    params = initialise(jax.random.key(0))
    never, always = 10**9, 0
    contenders = {
        "plain adam": stepper(optax.adam(1e-3), params),
        "between moves": stepper(rigl(start=never, stop=never + 1), params),
        "between moves, packed": stepper(
            rigl(start=never, stop=never + 1, packed=True), params
        ),
        "at a move": stepper(rigl(start=always, stop=never, every=1), params),
    }
    seconds = interleave(contenders, rounds)
    print(f"\nMLP {'-'.join(map(str, WIDTHS))}, batch {BATCH}, adam, {rounds} rounds")
    print(f"plain adam: {1e3 * np.median(seconds['plain adam']):.1f} ms a step")
    dense = seconds["plain adam"]
    for name in list(contenders)[1:]:
        show(f"RigL {name} / plain step", seconds[name] / dense)
    between, move = seconds["between moves"], seconds["at a move"]
    average = ((EVERY - 1) * between + move) / EVERY / dense
    show(f"RigL averaged at every={EVERY} / plain step", average)


def bench_selection(size, rounds):
    """A whole RigL mask update of one leaf: threshold search against argsort."""
    keys = jax.random.split(jax.random.key(1), 3)
    weight, gradient = (jax.random.normal(key, (size,)) for key in keys[:2])
    active, drop = size // 10, size // 33
    mask = sj.top_k_mask(jax.random.bits(keys[2], (size,)), active)

    def update(select):
        def run(weight, gradient, mask):
            kept = select(jnp.where(mask, jnp.abs(weight), -jnp.inf), active - drop)
            return kept | select(jnp.where(kept, -jnp.inf, jnp.abs(gradient)), drop)

        return jax.jit(run)

    def by_argsort(scores, k):
        order = jnp.argsort(-scores, stable=True)
        return jnp.zeros(size, bool).at[order[:k]].set(True)

    ours, theirs = update(sj.top_k_mask), update(by_argsort)
    same = bool(jnp.all(ours(weight, gradient, mask) == theirs(weight, gradient, mask)))
    seconds = interleave(
        {
            "ours": lambda: ours(weight, gradient, mask),
            "argsort": lambda: theirs(weight, gradient, mask),
        },
        rounds,
    )
    print(f"\nRigL mask update of {size:,} weights, {rounds} rounds, same mask: {same}")
    print(f"threshold search: {1e3 * np.median(seconds['ours']):.0f} ms")
    show("argsort / threshold search", seconds["argsort"] / seconds["ours"])


def report_memory():
    """Bytes that the state adds to the inner optimizer's."""
    params = initialise(jax.random.key(0))
    weights = sum(layer["kernel"].size for layer in params.values())
    inner = state_bytes(optax.adam(1e-3).init(params))
    print()
    for name, packed in (("masks", False), ("packed masks", True)):
        state = rigl(start=1, stop=2, packed=packed).init(params)
        added = state_bytes(state) - inner
        print(f"{name}: {added / weights:.3f} bytes a weight added to adam's state")


def rigl(**options):
    return sj.rigl(optax.adam(1e-3), sparsity=0.9, **options)


def initialise(key):
    params = {}
    for index, (inputs, outputs) in enumerate(itertools.pairwise(WIDTHS)):
        kernel = jax.random.normal(jax.random.fold_in(key, index), (inputs, outputs))
        params[f"layer{index}"] = {
            "kernel": kernel * np.sqrt(2 / inputs),
            "bias": jnp.zeros(outputs),
        }
    return params


def loss_function(params, images, labels):
    for index in range(len(params)):
        layer = params[f"layer{index}"]
        images = images @ layer["kernel"] + layer["bias"]
        if index < len(params) - 1:
            images = jax.nn.relu(images)
    return optax.softmax_cross_entropy_with_integer_labels(images, labels).mean()


def stepper(tx, params):
    """A closure that makes one jitted training step, carrying its state along."""
    state = tx.init(params)
    if hasattr(state, "masks"):
        params = sj.sparsify(params, state)
    params = jax.tree.map(jnp.copy, params)
    images = jax.random.normal(jax.random.key(2), (BATCH, WIDTHS[0]))
    labels = jax.random.randint(jax.random.key(3), (BATCH,), 0, WIDTHS[-1])

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        gradients = jax.grad(loss_function)(params, images, labels)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    carry = [params, state]

    def run():
        carry[:] = step(*carry)
        return carry

    return run


def interleave(contenders, rounds):
    """Seconds per call of each contender, one call of each in every round.

    In random order: what a contender leaves in the caches would favour its successor.
    """
    order = np.random.default_rng(0)
    for run in contenders.values():
        jax.block_until_ready(run())
    seconds = {name: [] for name in contenders}
    for _ in range(rounds):
        for name in order.permutation(list(contenders)):
            run = contenders[name]
            begin = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - begin)
    return {name: np.array(times) for name, times in seconds.items()}


def show(label, ratios):
    low, middle, high = np.percentile(ratios, (10, 50, 90))
    print(f"{label}: {middle:.3f}x ({low:.3f} to {high:.3f})")


def state_bytes(state):
    return sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(state))


if __name__ == "__main__":
    main()
