"""What the README shows is what runs."""

import pathlib
import re

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import sparsejax as sj
from sparsejax import hugging_face, prune, prune_command
from sparsejax.models.transformer import transformer

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/methods.md",
    "docs/sweeps.md",
)


def blocks(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def parameters():
    return {
        "encoder": {"mlp": {"kernel": jnp.ones((4, 8, 8))}},
        "head": {"kernel": jnp.ones((8, 4)), "bias": jnp.ones(4)},
    }


def test_two_commands_set_it_up():
    section = re.search(r"^## Set-up\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    train, test = (block.strip() for block in blocks("sh", section[1]))
    assert "\n" not in train + test
    assert train.endswith("-m sparsejax.train --config=configs/rigl_resnet50.py")
    # `.ci/run` takes the line that begins so and names pytest, and runs it.
    assert [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert test.startswith("python3 -m venv ")
    assert "-m pytest" in test
    assert train.startswith("python3 -m venv ")
    assert "pytest" not in train


def test_the_example_runs(capsys):
    example, *_ = blocks("python")
    params = parameters()
    names = {"params": params, "gradients": jax.tree.map(jnp.ones_like, params)}
    exec(example, names)
    sj.verify(names["params"], names["state"])
    assert "encoder/mlp/kernel" in capsys.readouterr().out


def test_the_options_are_options():
    _, options, *_ = blocks("python")
    params = parameters()
    for call in re.split(r"^(?=sj\.)", options, flags=re.MULTILINE)[1:]:
        state = eval(call, {"sj": sj, "optax": optax}).init(params)
        assert sj.counts(state)["encoder/mlp/kernel"] == (26 if "{" in call else 0, 256)


def test_a_model_is_compressed_and_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = nnx.Sequential(nnx.Linear(32, 16, rngs=nnx.Rngs(0)))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    state = sj.static(optax.sgd(0.1), sparsity=0.9).init(params)
    nnx.update(model, sj.sparsify(params, state))
    compressing = blocks("python")[2]
    exec(compressing, {"sj": sj, "model": model, "state": state})
    again = sj.load("model.safetensors", model)
    x = jnp.ones((1, 32))
    assert jnp.allclose(again(x), model(x), atol=1e-5)


def test_a_checkpoint_is_read_pruned_and_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *_, reading = blocks("python")
    dense, pruned = re.findall(r'load\w*\("(.*?)"', reading)
    commands = re.findall(r"^python -m sparsejax.prune .*$", README, re.MULTILINE)
    outputs = [prune_command.parse(line.split()[3:]).output for line in commands]
    assert len(outputs) == 2 and outputs[0] == tmp_path / pruned
    model = transformer((8,), 257, layers=1, width=16, heads=2, rngs=nnx.Rngs(0))
    hugging_face.save(dense, model)
    command = [f"--checkpoint={dense}", "--method=magnitude", "--structure=2:4"]
    assert prune.main([*command, f"--output={pruned}"]) == 0
    names = {}
    exec(reading, names)
    kept = names["masks"]["blocks"]["mlp"]["up"]["kernel"]
    assert 2 * kept.sum() == kept.size
    assert pathlib.Path("copy/config.json").exists()


def test_the_lists_of_methods_are_those_of_their_files(monkeypatch):
    """After a new method: python scripts/document_methods.py."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import document_methods

    for name, text in document_methods.documents().items():
        assert (ROOT / name).read_text() == text, "run scripts/document_methods.py"


def test_the_table_of_the_study_is_the_one_it_made():
    made = (ROOT / "experiments/digits_methods/table.md").read_text().split("\n\n")[0]
    assert made.strip() in README


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text()
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    for target in targets:
        assert (ROOT / document).parent.joinpath(target).exists(), target
