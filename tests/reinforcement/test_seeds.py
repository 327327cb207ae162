import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.reinforcement.seeds import over_seeds, single


def initialise(key):
    return {"step": jnp.zeros((), jnp.int32), "weights": jax.random.normal(key, (3,))}


def axes(state):
    del state
    return {"step": None, "weights": 0}


def test_each_seed_is_what_it_would_be_alone():
    begin, found = over_seeds(initialise, axes, 3)
    state = begin(jax.random.key(5))
    for number in range(3):
        alone = initialise(jax.random.fold_in(jax.random.key(5), number))
        one = single(state, found, number)
        assert one["step"].shape == ()
        np.testing.assert_array_equal(one["weights"], alone["weights"])


def test_more_seeds_do_not_change_the_first_ones():
    few, _ = over_seeds(initialise, axes, 2)
    many, _ = over_seeds(initialise, axes, 5)
    key = jax.random.key(0)
    np.testing.assert_array_equal(few(key)["weights"], many(key)["weights"][:2])


def test_a_shared_counter_decides_on_branches_that_stay_branches():
    begin, found = over_seeds(initialise, axes, 2)

    def step(state):
        weights = jax.lax.cond(state["step"] > 1, jnp.sin, jnp.cos, state["weights"])
        return {"step": state["step"] + 1, "weights": weights}

    mapped = jax.vmap(step, in_axes=(found,), out_axes=found)
    program = str(jax.make_jaxpr(mapped)(begin(jax.random.key(0))))
    assert "cond[" in program and "select_n" not in program
