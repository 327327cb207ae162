import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from ml_collections import ConfigDict

import sparsejax as sj
from sparsejax.building import ConfigError
from sparsejax.data.pipeline import evaluation_batches, train_iterator
from sparsejax.layers import leaves_with_paths
from sparsejax.tasks.classify import classify, cross_entropy

RIGL = {
    "name": "rigl",
    "sparsity": 0.9,
    "distribution": "erk",
    "drop_fraction": {"name": "cosine", "initial": 0.3},
    "every": 5,
    "stop": 15,
}


class Normalised(nnx.Module):
    """A model with state, which is not part of the library."""

    def __init__(self, features, number_of_classes, rngs):
        self.norm = nnx.BatchNorm(features, momentum=0.5, rngs=rngs)
        self.head = nnx.Linear(features, number_of_classes, rngs=rngs)

    def __call__(self, inputs, train=False):
        flat = inputs.reshape(len(inputs), -1)
        return self.head(self.norm(flat, use_running_average=not train))


def normalised(input_shape, number_of_classes, *, rngs):
    return Normalised(int(np.prod(input_shape)), number_of_classes, rngs)


@pytest.fixture
def make(data_dir):
    def make(**changes):
        config = ConfigDict(
            {
                "seed": 0,
                "task": "classify",
                "steps": 20,
                "model": {"name": "mlp", "hidden": (32,)},
                "data": {
                    "name": "digits",
                    "batch_size": 64,
                    "data_dir": str(data_dir),
                },
                "optimizer": {"name": "adam", "learning_rate": 3e-3},
                "learning_rate_schedule": {"name": "cosine", "warmup_steps": 2},
                "label_smoothing": 0.0,
                "method": {"name": "dense"},
            }
        )
        for field, value in changes.items():
            if isinstance(value, dict):
                value = ConfigDict(value)
            config[field] = value
        return config

    return make


def batches(task, count, seed=0):
    iterator = train_iterator(task.dataset, batch_size=64, seed=seed)
    return [next(iterator) for _ in range(count)]


def train(task, steps, key=0):
    state = jax.jit(task.initialise)(jax.random.key(key))
    step = jax.jit(task.train_step)
    metrics = []
    for batch in batches(task, steps):
        state, scalars = step(state, batch)
        metrics.append({name: float(value) for name, value in scalars.items()})
    assert step._cache_size() == 1
    return state, metrics


def evaluate(task, state):
    step = jax.jit(task.evaluation_step)
    sums = [step(state, b) for b in evaluation_batches(task.dataset, batch_size=64)]
    return {name: sum(float(s[name]) for s in sums) for name in sums[0]}


def test_mlp_reaches_98_percent_on_digits(make):
    task = classify(make(steps=500, model={"name": "mlp"}, data=make().data.to_dict()))
    state, metrics = train(task, 500)
    sums = evaluate(task, state)
    assert sums["count"] == 360
    assert sums["correct"] / sums["count"] >= 0.98
    assert metrics[-1]["loss"] < 0.02 < metrics[0]["loss"]


def test_rigl_trains_at_its_exact_budget(make):
    task = classify(make(steps=400, method={**RIGL, "every": 20, "stop": 300}))
    state, _ = train(task, 400)
    sj.verify(state.params, state.optimizer_state)
    counts = sj.counts(state.optimizer_state)
    assert set(counts) == {"hidden0/kernel", "head/kernel"}
    total = 64 * 32 + 32 * 10
    assert sum(active for active, _ in counts.values()) == round(total / 10)
    sums = evaluate(task, state)
    assert sums["correct"] / sums["count"] > 0.85


