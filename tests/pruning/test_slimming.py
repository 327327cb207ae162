"""Network slimming: the penalty's golden values, and which channels stay."""

import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj


def test_penalty_of_three_scales():
    penalty = sj.pruning.scale_penalty(1e-4)
    params = {"norm": {"scale": jnp.array([1.0, -2, 0]), "bias": jnp.ones(3)}}
    gradients = {"norm": {"scale": jnp.array([0.1, -0.2, 0]), "bias": jnp.ones(3)}}
    updates, _ = penalty.update(gradients, penalty.init(params), params)
    np.testing.assert_allclose(updates["norm"]["scale"], [0.1001, -0.2001, 0])
    np.testing.assert_array_equal(updates["norm"]["bias"], [1, 1, 1])


def network():
    def norm(*scales):
        return {"scale": jnp.array(scales), "bias": jnp.ones(len(scales))}

    return {
        "conv": {"kernel": jnp.ones((3, 3, 2, 4))},
        "bn1": norm(5.0, -4.0, 3.0, 2.0),
        "bn2": norm(0.1, -0.3, 0.2, 0.1),
    }


@pytest.mark.parametrize(
    ("sparsity", "first", "second"),
    [
        (0.0, [5, -4, 3, 2], [0.1, -0.3, 0.2, 0.1]),
        (0.375, [5, -4, 3, 2], [0, -0.3, 0, 0]),
        (0.5, [5, -4, 3, 0], [0, -0.3, 0, 0]),
        # No layer vanishes.
        (0.75, [5, 0, 0, 0], [0, -0.3, 0, 0]),
        (0.99, [5, 0, 0, 0], [0, -0.3, 0, 0]),
    ],
)
def test_smallest_scales_of_all_layers_go(sparsity, first, second):
    params, masks = sj.pruning.slim(network(), sparsity=sparsity)
    for name, scales in (("bn1", first), ("bn2", second)):
        np.testing.assert_allclose(params[name]["scale"], scales)
        np.testing.assert_array_equal(params[name]["bias"], np.array(scales) != 0)
        np.testing.assert_array_equal(masks[name]["scale"], np.array(scales) != 0)
    assert masks["conv"]["kernel"] is None


def test_ties_leave_exact_counts():
    params = {"norm": {"scale": jnp.ones(10)}}
    _, masks = sj.pruning.slim(params, sparsity=0.7)
    assert masks["norm"]["scale"].tolist() == [True] * 3 + [False] * 7


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="strength=-1"):
        sj.pruning.scale_penalty(-1.0)
    with pytest.raises(ValueError, match="where='gain' matches no path"):
        sj.pruning.scale_penalty(where="gain").init(network())
    with pytest.raises(ValueError, match=r"sparsity=1\.0"):
        sj.pruning.slim(network(), sparsity=1.0)
