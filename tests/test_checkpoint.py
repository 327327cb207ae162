import errno
from typing import NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def batches():
    source = grain.MapDataset.source(np.arange(50)).seed(0).shuffle().repeat()
    return iter(source.to_iter_dataset().batch(4))


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
    """Saves at steps; returns the batch that comes after each."""
    iterator, following = batches(), {}
    for step in range(1, max(steps) + 1):
        batch = next(iterator)
        following[step - 1] = batch
        if step in steps:
            checkpoints.save(step, state_at(step), iterator, {"seconds": step / 2})
    following[max(steps)] = next(iterator)
    return following


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
        next(path.rglob("process_0-of-1.json")).write_text('{"next_ind')


def test_nothing_saved_restores_nothing(checkpoints):
    assert checkpoints.restore(state_at(0), batches()) is None


@pytest.mark.parametrize("abstract", [False, True])
def test_everything_comes_back_as_it_was(checkpoints, tmp_path, abstract):
    following = saved(checkpoints, {1, 3})
    again = Checkpoints(tmp_path, keep=2, report=pytest.fail)
    target = jax.eval_shape(state_at, 0) if abstract else state_at(0)
    iterator = batches()
    step, state, record = again.restore(target, iterator)
    assert step == 3
    assert record["seconds"] == 1.5
    assert_same(state, state_at(3))
    np.testing.assert_array_equal(next(iterator), following[3])


def test_only_the_newest_are_kept_and_a_step_is_saved_once(checkpoints, tmp_path):
    saved(checkpoints, {1, 2, 4})
    checkpoints.save(4, state_at(7), batches(), {})
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"2", "4"}
    assert_same(checkpoints.restore(state_at(0), batches())[1], state_at(4))


@pytest.mark.parametrize("how", ["truncated", "flipped", "emptied", "removed", "data"])
def test_a_damaged_newest_falls_back_to_the_one_before(
    checkpoints, tmp_path, said, how
):
    following = saved(checkpoints, {2, 4})
    damage(tmp_path / "checkpoints" / "4", how)
    again = Checkpoints(tmp_path, keep=2, report=said.append)
    iterator = batches()
    step, state, _ = again.restore(state_at(0), iterator)
    assert step == 2
    assert_same(state, state_at(2))
    np.testing.assert_array_equal(next(iterator), following[2])
    assert len(said) == 1
    assert "checkpoint of step 4 is damaged" in said[0]
    assert (tmp_path / "damaged_checkpoints" / "4").is_dir()
    again.save(4, state_at(4), iterator, {"seconds": 0})
    assert again.restore(state_at(0), batches())[0] == 4


def test_all_damaged_is_an_error_not_a_fresh_start(checkpoints, tmp_path, said):
    saved(checkpoints, {2})
    damage(tmp_path / "checkpoints" / "2", "truncated")
    again = Checkpoints(tmp_path, keep=2, report=said.append)
    with pytest.raises(CheckpointError, match=r"none of the checkpoints.*delete"):
        again.restore(state_at(0), batches())


def test_a_half_written_checkpoint_is_not_taken_for_one(checkpoints, tmp_path):
    saved(checkpoints, {2})
    half = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    again = Checkpoints(tmp_path, keep=2, report=pytest.fail)
    assert again.restore(state_at(0), batches())[0] == 2


def test_a_full_disk_says_so_and_leaves_the_last_one(
    checkpoints, tmp_path, monkeypatch
):
    saved(checkpoints, {2})

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(CheckpointError, match="No space left") as caught:
        checkpoints.save(3, state_at(3), batches(), {})
    assert "step 3" in str(caught.value)
    assert "step 2 is kept" in str(caught.value)
    again = Checkpoints(tmp_path, keep=2, report=pytest.fail)
    assert again.restore(state_at(0), batches())[0] == 2
