import errno
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sparsejax import checkpoint
from sparsejax.checkpoint import CheckpointError, Checkpoints


class State(NamedTuple):
    step: jax.Array
    params: dict
    masks: dict
    key: jax.Array


def state_at(step):
    return State(
        step=jnp.int32(step),
        params={"kernel": jnp.arange(2000.0) + step, "bias": jnp.ones(3, jnp.bfloat16)},
        masks={"kernel": jnp.arange(2000) % 3 == step % 3, "bias": None},
        key=jax.random.key(step),
    )


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture
def said():
    return []


@pytest.fixture
def checkpoints(tmp_path, said):
    made = Checkpoints(tmp_path, keep=2, report=said.append)
    yield made
    made.close()


def saved(checkpoints, steps):
    for step in sorted(steps):
        checkpoints.save(step, state_at(step), {"seconds": step / 2})
    checkpoints.wait()


def damage(path, how):
    files = [f for f in path.rglob("*") if f.is_file() and "/d/" in str(f)]
    largest = max(files, key=lambda f: f.stat().st_size)
    content = bytearray(largest.read_bytes())
    if how == "truncated":
        largest.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        content[len(content) // 2] ^= 0x10
        largest.write_bytes(content)
    elif how == "emptied":
        largest.write_bytes(b"")
    elif how == "removed":
        largest.unlink()
    else:
        (path / "record" / "metadata").write_text('{"seconds": 1')


def test_nothing_saved_restores_nothing(checkpoints):
    assert checkpoints.restore(state_at(0)) is None


@pytest.mark.parametrize("abstract", [False, True])
def test_everything_comes_back_as_it_was(checkpoints, tmp_path, abstract):
    saved(checkpoints, {1, 3})
    again = Checkpoints(tmp_path, keep=2, report=pytest.fail)
    target = jax.eval_shape(state_at, 0) if abstract else state_at(0)
    step, state, record = again.restore(target)
    assert step == 3
    assert record["seconds"] == 1.5
    assert_same(state, state_at(3))


def test_only_the_newest_are_kept_and_a_step_is_saved_once(checkpoints, tmp_path):
    saved(checkpoints, {1, 2, 4})
    checkpoints.save(4, state_at(7), {})
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"2", "4"}
    assert_same(checkpoints.restore(state_at(0))[1], state_at(4))


@pytest.mark.parametrize(
    "how", ["truncated", "flipped", "emptied", "removed", "record"]
)
def test_a_damaged_newest_falls_back_to_the_one_before(
    checkpoints, tmp_path, said, how
):
    saved(checkpoints, {2, 4})
    damage(tmp_path / "checkpoints" / "4", how)
    again = Checkpoints(tmp_path, keep=2, report=said.append)
    step, state, _ = again.restore(state_at(0))
    assert step == 2
    assert_same(state, state_at(2))
    assert len(said) == 1
    assert "checkpoint of step 4 is damaged" in said[0]
    assert (tmp_path / "damaged_checkpoints" / "4").is_dir()
    again.save(4, state_at(4), {"seconds": 0})
    assert again.restore(state_at(0))[0] == 4


def test_all_damaged_is_an_error_not_a_fresh_start(checkpoints, tmp_path, said):
    saved(checkpoints, {2})
    damage(tmp_path / "checkpoints" / "2", "truncated")
    again = Checkpoints(tmp_path, keep=2, report=said.append)
    with pytest.raises(CheckpointError, match=r"none of the checkpoints.*delete"):
        again.restore(state_at(0))


def test_a_half_written_checkpoint_is_not_taken_for_one(checkpoints, tmp_path):
    saved(checkpoints, {2})
    half = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    again = Checkpoints(tmp_path, keep=2, report=pytest.fail)
    assert again.restore(state_at(0))[0] == 2


def test_a_full_disk_says_so_and_leaves_the_last_one(
    checkpoints, tmp_path, monkeypatch
):
    saved(checkpoints, {2})

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(CheckpointError, match="No space left") as caught:
        checkpoints.save(3, state_at(3), {})
    assert "step 3" in str(caught.value)
    assert "step 2 is kept" in str(caught.value)
    again = Checkpoints(tmp_path, keep=2, report=pytest.fail)
    assert again.restore(state_at(0))[0] == 2


def test_what_is_written_is_the_state_of_its_step(checkpoints, tmp_path):
    # The next step overwrites its memory while it is being written.
    step = jax.jit(lambda state: state * 3 + 1, donate_argnums=0)
    state = step(jnp.arange(2_000_000.0))
    want = np.array(state)
    checkpoints.save(1, {"kernel": state}, {})
    for _ in range(5):
        state = step(state)
    checkpoints.wait()
    again = Checkpoints(tmp_path, keep=2, report=pytest.fail)
    np.testing.assert_array_equal(
        again.restore({"kernel": state})[1]["kernel"], want, strict=True
    )


def test_a_write_that_fails_later_is_told_at_the_next_call(
    checkpoints, tmp_path, monkeypatch
):
    saved(checkpoints, {2})

    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints.save(3, state_at(3), {})
    monkeypatch.setattr(checkpoints._manager, "wait_until_finished", full)
    with pytest.raises(CheckpointError, match=r"step 3 .*No space.*step 2 is kept"):
        checkpoints.save(4, state_at(4), {})
    monkeypatch.undo()
    checkpoints.wait()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", 1, r"step 2 .* has format 1, made by sparsejax 0\.\d.*reads format"),
        ("shapes", 7, r"has other arrays than sparsejax .* go on with the version"),
    ],
)
def test_a_checkpoint_of_another_version_is_not_damaged(
    checkpoints, tmp_path, field, value, message
):
    saved(checkpoints, {2})
    file = tmp_path / "checkpoints" / "2" / "record" / "metadata"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    again = Checkpoints(tmp_path, keep=2, report=pytest.fail)
    with pytest.raises(CheckpointError, match=message):
        again.restore(state_at(0))
    assert file.exists()


def test_a_state_is_split_otherwise_when_it_comes_back(checkpoints, tmp_path):
    mesh = jax.make_mesh((8,), ("fsdp",), (AxisType.Auto,))
    kernel = jax.random.normal(jax.random.key(0), (64, 16))
    checkpoints.save(1, {"kernel": kernel}, {})
    checkpoints.wait()
    split = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    target = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype, sharding=split)
    again = Checkpoints(tmp_path, keep=2, report=pytest.fail)
    found = again.restore({"kernel": target})[1]["kernel"]
    assert found.sharding == split
    np.testing.assert_array_equal(found, kernel, strict=True)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "bfloat16", "float32", "int32"])
def test_the_checksum_sees_a_single_entry_and_two_that_change_places(dtype):
    values = jax.random.normal(jax.random.key(1), (40, 30))
    values = jnp.maximum(9 * values, 0).astype(dtype)
    flipped = values.at[17, 4].set(jnp.where(values[17, 4] == 0, 1, 0).astype(dtype))
    turned = values[::-1]
    digests = {checkpoint._digest([one]) for one in (values, flipped, turned)}
    assert len(digests) == 3
