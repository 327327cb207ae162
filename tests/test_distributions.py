"""Budgets against published values, and the properties that every distribution has."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax as sj
from sparsejax.distributions import budget_of
from sparsejax.layers import Layer, flax


def layers_of(*shapes, stacked=None):
    layout = flax(stacked=stacked)
    return [
        Layer(f"layer{i}/kernel", shape, layout(f"layer{i}/kernel", shape))
        for i, shape in enumerate(shapes)
    ]


def totals(budgets):
    return [sum(budget) for budget in budgets]


@pytest.mark.parametrize(
    ("size", "sparsity", "kept"),
    [(10, 0.9, 1), (100, 0.9, 10), (1000, 0.9, 100), (30, 0.8, 6), (5, 0.5, 2)],
)
def test_budget_is_exact_where_floats_are_not(size, sparsity, kept):
    assert budget_of(size, sparsity) == kept


def test_erk_matches_the_published_solution():
    assert totals(sj.erk()(layers_of((10, 20), (100, 50)), 0.9)) == [87, 433]


def test_erk_keeps_an_overfull_layer_dense():
    assert totals(sj.erk()(layers_of((10, 20), (100, 50)), 0.5)) == [200, 2400]


def test_erk_counts_kernel_axes():
    layers = layers_of((3, 3, 16, 32), (512, 10))
    first, second = totals(sj.erk()(layers, 0.8))
    assert first / 4608 == pytest.approx(0.0395915, abs=1 / 4608)
    assert second / 5120 == pytest.approx(0.3444458, abs=1 / 5120)


def test_er_ignores_kernel_size():
    layers = layers_of((3, 3, 16, 32), (512, 10))
    densities = [
        kept / layer.size
        for kept, layer in zip(totals(sj.er()(layers, 0.9)), layers, strict=True)
    ]
    ratio = (144 + 32) / (144 * 32) / ((512 + 10) / 5120)
    assert densities[0] / densities[1] == pytest.approx(ratio, rel=0.02)


def test_erk_with_power_zero_is_uniform():
    layers = layers_of((10, 30), (40, 50))
    assert sj.erk(power=0.0)(layers, 0.9) == sj.uniform()(layers, 0.9)


shapes = st.lists(
    st.tuples(st.integers(2, 60), st.integers(2, 60)), min_size=1, max_size=6
)


@settings(max_examples=80, deadline=None)
@given(
    shapes,
    st.sampled_from([0.0, 0.3, 0.5, 0.8, 0.9]),
    st.sampled_from(["er", "erk"]),
)
def test_total_is_exact_and_no_layer_overflows(shapes, sparsity, name):
    layers = layers_of(*shapes)
    size = sum(layer.size for layer in layers)
    try:
        budgets = getattr(sj, name)()(layers, sparsity)
    except ValueError as error:
        if "without a single weight" not in str(error):
            raise
        return
    assert sum(totals(budgets)) == budget_of(size, sparsity)
    for layer, budget in zip(layers, budgets, strict=True):
        assert all(1 <= one <= layer.size // layer.slices for one in budget)


def test_every_stacked_layer_has_its_own_budget():
    stacked = layers_of((4, 10, 20), (30, 20), stacked={"layer0": 1})
    apart = layers_of((10, 20), (10, 20), (10, 20), (10, 20), (30, 20))
    together = sj.erk()(stacked, 0.8)
    assert len(together[0]) == 4
    assert [*together[0], *together[1]] == totals(sj.erk()(apart, 0.8))


def test_dense_layers_and_preserved_total():
    layers = layers_of((10, 10), (50, 20))
    assert totals(sj.uniform(dense=["layer0"])(layers, 0.9)) == [100, 100]
    kept = totals(sj.uniform(dense=["layer0"], preserve_total=True)(layers, 0.5))
    assert kept == [100, 450]


def test_custom_sparsity_is_left_out_of_both_sides():
    layers = layers_of((10, 20), (100, 50), (40, 10))
    budgets = totals(sj.erk(custom={"layer2": 0.25})(layers, 0.9))
    assert budgets == [87, 433, 300]


def test_empty_layer_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"layer0/kernel \(shape \(2, 2\)\)"):
        sj.uniform()(layers_of((2, 2), (50, 50)), 0.95)


def test_pattern_without_a_match_is_an_error():
    with pytest.raises(ValueError, match="custom='head' matches no path"):
        sj.erk(custom={"head": 0.5})(layers_of((4, 4)), 0.5)