def test_metrics_of_the_first_step(make):
    task = classify(make())
    state, (first, second) = train(task, 2)
    assert int(state.step) == 2
    assert set(first) == {"loss", "accuracy", "gradient_norm", "learning_rate"}
    assert first["learning_rate"] == 0
    assert second["learning_rate"] == pytest.approx(1.5e-3)

    initial = jax.jit(task.initialise)(jax.random.key(0))
    (batch,) = batches(task, 1)
    logits = task.forward(initial.params, initial.model_state, batch["image"])
    logits = np.asarray(logits, np.float64)
    log_z = np.log(np.exp(logits).sum(axis=1))
    loss = (log_z - logits[np.arange(64), batch["label"]]).mean()
    assert first["loss"] == pytest.approx(loss, rel=1e-5)
    assert first["accuracy"] == (logits.argmax(axis=1) == batch["label"]).mean()

    def mean_loss(params):
        logits = task.forward(params, initial.model_state, batch["image"])
        return cross_entropy(logits, batch["label"]).mean()

    gradients = jax.tree.leaves(jax.grad(mean_loss)(initial.params))
    norm = np.sqrt(sum(float((g**2).sum()) for g in gradients))
    assert first["gradient_norm"] == pytest.approx(norm, rel=1e-4)


def test_evaluation_ignores_padding_and_smoothing(make):
    task = classify(make(label_smoothing=0.1))
    state = task.initialise(jax.random.key(0))
    (batch,) = evaluation_batches(task.dataset, batch_size=400)
    assert batch["weight"].sum() == 360
    sums = task.evaluation_step(state, batch)
    logits = task.forward(state.params, state.model_state, batch["image"][:360])
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"][:360])
    assert float(sums["loss"]) == pytest.approx(float(loss.sum()), rel=1e-5)
    correct = (logits.argmax(axis=1) == batch["label"][:360]).sum()
    assert float(sums["correct"]) == float(correct)
    assert float(sums["count"]) == 360


def test_label_smoothing():
    logits = jnp.array([[2.0, 0.0, -1.0]])
    labels = jnp.array([0])
    log_p = np.log(np.exp(logits[0]) / np.exp(logits[0]).sum())
    expected = -(log_p * np.array([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3])).sum()
    found = cross_entropy(logits, labels, smoothing=0.1)
    assert float(found[0]) == pytest.approx(expected, rel=1e-5)


def test_batch_statistics_move_in_training_and_serve_in_evaluation(make):
    task = classify(make(model={"name": f"{__name__}.normalised"}))
    initial = jax.jit(task.initialise)(jax.random.key(0))
    (batch,) = batches(task, 1)
    state, _ = jax.jit(task.train_step)(initial, batch)
    images = batch["image"].reshape(64, -1)
    statistics = state.model_state["norm"]
    np.testing.assert_allclose(statistics["mean"], images.mean(0) / 2, atol=1e-5)
    np.testing.assert_allclose(statistics["var"], 0.5 + images.var(0) / 2, atol=1e-4)

    logits = task.forward(state.params, state.model_state, batch["image"])
    norm, head = state.params["norm"], state.params["head"]
    hidden = (images - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-5)
    hidden = hidden * norm["scale"] + norm["bias"]
    expected = hidden @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_weight_decay_spares_norms_and_biases(make):
    def change(weight_decay):
        optimizer = {
            "name": "sgd",
            "learning_rate": 0.1,
            "weight_decay": weight_decay,
        }
        config = make(optimizer=optimizer, learning_rate_schedule={"name": "constant"})
        task = classify(config)
        state = jax.jit(task.initialise)(jax.random.key(0))
        (batch,) = batches(task, 1)
        new, _ = jax.jit(task.train_step)(state, batch)
        return state.params, new.params

    params, without = change(0.0)
    _, with_decay = change(0.5)
    for path, leaf in leaves_with_paths(params):
        expected = -0.1 * 0.5 * leaf if path.endswith("kernel") else 0 * leaf
        difference = dict(leaves_with_paths(with_decay))[path]
        difference = difference - dict(leaves_with_paths(without))[path]
        np.testing.assert_allclose(difference, expected, atol=1e-6, err_msg=path)


def test_keys_give_other_weights_and_other_masks_also_vmapped(make):
    task = classify(make(method=RIGL))
    keys = jax.random.split(jax.random.key(0), 3)
    states = jax.jit(jax.vmap(task.initialise))(keys)
    kernel = np.asarray(states.params["hidden0"]["kernel"])
    patterns = {(k != 0).tobytes() for k in kernel}
    assert len(patterns) == 3
    (batch,) = batches(task, 1)
    states, metrics = jax.jit(jax.vmap(task.train_step, in_axes=(0, None)))(
        states, batch
    )
    assert metrics["loss"].shape == (3,)
    assert len(set(metrics["loss"].tolist())) == 3


