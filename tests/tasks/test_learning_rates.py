import math

import pytest

from sparsejax.tasks import learning_rates


def values(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_warm_up_is_linear_from_zero():
    for name, options in (
        ("constant", {}),
        ("cosine", {}),
        ("staircase", {"boundaries": (50,)}),
    ):
        build = getattr(learning_rates, name)
        schedule = build(2.0, 100, warmup_steps=10, **options)
        expected = [0.0, 0.2, 1.0, 2.0]
        assert values(schedule, (0, 1, 5, 10)) == pytest.approx(expected), name


def test_constant():
    assert values(learning_rates.constant(0.3, 10), (0, 9)) == pytest.approx([0.3] * 2)


def test_cosine_falls_from_the_warm_up_to_the_end():
    schedule = learning_rates.cosine(1.0, 110, warmup_steps=10, final=0.1)
    quarter = 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2
    expected = [1.0, quarter, 0.55, 0.1]
    assert values(schedule, (10, 35, 60, 110)) == pytest.approx(expected)


def test_staircase_counts_boundaries_from_the_start_of_the_run():
    schedule = learning_rates.staircase(
        1.6, 100, boundaries=(30, 70, 90), warmup_steps=5
    )
    expected = [1.6, 0.16, 0.16, 0.016, 0.0016]
    assert values(schedule, (29, 30, 69, 70, 90)) == pytest.approx(expected)


@pytest.mark.parametrize("warmup_steps", [-1, 100, 200])
def test_warm_up_must_be_shorter_than_the_run(warmup_steps):
    with pytest.raises(ValueError, match=rf"warmup_steps = {warmup_steps} is not in"):
        learning_rates.cosine(1.0, 100, warmup_steps=warmup_steps)


def test_boundaries_outside_the_run():
    with pytest.raises(ValueError, match=r"boundaries = .*120 is not between"):
        learning_rates.staircase(1.0, 100, boundaries=(30, 120))
