"""Compressed products against dense ones: ``python -m sparsejax_kernels.bench``."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import pathlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax_kernels import NM, Block, FanIn, Packed, matmul, native
from sparsejax_kernels.bench_convolutions import (
    DEPTHWISE,
    POINTWISE,
    depthwise_cases,
    pointwise_cases,
)
from sparsejax_kernels.choosing import pays_to_pack
from sparsejax_kernels.timing import interleaved

__all__ = ["main"]

SHAPES = ((3072, 768), (768, 3072))
SPARSITIES = (0.8, 0.9, 0.95, 0.99)
BATCHES = (1, 8, 64, 256)
DENSE = "XLA dense"
OURS = "sparsejax"
FORWARD = "forward"
BACKWARD = "forward+backward"
# Batch 1 through as many layers as no cache holds densely, in one program.
COLD = "fan_in_cold"
COLD_LAYERS = 16
BLOCK = "block 32x32"
BLOCK_BACKWARD = "block, both ways"
N_M = "n_m"
PATTERNS = ((2, 4), (1, 4), (1, 8), (3, 32))
PRODUCTS = (FORWARD, BACKWARD, BLOCK, BLOCK_BACKWARD)
KINDS = ((FORWARD, BACKWARD, "fan-in"), (BLOCK, BLOCK_BACKWARD, "blocks of 32x32"))
OPS = (*PRODUCTS, COLD, N_M, POINTWISE, DEPTHWISE)


def random_fan_in(inputs: int, outputs: int, sparsity: float) -> FanIn:
    """A weight whose neurons each read ``(1 - sparsity) * inputs`` random inputs."""
    generator = np.random.default_rng(0)
    order = np.argsort(generator.random((inputs, outputs)), axis=0)
    mask = order < max(1, round(inputs * (1 - sparsity)))
    weights = generator.standard_normal((inputs, outputs)).astype(np.float32)
    return FanIn.fromdense(jnp.asarray(weights), jnp.asarray(mask)).with_transpose()


def random_blocks(inputs: int, outputs: int, sparsity: float) -> Block:
    """A weight of random blocks, ``1 - sparsity`` of all."""
    generator = np.random.default_rng(0)
    rows, columns = -(-inputs // 32), -(-outputs // 32)
    kept = np.zeros(rows * columns, bool)
    kept[: max(1, round(kept.size * (1 - sparsity)))] = True
    kept = generator.permutation(kept).reshape(rows, columns)
    mask = np.kron(kept, np.ones((32, 32), bool))[:inputs, :outputs]
    weights = generator.standard_normal((inputs, outputs)).astype(np.float32)
    return Block.fromdense(jnp.asarray(weights), jnp.asarray(mask), block=(32, 32))


def random_n_m(inputs: int, outputs: int, n: int, m: int) -> Packed:
    """A packed weight with n random inputs of every m, m a divisor of ``inputs``."""
    generator = np.random.default_rng(0)
    order = np.argsort(generator.random((inputs // m, m, outputs)), axis=1)
    mask = (np.argsort(order, axis=1) < n).reshape(inputs, outputs)
    weights = generator.standard_normal((inputs, outputs)).astype(np.float32)
    return NM.fromdense(jnp.asarray(weights), jnp.asarray(mask), n=n, m=m).packed()


def contenders(
    w: Block | FanIn | Packed, batch: int, op: str, *, packs: bool = True
) -> dict[str, Callable[[], object]]:
    """Functions that run one product each, all with the same numbers.

    With ``packs`` fan-in weights are packed for a forward product if that pays.
    """
    generator = np.random.default_rng(1)
    inputs, outputs = w.shape
    x = jnp.asarray(generator.standard_normal((batch, inputs)), jnp.float32)
    cotangent = jnp.asarray(generator.standard_normal((batch, outputs)), jnp.float32)
    dense = w.todense()

    def both_ways(product):
        def run(x, w, cotangent):
            y, vjp = jax.vjp(product, x, w)
            return y, vjp(cotangent)

        return run

    if op in (BACKWARD, BLOCK_BACKWARD):

        def sparse_both(x, w, cotangent):
            def product(x, values):
                return matmul(x, dataclasses.replace(w, values=values))

            y, vjp = jax.vjp(product, x, w.values)
            return y, vjp(cotangent)

        runs = {
            DENSE: (jax.jit(both_ways(jnp.dot)), (x, dense, cotangent)),
            OURS: (jax.jit(sparse_both), (x, w, cotangent)),
        }
    else:
        layers = [w]
        if isinstance(w, FanIn):
            # Other layers in other memory.
            count = COLD_LAYERS if op == COLD else 1
            layers = [
                FanIn(jnp.roll(w.values, i, 0), jnp.roll(w.indices, i, 0), inputs)
                for i in range(count)
            ]
            read = sum(layer.nbytes for layer in layers)
            if packs and pays_to_pack(batch, read):
                layers = [Packed.from_fan_in(layer) for layer in layers]
        densely = [layer.todense() for layer in layers]

        def through(product, weights):
            return jax.jit(lambda x: [product(x, weight) for weight in weights])

        # Weights are constants of the program, as where a network only predicts.
        runs = {
            DENSE: (through(jnp.dot, densely), (x,)),
            OURS: (through(matmul, layers), (x,)),
        }
    expected, found = (jax.tree.leaves(run(*given))[0] for run, given in runs.values())
    if not np.allclose(found, expected, atol=1e-4 * float(jnp.abs(expected).max())):
        raise AssertionError(f"{op} of {w.shape} at batch {batch} is not the dense one")
    calls = waiting(runs)
    if op != COLD and importlib.util.find_spec("torch") is not None:
        calls["PyTorch dense"] = torch_dense(x, dense, cotangent, op)
    return calls


def waiting(
    runs: dict[str, tuple[Callable, tuple]],
) -> dict[str, Callable[[], object]]:
    """Functions without arguments that return when their result is there."""
    return {
        name: lambda run=run, given=given: jax.block_until_ready(run(*given))
        for name, (run, given) in runs.items()
    }


def torch_dense(x, dense, cotangent, op: str) -> Callable[[], object]:
    """The same by PyTorch on the CPU."""
    torch = importlib.import_module("torch")
    backward = op in (BACKWARD, BLOCK_BACKWARD)
    tensors = [torch.from_numpy(np.array(array)) for array in (x, dense.T, cotangent)]
    x, weight, cotangent = tensors
    linear = torch.nn.functional.linear
    if not backward:

        def forward():
            with torch.no_grad():
                return linear(x, weight)

        return forward
    x.requires_grad_(True)
    weight.requires_grad_(True)
    return lambda: torch.autograd.grad(linear(x, weight), (x, weight), cotangent)


def cases(
    arguments: argparse.Namespace,
) -> Iterator[tuple[dict, dict[str, Callable[[], object]]]]:
    """Yields what is compared, and who takes part."""
    ops = arguments.ops
    for inputs, outputs in SHAPES:
        for sparsity in arguments.sparsities:
            for build, forward, backward in (
                (random_fan_in, FORWARD, BACKWARD),
                (random_blocks, BLOCK, BLOCK_BACKWARD),
            ):
                every = [(forward, batch) for batch in arguments.batches]
                every += [(backward, batch) for batch in arguments.backward_batches]
                if build is random_fan_in:
                    every += [(COLD, batch) for batch in arguments.cold_batches]
                every = [case for case in every if case[0] in ops]
                if not every:
                    continue
                w = build(inputs, outputs, sparsity)
                for op, batch in every:
                    case = {
                        "op": op,
                        "shape": f"{inputs}x{outputs}",
                        "sparsity": sparsity,
                        "batch": batch,
                    }
                    yield case, contenders(w, batch, op)
        for n, m in PATTERNS * (N_M in ops):
            w = random_n_m(inputs, outputs, n, m)
            for batch in arguments.n_m_batches:
                case = {
                    "op": N_M,
                    "shape": f"{inputs}x{outputs}",
                    "sparsity": 1 - n / m,
                    "batch": batch,
                }
                yield case, contenders(w, batch, N_M)
    if POINTWISE in ops:
        for case, runs in pointwise_cases(arguments.sparsities, random_fan_in):
            yield case, waiting(runs)
    if DEPTHWISE in ops:
        for case, runs in depthwise_cases():
            yield case, waiting(runs)


def measure(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yields a row per contender and case."""
    for case, calls in cases(arguments):
        times = interleaved(calls, seconds=arguments.seconds)
        for name, time in times.items():
            yield {
                **case,
                "contender": name,
                "median_us": round(time.median * 1e6, 1),
                "p10_us": round(time.p10 * 1e6, 1),
            }


