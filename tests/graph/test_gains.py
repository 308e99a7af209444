"""gains: what is learned of one step serves the others of its operator; now and then it is questioned."""

from __future__ import annotations

from itertools import pairwise

from dataflow.graph.gains import LONG, PROBE, RARELY, SOON, TRIED, WORTH, Gains


def alone(gains: Gains, step: int, seconds: float) -> None:
    gains.note(step, seconds, several=False, alone=True, warm=True)


def beside(gains: Gains, step: int, seconds: float) -> None:
    gains.note(step, seconds, several=False, alone=False, warm=True)


def several(gains: Gains, step: int, seconds: float, *, warm: bool = True, helped: bool = True) -> None:
    gains.note(step, seconds, several=True, alone=True, warm=warm, helped=helped)


def test_nothing_is_known_at_first():
    assert Gains(["a", "b"]).expected(0) == (None, None)


def test_a_step_s_own_times():
    gains = Gains(["a"])
    alone(gains, 0, 8.0)
    assert gains.expected(0) == (8.0, None)
    several(gains, 0, 4.0)
    assert gains.expected(0) == (8.0, 2.0)


def test_steps_without_have_the_gain_of_their_operator():
    gains = Gains(["a", "a", "b", "a"])
    alone(gains, 0, 8.0)
    several(gains, 0, 4.0)
    several(gains, 1, 3.0)
    assert gains.expected(1) == (6.0, 2.0)
    assert gains.expected(3) == (None, 2.0)
    assert gains.expected(2) == (None, None)


def test_what_takes_longer_beside_others_seems_to_gain_no_more_than_its_operator():
    gains = Gains(["a", "a", "a"])
    beside(gains, 0, 8.0)
    several(gains, 0, 2.0)
    assert gains.expected(0) == (8.0, None)  # it may be BLAS, or memory that the others used
    alone(gains, 1, 3.0)
    several(gains, 1, 2.0)
    assert gains.expected(0) == (8.0, 1.5)
    beside(gains, 2, 2.2)
    several(gains, 2, 2.0)
    assert gains.expected(2) == (2.2, 1.1)  # it is no more than that


def test_what_workers_slept_through_tells_nothing():
    gains = Gains(["a"])
    alone(gains, 0, 8.0)
    several(gains, 0, 7.0, warm=False)
    assert gains.expected(0) == (8.0, None)


def test_what_no_worker_helped_with_has_no_gain():
    gains = Gains(["a", "a"])
    several(gains, 0, 4.0, helped=False)
    assert gains.expected(1) == (None, 1.0)
    assert not gains.some
    beside(gains, 0, 8.0)
    assert gains.expected(0) == (8.0, 1.0)


def test_what_was_never_alone_gains_nothing_in_the_end():
    gains = Gains(["a", "b"])
    beside(gains, 0, 8.0)
    for _ in range(TRIED):
        assert gains.advice(0, alone=False) == (8.0, None)
        several(gains, 0, 4.0)
    assert gains.advice(0, alone=False)[1] == 1.0
    assert gains.advice(1, alone=False)[1] is None
    alone(gains, 0, 8.0)  # now it was
    assert gains.advice(0, alone=False)[1] == 2.0


def test_whether_several_threads_are_worth_it_anywhere():
    gains = Gains(["a", "b"])
    assert not gains.some
    alone(gains, 0, 1.0)
    several(gains, 0, 0.99)
    assert not gains.some
    alone(gains, 1, 2.0 * WORTH)
    several(gains, 1, 1.0)
    assert gains.some


def test_a_quicker_time_counts_by_half_and_a_slower_by_a_quarter():
    gains = Gains(["a"])
    for seconds, expected in ((8.0, 8.0), (4.0, 6.0), (10.0, 7.0)):
        alone(gains, 0, seconds)
        assert gains.expected(0)[0] == expected


def test_a_neighbour_that_slows_down_every_other_product_makes_one_thread_the_better_choice():
    gains = Gains(["a"] * 16)
    for step in range(16):
        alone(gains, step, 4e-3)
        several(gains, step, 2e-3)
    assert gains.expected(0)[1] == 2.0
    for _ in range(3):
        for step in range(16):
            several(gains, step, 40e-3 if step % 2 else 2e-3)
    assert min(gains.expected(step)[1] for step in range(16)) < WORTH
    assert gains._of_family["a"] < 2.0


def test_an_operator_is_asked_as_soon_as_a_step_that_had_all_cpus_comes_alone():
    gains = Gains(["a", "a"])
    assert gains.advice(0, alone=True) == (None, None)
    several(gains, 0, 4e-3)
    assert gains.advice(0, alone=False) == (None, None)
    assert gains.advice(1, alone=True) == (None, None)
    for _ in range(3):  # until it could be asked
        assert gains.advice(0, alone=True)[1] == 0.0
        beside(gains, 0, 9e-3)
    alone(gains, 0, 7e-3)
    assert gains.advice(0, alone=True)[1] == 7 / 4
    for _ in range(RARELY):
        several(gains, 1, 4e-3)
    assert gains.advice(1, alone=False)[1] == 7 / 4
    assert gains.advice(1, alone=True)[1] == 0.0
    alone(gains, 1, 8e-3)
    assert gains.advice(0, alone=True)[1] == 7 / 4


def test_an_operator_that_gains_nothing_is_tried_soon_and_then_now_and_then():
    gains = Gains(["a", "a"])
    alone(gains, 0, 4e-3)
    several(gains, 0, 6e-3)
    assert all(gains.advice(1, alone=True)[1] == 4 / 6 for _ in range(PROBE))  # no step that was asked
    tried = []
    for i in range(6 * PROBE):
        if gains.advice(0, alone=True)[1] is None:
            tried.append(i)
            several(gains, 0, 6e-3)
    apart = [after - before for before, after in pairwise(tried)]
    assert tried[0] == 0
    assert apart[:6] == [2 * SOON, 4 * SOON, 8 * SOON, PROBE, PROBE, PROBE]
    for _ in range(3):  # the neighbour has gone
        several(gains, 0, 2e-3)
    assert gains.advice(0, alone=False)[1] >= WORTH


def test_long_kernels_are_not_tried():
    gains = Gains(["a", "b"])
    several(gains, 0, 2 * LONG)
    assert [gains.advice(0, alone=True)[1] for _ in range(PROBE)] == [None] * PROBE
    alone(gains, 1, 2 * LONG)
    several(gains, 1, 2 * LONG)
    assert [gains.advice(1, alone=True)[1] for _ in range(PROBE)] == [1.0] * PROBE


def test_repr():
    assert repr(Gains(["a"])) == "<Gains []>"
