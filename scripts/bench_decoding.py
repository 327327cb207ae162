"""Tokens a second of compressed transformers against dense ones on CPU, batch by batch.

A decoder of size small (12 layers of 768) with random weights, of whose matrices in the
blocks a part is kept at random: as many for every output (fan-in), or 2:4. Dense are
the same network with its zeros in XLA, blocks in a list, and the same architecture in
PyTorch with a cache of its own, where `torch` can be imported. All decode greedily from
the same prompt, in float32; that they choose the same tokens is checked first. Then
they take turns, each a few tokens at a time, so that a noisy machine slows all.

    python scripts/bench_decoding.py                       # about ten minutes
    python scripts/bench_decoding.py --vocabulary 50257 --read 512
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sparsejax_kernels.choosing import machine

import sparsejax as sj
from sparsejax.models.compression import compressed
from sparsejax.models.transformer import transformer

CAPACITY = 1024


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="small", help="of the transformer")
    parser.add_argument("--vocabulary", type=int, default=257)
    parser.add_argument("--sparsities", type=float, nargs="*", default=[0.8, 0.9, 0.95])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--read", type=int, default=64, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=8, help="in a timed block")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--json", type=pathlib.Path, help="where to write all times")
    options = parser.parse_args()
    if options.read + options.tokens * (options.rounds + 2) > CAPACITY:
        parser.error(
            f"--read {options.read}, --tokens {options.tokens} and --rounds "
            f"{options.rounds} do not fit in a cache of {CAPACITY} tokens; lower one"
        )
    rows = compare(options)
    print(table(rows, options))
    if options.json:
        described = {name: str(value) for name, value in vars(options).items()}
        found = {"options": described, "machine": machine(), "rows": rows}
        options.json.write_text(json.dumps(found, indent=1))


def compare(options):
    """Times of all contenders, in turns."""
    shape, size = (CAPACITY,), (options.batch, options.read)
    dense = transformer(
        shape, options.vocabulary, size=options.size, scanned=False, rngs=nnx.Rngs(0)
    )
    # As it is initialised, the network would say the last token again, and that
    # contenders agree would mean little: here its blocks weigh more.
    dense.embed.embedding.set_value(0.5 * dense.embed.embedding.get_value())
    prompt = jax.random.randint(jax.random.key(1), size, 0, options.vocabulary)
    patterns = {f"{100 * s:g} %": (s, sj.fan_in()) for s in options.sparsities}
    patterns["2:4"] = (0.5, sj.n_m(2, 4))
    contenders, rows = {}, []
    for name, (sparsity, structure) in patterns.items():
        model, state = masked(dense, sparsity, structure)
        ours = Decoding(compressed(model, state, batch=options.batch), prompt)
        agree(name, ours, Decoding(model, prompt), options.tokens)
        contenders[f"sparsejax, {name}"] = ours
    # Zeros cost a dense product what other numbers cost it: one model is enough.
    contenders["XLA, dense"] = Decoding(model, prompt)
    try:
        agree("PyTorch", *torch_decodings(model, prompt, contenders), options.tokens)
    except ModuleNotFoundError:
        print("torch is not installed: its times are left out")
    times = {name: [] for name in contenders}
    for contender in contenders.values():
        contender.advance(options.tokens)
    for _ in range(options.rounds - 1):
        for name, contender in contenders.items():
            begin = time.perf_counter()
            contender.advance(options.tokens)
            times[name].append((time.perf_counter() - begin) / options.tokens)
    for name, seconds in times.items():
        ordered = sorted(seconds)
        lowest, highest = ordered[len(ordered) // 10], ordered[-1 - len(ordered) // 10]
        # Of neighbours in time, which met the same machine.
        ratios = [
            sorted(a / b for a, b in zip(times[other], seconds, strict=True))
            for other in times
            if other.endswith("dense")
        ]
        rows.append(
            {
                "contender": name,
                "milliseconds": [1e3 * x for x in seconds],
                "median": 1e3 * statistics.median(seconds),
                "p10": 1e3 * lowest,
                "p90": 1e3 * highest,
                "over_dense": [
                    [
                        each[len(each) // 4],
                        statistics.median(each),
                        each[-len(each) // 4],
                    ]
                    for each in ratios
                ],
            }
        )
    return rows


def torch_decodings(model, prompt, contenders):
    """Adds those with all threads and with one, which other work disturbs less."""
    for threads in sorted({1, len(os.sched_getaffinity(0))}):
        plural = "" if threads == 1 else "s"
        name = f"PyTorch, {threads} thread{plural}, dense"
        contenders[name] = TorchDecoding(model, prompt, threads)
    return contenders[name], contenders["XLA, dense"]


def table(rows, options):
    """The rows in Markdown."""
    dense = [row["contender"] for row in rows if row["contender"].endswith("dense")]
    lines = [
        f"{machine()['processor']}, {len(os.sched_getaffinity(0))} cores, jax "
        f"{jax.__version__}; {options.size}, vocabulary {options.vocabulary}, batch "
        f"{options.batch}, from {options.read} tokens on",
        "",
        "| decoding | ms a token: median (10th to 90th percentile) | tokens a second | "
        + " | ".join(f"times as fast as {name} (quartiles)" for name in dense)
        + " |",
        "|---|---:|---:|" + "---:|" * len(dense),
    ]
    for row in rows:
        rate = options.batch * 1e3 / row["median"]
        ratios = " | ".join(
            f"{b:.2f} ({a:.2f}-{c:.2f})" for a, b, c in row["over_dense"]
        )
        lines.append(
            f"| {row['contender']} | {row['median']:.1f} ({row['p10']:.1f}-"
            f"{row['p90']:.1f}) | {rate:.0f} | {ratios} |"
        )
    return "\n".join(lines)


def masked(model, sparsity, structure):
    """The model with exact zeros in its blocks, and the masks' state."""
    copy = nnx.clone(model)
    params = nnx.to_pure_dict(nnx.state(copy, nnx.Param))
    tx = sj.static(
        optax.sgd(0.1),
        sparsity=sparsity,
        structure=structure,
        distribution=sj.uniform(),
        where="blocks/.*kernel",
    )
    state = tx.init(params)
    nnx.update(copy, sj.sparsify(params, state))
    return copy, state


