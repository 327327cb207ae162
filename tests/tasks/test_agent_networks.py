import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.building import ConfigError
from sparsejax.tasks.agent_networks import Part, agent_networks
from sparsejax.tasks.per_part import per_part

PARTS = {
    "actor": Part("actor", (6,), 4),
    "critic1": Part("critic", (8,), 1),
    "critic2": Part("critic", (8,), 1),
}


def config(**changes):
    return {
        "model": {"name": "mlp", "hidden": (32, 32)},
        "method": {"name": "rigl", "sparsity": 0.9, "every": 2, "stop": 8},
        **changes,
    }


def networks(given, inner=None, **dense):
    inner = inner or optax.adam(1e-2)
    return agent_networks(given, PARTS, inner=inner, dense=dense)


def zeros(state):
    counts = sj.counts(state)
    found = {}
    for path, (active, size) in counts.items():
        part = path.split("/")[0]
        had = found.get(part, (0, 0))
        found[part] = (had[0] + active, had[1] + size)
    return found


def test_parts_have_the_sparsity_and_masks_of_their_own():
    params, state = networks(config()).initialise(jax.random.key(0))
    assert set(params) == set(PARTS)
    for active, size in zeros(state).values():
        assert active == round(0.1 * size)
    masks = sj.masks(state)
    first, second = (
        masks[name]["hidden1"]["kernel"] for name in ("critic1", "critic2")
    )
    assert (first != second).any()
    sj.verify(params, state)


def test_a_role_may_have_its_own_model_and_method():
    given = config(
        actor={"model": {"hidden": (16,)}, "method": {"sparsity": 0.5, "name": None}},
        critic={"method": {"name": "dense", "sparsity": None}},
    )
    params, state = networks(given).initialise(jax.random.key(0))
    assert params["actor"]["hidden0"]["kernel"].shape == (6, 16)
    assert params["critic1"]["hidden0"]["kernel"].shape == (8, 32)
    assert set(zeros(state)) == {"actor"}
    assert zeros(state)["actor"] == (80, 160)


def test_one_budget_is_split_between_the_actor_and_the_critics():
    _, state = networks(config(actor_share=0.2)).initialise(jax.random.key(0))
    found = zeros(state)
    total = sum(size for _, size in found.values())
    kept = sum(active for active, _ in found.values())
    assert kept == pytest.approx(0.1 * total, abs=2)
    assert found["actor"][0] == pytest.approx(0.2 * 0.1 * total, abs=1)
    assert found["critic1"][0] == pytest.approx(found["critic2"][0], abs=1)


def with_encoder(**encoder):
    return config(
        model={"name": "minatar_cnn", "hidden": 16}, encoder={"method": encoder}
    )


SYNFLOW = {"name": "synflow", "sparsity": 0.5}
PIXELS = {"values": Part("values", (10, 10, 4), 3)}


def test_an_encoder_may_have_its_own_sparsity_and_method():
    given = with_encoder(name="set", sparsity=0.5, every=3, stop=8)
    built = agent_networks(given, PIXELS, inner=optax.adam(1e-2))
    params, state = built.initialise(jax.random.key(0))
    first = sj.masks(state)["values"]
    counts = sj.counts(state)
    active, size = counts.pop("values/convolution0/kernel")
    assert (active, size) == (288, 576)
    total = sum(size for _, size in counts.values())
    assert sum(active for active, _ in counts.values()) == round(0.1 * total)
    images = jax.random.normal(jax.random.key(1), (5, 10, 10, 4))

    @jax.jit
    def step(params, state):
        gradients = jax.grad(
            lambda params: jnp.square(built.apply(params, "values", images) - 1).sum()
        )(params)
        updates, state = built.transformation.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    moved = {"convolution0": [], "hidden": []}
    last = first
    for _ in range(6):
        params, state = step(params, state)
        masks = sj.masks(state)["values"]
        for layer, found in moved.items():
            found.append(bool((masks[layer]["kernel"] != last[layer]["kernel"]).any()))
        last = masks
    # Updates 0, 1, ...: SET moves every third, RigL every second, neither at 0.
    assert moved["convolution0"] == [False, False, False, True, False, False]
    assert moved["hidden"] == [False, False, True, False, True, False]
    assert sj.counts(state)["values/convolution0/kernel"] == (288, 576)
    sj.verify(params, state)


