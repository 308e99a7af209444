"""What is learned of costs: measurements, families, batches, and where a sweep may begin."""

from __future__ import annotations

import math

import pytest

from dataflow.graph.costs import (
    ABOVE,
    COLD,
    DOUBT,
    JUDGED,
    JUDGED_AT_ONCE,
    LIGHT,
    MORE_SAMPLES,
    RISE,
    SAMPLES,
    SETTLED,
    SHORT,
    TRIAL,
    TRIALS_APART,
    UNKNOWN,
    WAITED,
    WORTHWHILE,
    Costs,
)

FAST, SLOW = LIGHT / 10, LIGHT * 10


def known(costs: Costs) -> str:
    """Each step as a letter: light, heavy or unknown."""
    return "".join("?" if s == UNKNOWN else "l" if s < LIGHT else "h" for s in costs.seconds)


def family(size: int) -> Costs:
    return Costs(["blur"] * size, bytes(size))


def test_at_first_nothing_is_known_and_nothing_may_be_swept() -> None:
    costs = family(4)
    assert known(costs) == "????"
    assert costs.seconds[0] == math.inf
    assert costs.sweep_from == 4
    assert repr(costs) == "<Costs 0 of 4 steps light>"


def test_a_quicker_time_counts_at_once_and_a_slower_one_by_a_sixteenth() -> None:
    costs = family(1)
    costs.measured(0, 8.0)
    assert costs.seconds == [8.0]
    costs.measured(0, 4.0)
    assert costs.seconds == [4.0]
    costs.measured(0, 20.0)
    assert costs.seconds == [5.0]
    costs.measured(0, 5000.0)  # once is no habit
    assert costs.seconds == [5.0 * RISE]


def test_what_a_step_waited_for_the_interpreter_is_no_cost_of_its() -> None:
    costs = family(6)
    costs.first_measured(0, WAITED / 2, FAST)
    assert costs.seconds[0] == FAST
    costs.first_measured(1, 10 * WAITED, FAST)  # others of its kind did not take so long
    assert costs.seconds[1] == FAST


def test_what_a_step_waited_for_something_of_its_own_is() -> None:
    costs = family(2)
    costs.first_measured(0, 2 * WAITED, FAST)
    costs.first_measured(1, 2 * WAITED, FAST)
    assert costs.seconds == [2 * WAITED, 2 * WAITED]


def test_one_slow_time_makes_a_light_step_no_heavy_one_but_lasting_slowness_does() -> None:
    costs = family(1)
    costs.measured(0, FAST)
    assert costs.sweep_from == 0
    times = 0
    while costs.seconds[0] < LIGHT:
        costs.measured(0, 5 * LIGHT)
        times += 1
    assert 5 < times < 40
    assert costs.sweep_from == 1


def test_the_others_of_an_operator_are_judged_by_the_best_of_some() -> None:
    costs = Costs(["blur", "blur", "warp", "blur", "blur", "blur"], bytes(6))
    for step, seconds in zip((0, 1), (SLOW, FAST), strict=True):
        assert not costs.first_measured(step, seconds, seconds)
    assert known(costs) == "hl????"
    assert SAMPLES == 3
    assert costs.first_measured(4, 2 * FAST, 2 * FAST)
    assert costs.seconds == [SLOW, FAST, UNKNOWN, FAST, 2 * FAST, FAST]


def test_a_sweep_may_begin_among_steps_that_were_judged_by_others() -> None:
    costs = family(6)
    costs.first_measured(1, FAST, FAST)
    costs.first_measured(2, FAST, FAST)
    assert costs.sweep_from == 6
    assert costs.first_measured(0, SLOW, SLOW)  # itself heavy, but the third: the others are light from here on
    assert known(costs) == "hlllll"
    assert costs.sweep_from == 1


