"""gains: what is learned of one step serves the others of its operator; now and then it is questioned."""

from __future__ import annotations

from math import inf

from dataflow.graph.gains import EVIDENCE, FIRST, LONG, PROBE, RARELY, WORTH, Gains


def test_nothing_is_known_at_first():
    assert Gains(["a", "b"]).expected(0) == (None, None)


def test_a_step_s_own_times():
    gains = Gains(["a"])
    gains.note(0, 8.0, several=False, cpus=inf)
    assert gains.expected(0) == (8.0, None)
    gains.note(0, 4.0, several=True, cpus=inf)
    assert gains.expected(0) == (8.0, 2.0)


def test_steps_without_have_the_gain_of_their_operator():
    gains = Gains(["a", "a", "b", "a"])
    gains.note(0, 8.0, several=False, cpus=inf)
    gains.note(0, 4.0, several=True, cpus=inf)
    gains.note(1, 3.0, several=True, cpus=inf)
    assert gains.expected(1) == (6.0, 2.0)
    assert gains.expected(3) == (None, 2.0)
    assert gains.expected(2) == (None, None)


def test_whether_several_threads_are_worth_it_anywhere():
    gains = Gains(["a", "b"])
    assert not gains.some
    for several, seconds in ((False, 1.0), (True, 0.99)):
        gains.note(0, seconds, several=several, cpus=inf)
    assert not gains.some
    for several, seconds in ((False, 2.0 * WORTH), (True, 1.0)):
        gains.note(1, seconds, several=several, cpus=inf)
    assert gains.some


def test_what_no_worker_helped_with_has_no_gain():
    gains = Gains(["a", "a", "b", "b"])
    gains.note(0, 0.9 * EVIDENCE, several=True, cpus=1.0)
    assert gains.expected(0) == (None, None)  # that may be chance
    gains = Gains(["a", "a", "b", "b"])
    gains.note(0, 4.0, several=True, cpus=1.02)
    assert gains.expected(0) == (4.0, 1.0)  # nobody was at work beside it: it takes as long with one thread
    assert gains.expected(1) == (None, 1.0)
    gains.note(0, 8.0, several=False, cpus=inf)  # beside others
    assert gains.expected(0) == (8.0, 1.02)
    assert not gains.some
    gains.note(2, 4.0, several=True, cpus=1.6)
    assert gains.expected(2) == (None, None)
    gains.note(2, 8.0, several=False, cpus=inf)
    assert gains.expected(2) == (8.0, 1.6)
    for _ in range(20):  # somebody else is no longer at work
        gains.note(2, 4.0, several=True, cpus=1.0)
    assert gains.expected(2)[1] < WORTH


def test_a_quicker_time_counts_by_half_and_a_slower_by_a_quarter():
    gains = Gains(["a"])
    for seconds, expected in ((8.0, 8.0), (4.0, 6.0), (10.0, 7.0)):
        gains.note(0, seconds, several=False, cpus=inf)
        assert gains.expected(0)[0] == expected


def test_a_neighbour_that_slows_down_every_other_product_makes_one_thread_the_better_choice():
    gains = Gains(["a"] * 16)
    for step in range(16):
        gains.note(step, 4e-3, several=False, cpus=inf)
        gains.note(step, 2e-3, several=True, cpus=inf)
    assert gains.expected(0)[1] == 2.0
    for _ in range(3):
        for step in range(16):
            gains.note(step, 40e-3 if step % 2 else 2e-3, several=True, cpus=inf)
    assert min(gains.expected(step)[1] for step in range(16)) < WORTH
    assert gains._of_family["a"] < 2.0


def asked(gains: Gains, times: int) -> list[float | None]:
    return [gains.advice(0)[1] for _ in range(times)]


def test_one_kernel_in_so_many_is_tried_in_the_other_way():
    gains = Gains(["a"])
    gains.note(0, 8e-3, several=False, cpus=inf)
    gains.note(0, 4e-3, several=True, cpus=inf)
    answers = asked(gains, 2 * RARELY)
    assert answers.count(2.0) == 2 * RARELY - 2
    assert answers[FIRST - 1] == answers[FIRST - 1 + RARELY] == 0.0  # one thread
    gains.note(0, 100e-3, several=True, cpus=inf)  # all of a sudden
    assert gains.expected(0)[1] < WORTH
    assert asked(gains, PROBE).count(None) == 1  # all CPUs, as for a kernel that nobody knows


def test_a_step_that_only_ever_ran_with_several_is_tried_with_one():
    gains = Gains(["a"])
    gains.note(0, 4e-3, several=True, cpus=inf)
    assert asked(gains, FIRST) == [None] * (FIRST - 1) + [0.0]


def test_long_kernels_are_not_tried():
    gains = Gains(["a"])
    gains.note(0, 2 * LONG, several=True, cpus=inf)
    assert asked(gains, PROBE) == [None] * PROBE


def test_repr():
    assert repr(Gains(["a"])) == "<Gains []>"