def test_without_a_method_of_its_own_an_encoder_is_as_the_rest():
    plain, own = (
        agent_networks(given, PIXELS, inner=optax.sgd(0.1)).initialise(
            jax.random.key(0)
        )
        for given in (
            config(model={"name": "minatar_cnn", "hidden": 16}),
            with_encoder(name=None, sparsity=None),
        )
    )
    jax.tree.map(np.testing.assert_array_equal, plain[0], own[0])


@pytest.mark.parametrize(
    ("parts", "changes", "message"),
    [
        (PARTS, config(encoder={"method": {"sparsity": 0.5}}), "has no convolutions"),
        (PIXELS, {**with_encoder(sparsity=0.5), "actor_share": 0.5}, "set one of them"),
        (
            PIXELS,
            {**with_encoder(sparsity=0.5), "method": SYNFLOW},
            "config.encoder.method",
        ),
    ],
)
def test_an_encoder_that_cannot_be_is_refused(parts, changes, message):
    def begin():
        built = agent_networks(changes, parts, inner=optax.sgd(0.1))
        return built.initialise(jax.random.key(0))

    with pytest.raises(ConfigError, match=message):
        begin()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actor_share": 1.5}, r"actor_share = 1\.5: give a share in \(0, 1\)"),
        (
            {"actor_share": 0.99, "method": {"name": "static", "sparsity": 0.1}},
            "leaves",
        ),
        ({"model": {"name": "wide_resnet"}}, "config.model"),
        ({"initialization": "none"}, "config.initialization"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        networks(config(**changes))


def test_training_moves_each_topology_and_keeps_the_counts():
    built = networks(config(), log_temperature=0.0)
    params, state = built.initialise(jax.random.key(0))
    before = zeros(state), sj.masks(state)
    assert float(params["log_temperature"]) == 0.0

    @jax.jit
    def step(params, state):
        def loss(params):
            outputs = [
                built.apply(params, name, jnp.ones((5, *part.input_shape)))
                for name, part in PARTS.items()
            ]
            total = sum(jnp.square(out - 1).sum() for out in outputs)
            return total + jnp.square(params["log_temperature"] - 3)

        updates, state = built.transformation.update(
            jax.grad(loss)(params), state, params
        )
        return optax.apply_updates(params, updates), state

    for _ in range(8):
        params, state = step(params, state)
    assert zeros(state) == before[0]
    for part in PARTS:
        old, new = (m[part]["hidden1"]["kernel"] for m in (before[1], sj.masks(state)))
        assert (old != new).any()
    sj.verify(params, state)
    assert float(params["log_temperature"]) > 0


def test_gradients_of_a_part_are_asked_for_by_itself():
    asked = []

    def asking():
        def update_fn(updates, state, params, *, grad_fn=None, **extra):
            asked.append(grad_fn({**params}))
            return updates, state

        return optax.GradientTransformationExtraArgs(
            lambda params: optax.EmptyState(), update_fn
        )

    transformation = per_part({"actor": asking(), "critic": asking()})
    params = {"actor": jnp.float32(2.0), "critic": jnp.float32(3.0)}
    gradients = jax.grad(lambda p: p["actor"] * p["critic"])
    state = transformation.init(params)
    transformation.update(gradients(params), state, params, grad_fn=gradients)
    assert [float(asked[0]["actor"]), float(asked[1]["critic"])] == [3.0, 2.0]
    assert isinstance(asked[0]["critic"], optax.MaskedNode)


@pytest.mark.slow
def test_the_budget_of_every_method_is_kept_in_every_part():
    for name in ("static", "set", "srigl", "magnitude"):
        method = {"name": name, "sparsity": 0.8}
        if name != "static":
            method |= {"every": 2, "stop": 4}
        if name == "magnitude":
            method["start"] = 1
        params, state = networks(config(method=method)).initialise(jax.random.key(1))
        sj.verify(params, state)
        assert np.isfinite(jax.tree.leaves(params)[0]).all()