def agree(name, one, other, tokens):
    """Stops where two do not choose the same tokens behind random ones."""
    size = (tokens, *one.last.shape)
    given = np.random.default_rng(0).integers(0, one.vocabulary, size)
    found, expected = ([each.read(x) for x in given] for each in (one, other))
    if not np.array_equal(found, expected):
        raise SystemExit(f"{name} chooses {found}, not {expected}")
    different = len(np.unique(found))
    print(f"{name}: chooses the same {tokens} tokens, {different} of them different")


class Decoding:
    """A model that goes on from a prompt, one call of a compiled program a token."""

    def __init__(self, model, prompt):
        graph, variables = nnx.split(model)
        self.leaves, treedef = jax.tree.flatten(variables)

        def step(leaves, tokens, cache):
            model = nnx.merge(graph, jax.tree.unflatten(treedef, leaves))
            logits, cache = model.decode(tokens, cache, only_last=True)
            return logits.argmax(axis=-1).astype(jnp.int32), cache

        self.step = jax.jit(step, donate_argnums=2)
        self.vocabulary = model.shape.vocabulary
        cache = model.empty_cache(len(prompt), CAPACITY)
        self.last, self.cache = self.step(self.leaves, prompt, cache)

    def read(self, given):
        """The token behind given ones."""
        self.last = jnp.asarray(given, jnp.int32)
        return self.advance(1)

    def advance(self, tokens):
        """The next tokens, each read by the host before the next is asked for."""
        found = []
        for _ in range(tokens):
            self.last, self.cache = self.step(self.leaves, self.last, self.cache)
            found.append(np.asarray(self.last))
        return np.concatenate(found, axis=1)


