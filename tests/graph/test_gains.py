"""gains: what is learned of one step serves the others of its operator; now and then it is questioned."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import ANY

import pytest

from dataflow.graph.gains import LONG, PROBE, RARELY, SOON, TRIALS, UNTRIED, WORTH, Gains


def alone(gains: Gains, step: int, seconds: float) -> None:
    gains.took_one(step, seconds, alone=True)


def beside(gains: Gains, step: int, seconds: float) -> None:
    gains.took_one(step, seconds, alone=False)


def several(gains: Gains, step: int, seconds: float, *, warm: bool = True, helped: bool = True) -> None:
    gains.took_several(step, seconds, warm=warm, helped=helped)


def test_nothing_is_known_at_first():
    assert Gains(["a", "b"]).expected(0) == (None, None)


def tried(gains: Gains, step: int, single: float, with_several: float) -> None:
    """A step with all CPUs, and then, as it comes alone, with one thread."""
    several(gains, step, with_several)
    assert gains.advice(step, lonely=True) == (ANY, 1.0, True)
    alone(gains, step, single)


def test_a_step_s_own_times():
    gains = Gains(["a"])
    alone(gains, 0, 8.0)
    assert gains.expected(0) == (8.0, None)
    gains = Gains(["a"])
    beside(gains, 0, 9.0)
    assert gains.expected(0) == (9.0, None)
    tried(gains, 0, 8e-3, 4e-3)
    assert gains.expected(0) == (8e-3, 2.0)


def test_steps_without_have_the_gain_of_their_operator():
    gains = Gains(["a", "a", "b", "a"])
    tried(gains, 0, 8e-3, 4e-3)
    several(gains, 1, 3e-3)
    assert gains.expected(1) == (6e-3, 2.0)
    assert gains.expected(3) == (None, 2.0)
    assert gains.expected(2) == (None, None)


def test_the_gain_of_an_operator_is_the_median_of_those_of_the_steps_of_its_trials():
    gains = Gains(["a"] * 8)
    tried(gains, 0, 24e-3, 4e-3)
    assert gains.expected(7)[1] == 6.0
    tried(gains, 1, 8e-3, 4e-3)
    assert gains.expected(7)[1] == 2.0  # the lower of two
    tried(gains, 2, 9e-3, 4e-3)
    assert gains.expected(7)[1] == 9 / 4
    several(gains, 2, 2e-3)  # it was slow before
    assert gains.expected(7)[1] == pytest.approx(3.0)
    assert gains.advice(2, lonely=True).gain == gains.expected(2)[1]  # that was enough


def test_what_takes_longer_beside_others_seems_to_gain_no_more_than_its_operator():
    gains = Gains(["a", "a", "a"])
    beside(gains, 0, 8e-3)
    several(gains, 0, 2e-3)
    assert gains.expected(0) == (8e-3, None)  # it may be BLAS, or memory that the others used
    tried(gains, 1, 3e-3, 2e-3)
    assert gains.expected(0) == (3e-3, 1.5)
    beside(gains, 2, 2.2e-3)
    several(gains, 2, 2e-3)
    assert gains.expected(2) == (pytest.approx(2.2e-3), pytest.approx(1.1))  # it is no more than that


def test_what_workers_slept_through_tells_nothing():
    gains = Gains(["a"])
    several(gains, 0, 7e-3, warm=False)
    assert gains.advice(0, lonely=True) == (None, None, False)
    assert gains.expected(0) == (None, None)


def test_what_no_worker_helped_with_has_no_gain():
    gains = Gains(["a", "a"])
    several(gains, 0, 4e-3, helped=False)
    assert gains.expected(1) == (None, 1.0)
    assert not gains.some
    beside(gains, 0, 8e-3)
    assert gains.expected(0) == (4e-3, 1.0)
    alone(gains, 0, 4e-3)
    assert [gains.advice(0, lonely=True).gain for _ in range(SOON)] == [1.0] * (SOON - 1) + [None]
    several(gains, 0, 1e-3)  # yet it does: workers had been asleep again before anybody looked
    assert gains.expected(0)[1] > WORTH


def test_what_was_never_alone_gains_nothing_in_the_end():
    gains = Gains(["a", "b"])
    beside(gains, 0, 8e-3)
    for _ in range(UNTRIED):
        assert gains.advice(0, lonely=False) == (8e-3, None, False)
        several(gains, 0, 4e-3)
    assert gains.advice(0, lonely=False).gain == 1.0
    assert gains.advice(1, lonely=False).gain is None
    alone(gains, 0, 8e-3)  # now it was, and can be asked
    assert gains.advice(0, lonely=False).gain is None
    assert gains.advice(0, lonely=True) == (ANY, 1.0, True)
    alone(gains, 0, 8e-3)
    assert gains.advice(0, lonely=False).gain == 2.0


def test_whether_several_threads_are_worth_it_anywhere():
    gains = Gains(["a", "b"])
    assert not gains.some
    tried(gains, 0, 1e-3, 0.99e-3)
    assert not gains.some
    tried(gains, 1, 2e-3 * WORTH, 1e-3)
    assert gains.some


def test_a_quicker_time_counts_by_half_and_a_slower_by_a_quarter():
    gains = Gains(["a"])
    for seconds, expected in ((8.0, 8.0), (4.0, 6.0), (10.0, 7.0), (70.0, 8.75)):  # no more than twice as much
        alone(gains, 0, seconds)
        assert gains.expected(0)[0] == expected


def test_a_neighbour_that_slows_down_every_other_product_makes_one_thread_the_better_choice():
    gains = Gains(["a"] * 16)
    for step in range(3):
        tried(gains, step, 4e-3, 2e-3)
    for step in range(3, 16):
        beside(gains, step, 5e-3)
        several(gains, step, 2e-3)
    assert gains.expected(5)[1] == 2.0
    for _ in range(4):
        for step in range(16):
            several(gains, step, 40e-3 if step % 2 else 2e-3)
    assert gains.expected(5)[1] < WORTH


def test_an_operator_is_asked_as_soon_as_a_step_that_had_all_cpus_comes_alone():
    gains = Gains(["a", "a"])
    assert gains.advice(0, lonely=True) == (None, None, False)
    several(gains, 0, 4e-3)
    assert gains.advice(0, lonely=False) == (None, None, False)
    assert gains.advice(1, lonely=True) == (None, None, False)
    for _ in range(3):  # until it could be asked
        assert gains.advice(0, lonely=True) == (ANY, 1.0, True)
        beside(gains, 0, 9e-3)
    for _ in range(TRIALS):
        assert gains.advice(0, lonely=True) == (ANY, 1.0, True)
        alone(gains, 0, 7e-3)
    assert gains.advice(0, lonely=True).gain == 7 / 4
    for _ in range(RARELY):
        assert gains.advice(0, lonely=True).gain == 7 / 4
        several(gains, 0, 4e-3)
    assert gains.advice(0, lonely=False).gain == 7 / 4
    assert gains.advice(0, lonely=True) == (ANY, 1.0, True)
    alone(gains, 0, 7e-3)
    assert gains.advice(0, lonely=True).gain == 7 / 4


def test_an_operator_that_gains_nothing_is_tried_soon_and_then_now_and_then():
    gains = Gains(["a", "a"])
    tried(gains, 0, 4e-3, 6e-3)
    assert all(gains.advice(1, lonely=True).gain == 4 / 6 for _ in range(PROBE))  # no step that was seen alone
    trials = []
    for i in range(6 * PROBE):
        if gains.advice(0, lonely=True).gain is None:
            trials.append(i)
            several(gains, 0, 6e-3)
    apart = [after - before for before, after in pairwise(trials)]
    assert trials[0] == 0
    assert apart[:6] == [2 * SOON, 4 * SOON, 8 * SOON, PROBE, PROBE, PROBE]
    for _ in range(3):  # the neighbour has gone
        several(gains, 0, 2e-3)
    assert gains.advice(0, lonely=False).gain >= WORTH


def test_long_kernels_are_not_tried():
    gains = Gains(["a", "b"])
    several(gains, 0, 2 * LONG)
    assert [gains.advice(0, lonely=True).gain for _ in range(PROBE)] == [None] * PROBE
    several(gains, 1, 2 * LONG, helped=False)
    alone(gains, 1, 2 * LONG)
    assert [gains.advice(1, lonely=True).gain for _ in range(PROBE)] == [1.0] * PROBE


def test_repr():
    assert repr(Gains(["a"])) == "<Gains []>"
