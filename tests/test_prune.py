"""Pruning from the command line: checkpoints of Hugging Face, and runs of our own."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from safetensors.numpy import load_file

import sparsejax as sj
from sparsejax import configuration, hugging_face, prune, prune_command, train, training
from sparsejax.data.tokenizers import train_byte_pairs
from sparsejax.layers import leaves_with_paths
from sparsejax.models.transformer import transformer
from sparsejax.restoring import restored

TEXT = "".join(
    f"The {i}th line has {i * i} words of {i % 7} kinds.\n" for i in range(400)
)
LLAMA = {"layers": 2, "width": 16, "heads": 4, "key_value_heads": 2, "hidden": 24}
GPT2 = {
    "layers": 2,
    "width": 16,
    "heads": 2,
    "key_value_heads": 2,
    "hidden": 32,
    "gated": False,
    "activation": "gelu_tanh",
    "normalisation": "layer",
    "positions": "learned",
    "input_bias": True,
    "bias": True,
}
SMALL_RUN = {
    "evaluate_every": 4,
    "model.layers": 2,
    "model.width": 32,
    "data.context": 64,
    "data.batch_size": 16,
    "data.evaluation_rows": 64,
    "learning_rate_schedule.warmup_steps": 0,
}


def write_checkpoint(folder, vocabulary=257, **options):
    """A checkpoint of random numbers."""
    made = nnx.eval_shape(
        lambda: transformer((32,), vocabulary, rngs=nnx.Rngs(0), **options)
    )
    random = np.random.default_rng(0)

    def draw(leaf):
        return jnp.asarray(0.3 * random.normal(size=leaf.shape), jnp.float32)

    model = nnx.merge(nnx.graphdef(made), jax.tree.map(draw, nnx.state(made)))
    hugging_face.save(folder, model)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two checkpoints and a text; nothing is written beside them."""
    folder = tmp_path_factory.mktemp("checkpoints")
    write_checkpoint(folder / "llama", **LLAMA)
    write_checkpoint(folder / "gpt2", 300, **GPT2)
    train_byte_pairs([TEXT.encode()], 300, folder / "gpt2/tokenizer.json")
    (folder / "text.txt").write_text(TEXT)
    return folder


def flags(checkpoints, tmp_path, name="llama", **more):
    given = {
        "checkpoint": checkpoints / name,
        "calibration": checkpoints / "text.txt",
        "output": tmp_path / "pruned",
        "samples": 6,
        "length": 24,
        "batch_size": 4,
        "evaluation_samples": 4,
        **more,
    }
    return [f"--{key}={value}" for key, value in given.items() if value is not None]


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    "name", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_a_checkpoint_is_pruned_and_stays_one(
    checkpoints, tmp_path, method, name, capsys
):
    out = tmp_path / "pruned"
    arguments = flags(checkpoints, tmp_path, name, method=method, structure="2:4")
    assert prune.main(arguments) == 0
    report = json.loads((out / "pruning.json").read_text())
    assert report["sparsity"] == 0.5 and len(report["layers"]) == 14 - 2 * (
        name == "gpt2"
    )
    assert {layer["sparsity"] for layer in report["layers"]} == {0.5}
    for when in ("before", "after"):
        assert 1 < report[when]["perplexity"] < 1e6
    assert report["before"] != report["after"]
    printed = capsys.readouterr().out
    assert "blocks/1/mlp/down/kernel" in printed and "0.5000 of the weights" in printed

    before, after = weights(checkpoints / name), weights(out)
    assert before.keys() == after.keys()
    sparse = set(np.load(out / "masks.npz").files)
    for tensor in before:
        inside = ".layers." in tensor or ".h." in tensor
        matrix = inside and before[tensor].ndim == 2
        assert (tensor in sparse) == matrix
        if not matrix:
            np.testing.assert_array_equal(before[tensor], after[tensor])
            continue
        # Along the inputs, which are last in Llama's tensors and first in GPT-2's.
        inputs = after[tensor] if name == "llama" else after[tensor].T
        assert ((inputs.reshape(-1, 4) != 0).sum(axis=1) == 2).all()
        kept = after[tensor] != 0
        assert (after[tensor] == before[tensor])[kept].all() == (method != "sparsegpt")
    settings = [
        json.loads((f / "config.json").read_text()) for f in (checkpoints / name, out)
    ]
    assert settings[0] == settings[1]
    assert (out / "tokenizer.json").exists() == (name == "gpt2")

    for scanned in (True, False):
        model = hugging_face.load(out, scanned=scanned)
        masks = hugging_face.load_masks(out, scanned=scanned)
        params = nnx.to_pure_dict(nnx.state(model))
        tx = sj.static(
            optax.sgd(0.1), sparsity=None, initial_masks=masks, layout=model.layout
        )
        state = tx.init(params)
        sj.verify(params, state)
        kept = {path: m for path, m in leaves_with_paths(masks)}
        assert len(kept) == (7 if name == "llama" else 6) * (1 if scanned else 2)
        for path, leaf in leaves_with_paths(params):
            if path in kept:
                np.testing.assert_array_equal(leaf != 0, kept[path])


