"""budget: events in, the number of BLAS threads out; the invariants are checked after each event."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from dataflow.threads.budget import GRACE, LONG, PATIENCE, SPIN, Budget, Member, State


class Checked:
    """A budget of so many CPUs whose invariants are asserted after each event, with a clock that stands still."""

    def __init__(self, cpus: int = 2, fixed: int | None = None) -> None:
        self.budget = Budget(cpus, fixed)
        self.now = 100.0

    @property
    def threads(self) -> int:
        return self.budget.threads

    def come(self) -> Member:
        return self.budget.come()

    def start(self, member: Member, **what: Any) -> float | None:
        until = self.budget.start(member, self.now, **what)
        self.budget.check()
        return until

    def end(self, member: Member, **what: Any) -> None:
        self.budget.end(member, self.now, **what)
        self.budget.check()

    def go(self, member: Member) -> None:
        self.budget.go(member, self.now)
        self.budget.check()

    def small(self, member: Member) -> None:
        self.budget.small(member)
        self.budget.check()

    def heat(self) -> None:
        """A multi-threaded kernel has just run."""
        member = self.come()
        assert self.start(member) is None
        self.end(member, hot=True)
        self.go(member)


def test_alone_with_nothing_ready_a_kernel_has_all_cpus():
    b = Checked(cpus=8)
    a = b.come()
    assert b.start(a) is None
    assert b.threads == a.threads == 8
    b.end(a)
    assert b.start(a, seconds=1.0, gain=5.0) is None  # the next one of a chain
    assert b.threads == 8


def test_with_another_ready_it_has_one():
    b = Checked()
    assert b.start(b.come(), ready=1) is None
    assert b.threads == 1


def test_a_second_kernel_brings_both_down_to_one():
    b = Checked()
    first, second = b.come(), b.come()
    b.start(first)
    assert b.threads == 2
    assert b.start(second) is None
    assert b.threads == 1
    assert not first.steady  # what it takes says nothing about two threads


def test_never_two_with_several_while_kernels_come_and_go():
    b = Checked()
    first, second, third = b.come(), b.come(), b.come()
    b.start(first)
    b.start(second)
    b.end(first)
    b.start(third)
    assert b.threads == 1
    b.end(second)
    b.end(third)
    b.start(third)
    assert b.threads == 2


def test_light_kernels_have_one_thread_and_count_as_kernels():
    b = Checked()
    small, big = b.come(), b.come()
    b.small(small)
    assert b.threads == 1
    b.start(big)
    assert b.threads == 1
    b.end(big)
    b.go(small)
    b.start(big)
    assert b.threads == 2
    b.small(b.come())
    assert b.threads == 1


def test_a_kernel_known_not_to_gain_keeps_one_thread():
    b = Checked()
    a = b.come()
    b.start(a, seconds=1.0, gain=0.9)
    assert b.threads == 1
    b.start(a, seconds=1.0, gain=1.5)
    assert b.threads == 2


@pytest.mark.parametrize(("left", "threads"), [(2 * LONG, 2), (LONG / 2, 1)])
def test_the_last_one_of_several_gets_all_cpus_unless_it_is_about_to_end(left, threads):
    b = Checked()
    long, other = b.come(), b.come()
    b.start(long, seconds=1.0 + left)
    b.start(other)
    b.now += 1.0
    b.end(other)
    assert b.threads == 1  # its lane may take another kernel at once
    b.go(other)
    assert b.threads == threads
    assert not long.steady


def test_a_kernel_that_waits_for_an_inner_run_is_none_of_those_that_execute():
    b = Checked()
    outer, inner = b.come(), b.come()
    b.start(outer)
    b.budget.pause(outer)
    b.start(inner)
    assert b.threads == 2
    b.budget.resume(outer)
    b.budget.check()
    assert b.threads == 1
    b.end(inner)
    assert outer.state is State.BIG
    b.end(outer)
    b.start(outer)
    b.budget.pause(outer)
    b.start(inner, seconds=1.0, gain=0.5)
    assert b.threads == 1
    b.end(inner)
    b.budget.resume(outer)
    assert b.threads == 2  # as it had before


# ---------------------------------------------------------------- teams


def test_while_workers_are_hot_kernels_that_gain_run_one_after_another():
    b = Checked()
    b.heat()
    first, second = b.come(), b.come()
    assert b.start(first, seconds=10e-3, gain=1.8, ready=1) is None
    assert b.threads == 2
    until = b.start(second, seconds=10e-3, gain=1.8)
    assert until == pytest.approx(b.now + 2 * 10e-3 / 1.8 + GRACE)
    assert second.state is State.IDLE
    b.end(first, hot=True)
    assert b.start(second, seconds=10e-3, gain=1.8) is None
    assert b.threads == second.threads == 2


def test_who_has_waited_long_enough_starts_beside_it():
    b = Checked()
    b.heat()
    first, second = b.come(), b.come()
    b.start(first, seconds=10e-3, gain=1.8, ready=1)
    assert b.start(second, seconds=10e-3, gain=1.8) is not None
    assert b.start(second, seconds=10e-3, gain=2.0, waited=True) is None
    assert b.threads == 1


def test_cold_or_without_gain_they_run_side_by_side():
    for heat, gain in ((False, 1.8), (True, 1.0), (False, None), (True, 0.0)):
        b = Checked()
        if heat:
            b.heat()
        first, second = b.come(), b.come()
        assert b.start(first, seconds=10e-3, gain=gain, ready=1) is None
        assert b.start(second, seconds=10e-3, gain=gain) is None
        assert b.threads == 1, (heat, gain)


def test_hot_workers_fall_asleep():
    b = Checked()
    b.heat()
    assert b.budget.hot(b.now)
    b.now += SPIN
    assert not b.budget.hot(b.now)
    assert b.start(b.come(), seconds=10e-3, gain=1.8, ready=1) is None
    assert b.threads == 1


def test_a_long_wide_graph_is_worth_cooling_down_for():
    b = Checked()
    b.heat()
    b.start(b.come(), seconds=10e-3, gain=1.5, ready=100)
    assert b.threads == 1


def test_few_kernels_that_gain_much_are_a_team_on_many_cpus():
    b = Checked(cpus=16)
    b.start(b.come(), seconds=10e-3, gain=6.0, ready=1)
    assert b.threads == 16
    b = Checked(cpus=16)
    b.start(b.come(), seconds=10e-3, gain=6.0, ready=15)
    assert b.threads == 1


def test_nobody_waits_for_a_long_or_an_unknown_or_a_late_kernel():
    for seconds, gain, later in ((3 * PATIENCE, 1.8, 0.0), (float("inf"), None, 0.0), (10e-3, 1.8, 1.0)):
        b = Checked()
        b.heat()
        first, second = b.come(), b.come()
        b.start(first, seconds=seconds, gain=gain, ready=1)
        assert b.threads == 2
        b.now += later
        assert b.start(second, seconds=10e-3, gain=1.8) is None
        assert b.threads == 1


def test_a_short_kernel_waits_for_what_has_all_cpus_whatever_it_gains():
    b = Checked()
    first, second = b.come(), b.come()
    b.start(first, seconds=10e-3, gain=2.0)
    for gain in (None, 0.5, 1.8):
        assert b.start(second, seconds=4e-3, gain=gain) == pytest.approx(b.now + 2 * 5e-3 + GRACE)
    b.now += 2e-3
    assert b.start(second, seconds=4e-3, gain=0.5) is None  # it takes longer than what is left
    assert b.threads == 1


def test_a_light_kernel_beside_a_team_does_not_end_it():
    b = Checked()
    b.heat()
    first, second = b.come(), b.come()
    b.start(first, seconds=10e-3, gain=1.8)
    b.small(second)
    assert b.threads == 1
    assert b.start(second, seconds=10e-3, gain=1.8) is not None  # the product under way still has all CPUs
    b.end(first)
    assert b.start(second, seconds=10e-3, gain=1.8) is None
    assert b.threads == 2


@pytest.mark.parametrize(("left", "waits"), [(1e-3, True), (7e-3, True), (8e-3, False)])
def test_who_would_team_waits_for_the_end_of_a_kernel_with_one_thread(left, waits):
    b = Checked()
    b.heat()
    first, second = b.come(), b.come()
    b.start(first, seconds=10e-3, gain=0.5)
    b.now += 10e-3 - left
    until = b.start(second, seconds=10e-3, gain=2.0)  # it would save 15 ms: beside workers it takes 20
    assert until == (pytest.approx(b.now + 7.5e-3, abs=1e-9) if waits else None)
    assert b.threads == 1
    if waits:
        b.end(first)
        assert b.start(second, seconds=10e-3, gain=2.0) is None
        assert b.threads == 2


def test_who_would_team_waits_a_moment_for_light_kernels_but_not_twice_in_vain():
    b = Checked()
    b.heat()
    small, big = b.come(), b.come()
    b.small(small)
    assert b.start(big, seconds=10e-3, gain=2.0) == pytest.approx(b.now + GRACE)
    assert b.start(big, seconds=1e-3, gain=2.0) == pytest.approx(b.now + 0.75e-3, abs=1e-9)
    assert b.start(big, seconds=1e-3, gain=1.0) is None
    assert b.start(big, seconds=10e-3, gain=2.0, waited=True) is None
    b.small(small)
    assert b.start(big, seconds=10e-3, gain=2.0) is None
    b.start(small)
    b.small(small)
    assert b.start(big, seconds=10e-3, gain=2.0) is not None


def test_who_is_held_back_can_be_told_by_it():
    b = Checked()
    b.heat()
    first, second = b.come(), b.come()
    b.start(first, seconds=10e-3, gain=2.0)
    assert b.start(second, seconds=10e-3, gain=2.0) is not None
    assert (first.waits, second.waits) == (False, True)
    b.end(first)
    assert b.start(second, seconds=10e-3, gain=2.0) is None
    assert not second.waits


def test_who_has_waited_starts_whatever_has_all_cpus_by_then():
    b = Checked()
    b.heat()
    first, second, third = b.come(), b.come(), b.come()
    b.start(first, seconds=10e-3, gain=2.0)
    assert b.start(second, seconds=20e-3, gain=2.0, ready=1) is not None
    assert b.start(third, seconds=1e-3) is not None
    b.end(first)
    assert b.start(second, seconds=20e-3, gain=2.0, ready=1) is None  # it was before it
    assert b.threads == 2
    assert b.start(third, seconds=1e-3, waited=True) is None
    assert third.state is State.BIG
    assert b.threads == 1


def test_whether_a_kernel_was_alone():
    b = Checked()
    first, second, idle = b.come(), b.come(), b.come()
    b.start(first)
    assert first.alone
    b.start(second, gain=1.0, seconds=1.0)
    assert (first.alone, second.alone) == (False, False)
    b.end(second)
    assert not first.alone  # it was not
    b.end(first)
    b.start(first)
    b.start(idle, gain=1.0, seconds=1.0)
    b.end(first)
    b.start(first, gain=1.0, seconds=1.0)
    assert not first.alone
    b.end(idle)
    b.end(first)
    b.start(first)
    b.small(second)
    assert not first.alone
    b.end(first)
    b.start(first)
    assert not first.alone  # beside small ones
    b.go(second)
    b.end(first)
    b.start(first)
    b.budget.pause(first)  # it waits for an inner run
    b.start(idle)
    assert idle.alone
    b.budget.resume(first)
    assert (first.alone, idle.alone) == (False, False)


def test_with_a_fixed_number_it_is_not_said_what_a_kernel_gains():
    b = Checked(fixed=2)
    member = b.come()
    for gain in (None, 2.0):
        b.start(member, gain=gain)
        assert (member.threads, member.gained) == (2, 1.0)
        b.end(member)
    b = Checked()
    member = b.come()
    for gain, gained in ((None, math.inf), (2.0, 2.0), (1.0, 1.0)):
        b.start(member, seconds=1.0, gain=gain)
        assert member.gained == gained
        b.end(member)


def test_whether_workers_were_awake_when_a_kernel_began():
    b = Checked()
    member = b.come()
    b.start(member)
    assert not member.warm
    b.end(member, hot=True)
    b.start(member)
    assert member.warm
    b.end(member)
    b.now += 2 * SPIN
    b.start(member)
    assert not member.warm


def test_a_kernel_that_is_known_to_gain_leaves_hot_workers_behind():
    for gain, hot in ((2.0, True), (1.1, True), (None, False)):
        b = Checked()
        member = b.come()
        b.start(member, seconds=10e-3, gain=gain)
        assert member.threads == 2
        b.end(member)
        assert b.budget.hot(b.now) is hot, gain


def test_nobody_gains_more_than_there_are_cpus():
    b = Checked()
    # Four times as long with one thread: workers were spinning beside it. Cold, two lanes are as quick as a team.
    assert b.start(b.come(), seconds=10e-3, gain=4.0, ready=1) is None
    assert b.threads == 1


# ---------------------------------------------------------------- a number that was given


def test_a_fixed_number_holds_for_all():
    b = Checked(fixed=3)
    first, second = b.come(), b.come()
    b.start(first)
    b.small(second)
    assert b.start(second, seconds=1.0, gain=1.8) is None
    assert b.threads == 3


def test_it_may_be_set_and_taken_back_while_kernels_run():
    b = Checked()
    first, second = b.come(), b.come()
    b.start(first)
    b.start(second)
    b.budget.set_fixed(4)
    assert b.threads == 4
    b.budget.set_fixed(None)
    b.budget.check()
    assert b.threads == 1


def test_repr():
    b = Budget(2)
    assert repr(b) == "<Budget adaptive threads=1 executing=0/0>"
    assert repr(b.come()) == "<Member between kernels, 1 BLAS threads>"


# ---------------------------------------------------------------- at random


@pytest.mark.parametrize("seed", range(50))
def test_random_events_keep_the_invariants(seed):
    rng = random.Random(seed)
    b = Checked(cpus=rng.choice([1, 2, 8]))
    members: list[Member] = []
    for _ in range(300):
        b.now += rng.random() * 20e-3
        member = rng.choice(members) if members else None
        if member is None or (len(members) < 5 and rng.random() < 0.2):
            members.append(b.come())
        elif member.state is State.BIG:
            b.end(member, hot=rng.random() < 0.5)
        elif rng.random() < 0.15:
            members.remove(member)
            b.go(member)
        elif rng.random() < 0.2:
            b.small(member)
        else:
            gain = rng.choice([None, 0.0, 1.0, 1.8, 6.0])
            until = b.start(member, seconds=rng.choice([1e-3, 1.0, float("inf")]), gain=gain, ready=rng.randrange(3))
            if until is None:
                assert member.state is State.BIG
            else:
                assert b.now < until < b.now + 2 * PATIENCE + GRACE
                assert sum(other.state is not State.IDLE for other in members) == 1
