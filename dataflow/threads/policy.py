"""The policy: how many BLAS threads kernels may use now. A state machine; time comes in as an argument.

It knows no clock, thread, lock, library or numpy. A *member* is a worker that serves a run. Whoever drives this (see
`controller`) tells what members do, under a lock, and puts what `threads` says in force before the member goes on:

    come ──▶ IDLE ──start──▶ LONG ──end──▶ IDLE             a kernel that took long before
              │ └───small──▶ SMALL (till it starts a long one, or goes)
              └──go──▶ (gone)

Rules, for the default. (If the user gave a number it holds for all kernels, and nothing else below does.)

1. A long kernel that starts while no other executes, and none is ready, gets all CPUs. All others get one thread.
2. If others execute or are ready it gets one BLAS thread, and so do all from then on: `threads` is 1 for everybody.
   A BLAS call that is under way keeps the threads it has; since it was alone, it is the only one with several.
3. Never two multi-threaded BLAS calls at once: `threads` is above 1 only while at most one member executes.
4. When all others have gone, a long kernel that is left gets all CPUs for its next BLAS calls.
"""

from __future__ import annotations

from enum import Enum
from math import inf

__all__ = ["SPIN", "Member", "Policy", "State"]

SPIN = 0.1
"""Seconds for which idle BLAS workers spin, unless the environment says something else."""


class State(Enum):
    """What a member does."""

    IDLE = "between kernels"
    SMALL = "small kernels"
    LONG = "a long kernel"


class Member:
    """A worker that serves a run, as the policy sees it."""

    __slots__ = ("state", "threads")

    def __init__(self) -> None:
        self.state = State.IDLE
        self.threads = 1
        """With how many BLAS threads its kernel started."""

    def __repr__(self) -> str:
        return f"<Member {self.state.value}, {self.threads} BLAS threads>"


class Policy:
    """The state machine; every method under one lock, which is the caller's."""

    def __init__(self, cpus: int, fixed: int | None = None, spin: float = SPIN) -> None:
        self.cpus = cpus
        self.fixed = fixed
        """The number that the user gave; None: adaptive."""
        self.spin = spin
        self.threads = 1 if fixed is None else fixed
        """BLAS threads for kernels from now on. Invariant: above 1, if adaptive, only while at most one executes."""
        self.members: set[Member] = set()
        self._hot_until = -inf
        """When the workers of the last multi-threaded kernel will be asleep."""

    def __repr__(self) -> str:
        kind = "adaptive" if self.fixed is None else "fixed"
        return f"<Policy {kind} threads={self.threads} executing={self.executing}/{len(self.members)}>"

    @property
    def executing(self) -> int:
        """How many members are in a kernel."""
        return sum(member.state is not State.IDLE for member in self.members)

    # What members tell.

    def come(self) -> Member:
        """A worker begins to serve a run."""
        member = Member()
        self.members.add(member)
        return member

    def small(self, member: Member) -> None:
        """From here on it executes kernels that are not worth a call each: nor are they worth waking BLAS workers."""
        member.state = State.SMALL
        self._share()

    def start(self, member: Member, ready: int = 0) -> None:
        """It is about to execute a long kernel, while `ready` others could be started as well."""
        member.state = State.IDLE
        if self.executing or ready:
            self._share()
        elif self.fixed is None:
            self.threads = self.cpus
        member.state, member.threads = State.LONG, self.threads

    def end(self, member: Member, now: float) -> None:
        """Its kernel is over."""
        member.state = State.IDLE
        if self.threads > 1:
            self._hot_until = now + self.spin

    def pause(self, member: Member) -> None:
        """Its kernel waits for an inner run, whose kernels are other members'."""
        member.state = State.IDLE

    def resume(self, member: Member) -> None:
        """Its kernel goes on. It comes from Python code: no BLAS call of its own is under way."""
        member.state = State.LONG
        if self.executing > 1:
            self._share()
        elif member.threads > 1 and self.fixed is None:
            self.threads = self.cpus
        member.threads = self.threads

    def hot(self, now: float) -> bool:
        """Whether BLAS workers may still spin."""
        return now < self._hot_until

    def go(self, member: Member) -> None:
        """It serves its run no longer."""
        self.members.discard(member)
        if self.fixed is None and len(self.members) == 1:
            (last,) = self.members
            if last.state is State.LONG:
                self.threads = self.cpus

    def set_fixed(self, fixed: int | None) -> None:
        """The user has set the number of threads, or taken it back."""
        self.fixed = fixed
        self.threads = 1 if fixed is None else fixed

    def _share(self) -> None:
        if self.fixed is None:
            self.threads = 1

    def check(self) -> None:
        """Assert the invariants, for tests."""
        assert self.threads >= 1
        if self.fixed is not None:
            assert self.threads == self.fixed
        else:
            assert self.threads == 1 or self.executing <= 1, self
            several = [member for member in self.members if member.state is State.LONG and member.threads > 1]
            assert len(several) <= 1, several