def test_a_first_time_with_several_blas_threads_may_be_half_of_it_and_judges_nobody_by_less() -> None:
    costs = family(2 * MORE_SAMPLES)
    for step in range(MORE_SAMPLES):
        assert not costs.first_measured(step, 0.8 * JUDGED, 0.8 * JUDGED, several=True)
    assert costs.seconds[:2] == [JUDGED, JUDGED]
    assert costs.seconds[-1] == UNKNOWN
    costs.measured(0, 0.7 * JUDGED)  # it was no BLAS
    assert costs.seconds[0] == 0.7 * JUDGED
    costs = family(2)
    costs.first_measured(0, 0.2 * JUDGED, 0.2 * JUDGED, several=True)
    costs.first_measured(1, 3 * JUDGED, 3 * JUDGED, several=True)
    assert costs.seconds == [0.4 * JUDGED, 3 * JUDGED]


def test_others_are_judged_to_be_short_and_never_to_be_slow() -> None:
    for seconds, judged in ((JUDGED, False), (0.9 * JUDGED, True)):
        costs = family(MORE_SAMPLES + 2)
        told = [costs.first_measured(step, seconds, seconds) for step in range(MORE_SAMPLES)]
        assert told == [False] * MORE_SAMPLES  # unknown or heavy: no heap is out of date
        assert known(costs) == "h" * MORE_SAMPLES + ("hh" if judged else "??")


def test_of_heavy_steps_only_those_that_come_next_are_judged() -> None:
    costs = family(2 * JUDGED_AT_ONCE + 10)
    for step in range(MORE_SAMPLES):
        costs.first_measured(step, SLOW, SLOW)
    assert costs.seconds[:JUDGED_AT_ONCE] == [SLOW] * JUDGED_AT_ONCE
    assert costs.seconds[JUDGED_AT_ONCE] == UNKNOWN
    costs.first_measured(JUDGED_AT_ONCE, 0.9 * SLOW, 0.9 * SLOW)
    assert costs.seconds.index(UNKNOWN) == 2 * JUDGED_AT_ONCE
    assert costs.seconds[JUDGED_AT_ONCE + 1] == SLOW  # one value for all: they are judged anew together
    assert costs.first_measured(2 * JUDGED_AT_ONCE, FAST, FAST)  # they are light: all of them
    assert sorted(costs.seconds)[-2:] == [FAST, 0.9 * SLOW]  # but for what was measured itself


def test_the_first_calls_are_slow_so_more_of_them_are_waited_for_if_they_seem_heavy() -> None:
    costs = family(20)
    for step in range(SAMPLES):
        assert not costs.first_measured(step, 3 * LIGHT, 3 * LIGHT)
    assert costs.first_measured(SAMPLES, FAST, FAST)
    assert costs.seconds[SAMPLES:] == [FAST] * (20 - SAMPLES)


def test_what_a_lane_begins_with_is_cold_and_no_sample_where_there_are_others() -> None:
    costs = family(2 * MORE_SAMPLES + 1)
    costs.first_measured(0, SLOW, SLOW, cold=True)
    assert costs.seconds[0] == UNKNOWN
    for step in range(1, 1 + SAMPLES):
        costs.first_measured(step, FAST, FAST)
    assert costs.seconds[0] == FAST
    always = family(2 * MORE_SAMPLES + 1)
    for _ in range(MORE_SAMPLES):
        always.first_measured(0, FAST, FAST, cold=True)
    assert known(always) == "?" * (2 * MORE_SAMPLES + 1)
    for step in range(SAMPLES):  # its lanes leave after each step: better than nothing
        always.first_measured(step, FAST, FAST, cold=True)
    assert known(always) == "l" * (2 * MORE_SAMPLES + 1)
    few = family(3)
    few.first_measured(0, SLOW, SLOW, cold=True)
    assert few.seconds[0] == SLOW
    long = family(2 * MORE_SAMPLES + 1)
    long.first_measured(0, 1.0, 1.0, cold=True)  # no cold start takes so long
    assert long.seconds[0] == 1.0


def test_a_step_is_one_sample_however_often_it_is_measured() -> None:
    costs = family(3)
    assert not any(costs.first_measured(0, FAST, FAST) for _ in range(10))
    assert known(costs) == "l??"