def test_wanda_is_what_the_paper_says(checkpoints, tmp_path):
    """The first layer's queries, by its inputs, which nothing pruned has touched."""
    from sparsejax.hugging_face.text import read_pieces, windows

    arguments = flags(checkpoints, tmp_path, method="wanda", structure="2:4")
    assert prune.main(arguments) == 0
    pieces = read_pieces(checkpoints / "text.txt", 24)
    found = windows(
        checkpoints / "llama", 257, pieces, None,
        length=24, samples=6, evaluation_samples=4, seed=0,
    )  # fmt: skip
    assert found.calibration.shape == (6, 24) and found.held_out.shape == (4, 24)
    tensors = weights(checkpoints / "llama")
    tokens = tensors["model.embed_tokens.weight"][found.calibration].reshape(-1, 16)
    size = np.sqrt((tokens**2).mean(axis=1, keepdims=True) + 1e-5)
    inputs = tokens / size * tensors["model.layers.0.input_layernorm.weight"]
    name = "model.layers.0.self_attn.q_proj.weight"
    scores = np.abs(tensors[name]) * np.sqrt((inputs**2).sum(axis=0))
    groups = scores.reshape(-1, 4)
    expected = np.zeros(groups.shape, bool)
    np.put_along_axis(expected, np.argsort(-groups)[:, :2], True, axis=1)
    pruned = weights(tmp_path / "pruned")[name]
    np.testing.assert_array_equal(pruned.reshape(-1, 4) != 0, expected)


def test_stacked_blocks_are_pruned_as_listed_ones(checkpoints):
    tokens = jax.random.randint(jax.random.key(0), (4, 24), 0, 257)
    found = []
    for scanned in (True, False):
        model = hugging_face.load(checkpoints / "llama", scanned=scanned)
        graph, state = nnx.split(model)

        def apply(params, tokens, graph=graph):
            return nnx.merge(graph, params).features(tokens)

        params, _ = sj.pruning.wanda(
            apply,
            nnx.to_pure_dict(state),
            [tokens],
            sparsity=0.5,
            where="blocks/.*kernel",
            layout=model.layout,
        )
        merged = nnx.merge(graph, params)
        found.append(nnx.to_pure_dict(nnx.state(merged.unscanned())))
    for one, two in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_array_equal(one, two)


def test_unstructured_and_chosen_matrices(checkpoints, tmp_path):
    arguments = flags(
        checkpoints, tmp_path, method="magnitude", sparsity=0.75, where="mlp/(up|gate)",
        calibration=None,
    )  # fmt: skip
    assert prune.main(arguments) == 0
    report = json.loads((tmp_path / "pruned/pruning.json").read_text())
    assert len(report["layers"]) == 4 and report["sparsity"] == 0.75
    # Without a text there is nothing to measure by.
    assert report["before"] == report["after"] == {}
    assert "--where=mlp/(up|gate)" in report["command"]
    assert len(np.load(tmp_path / "pruned/masks.npz").files) == 4


