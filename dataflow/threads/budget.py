"""The adaptive budget: how many BLAS threads kernels may use now. A state machine; time comes in as an argument.

It knows no clock, thread, lock, library or numpy. A *member* is a lane that serves a run. Whoever drives this (see
`intraop`) tells what members do, under a lock, and puts what `threads` says in force before the member goes on:

    come ──▶ IDLE ──start──▶ BIG ──end──▶ IDLE              a kernel worth a look, or of unknown cost
              │ └───small──▶ SMALL (till it starts a big one, or goes)
              └──go──▶ (gone)

Rules, for the default. (If the user gave a number it holds for all kernels, and nothing else below does.)

1. A big kernel that starts while no other executes, and none is ready, gets all CPUs, unless it is known not to gain
   from them. Small ones get one.
2. If others execute or are ready it gets one BLAS thread, and so do all from then on: `threads` is 1 for everybody.
   A BLAS call that is under way keeps the threads it has; since it was alone, it is the only one with several.
3. Never two multi-threaded BLAS calls at once: `threads` is above 1 only while at most one member executes.
4. *Teaming.* Kernels that gain from BLAS threads, or of which nobody knows, may be run one after another with all of
   them, though several are ready, where that is quicker than side by side. A kernel that comes then waits for the one
   that runs, no longer than twice what that one is expected to take; then rule 2 holds. So does a kernel that takes
   less than what is left of that one, whatever it gains: beside it, it would hold up all threads of a product, which
   wait for each other. And one that would team waits for the one kernel with one thread that is in its way, or for
   small ones, if they are over before half of what that saves is lost; for small ones only once, if they go on longer.
5. When all others have gone, a kernel that is not about to end gets all CPUs for its next BLAS calls.

Why rule 4: a switch from many threads to one is not free. Idle OpenBLAS workers do not sleep: they spin for 2**28 ticks
of the CPU's counter, about a tenth of a second, and compete with the lanes meanwhile. Two branches of five 512² float32
products on 2 CPUs took 26 ms, and 39 ms right after one two-threaded product. Measured on mixes of chains and branches
of products (256² to 1024², 2 CPUs, OpenBLAS 0.3.31), as multiples of the best fixed setting: all CPUs when alone and
one thread otherwise, without rule 4: 1.07 to 1.60; never more than one BLAS thread: 1.00 to 1.69; one kernel at a time
with two: 1.00 to 1.41; with rule 4: 0.95 to 1.17 for 512² and 1024², and up to 1.4 for 256², where handing a kernel of
0.2 ms from lane to lane counts. So while the workers are *hot* the choice is between a team, whose work they do, and
branches that run beside spinning workers; both times are estimated below, from gains that lanes have measured.
"""

from __future__ import annotations

from enum import Enum
from math import inf

__all__ = ["LONG", "SPIN", "Budget", "Member", "State"]

SPIN = 0.1
"""Seconds for which idle workers spin, unless the environment says something else."""
GAINS = 1.1
"""The gain from which on a kernel that is alone is worth all CPUs, and wakes BLAS workers if it has them."""
WORTH = 0.95
"""A team must take less than this part of the time that the kernels would take side by side."""
LONG = 5e-3
"""Seconds that a kernel must be expected to go on for, to get all CPUs in its midst."""
GRACE = 1e-3
"""Seconds beyond twice the expected ones for which the next kernel waits for a team's."""
PATIENCE = 50e-3
"""Seconds that a team's kernel may have to go for another to wait. Longer ones are not teamed: a lane should not be
held up so long, and beside them a tenth of a second of spinning workers matters little."""


class State(Enum):
    """What a member does."""

    IDLE = "between kernels"
    SMALL = "small kernels"
    BIG = "a big kernel"


class Member:
    """A lane that serves a run, as the budget sees it."""

    __slots__ = ("alone", "began", "gained", "lasts", "seconds", "state", "steady", "threads", "waits", "warm")

    def __init__(self) -> None:
        self.state = State.IDLE
        self.seconds = inf
        """What its kernel is expected to take with the threads it has."""
        self.began = 0.0
        self.gained = 1.0
        """How many times as long its kernel would take with one thread, in the adaptive mode; infinity: unknown."""
        self.waits = False
        """Whether it is held back: it is to ask again, or is asked, before it may start."""
        self.warm = False
        """Whether workers were awake, as far as is known, when its kernel started."""
        self.threads = 1
        """With how many BLAS threads its kernel started."""
        self.steady = True
        """Whether it has had as many ever since."""
        self.alone = True
        """Whether nobody else has executed anything since it started."""
        self.lasts = False
        """Whether somebody has waited in vain for its small kernels to be over."""

    def __repr__(self) -> str:
        return f"<Member {self.state.value}, {self.threads} BLAS threads>"


