"""policy: events in, the number of BLAS threads out; the invariants are checked after each event."""

from __future__ import annotations

import random

import pytest

from dataflow.threads.policy import SPIN, Member, Policy, State


class Checked:
    """A policy of so many CPUs whose invariants are asserted after each event, with a clock that stands still."""

    def __init__(self, cpus: int = 2, fixed: int | None = None) -> None:
        self.policy = Policy(cpus, fixed)
        self.now = 100.0

    @property
    def threads(self) -> int:
        return self.policy.threads

    def come(self) -> Member:
        return self.policy.come()

    def start(self, member: Member, ready: int = 0) -> None:
        self.policy.start(member, ready=ready)
        self.policy.check()

    def end(self, member: Member) -> None:
        self.policy.end(member, self.now)
        self.policy.check()

    def go(self, member: Member) -> None:
        self.policy.go(member)
        self.policy.check()

    def small(self, member: Member) -> None:
        self.policy.small(member)
        self.policy.check()


def test_alone_with_nothing_ready_a_long_kernel_has_all_cpus() -> None:
    b = Checked(cpus=4)
    member = b.come()
    b.start(member)
    assert b.threads == member.threads == 4
    b.end(member)
    b.start(member)
    assert member.threads == 4


def test_with_another_ready_it_has_one() -> None:
    b = Checked()
    member = b.come()
    b.start(member, ready=1)
    assert b.threads == 1


def test_a_second_kernel_brings_both_down_to_one() -> None:
    b = Checked()
    first, second = b.come(), b.come()
    b.start(first)
    b.start(second)
    assert b.threads == second.threads == 1
    b.end(second)
    b.start(second)
    assert b.threads == 1, "the first one still executes"


def test_small_kernels_have_one_thread_and_count_as_kernels() -> None:
    b = Checked()
    first, second = b.come(), b.come()
    b.small(first)
    assert b.threads == 1
    b.start(second)
    assert b.threads == 1


def test_the_last_one_of_several_gets_all_cpus() -> None:
    b = Checked()
    first, second = b.come(), b.come()
    b.start(first)
    b.start(second)
    b.end(first)
    assert b.threads == 1
    b.go(first)
    assert b.threads == 2
    b.end(second)
    third = b.come()
    b.small(second)
    b.go(third)
    assert b.threads == 1, "small kernels are not worth it"


def test_a_kernel_that_waits_for_an_inner_run_is_none_of_those_that_execute() -> None:
    b = Checked()
    outer = b.come()
    b.start(outer)
    b.policy.pause(outer)
    inner = b.come()
    b.start(inner)
    assert b.threads == inner.threads == 2
    b.end(inner)
    b.go(inner)
    b.policy.resume(outer)
    b.policy.check()
    assert outer.threads == 2
    b.policy.pause(outer)
    other = b.come()
    b.small(other)
    b.policy.resume(outer)
    b.policy.check()
    assert outer.threads == b.threads == 1


def test_workers_are_hot_for_a_while_after_a_kernel_with_several() -> None:
    b = Checked()
    member = b.come()
    b.start(member, ready=1)
    b.end(member)
    assert not b.policy.hot(b.now)
    b.start(member)
    b.end(member)
    assert b.policy.hot(b.now + 0.9 * SPIN)
    assert not b.policy.hot(b.now + 1.1 * SPIN)


def test_a_fixed_number_holds_for_all() -> None:
    b = Checked(fixed=3)
    first, second = b.come(), b.come()
    b.start(first)
    b.small(second)
    b.start(second)
    assert b.threads == 3


def test_it_may_be_set_and_taken_back_while_kernels_run() -> None:
    b = Checked()
    first, second = b.come(), b.come()
    b.start(first)
    b.start(second)
    b.policy.set_fixed(4)
    assert b.threads == 4
    b.policy.set_fixed(None)
    b.policy.check()
    assert b.threads == 1


def test_repr() -> None:
    b = Policy(2)
    assert repr(b) == "<Policy adaptive threads=1 executing=0/0>"
    assert repr(b.come()) == "<Member between kernels, 1 BLAS threads>"


@pytest.mark.parametrize("seed", range(50))
def test_random_events_keep_the_invariants(seed: int) -> None:
    rng = random.Random(seed)
    b = Checked(cpus=rng.choice([1, 2, 8]))
    members: list[Member] = []
    for _ in range(300):
        b.now += rng.random() * 20e-3
        member = rng.choice(members) if members else None
        if member is None or (len(members) < 5 and rng.random() < 0.2):
            members.append(b.come())
        elif member.state is State.LONG:
            b.end(member)
        elif rng.random() < 0.15:
            members.remove(member)
            b.go(member)
        elif rng.random() < 0.2:
            b.small(member)
        else:
            b.start(member, ready=rng.randrange(3))
            assert member.state is State.LONG