def test_groups_that_do_not_divide_the_inputs(checkpoints, tmp_path):
    arguments = flags(checkpoints, tmp_path, method="wanda", structure="2:7")
    assert prune.main(arguments) == 0
    report = json.loads((tmp_path / "pruned/pruning.json").read_text())
    kept = {16: 6, 24: 8}  # of so many inputs: two of each seven, and two of the rest
    for layer in report["layers"]:
        inputs, neurons = layer["shape"]
        assert layer["kept"] == kept[inputs] * neurons


def test_half_precision_stays_exact(checkpoints, tmp_path):
    model = hugging_face.load(checkpoints / "llama")
    hugging_face.save(tmp_path / "half", model, dtype="bfloat16")
    arguments = flags(tmp_path, tmp_path, "half", method="wanda", sparsity=0.5)
    (tmp_path / "text.txt").write_text(TEXT)
    assert prune.main([*arguments, "--dtype=bfloat16"]) == 0
    before, after = weights(tmp_path / "half"), weights(tmp_path / "pruned")
    for name, tensor in after.items():
        assert tensor.dtype == before[name].dtype
        kept = tensor != 0
        assert (tensor == before[name])[kept].all()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"method": "wanda"}, "--sparsity is missing"),
        ({"method": "wanda", "sparsity": 1.5}, "--sparsity=1.5: give a number in"),
        ({"method": "wanda", "structure": "4:2"}, "--structure=4:2: give N:M"),
        ({"method": "wanda", "structure": "2:4", "sparsity": 0.7}, "leave --sparsity"),
        (
            {"method": "wanda", "structure": "block", "sparsity": 0.5},
            "--structure=block",
        ),
        ({"method": "olive", "sparsity": 0.5}, "--method"),
        (
            {"method": "wanda", "sparsity": 0.5, "calibration": None},
            "--calibration is m",
        ),
        (
            {"method": "wanda", "sparsity": 0.5, "calibration": "nowhere"},
            "--calibration=nowhere is neither a file nor a dataset",
        ),
        ({"method": "wanda", "sparsity": 0.5, "length": 33}, "context = 33"),
        ({"method": "wanda", "sparsity": 0.5, "samples": 0}, "--samples=0"),
        ({"method": "wanda", "sparsity": 0.5, "where": "nothing"}, "matches no path"),
        ({"method": "wanda", "sparsity": 0.5, "checkpoint": "absent"}, "hf download"),
        ({"method": "sparsegpt", "sparsity": 0.5, "damping": -1}, "--damping=-1"),
        ({"method": "sparsegpt", "structure": "5:7"}, "no multiple of 7"),
        ({"method": "wanda", "sparsity": 0.99}, "fan-in would be 0"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    checkpoints, tmp_path, more, message, capsys
):
    assert prune.main(flags(checkpoints, tmp_path, **more)) == 2
    error = capsys.readouterr().err
    assert message in error
    if "--method" not in message:
        assert error.startswith("sparsejax.prune: ") and error.count("\n") == 1
    assert not (tmp_path / "pruned").exists()


def test_texts_that_do_not_fit(checkpoints, tmp_path, capsys):
    empty, short, binary = (tmp_path / name for name in ("empty", "short", "binary"))
    empty.touch()
    short.write_text("only this")
    binary.write_bytes(b"\xff\xfe\xff")
    for text, message in (
        (empty, "has no text"),
        (short, "is too short: "),
        (binary, "not text in UTF-8"),
    ):
        more = {"method": "wanda", "sparsity": 0.5, "calibration": text}
        assert prune.main(flags(checkpoints, tmp_path, **more)) == 2
        assert message in capsys.readouterr().err
    write_checkpoint(tmp_path / "odd", 300, **LLAMA)
    arguments = {"calibration": checkpoints / "text.txt", "sparsity": 0.5}
    assert (
        prune.main(flags(tmp_path, tmp_path, "odd", method="wanda", **arguments)) == 2
    )
    assert "has no tokenizer.json" in capsys.readouterr().err
    # A tokenizer of more tokens than the network has.
    train_byte_pairs([TEXT.encode()], 350, tmp_path / "odd/tokenizer.json")
    assert (
        prune.main(flags(tmp_path, tmp_path, "odd", method="wanda", **arguments)) == 2
    )
    assert "a vocabulary of 300 does not have" in capsys.readouterr().err