class Budget:
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
        return f"<Budget {kind} threads={self.threads} executing={self.executing}/{len(self.members)}>"

    @property
    def executing(self) -> int:
        """How many members are in a kernel."""
        return sum(member.state is not State.IDLE for member in self.members)

    # What members tell.

    def come(self) -> Member:
        """A lane begins to serve a run."""
        member = Member()
        self.members.add(member)
        return member

    def small(self, member: Member) -> None:
        """From here on it executes kernels that are not worth a call each: nor are they worth waking BLAS workers."""
        if member.state is not State.SMALL:
            member.state, member.lasts = State.SMALL, False
            self._joined(member)
        self._share()

    def start(
        self,
        member: Member,
        now: float,
        *,
        seconds: float = inf,
        gain: float | None = None,
        ready: int = 0,
        waited: bool = False,
    ) -> float | None:
        """It is about to execute a kernel, while `ready` others could be started as well.

        `seconds` is what it is expected to take with one BLAS thread, `gain` how many times less with all CPUs; who
        does not know leaves them out. None: it may start, with `threads`. Otherwise it should ask again when another
        member ends its kernel, at the latest at the time returned; one that has `waited` until then may start.
        """
        member.state, member.waits = State.IDLE, False
        if self.fixed is None:
            if waited:
                for other in self.members:
                    other.lasts = other.state is State.SMALL
                self._share()
            elif not self.executing and self._worth(seconds, gain, 1 + ready, now):
                self._set(self.cpus)
            elif (until := self._patience(seconds, gain, 2 + ready, now)) is not None:
                member.waits = True
                return until
            else:
                self._share()
        member.state, member.began, member.threads, member.steady = State.BIG, now, self.threads, True
        self._joined(member)
        member.gained, member.warm = 1.0, self.hot(now)
        if self.threads > 1 and self.fixed is None and (gain is None or gain >= GAINS):
            member.gained = inf if gain is None else gain
        member.seconds = seconds / gain if gain and self.threads > 1 else seconds
        return None

    def end(self, member: Member, now: float, *, hot: bool = False) -> None:
        """Its kernel is over; `hot`: BLAS workers are awake, as far as can be seen."""
        member.state = State.IDLE
        if hot or 1.0 < member.gained < inf:
            self._hot_until = now + self.spin

    def pause(self, member: Member) -> None:
        """Its kernel waits for an inner run, whose kernels are other members'."""
        member.state = State.IDLE

    def resume(self, member: Member) -> None:
        """Its kernel goes on."""
        member.state, member.steady = State.BIG, False
        self._joined(member)
        if self.executing > 1:
            self._share()
        elif member.threads > 1 and self.fixed is None:
            self._set(self.cpus)
        member.threads = self.threads  # it comes from Python code: no BLAS call of its own is under way

    def hot(self, now: float) -> bool:
        """Whether workers may still spin."""
        return now < self._hot_until

    def go(self, member: Member, now: float) -> None:
        """It serves its run no longer."""
        self.members.discard(member)
        if self.fixed is None and len(self.members) == 1:
            (last,) = self.members
            if last.state is State.BIG and last.began + last.seconds - now > LONG:
                self._set(self.cpus)

    def set_fixed(self, fixed: int | None) -> None:
        """The user has set the number of threads, or taken it back."""
        self.fixed = fixed
        self._set(1 if fixed is None else fixed)

    # How it is decided.

    def _joined(self, member: Member) -> None:
        """It has begun to execute."""
        member.alone = True
        for other in self.members:
            if other is not member and other.state is not State.IDLE:
                other.alone = member.alone = False

    def _share(self) -> None:
        if self.fixed is None:
            self._set(1)

    def _set(self, threads: int) -> None:
        if threads != self.threads:
            self.threads = threads
            for member in self.members:
                member.steady = False  # what it takes says nothing about either number

    def _worth(self, seconds: float, gain: float | None, kernels: int, now: float) -> bool:
        """Whether the first of so many kernels, while none executes, should have all CPUs."""
        if kernels == 1:
            return gain is None or gain >= GAINS
        return self._team(seconds, gain, kernels, now)

    def _patience(self, seconds: float, gain: float | None, kernels: int, now: float) -> float | None:
        """Until when to wait for the one member that executes; None if there are others, or it is not worth it."""
        runs = [member for member in self.members if member.state is not State.IDLE]
        if len(runs) != 1:
            return None
        (other,) = runs
        left = other.began + other.seconds - now if other.state is State.BIG else 0.0
        if other.state is State.BIG and other.threads > 1:
            until = other.began + other.seconds + min(other.seconds, PATIENCE) + GRACE
            if left > PATIENCE or now >= until:
                return None
            # It has all CPUs: beside it, even what needs but one would hold up all of its threads.
            return until if seconds < left or self._team(seconds, gain, kernels, now) else None
        if not gain or not self._team(seconds, gain, kernels, now):
            return None
        saved = seconds * (self._slowed(2) if self.hot(now) else 1) - seconds / min(gain, self.cpus)
        spare = min(saved / 2, PATIENCE)
        if other.state is State.SMALL:
            spare = 0.0 if other.lasts else min(spare, GRACE)
        return now + spare if left < spare else None

    def _team(self, seconds: float, gain: float | None, kernels: int, now: float) -> bool:
        """Whether so many kernels like this one take less one after another, with all CPUs, than side by side."""
        hot = max(0.0, self._hot_until - now)
        if gain is None:
            # Nobody knows, and hot workers mean that there is BLAS in this: try, until one knows.
            return hot > 0
        if not gain or seconds == inf:
            return False
        gain = min(gain, self.cpus)  # more is a slip of the clock, or of a neighbour
        width = min(kernels, self.cpus)
        work = seconds * kernels
        slowed = self._slowed(width)
        apart = work / width
        apart = apart * slowed if apart * slowed < hot else apart + hot * (1 - 1 / slowed)
        return work / gain < WORTH * apart

    def _slowed(self, width: int) -> float:
        """How many times longer so many kernels take that share the CPUs with all workers, while these are hot.

        If three threads share two CPUs, that is two on one of them, and the third, which may be a worker, on the other:
        two branches of 1024² products took 27 to 28 milliseconds a product, and 13 without.
        """
        return 2.0 if width >= self.cpus > 1 else max(1.0, (width + self.cpus - 1) / self.cpus)

    def check(self) -> None:
        """Assert the invariants, for tests."""
        assert self.threads >= 1
        if self.fixed is not None:
            assert self.threads == self.fixed
        else:
            assert self.threads == 1 or self.executing <= 1, self
            several = [member for member in self.members if member.state is State.BIG and member.threads > 1]
            assert len(several) <= 1, several
