"""When the topology moves, and how much: published tables and edge cases."""

import jax.numpy as jnp
import pytest

import sparsejax as sj
from sparsejax.schedules import as_schedule


def steps(when, until):
    return [step for step in range(until) if bool(when.due(jnp.int32(step)))]


def test_first_move_is_never_at_step_zero_by_default():
    assert steps(sj.periodic(10, stop=40), 60) == [10, 20, 30]


def test_stop_is_reached_even_off_the_interval():
    when = sj.periodic(10, start=5, stop=28, include_stop=True)
    assert steps(when, 60) == [5, 15, 25, 28]


def test_single_move():
    when = sj.periodic(100, start=7, stop=7, include_stop=True)
    assert steps(when, 30) == [7]
    assert float(when.phase(jnp.int32(7))) == 1.0


def test_cosine_golden_values():
    drop = sj.cosine(0.3)
    got = [float(drop(p)) for p in (0.0, 0.5, 1.0)]
    assert got == pytest.approx([0.3, 0.15, 0.0], abs=1e-7)
    assert float(sj.cosine(0.5, final=0.005)(1.0)) == pytest.approx(0.005)


def test_cubic_golden_values():
    gradual = sj.polynomial(0.0, final=0.9)
    when = sj.periodic(25, start=0, stop=100, include_stop=True)
    got = [float(gradual(when.phase(jnp.int32(t)))) for t in (0, 25, 50, 75, 100)]
    assert got == pytest.approx([0, 0.5203125, 0.7875, 0.8859375, 0.9], abs=1e-6)


def test_phase_is_exactly_one_at_the_stop():
    when = sj.periodic(3, start=1, stop=7_777_777, include_stop=True)
    assert float(when.phase(jnp.int32(7_777_777))) == 1.0
    assert float(sj.cubic()(when.phase(jnp.int32(7_777_777)))) == 1.0


def test_numbers_are_constant_schedules():
    assert float(as_schedule("drop_fraction", 0.25)(0.7)) == 0.25


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: sj.periodic(0, stop=5), "every=0"),
        (lambda: sj.periodic(2.5, stop=5), "every=2.5"),
        (lambda: sj.periodic(10, stop=5), "stop=5 is before"),
        (lambda: sj.periodic(1, start=-1, stop=5), "start=-1"),
        (lambda: sj.cosine(1.5), "initial=1.5"),
        (lambda: sj.polynomial(power=0), "power=0"),
        (lambda: as_schedule("drop_fraction", "cosine"), "drop_fraction='cosine'"),
    ],
)
@pytest.mark.usefixtures("any_type")
def test_errors_name_argument_and_value(build, message):
    with pytest.raises(ValueError, match=message):
        build()