def test_steps_on_the_loop_stay_unknown() -> None:
    costs = Costs(["fetch"] * 5, bytes([0, 0, 0, 1, 0]))
    assert [costs.first_measured(step, FAST, FAST) for step in range(3)] == [False, False, True]
    assert known(costs) == "lll?l"
    assert costs.sweep_from == 4


def test_a_sweep_may_begin_after_the_last_step_that_is_not_light() -> None:
    costs = Costs(list("abcdef"), bytes(6))
    for step in range(6):
        costs.measured(step, FAST)
    assert costs.sweep_from == 0
    costs.stuck(2, SLOW)
    assert costs.sweep_from == 3
    costs.stuck(5, 0.0)
    assert costs.sweep_from == 6
    costs.measured(5, FAST)
    assert costs.sweep_from == 3


def test_a_step_that_held_up_its_lane_is_heavy_whatever_it_took() -> None:
    costs = family(2)
    costs.stuck(0, 0.0)
    costs.stuck(1, SLOW)
    assert costs.seconds == [LIGHT, SLOW]
    assert known(costs) == "hh"


def test_a_batch_that_took_about_what_was_expected_changes_nothing() -> None:
    costs = Costs(list("abc"), bytes(3))
    for step, seconds in enumerate((1e-6, 2e-6, 3e-6)):
        costs.measured(step, seconds)
    for seconds in (3.1e-6, 6e-6, 7.4e-6):
        costs.batch([0, 1, 2], seconds)
    assert costs.seconds == [1e-6, 2e-6, 3e-6]


def test_the_steps_of_a_batch_are_scaled_down_at_once_and_up_by_a_quarter() -> None:
    costs = Costs(list("abc"), bytes(3))
    for step, seconds in enumerate((1e-6, 2e-6, 3e-6)):
        costs.measured(step, seconds)
    costs.batch([0, 1, 2], 0.6e-6)
    assert costs.seconds == pytest.approx([0.1e-6, 0.2e-6, 0.3e-6])
    costs.batch([0, 1, 2], 1.2e-6)
    assert costs.seconds == pytest.approx([0.125e-6, 0.25e-6, 0.375e-6])
    costs.batch([0, 1, 2], 1.0)
    assert costs.seconds == pytest.approx([0.125e-6 * RISE, 0.25e-6 * RISE, 0.375e-6 * RISE])


def test_no_step_takes_no_time_whatever_the_clock_says() -> None:
    costs = family(5)
    for step in range(SAMPLES):
        costs.first_measured(step, FAST, 0.0)
    assert known(costs) == "lllll"
    for _ in range(100):
        costs.batch([0, 1, 2], 0.0)
        costs.measured(3, 0.0)
    for _ in range(100):
        costs.batch([0, 1, 2, 3], 4 * SLOW)
    assert known(costs) == "hhhhl"


def test_no_batch_takes_no_time_whatever_the_clock_says() -> None:
    costs = family(2)
    for step in (0, 1):
        costs.measured(step, FAST)
    costs.batch([0, 1], 0.0)
    assert costs.seconds == pytest.approx([FAST / 10, FAST / 10])
    costs.batch([0, 1], FAST)
    assert costs.seconds == pytest.approx([FAST / 10 * RISE] * 2)


def test_a_late_batch_makes_no_step_heavy_but_lasting_slowness_does() -> None:
    costs = Costs(list("abcd"), bytes(4))
    for step in range(3):
        costs.measured(step, FAST)
    costs.measured(3, SLOW)
    times = 0
    while known(costs) == "lllh":
        costs.batch([0, 1, 2], 15 * LIGHT)
        times += 1
        assert costs.sweep_from == 4
    assert 5 < times < 10
    assert known(costs) == "hhhh"