def test_weights_that_are_not_finite(checkpoints, tmp_path, capsys):
    model = hugging_face.load(checkpoints / "llama")
    model.embed.embedding[...] = jnp.full((257, 16), jnp.nan)
    hugging_face.save(tmp_path / "broken", model)
    (tmp_path / "text.txt").write_text(TEXT)
    arguments = flags(tmp_path, tmp_path, "broken", method="sparsegpt", sparsity=0.5)
    assert prune.main(arguments) == 3
    assert "is nan before anything was pruned" in capsys.readouterr().err
    # Without a text nothing is evaluated, but what is left is looked at.
    model = hugging_face.load(checkpoints / "llama")
    up = model.blocks.mlp.up.kernel
    up[...] = jnp.full(up.shape, jnp.nan)
    hugging_face.save(tmp_path / "broken", model)
    more = {"method": "magnitude", "sparsity": 0.5, "calibration": None}
    assert prune.main(flags(tmp_path, tmp_path, "broken", **more)) == 3
    assert "up/kernel, or what enters it, is not finite" in capsys.readouterr().err
    assert not (tmp_path / "pruned").exists()


def test_an_output_that_is_there_already(checkpoints, tmp_path, capsys):
    (tmp_path / "pruned").mkdir()
    (tmp_path / "pruned/file").touch()
    arguments = flags(checkpoints, tmp_path, method="magnitude", sparsity=0.5)
    assert prune.main(arguments) == 2
    assert "the folder is not empty" in capsys.readouterr().err
    command = prune_command.parse([a for a in arguments if "--output" not in a])
    assert command.output == checkpoints / "llama-magnitude-0.5"
    command = prune_command.parse(
        [f"--checkpoint={checkpoints / 'llama'}", "--method=wanda", "--structure=2:4"]
    )
    assert command.output.name == "llama-wanda-2of4"


