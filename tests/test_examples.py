"""Every file of examples/ is run as a user would run it."""

import pathlib
import re
import runpy

import jax
import pytest

import sparsejax as sj

FOLDER = pathlib.Path(__file__).parent.parent / "examples"
OTHERS = {"block_sparse_training", "data_efficient_mest", "two_four_transformer"}
EXAMPLES = sorted({path.stem for path in FOLDER.glob("*.py")} - OTHERS)
# ERK at 90 %: 1,894 of 18,944 weights, in proportion to 64 + 256 and 256 + 10.
COUNTS = [(860, 2_560), (1_034, 16_384)]
FANS = {16_384: (64, 256), 2_560: (256, 10)}


def test_all_that_were_promised_are_there():
    assert {"equinox_loop", "flax_linen", "flax_nnx", "plain_dict"} <= {*EXAMPLES}


@pytest.mark.parametrize("name", EXAMPLES)
def test_two_lines_make_the_loop_sparse(name):
    lines = (FOLDER / f"{name}.py").read_text().splitlines()
    used = [line for line in lines if re.search(r"\bsj\.", line)]
    changed, added, printed = used
    assert "sj.rigl(optax." in changed and changed.endswith("  # changed")
    assert "sj.sparsify(" in added and added.endswith("  # added")
    assert printed.startswith("print(sj.summary(")


@pytest.mark.parametrize("name", EXAMPLES)
def test_learns_with_exact_counts(name, capsys):
    variables = runpy.run_path(str(FOLDER / f"{name}.py"))
    printed = capsys.readouterr().out

    accuracy = re.search(r"^test accuracy (\d\.\d+)$", printed, re.MULTILINE)
    assert float(accuracy[1]) > 0.93
    rows = re.findall(r"^(\S+) +\S+ +yes +(\S+) +(\S+) ", printed, re.MULTILINE)
    numbers = [
        tuple(int(number.replace(",", "")) for number in row[1:]) for row in rows
    ]
    assert sorted(numbers) == COUNTS
    for path, _, size in rows:
        size = int(size.replace(",", ""))
        fans = FANS[size]
        shape = fans[::-1] if path.endswith("/weight") else fans
        spec = sj.by_name()(path, shape)
        found = [shape[axis] for axis in (*spec.fan_in, *spec.fan_out)]
        assert (*found,) == fans
        assert f"{'x'.join(map(str, shape))} " in printed
    assert variables["__doc__"].startswith("RigL in ")


@pytest.mark.slow
def test_data_efficient_training_drops_what_is_never_forgotten(capsys):
    variables = runpy.run_path(str(FOLDER / "data_efficient_mest.py"))
    printed = capsys.readouterr().out
    accuracy = re.search(r"^test accuracy (\d\.\d+)$", printed, re.MULTILINE)
    assert float(accuracy[1]) > 0.93
    assert len(variables["fewer"].train) == 1_437 - 400
    dropped = sorted({*range(1_437)} - {*variables["kept"].tolist()})
    assert variables["counts"][dropped].max() <= variables["counts"].mean()
    assert re.search(r"^masked +947 +9,472 ", printed, re.MULTILINE)


def test_a_transformer_with_two_of_four_weights_runs_compressed(capsys):
    variables = runpy.run_path(str(FOLDER / "two_four_transformer.py"))
    printed = capsys.readouterr().out
    masked, compressed = re.findall(r"^\w[\w ]+? +(0\.\d+)$", printed, re.MULTILINE)
    assert float(masked) > 0.9 and compressed == masked
    for block in variables["fast"].blocks:
        assert float(block.up.weight.density) == 0.5
        assert float(block.down.weight.density) == 0.5


@pytest.mark.slow
def test_training_goes_on_with_the_kept_blocks_alone(capsys):
    variables = runpy.run_path(str(FOLDER / "block_sparse_training.py"))
    printed = capsys.readouterr().out
    first, second = re.findall(r"^test accuracy (0\.\d+)$", printed, re.MULTILINE)
    assert float(first) > 0.93 and float(second) > 0.93
    weight = variables["weight"]
    assert f"{weight.values.shape[0]} blocks of 16x16" in printed
    assert weight.nbytes < 0.26 * 512 * 512 * 4
    state = variables["compressed"].opt_state
    assert max(leaf.size for leaf in jax.tree.leaves(state)) == weight.values.size
