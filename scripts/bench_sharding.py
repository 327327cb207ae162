"""What moving a topology exchanges between devices, from the compiled programs.

Compiles the update of a transformer's weights, split over simulated devices, in which
the topology moves, and counts what its collectives bring to each device. A search for a
threshold is a loop: its passes are counted as many as they can be at the most, 96.
Nothing as large as the model is ever allocated.

    python scripts/bench_sharding.py
    python scripts/bench_sharding.py --weights 1e9 --devices 64 --methods rigl set

For comparison one row selects by sorting, as other libraries do.
"""

import argparse
import math
import os
import re
import sys

# Of `sparsejax.selection`: it bisects every third time, and keys have 32 bits.
PASSES = 3 * 32

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "reduce-scatter",
)
WIDTHS = {"bf16": 2, "f16": 2, "pred": 1}

CALLS = re.compile(
    r"(?:body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)"
)

MOVING = {"sparsity": 0.9, "stop": 1000}

OPTIONS = {
    "rigl": MOVING,
    "set": MOVING,
    "granet": MOVING,
    "magnitude": {**MOVING, "start": 0},
    "snip": {"sparsity": 0.9},
    "srigl": MOVING,
    "sr_ste": {},
    "block rigl": MOVING,
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--weights", type=float, default=1e8, help="of the model, about (1e8)"
    )
    parser.add_argument("--devices", type=int, default=8, help="simulated ones (8)")
    parser.add_argument(
        "--methods", nargs="+", choices=["sorting", *OPTIONS], metavar="METHOD"
    )
    options = parser.parse_args()
    flags = os.environ.get("XLA_FLAGS", "")
    count = f"--xla_force_host_platform_device_count={options.devices}"
    # Only what is exchanged matters, not the machine code.
    fast = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    os.environ["XLA_FLAGS"] = f"{flags} {count} {fast}"
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    shapes = transformer(options.weights)
    weights = sum(math.prod(shape) for shape in shapes.values())
    print(
        f"{weights:,} weights in {len(shapes)} arrays, float32, adam, split over "
        f"{options.devices} devices; jax {jax.__version__}\n"
    )
    print("| method | exchanged, at the most | the largest at once | state a device |")
    print("|---|---|---|---|")
    for name in options.methods or ["sorting", *OPTIONS]:
        compiled = compiled_update(name, shapes)
        total, largest = exchanged(compiled.as_text())
        memory = compiled.memory_analysis()
        print(
            f"| {name} | {readable(total)} | {readable(largest)} | "
            f"{readable(memory.argument_size_in_bytes)} + "
            f"{readable(memory.temp_size_in_bytes)} |",
            flush=True,
        )


def transformer(weights):
    """Matrices of a decoder with about so many weights: path -> shape."""
    # A block has 4 d^2 weights of attention and 3 * 4 d^2 of its MLP, and a model of
    # width d about d / 64 blocks.
    width = 128 * max(round((4 * weights) ** (1 / 3) / 128), 1)
    blocks = max(round(weights / (16 * width**2)), 1)
    matrices = {name: (width, width) for name in ("query", "key", "value", "output")}
    matrices |= {name: (width, 4 * width) for name in ("gate", "up")}
    matrices["down"] = (4 * width, width)
    return {
        f"block{index:03}_{name}": shape
        for index in range(blocks)
        for name, shape in matrices.items()
    }


def compiled_update(name, shapes):
    """The update of sharded weights in a step that may move the topology."""
    import jax
    import jax.numpy as jnp

    from sparsejax import sharding

    mesh = sharding.mesh({"mesh": {"data": 1, "fsdp": -1}})
    params = {
        path: {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32)}
        for path, shape in shapes.items()
    }
    tx = transformation(name)
    state = jax.eval_shape(tx.init, params)

    def step(gradients, state, params):
        updates, state = tx.update(gradients, state, params)
        return jax.tree.map(jnp.add, params, updates), state

    placed = [sharding.of_state(tree, mesh) for tree in (params, state, params)]
    arguments = [
        jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, place
        )
        for tree, place in zip((params, state, params), placed, strict=True)
    ]
    jitted = jax.jit(step, out_shardings=(placed[2], placed[1]), donate_argnums=(1, 2))
    return jitted.lower(*arguments).compile()


def transformation(name):
    import optax

    import sparsejax as sj

    inner = optax.adam(1e-3)
    if name == "sorting":
        return by_sorting(inner)
    options = OPTIONS[name]
    if name == "block rigl":
        options = {**options, "structure": sj.block(16, 16)}
    return getattr(sj, name.split()[-1])(inner, **options)


def by_sorting(inner):
    """Magnitude pruning at every update by `argsort`, layer by layer."""
    import jax
    import jax.numpy as jnp
    import optax

    def update(gradients, state, params):
        updates, state = inner.update(gradients, state, params)

        def pruned(update, param):
            new = param + update
            order = jnp.argsort(-jnp.abs(new).reshape(-1))
            keep = jnp.zeros(new.size, bool).at[order[: new.size // 10]].set(True)
            return jnp.where(keep.reshape(new.shape), new, 0) - param

        return jax.tree.map(pruned, updates, params), state

    return optax.GradientTransformation(inner.init, update)


def exchanged(text):
    """Bytes that collectives of a compiled program bring to a device.

    Args:
      text: Of ``compiled.as_text()``.

    Returns:
      The sum, with loops as long as they can be and the more expensive branch of each
      condition, and the largest of a single collective.
    """
    found, name = {}, None
    for line in text.splitlines():
        if opening := re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line):
            name = opening[1]
            found[name] = []
        elif name:
            found[name].append(line)
    entry = re.search(r"^ENTRY %?([\w.\-]+)", text, re.M)[1]
    largest, known = 0, {}

    def loops(computation):
        return any(
            " while(" in line or any(map(loops, CALLS.findall(line)))
            for line in found.get(computation, ())
        )

    def cost(computation):
        nonlocal largest
        if computation not in known:
            known[computation] = 0
            total = 0
            for line in found.get(computation, ()):
                if operation := re.search(r"= (.*?) ([a-z\-]+)\(", line):
                    kind = operation[2].removesuffix("-start")
                    if kind in COLLECTIVES:
                        size = bytes_of(operation[1])
                        largest = max(largest, size)
                        total += size
                if branches := re.search(r"branch_computations=\{(.*?)\}", line):
                    names = [one.strip(" %") for one in branches[1].split(",")]
                    total += max(cost(one) for one in names)
                called = CALLS.findall(line)
                # A loop around loops is the move itself, which happens once or not.
                searches = " while(" in line and not any(map(loops, called))
                passes = PASSES if searches else 1
                total += passes * sum(cost(one) for one in called)
            known[computation] = total
        return known[computation]

    return cost(entry), largest


def bytes_of(shape):
    """Of such as ``(f32[3,4]{1,0}, u32[])``."""
    total = 0
    for kind, sizes in re.findall(r"([a-z]+\d*)\[([\d,]*)\]", shape):
        bits = re.search(r"\d+", kind)
        width = WIDTHS.get(kind) or (max(int(bits[0]) // 8, 1) if bits else 1)
        total += width * math.prod(int(size) for size in sizes.split(",") if size)
    return total


def readable(count):
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


if __name__ == "__main__":
    sys.exit(main())