def test_a_seed_in_the_method_fixes_the_masks(make):
    task = classify(make(method={**RIGL, "seed": 7}))
    patterns = set()
    for key in range(2):
        params = task.initialise(jax.random.key(key)).params
        patterns.add((np.asarray(params["hidden0"]["kernel"]) != 0).tobytes())
    assert len(patterns) == 1


@pytest.mark.parametrize("initialization", ["dense", "fan_in_corrected"])
def test_initialization(make, initialization):
    config = make(method=RIGL, initialization=initialization)
    state = classify(config).initialise(jax.random.key(0))
    dense = classify(make()).initialise(jax.random.key(0))
    sj.verify(state.params, state.optimizer_state)
    weights = np.asarray(state.params["hidden0"]["kernel"])
    mask = np.asarray(sj.masks(state.optimizer_state)["hidden0"]["kernel"])
    original = np.asarray(dense.params["hidden0"]["kernel"])
    inputs = mask.sum(axis=0)
    factor = np.ones(32) if initialization == "dense" else np.sqrt(64 / inputs)
    np.testing.assert_allclose(weights, original * factor * mask, rtol=1e-5)


def test_gradient_flow_initializations_differ_in_scale(make):
    deviations = []
    for name in ("gradient_flow", "srigl_gradient_flow"):
        config = make(method=RIGL, initialization=name)
        weights = classify(config).initialise(jax.random.key(0)).params
        weights = np.asarray(weights["hidden0"]["kernel"])
        deviations.append(weights[weights != 0].std())
    # About six inputs a neuron: sqrt(2 / 6) against 2 / 6.
    assert deviations[0] > 1.4 * deviations[1]


def test_optimizers_that_copy_the_parameters_start_from_the_sparse_ones(make):
    optimizer = {"name": "optax.contrib.schedule_free_adamw", "learning_rate": 0.1}
    config = make(method=RIGL, optimizer=optimizer, initialization="fan_in_corrected")
    state = classify(config).initialise(jax.random.key(0))
    copies = [
        leaf
        for path, leaf in leaves_with_paths(state.optimizer_state)
        if path.endswith("z/hidden0/kernel")
    ]
    assert len(copies) == 1
    np.testing.assert_array_equal(copies[0], state.params["hidden0"]["kernel"])


def test_example_input_fits_forward(make):
    task = classify(make())
    state = task.initialise(jax.random.key(0))
    outputs = task.forward(state.params, state.model_state, task.example_input)
    assert outputs.shape == (1, 10)


def test_works_with_plain_mappings(make):
    task = classify(make(method=RIGL).to_dict())
    assert int(task.initialise(jax.random.key(0)).step) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_smoothing": 1.0}, r"config.label_smoothing = 1.0 is not in \[0, 1\)"),
        ({"initialization": "sparse"}, r"config.initialization = 'sparse': use one of"),
        ({"model": {"name": "mpl"}}, r"config.model.name = 'mpl': unknown"),
        ({"model": {"name": "resnet", "depth": 51}}, r"config.model.depth = 51"),
        ({"model": {"name": "mlp", "widths": 3}}, r"config.model.widths = 3"),
        ({"method": {"name": "ragl"}}, r"config.method.name = 'ragl': unknown"),
        ({"method": {**RIGL, "sparsity": 1.5}}, r"config.method.sparsity"),
        ({"data": {"name": "digit", "batch_size": 1}}, r"config.data.name = 'digit'"),
    ],
)
def test_bad_configs(make, changes, message):
    with pytest.raises(ConfigError, match=message):
        classify(make(**changes))


def test_batch_larger_than_the_dataset(make):
    config = make()
    config.data.batch_size = 1438
    with pytest.raises(ConfigError, match=r"config.data.batch_size = 1438 is larger"):
        classify(config)