def case_of(row: dict) -> tuple:
    """What all contenders of a comparison have in common."""
    return row["op"], row["shape"], row["batch"], row["sparsity"]


def title(rows: list[dict]) -> str:
    """The heading of a case's line."""
    others = [row["contender"] for row in rows if row["contender"] != OURS]
    first = f"{'op':<17}{'shape':>10}{'batch':>6}{'sparsity':>9}{OURS:>11}"
    return first + "".join(f"{name:>18}" + " " * 8 for name in others)


def line(rows: list[dict]) -> str:
    """One case as a line of the table: times, and how much faster than dense."""
    op, shape, batch, sparsity = case_of(rows[0])
    by_name = {row["contender"]: row for row in rows}
    ours = by_name.pop(OURS)
    cells = [f"{op:<17}{shape:>10}{batch:>6}{sparsity:>9.1%}{ours['p10_us']:>11,.0f}"]
    for row in by_name.values():
        ratio = row["p10_us"] / ours["p10_us"]
        median = row["median_us"] / ours["median_us"]
        cells.append(f"{row['p10_us']:>10,.0f}{ratio:>7.1f}x{f'({median:.1f}x)':>8}")
    return "".join(cells)


def plot(rows: list[dict], file: str) -> None:
    """Draws the speed-up over the dense product, one line per batch."""
    if importlib.util.find_spec("matplotlib") is None:
        raise SystemExit(
            "--plot needs matplotlib, which is not installed: "
            'pip install "sparsejax[train]"'
        )
    pyplot = importlib.import_module("matplotlib.pyplot")
    rows = [row for row in rows if row["op"] in PRODUCTS]
    if not rows:
        raise SystemExit("--plot draws products; add one of them to --ops")
    times = {(*case_of(row), row["contender"]): row["p10_us"] for row in rows}
    shapes = sorted({row["shape"] for row in rows})
    ops = {row["op"] for row in rows}
    kinds = [kind for kind in KINDS if ops.intersection(kind)]
    size = (3.6 * len(shapes) + 1.8, 2.8 * len(kinds))
    figure, grid = pyplot.subplots(
        len(kinds),
        len(shapes),
        figsize=size,
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, kind in zip(grid, kinds, strict=True):
        lines = sorted({(row["op"], row["batch"]) for row in rows if row["op"] in kind})
        shades = pyplot.get_cmap("viridis")(np.linspace(0, 0.9, len(lines)))
        for axis, shape in zip(axes, shapes, strict=True):
            for (op, batch), shade in zip(lines, shades, strict=True):
                cases = sorted({case_of(row) for row in rows})
                mine = [case for case in cases if case[:3] == (op, shape, batch)]
                speed = [times[(*case, DENSE)] / times[(*case, OURS)] for case in mine]
                style = "o-" if op == kind[0] else "s--"
                label = f"batch {batch}" + ("" if op == kind[0] else ", both ways")
                places = [f"{case[3]:.0%}" for case in mine]
                axis.plot(places, speed, style, color=shade, label=label, markersize=4)
            axis.axhline(1, color="gray", linewidth=0.8)
            axis.set(title=f"{kind[2]}, {shape}", yscale="log")
            axis.set_yticks(
                [1, 2, 5, 10, 20, 50], [f"{n}x" for n in (1, 2, 5, 10, 20, 50)]
            )
            axis.minorticks_off()
            axis.grid(alpha=0.3)
        axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.supxlabel("weights that are zero")
    figure.supylabel(f"as fast as {DENSE}")
    figure.savefig(file, bbox_inches="tight", dpi=150)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark and prints, stores and draws what it found."""
    parser = argparse.ArgumentParser(prog="python -m sparsejax_kernels.bench")
    parser.add_argument("--json", metavar="FILE", help="store the rows")
    parser.add_argument("--plot", metavar="FILE", help="draw the speed-ups")
    parser.add_argument("--seconds", type=float, default=0.3, help="per contender")
    parser.add_argument("--batches", type=int, nargs="*", default=BATCHES)
    parser.add_argument("--backward-batches", type=int, nargs="*", default=[128])
    parser.add_argument(
        "--n-m-batches",
        type=int,
        nargs="*",
        default=[1, 64, 256],
        help="2:4, 1:4, 1:8, 3:32",
    )
    parser.add_argument("--cold-batches", type=int, nargs="*", default=[1])
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES)
    parser.add_argument("--ops", nargs="+", choices=OPS, default=OPS)
    options = parser.parse_args(arguments)
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}; microseconds, p10;")
    print("in brackets the ratio of medians; kernels:", native.why_not() or "native")
    rows, case, heading = [], [], None

    def show():
        nonlocal heading
        if title(case) != heading:
            heading = title(case)
            print(heading)
        print(line(case), flush=True)

    for row in measure(options):
        if case and case_of(case[0]) != case_of(row):
            show()
            case = []
        case.append(row)
        rows.append(row)
    if case:
        show()
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