def test_what_a_step_waits_for_beside_other_lanes_is_no_cost_of_its_unless_it_is_long() -> None:
    costs = Costs(list("ab"), bytes(2))
    for step, seconds in enumerate((60e-6, 2e-6)):
        costs.measured(step, seconds)
    costs.beside_others([0, 1], 180e-6, 63e-6)
    assert costs.seconds == [60e-6, 2e-6]
    costs.beside_others([0, 1], 180e-6, 40e-6)  # quicker ones have been measured
    assert costs.seconds == [60e-6, 2e-6]
    costs.beside_others([0, 1], 180e-6, 124e-6)
    assert costs.seconds == pytest.approx([75e-6, 2.5e-6])
    costs.beside_others([0], 100e-3, 63e-6)
    assert costs.seconds == pytest.approx([75e-6 * RISE, 2.5e-6])
    costs.beside_others([0, 1], 180e-6, 11.5e-6)
    assert costs.seconds == pytest.approx([7.5e-6 * RISE, 0.25e-6])


def test_a_long_step_among_light_ones_is_found_out_by_what_all_were_expected_to_take() -> None:
    costs = Costs(list(range(32)), bytes(32))
    costs.measured(0, 60e-6)
    for step in range(1, 32):
        costs.measured(step, 1e-6)
    costs.beside_others(range(32), 2e-3, 2e-3)
    assert costs.seconds[0] == pytest.approx(60e-6 * RISE)


def test_after_lasting_slowness_no_sweep_begins_there() -> None:
    costs = Costs(list("abcd"), bytes(4))
    for step in range(4):
        costs.measured(step, FAST)
    assert costs.sweep_from == 0
    for _ in range(10):
        costs.batch([1, 2], 100 * LIGHT)
    assert known(costs) == "lhhl"
    assert costs.sweep_from == 3


def test_a_step_that_was_found_out_meanwhile_is_left_alone() -> None:
    costs = Costs(list("ab"), bytes(2))
    costs.measured(0, FAST)
    costs.batch([0, 1], SLOW)
    assert costs.seconds == [FAST, UNKNOWN]


def test_steps_that_were_judged_by_slow_ones_are_judged_anew_once_one_proves_to_be_quick() -> None:
    def judged() -> Costs:
        costs = family(MORE_SAMPLES + 3)
        for step in range(MORE_SAMPLES):
            costs.first_measured(step, (2.5 + step) * LIGHT, 1.0)
        assert known(costs) == "h" * (MORE_SAMPLES + 3)
        return costs

    alone = judged()
    alone.measured(MORE_SAMPLES, FAST)
    assert alone.seconds[-3:] == [FAST] * 3
    assert known(alone) == "l" + "h" * (MORE_SAMPLES - 1) + "lll"  # the first is the best, by which they were judged
    together = judged()
    together.beside_others([MORE_SAMPLES, MORE_SAMPLES + 1], LIGHT, LIGHT)
    assert together.seconds[-3:] == pytest.approx([LIGHT / 2] * 3)
    hardly = judged()
    hardly.measured(MORE_SAMPLES, 1.5 * LIGHT)
    assert hardly.seconds[-2:] == [2.5 * LIGHT] * 2


def test_lanes_that_gain_nothing_by_being_several_raise_the_border_above_what_they_had() -> None:
    costs = Costs(list("aab"), bytes(3))
    for step, seconds in enumerate((2 * LIGHT, 3 * LIGHT, 20 * LIGHT)):
        costs.measured(step, seconds)
    assert costs.sweep_from == 3
    told = 0
    while not costs.shared(2 * LIGHT, 0.7, DOUBT / 16):
        told += 1
        assert told < 100
    assert told > 5  # no single bad moment decides
    longer = Costs(list("a"), bytes(1))
    assert [longer.shared(2 * LIGHT, 0.7, 10 * DOUBT) for _ in range(3)] == [False, False, True]  # nor a long turn
    assert costs.border == 2 * LIGHT * ABOVE
    assert [seconds < costs.border for seconds in costs.seconds] == [True, True, False]
    costs.measured(1, 3 * LIGHT)
    assert costs.seconds[1] < costs.border