def test_help(capsys):
    assert prune.main(["--help"]) == 0
    help_text = capsys.readouterr().out
    assert prune.main([]) == 2
    for action in ("checkpoint", "method", "sparsity", "structure", "calibration"):
        assert f"--{action}" in help_text
    command = [
        sys.executable,
        "-m",
        "sparsejax.prune",
        "--checkpoint=x",
        "--method=wanda",
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2 and found.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """A transformer that was trained for a few steps."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    settings = {
        **SMALL_RUN,
        "steps": 4,
        "method.sparsity": 0.2,
        "method.every": 1,
        "average.decay": 0.5,
    }
    overrides = [f"--config.{field}={value}" for field, value in settings.items()]
    command = ["--config=rigl_transformer", f"--workdir={folder}", *overrides]
    assert train.main(command) == 0
    return folder


def run_flags(run, out, **more):
    given = {"checkpoint": run, "output": out, "samples": 8, "batch_size": 4, **more}
    return [f"--{key}={value}" for key, value in given.items()]


@pytest.mark.slow
def test_a_run_is_pruned_and_stays_one(run, tmp_path, capsys):
    out = tmp_path / "pruned"
    assert prune.main(run_flags(run, out, method="wanda", structure="2:4")) == 0
    report = json.loads((out / "pruning.json").read_text())
    # Every block that is stacked in a leaf is a layer of its own.
    assert len(report["layers"]) == 14 and report["layers"][1]["index"] == 1
    assert {layer["sparsity"] for layer in report["layers"]} == {0.5}
    assert 0 < report["before"]["bits_per_byte"] < report["after"]["bits_per_byte"] < 9
    before, after = restored(run), restored(out)
    assert after.step == before.step == 4
    assert after.config.method.name == "static" and after.state.average is None
    sj.verify(after.state.params, after.state.optimizer_state)
    masks = dict(leaves_with_paths(sj.masks(after.state.optimizer_state)))
    average = dict(leaves_with_paths(before.state.average.params))
    for path, leaf in leaves_with_paths(after.state.params):
        if path not in masks:
            np.testing.assert_array_equal(leaf, average[path])
            continue
        # What is evaluated is what is pruned: here a running average.
        kept = np.asarray(masks[path])
        np.testing.assert_array_equal(leaf, np.where(kept, average[path], 0))
        assert (kept.reshape(2, -1, 4, leaf.shape[-1]).sum(axis=2) == 2).all()
    # It can be evaluated as any run.
    evaluated = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert evaluated["bits_per_byte"] == report["after"]["bits_per_byte"]

    again = run_flags(out, tmp_path / "again", method="sparsegpt", sparsity=0.75)
    assert prune.main(again) == 0
    report = json.loads((tmp_path / "again/pruning.json").read_text())
    assert report["sparsity"] == 0.75


@pytest.mark.slow
def test_a_run_is_calibrated_by_a_text(run, tmp_path, capsys):
    (tmp_path / "text.txt").write_text(TEXT)
    more = {"method": "wanda", "sparsity": 0.5, "calibration": tmp_path / "text.txt"}
    assert prune.main(run_flags(run, tmp_path / "pruned", **more)) == 0
    assert prune.main(run_flags(run, tmp_path / "no", length=8, **more)) == 2
    assert "leave --length out" in capsys.readouterr().err


def test_a_checkpoint_is_calibrated_by_a_dataset(run, checkpoints, tmp_path, capsys):
    del run  # which has prepared it
    more = {"method": "wanda", "sparsity": 0.5}
    more["calibration"] = "python_standard_library"
    assert prune.main(flags(checkpoints, tmp_path, **more)) == 0
    assert "6 windows of 24 tokens to calibrate by, 4 to" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_of_images(tmp_path, data_dir):
    folder = tmp_path / "run"
    steps = ["--config.steps=20", "--config.method.every=5"]
    assert train.main(["--config=rigl_mlp", f"--workdir={folder}", *steps]) == 0
    arguments = run_flags(folder, tmp_path / "pruned", method="wanda", sparsity=0.95)
    assert prune.main(arguments) == 0
    found = restored(tmp_path / "pruned")
    report = json.loads((tmp_path / "pruned/pruning.json").read_text())
    assert 0 < report["after"]["accuracy"] <= 1
    counts = sj.counts(found.state.optimizer_state)
    assert {path: kept for path, (kept, _) in counts.items()} == {
        layer["path"]: layer["kept"] for layer in report["layers"]
    }


@pytest.mark.slow
def test_training_goes_on_from_a_pruned_run(run, tmp_path):
    out = tmp_path / "pruned"
    assert prune.main(run_flags(run, out, method="magnitude", structure="2:4")) == 0
    config = configuration.load("static_pruned_transformer")
    config.update_from_flattened_dict(
        {**SMALL_RUN, "steps": 2, "start_from.workdir": str(out)}
    )
    folder = tmp_path / "on"
    command = configuration.Command(config, "static_pruned_transformer", folder, "")
    assert training.run(command) == training.FINISHED
    first, last = restored(out), restored(folder)
    kept = [sj.masks(one.state.optimizer_state) for one in (first, last)]
    jax.tree.map(np.testing.assert_array_equal, *kept)
    sj.verify(last.state.params, kept[0])


def test_a_run_that_has_no_checkpoint(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text('{"task": "language_model"}')
    arguments = run_flags(tmp_path / "run", tmp_path / "out", method="magnitude")
    assert prune.main([*arguments, "--sparsity=0.5"]) == 2
    assert "no checkpoints" in capsys.readouterr().err