class TorchDecoding:
    """The same architecture in PyTorch's operations, weights laid out as it likes."""

    def __init__(self, model, prompt, threads):
        import torch

        self.torch, self.shape, self.length = torch, model.shape, 0
        self.threads, self.vocabulary = threads, model.shape.vocabulary

        def tensor(variable):
            return torch.tensor(np.asarray(variable.get_value()))

        def linear(layer):
            return tensor(layer.kernel).T.contiguous()

        self.embedding = tensor(model.embed.embedding)
        self.final = tensor(model.final_norm.scale)
        self.blocks = [
            {
                "attention_norm": tensor(block.attention_norm.scale),
                "mlp_norm": tensor(block.mlp_norm.scale),
                "inputs": torch.cat(
                    [
                        linear(block.attention.query),
                        linear(block.attention.key),
                        linear(block.attention.value),
                    ]
                ),
                "out": linear(block.attention.out),
                "gate_up": torch.cat([linear(block.mlp.gate), linear(block.mlp.up)]),
                "down": linear(block.mlp.down),
            }
            for block in model.blocks
        ]
        shape = model.shape
        sizes = (2, len(prompt), shape.key_value_heads, CAPACITY, shape.head_size)
        self.caches = [torch.zeros(sizes) for _ in self.blocks]
        half = torch.arange(shape.head_size // 2)
        self.frequencies = shape.rotary_theta ** (-2 * half / shape.head_size)
        self.last = self._read(torch.tensor(np.asarray(prompt), dtype=torch.long))

    def read(self, given):
        """The token behind given ones."""
        self.last = self.torch.from_numpy(given)
        return self.advance(1)

    def advance(self, tokens):
        """The next tokens."""
        self.torch.set_num_threads(self.threads)
        found = []
        for _ in range(tokens):
            self.last = self._read(self.last)
            found.append(self.last.numpy())
        return np.concatenate(found, axis=1)

    def _read(self, tokens):
        torch, shape = self.torch, self.shape
        functional = torch.nn.functional
        with torch.inference_mode():
            start, count = self.length, tokens.shape[1]
            angles = torch.arange(start, start + count)[:, None] * self.frequencies
            cosine, sine = angles.cos(), angles.sin()

            def turned(heads):
                a, b = heads.chunk(2, dim=-1)
                return torch.cat([a * cosine - b * sine, b * cosine + a * sine], dim=-1)

            def normed(x, scale):
                return functional.rms_norm(x, (shape.width,), scale, shape.epsilon)

            x = self.embedding[tokens]
            for block, cache in zip(self.blocks, self.caches, strict=True):
                found = functional.linear(
                    normed(x, block["attention_norm"]), block["inputs"]
                )
                heads = found.unflatten(-1, (-1, shape.head_size)).transpose(1, 2)
                queries, groups = shape.heads, shape.key_value_heads
                query, key, value = heads.split([queries, groups, groups], dim=1)
                cache[0, :, :, start : start + count] = turned(key)
                cache[1, :, :, start : start + count] = value
                keys, values = cache[:, :, :, : start + count]
                mixed = functional.scaled_dot_product_attention(
                    turned(query),
                    keys,
                    values,
                    is_causal=count > 1,
                    enable_gqa=queries != groups,
                    scale=1 / math.sqrt(shape.head_size),
                )
                mixed = mixed.transpose(1, 2).flatten(2)
                x = x + functional.linear(mixed, block["out"])
                gate, up = functional.linear(
                    normed(x, block["mlp_norm"]), block["gate_up"]
                ).chunk(2, dim=-1)
                x = x + functional.linear(functional.silu(gate) * up, block["down"])
            self.length += count
            logits = functional.linear(normed(x[:, -1:], self.final), self.embedding)
            return logits.argmax(dim=-1)


if __name__ == "__main__":
    main()