def test_what_is_longer_than_short_is_light_only_below_the_border() -> None:
    costs = Costs(list("abc"), bytes(3))
    for step, seconds in enumerate((LIGHT, 1.5 * SHORT, 3 * SHORT)):
        costs.measured(step, seconds)
    assert any(costs.shared(1.5 * SHORT, 0.5, DOUBT / 16) for _ in range(100))
    assert [seconds < costs.border for seconds in costs.seconds] == [True, True, False]


def test_lanes_that_gain_by_being_several_leave_the_border_where_it_is() -> None:
    costs = Costs(list("aa"), bytes(2))
    assert not any(costs.shared(2 * LIGHT, 1.05 * WORTHWHILE, DOUBT) for _ in range(1000))
    assert costs.border == LIGHT


def raised(costs: Costs) -> float:
    """Have the border raised; returns the seconds of light steps after which it is put back."""
    assert any(costs.shared(2 * LIGHT, 0.5, DOUBT / 16) for _ in range(100))
    batches = next(times for times in range(1, 1_000_000) if costs.batch([0, 1], 4 * LIGHT))
    return batches * 4 * LIGHT


def test_a_raised_border_is_put_back_for_another_trial_each_time_later() -> None:
    costs = Costs(list("aa"), bytes(2))
    for step in (0, 1):
        costs.measured(step, 2 * LIGHT)
    waits = [raised(costs) for _ in range(7)]
    assert (costs.border, costs.seconds) == (LIGHT, [2 * LIGHT, 2 * LIGHT])
    assert costs.sweep_from == 2
    expected = [min(TRIAL * 2**times, TRIALS_APART) for times in range(7)]
    assert waits == pytest.approx(expected, abs=8 * LIGHT)
    assert not any(costs.shared(2 * LIGHT, 2 * WORTHWHILE, SETTLED) for _ in range(2))  # now they are quicker
    assert raised(costs) == pytest.approx(TRIAL, abs=8 * LIGHT)


def test_what_seemed_long_to_cold_lanes_is_as_light_as_its_kind() -> None:
    costs = Costs(["a"] * 40, bytes(40))
    for step in range(MORE_SAMPLES):
        assert not costs.first_measured(step, 6 * LIGHT, 6 * LIGHT)
    assert costs.seconds == [6 * LIGHT] * 40
    costs.measured(20, 0.9 * LIGHT)  # a warm one
    assert costs.seconds == [0.9 * LIGHT] * 40
    assert costs.sweep_from == 0
    costs = Costs(["a"] * 40, bytes(40))
    for step, seconds in enumerate([2 * COLD * LIGHT, 4 * LIGHT, LIGHT / 2]):
        costs.first_measured(step, seconds, seconds)
    assert costs.seconds == [2 * COLD * LIGHT] + [LIGHT / 2] * 39  # more than first calls take


def test_a_heavy_step_of_a_cold_lane_teaches_nothing_unless_it_is_long() -> None:
    costs = Costs(list("ab"), bytes(2))
    costs.measured(0, 3 * LIGHT)
    costs.beside_others([0], 9 * LIGHT, 9 * LIGHT, cold=True)
    assert costs.seconds[0] == 3 * LIGHT
    costs.beside_others([0], 9 * LIGHT, 9 * LIGHT)
    assert costs.seconds[0] > 3 * LIGHT
    costs.measured(1, 3 * LIGHT)
    costs.beside_others([1], 2 * WAITED, 9 * LIGHT, cold=True)
    assert costs.seconds[1] > 3 * LIGHT


def test_a_raised_border_takes_what_seemed_long_of_light_kinds_with_it() -> None:
    costs = Costs(["a"] * 4 + ["b"], bytes(5))
    for step, seconds in enumerate([8 * LIGHT, 3 * LIGHT, 3 * LIGHT, 3 * LIGHT, 8 * LIGHT]):
        costs.first_measured(step, seconds, seconds)
    assert costs.sweep_from == 5
    assert any(costs.shared(3 * LIGHT, 0.5, DOUBT) for _ in range(10))
    assert [seconds < costs.border for seconds in costs.seconds] == [True, True, True, True, False]
    assert costs.seconds[4] == 8 * LIGHT > SHORT
