"""Language models: their loss, their steps by parts, and where they begin."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import sparsejax as sj
from sparsejax import configuration, train
from sparsejax.building import ConfigError
from sparsejax.data.pipeline import evaluation_batches, train_iterator
from sparsejax.models.stacking import stacked, unstacked
from sparsejax.restoring import restored
from sparsejax.tasks.language_model import language_model
from sparsejax.tasks.starting import Start

ROWS, CONTEXT = 8, 24


@pytest.fixture
def make(data_dir):
    """A function from overrides to a small config."""

    def make(method="rigl", **overrides):
        config = configuration.load(f"{method}_transformer")
        with config.unlocked(), config.ignore_type():
            config.data.update({"context": CONTEXT, "batch_size": ROWS})
            config.data.update({"data_dir": data_dir, "evaluation_rows": 6})
            config.model.update({"layers": 2, "width": 32, "heads": 2, "hidden": 48})
            config.learning_rate_schedule.warmup_steps = 1
            config.steps = 12
            if "every" in config.method:
                config.method.every = 2
            config.update(ConfigDict(overrides))
        return config

    return make


def steps(task, count, state=None, seed=0):
    state = jax.jit(task.initialise)(jax.random.key(seed)) if state is None else state
    step = jax.jit(task.train_step)
    iterator = train_iterator(task.dataset, batch_size=ROWS, seed=0)
    metrics = []
    for _ in range(count):
        state, scalars = step(state, next(iterator))
        metrics.append(jax.device_get(scalars))
    return state, metrics


def test_the_loss_is_the_cross_entropy_of_the_next_byte(make):
    task = language_model(make("static"))
    state = jax.jit(task.initialise)(jax.random.key(0))
    batch = next(train_iterator(task.dataset, batch_size=ROWS, seed=0))
    logits = task.forward(
        state.params,
        state.model_state,
        batch["tokens"],
        segments=batch["segments"],
        positions=batch["positions"],
    )
    odds = np.asarray(jax.nn.log_softmax(logits), np.float64)
    taken = np.take_along_axis(odds, batch["targets"][..., None], axis=-1)
    _, metrics = jax.jit(task.train_step)(state, batch)
    assert metrics["loss"] == pytest.approx(-taken.mean(), rel=1e-5)
    size = (batch["targets"] < 256).sum()
    expected = -taken.sum() / math.log(2) / size
    assert metrics["bits_per_byte"] == pytest.approx(expected, rel=1e-5)


def test_documents_in_a_row_are_told_apart(make):
    task = language_model(make("static"))
    state = jax.jit(task.initialise)(jax.random.key(0))
    batch = next(train_iterator(task.dataset, batch_size=ROWS, seed=0))
    apart = {
        **batch,
        "segments": np.arange(CONTEXT, dtype=np.int32)[None].repeat(ROWS, 0),
    }
    step = jax.jit(task.train_step)
    losses = [step(state, one)[1]["loss"] for one in (batch, apart)]
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_a_large_softmax_is_punished(make):
    losses = []
    for z_loss in (0.0, 0.1):
        task = language_model(make("static", z_loss=z_loss))
        losses.append(steps(task, 1)[1][0])
    # The initial logits are small: log Z is that of 257 equal ones.
    expected = 0.1 * math.log(257) ** 2
    difference = losses[1]["loss"] - losses[0]["loss"]
    assert difference == pytest.approx(expected, rel=0.02)
    assert losses[1]["bits_per_byte"] == pytest.approx(losses[0]["bits_per_byte"])


@pytest.mark.slow
def test_parts_of_a_batch_make_the_same_step(make):
    states = []
    for parts in (1, 4):
        config = make(gradient_accumulation=parts)
        state, metrics = steps(language_model(config), 3)
        states.append((state, metrics))
    (whole, first), (parted, second) = states
    for row, other in zip(first, second, strict=True):
        for name in row:
            assert other[name] == pytest.approx(row[name], rel=1e-4), name
    for mask, other in zip(_masks(whole), _masks(parted), strict=True):
        assert (mask == other).mean() > 0.995
    for leaf, other in zip(*map(_params, (whole, parted)), strict=True):
        assert np.quantile(abs(leaf - other), 0.99) < 1e-4


def test_evaluation_is_by_bytes_of_the_text(make):
    task = language_model(make("static"))
    state = jax.jit(task.initialise)(jax.random.key(0))
    # A network that knows nothing: all tokens are as likely.
    state = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))
    batches = [*evaluation_batches(task.dataset, batch_size=4)]
    evaluate = jax.jit(task.evaluation_step)
    found = task.gather(evaluate(state, batch) for batch in batches)
    tokens = sum(batch["target_weights"].sum() for batch in batches)
    size = sum(batch["target_bytes"].sum() for batch in batches)
    assert tokens == 6 * CONTEXT
    assert found["perplexity"] == pytest.approx(257, rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(math.log2(257) * tokens / size)


def test_layers_of_a_stack_have_budgets_of_their_own(make):
    state = jax.jit(language_model(make()).initialise)(jax.random.key(0))
    masks = sj.masks(state.optimizer_state)["blocks"]
    for leaf in jax.tree.leaves(masks):
        counts = leaf.reshape(2, -1).sum(axis=1)
        assert counts[0] == counts[1]
    assert sj.masks(state.optimizer_state)["embed"]["embedding"] is None


def test_stacked_and_listed_blocks_move_the_same_masks(make):
    first = language_model(make())
    state = jax.jit(first.initialise)(jax.random.key(0))
    masks = sj.masks(state.optimizer_state)
    listed = make()
    listed.model.scanned = False
    second = language_model(listed)
    # The same network, with the same masks to begin with.
    blank = jax.eval_shape(second.initialise, jax.random.key(0))
    start = Start(unstacked(state.params), blank.model_state, unstacked(masks))
    other = second.initialise(jax.random.key(0), start)
    state, metrics = steps(first, 5, state)
    other, others = steps(second, 5, other)
    for row, one in zip(metrics, others, strict=True):
        assert one["loss"] == pytest.approx(row["loss"], rel=1e-4)
    again = stacked(sj.masks(other.optimizer_state))
    moved = 0
    for mask, one, before in zip(
        _masks(state), jax.tree.leaves(again), jax.tree.leaves(masks), strict=True
    ):
        assert (np.asarray(one) == mask).mean() > 0.995
        moved += (mask != before).sum()
    assert moved > 100


def command(method, folder, data_dir, *more):
    """A command line of a small run."""
    fields = {
        "steps": 6,
        "data.context": CONTEXT,
        "data.batch_size": ROWS,
        "data.evaluation_rows": 6,
        "data.data_dir": data_dir,
        "model.layers": 2,
        "model.width": 32,
        "learning_rate_schedule.warmup_steps": 1,
        "log_every": 1,
        "evaluate_every": 6,
        "checkpoint_every": 6,
    }
    if method != "dense_finetuned":
        fields["method.every"] = 2
    options = [f"--config.{name}={value}" for name, value in fields.items()]
    name = f"--config={method}_transformer"
    return [name, f"--workdir={folder}", *options, *more]


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """A finished sparse run."""
    folder = tmp_path_factory.mktemp("runs") / "sparse"
    assert train.main(command("rigl", folder, data_dir)) == 0
    return folder


class TestStarting:
    def test_a_run_is_restored(self, run):
        found = restored(run)
        assert found.step == 6
        assert found.config.method.name == "rigl"
        sj.verify(found.state.params, found.state.optimizer_state)

    def test_topology_is_kept(self, make, run):
        before = restored(run).state
        config = make(start_from={"workdir": str(run), "topology": "keep"})
        config.model.hidden = 96
        task = language_model(config)
        state = jax.jit(task.initialise)(jax.random.key(7), task.start)
        for leaf, other in zip(*map(_params, (before, state)), strict=True):
            np.testing.assert_array_equal(leaf, other)
        for mask, other in zip(*map(_masks, (before, state)), strict=True):
            np.testing.assert_array_equal(mask, other)

    def test_all_weights_are_trained_from_a_sparse_run(self, run, tmp_path, data_dir):
        start = f"--config.start_from.workdir={run}"
        folder = tmp_path / "dense"
        assert train.main(command("dense_finetuned", folder, data_dir, start)) == 0
        before, after = restored(run).state, restored(folder).state
        zeros = [np.mean(leaf == 0) for leaf in _params(before)]
        assert max(zeros) > 0.5
        assert max(np.mean(leaf == 0) for leaf in _params(after)) < 0.01

    @pytest.mark.parametrize(
        ("start", "message"),
        [
            ({"workdir": "/nowhere"}, "/nowhere is not a run directory"),
            ({"topology": "grow"}, "topology = 'grow': use one of 'keep', 'densify'"),
            ({"topology": "densify"}, "'densify' goes with the method 'dense'"),
            ({"topology": "new", "new": "nothing/"}, "'nothing/' matches no path"),
        ],
    )
    def test_mistakes_are_named(self, make, run, start, message):
        config = make(start_from={"workdir": str(run), **start})
        config.model.hidden = 96
        with pytest.raises(ConfigError, match=message):
            language_model(config)

    def test_another_model_is_refused(self, make, run):
        config = make(start_from={"workdir": str(run)})
        with pytest.raises(ConfigError, match=r"the model has blocks/.* with shape"):
            language_model(config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"z_loss": -1.0}, "config.z_loss = -1.0"),
        ({"gradient_accumulation": 3}, "config.gradient_accumulation = 3"),
        ({"data": {"name": "digits"}}, "config.data.name = 'digits' has no text"),
    ],
)
def test_mistakes_are_named(make, overrides, message, data_dir):
    config = make()
    with config.unlocked(), config.ignore_type():
        if "data" in overrides:
            config.data = {"name": "digits", "batch_size": 8, "data_dir": data_dir}
        else:
            config.update(overrides)
    with pytest.raises(ConfigError, match=message):
        language_model(config)


def _masks(state):
    return [np.asarray(m) for m in jax.tree.leaves(sj.masks(state.optimizer_state))]


def _params(state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]
