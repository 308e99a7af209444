"""Who may run: the places of a runtime, and the waiting room before them.

    enter ─▶ HELD ──────────────────────────────▶ leave: the place goes to whoever has waited longest
      │                                  ▲
      ├────▶ WAITING (first in, first out) ─────▶ leave (cancelled), or REFUSED by `expel`
      └────▶ Overloaded, RuntimeClosed

A state machine under one lock, which is never held while anybody is woken: it decides first, and acts afterwards. It
knows neither event loops nor threads, only awaiters that can be woken; runs of one runtime come from any of both.

The garbage collector may close a forgotten coroutine, which leaves its place, in the middle of anything: also in a
thread that has the lock already, and would wait for itself. So a thread that is `_busy` here only notes who leaves.

Invariants, asserted by `check`:

1. At most `max_runs` places are held.
2. Nobody waits while a place is free: who leaves one hands it to the first who waits, and no newcomer gets in between.
3. At most `max_waiting` wait, in the order in which they came.
4. Every ticket that is listed as held or waiting has that state, and no other has. They are counted where they are.
5. Each one that ever asked is held, waiting, or counted once: done, failed, cancelled or refused.
6. Closed, it is open to nobody: nobody waits. Closing, somebody holds a place.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from enum import Enum
from threading import Lock, get_ident
from time import monotonic

from dataflow.engine.service.ticket import LoopOfAwaiter, Outcome, Ticket, TicketState
from dataflow.errors import InternalError, Overloaded, RuntimeClosed

__all__ = ["Admission", "Openness"]

RECENT = 0.2
"""The weight of the newest run in the mean of recent durations."""
UNKNOWN = 1.0
"""Seconds that a run is taken to need before any has ended: the least that an HTTP Retry-After can say."""
LEAST = 1e-3
"""Seconds that `retry_after` says at least."""


class Openness(Enum):
    """Whether runs are taken: OPEN, then CLOSING while those that were taken end, then CLOSED."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Admission:
    """The places of one runtime; safe to use from any thread."""

    def __init__(
        self, name: str, max_runs: int | None, max_waiting: int | None, clock: Callable[[], float] = monotonic
    ) -> None:
        self.name = name
        self.max_runs = max_runs
        self.max_waiting = max_waiting
        self._clock = clock
        self._lock = Lock()
        self.openness = Openness.OPEN
        self._held: dict[Ticket, None] = {}
        self._waiting: OrderedDict[Ticket, None] = OrderedDict()
        """Ordered, not a deque: one of thousands that is cancelled must not cost a search."""
        self._asked = 0
        self.counts = dict.fromkeys(Outcome, 0)
        self.mean: float | None = None
        """Seconds for which recent places were held; None before the first was left."""
        self._busy: set[int] = set()
        self._deferred: deque[tuple[Ticket, Outcome]] = deque()
        self._loops: dict[LoopOfAwaiter, int] = {}
        """How many of all these are in each event loop."""
        self._watchers: dict[object, Callable[[], object]] = {}

    def __repr__(self) -> str:
        return f"<Admission {self.name!r} {self.openness.value}: {self.running} running, {self.waiting} waiting>"

    # The lock: `with self`.

    def __enter__(self) -> None:
        self._busy.add(get_ident())  # before the lock is taken: there is no gap for the collector
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        self._busy.discard(get_ident())
        while self._deferred:
            try:
                deferred = self._deferred.popleft()
            except IndexError:  # another thread was quicker
                break
            self.leave(*deferred)

    # What can be asked.

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._held

    @property
    def running(self) -> int:
        """How many places are held."""
        return len(self._held)

    @property
    def held(self) -> list[Ticket]:
        """The places that are held."""
        with self:
            return list(self._held)

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._waiting)

    # Places.

    def enter(self, ticket: Ticket) -> bool:
        """Ask for a place. True: it is held. False: its awaiter waits, and is woken when that has changed.

        Raises Overloaded if the waiting room is full, and RuntimeClosed if nobody is let in any more.
        """
        if not self._has_room():  # read without the lock: a stale answer does no harm
            self.sweep()
        with self:
            self._asked += 1
            if self.openness is Openness.OPEN and self._has_room():
                self._settle(ticket)
                self._hold(ticket)
                return True
            if self.openness is Openness.OPEN and (self.max_waiting is None or len(self._waiting) < self.max_waiting):
                self._settle(ticket)
                ticket.state = TicketState.WAITING
                self._waiting[ticket] = None
                return False
            ticket.state = TicketState.REFUSED
            self.counts[Outcome.REFUSED] += 1
            raise self._overloaded(ticket.pipeline) if self.openness is Openness.OPEN else self.closed(ticket.pipeline)

    def leave(self, ticket: Ticket, outcome: Outcome = Outcome.CANCELLED) -> None:
        """Give up a place, or the wish for one. Only the first time counts."""
        if get_ident() in self._busy:
            self._deferred.append((ticket, outcome))
            return
        with self:
            successor = self._leave(ticket, outcome)
        while successor is not None and not successor.awaiter.wake():
            with self:  # it is not there any more, and passes it on
                successor = self._leave(successor, Outcome.CANCELLED)
        if not self._held and not self._waiting:
            self._tell()

    def sweep(self) -> None:
        """Have those leave whose event loop was closed over them."""
        gone = {loop for loop in list(self._loops) if loop.is_closed()}  # a few, however many runs there are
        if gone:
            with self:
                everybody = [*self._waiting, *self._held]
            for ticket in everybody:
                if ticket.awaiter.loop in gone:
                    self.leave(ticket)

    def refuse_if_closed(self, pipeline: str) -> None:
        """RuntimeClosed if nobody is let in any more, for a run that needs no place."""
        if self.openness is not Openness.OPEN:
            raise self.closed(pipeline)

    def closed(self, pipeline: str) -> RuntimeClosed:
        """The error for a run that came too late."""
        return RuntimeClosed(f"runtime {self.name!r} is {self.openness.value}: it starts no run of {pipeline!r}")

    # The end.

    def close(self) -> None:
        """Let nobody in from here on; those who wait still get their turn."""
        with self:
            if self.openness is Openness.OPEN:
                self.openness = Openness.CLOSING if self._held else Openness.CLOSED

    def expel(self) -> list[Ticket]:
        """Send away all who wait, and return the places that are held, whose runs are to end."""
        with self:
            self.openness = Openness.CLOSED
            sent = list(self._waiting)
            self._waiting.clear()
            for ticket in sent:
                ticket.state = TicketState.REFUSED
                self._unsettle(ticket)
            self.counts[Outcome.REFUSED] += len(sent)
            held = list(self._held)
            for ticket in held:
                ticket.expelled = True
        for ticket in sent:
            ticket.awaiter.wake()
        self._tell()
        return held

    def watch(self, tell: Callable[[], object]) -> Callable[[], None]:
        """Have `tell()` called whenever the last place was left, and when all are sent away; returns what ends that."""
        token = object()
        with self:
            self._watchers[token] = tell

        def unwatch() -> None:
            with self:
                self._watchers.pop(token, None)

        return unwatch

    def check(self) -> None:
        """Assert the invariants."""
        with self:
            held, waiting = len(self._held), len(self._waiting)
            broken = [
                (1, self.max_runs is not None and held > self.max_runs),
                (2, waiting and (self.max_runs is None or held < self.max_runs)),
                (3, self.max_waiting is not None and waiting > self.max_waiting),
                (4, any(ticket.state is not TicketState.HELD for ticket in self._held)),
                (4, any(ticket.state is not TicketState.WAITING for ticket in self._waiting)),
                (4, self._loops != Counter(ticket.awaiter.loop for ticket in (*self._held, *self._waiting))),
                (5, self._asked != held + waiting + sum(self.counts.values())),
                (6, self.openness is Openness.CLOSED and waiting),
                (6, self.openness is Openness.CLOSING and not held),
            ]
        for number, is_broken in broken:
            if is_broken:
                raise InternalError(f"invariant {number} of the admission is broken: {self!r}")

    # Under the lock.

    def _has_room(self) -> bool:
        return self.max_runs is None or len(self._held) < self.max_runs

    def _settle(self, ticket: Ticket) -> None:
        loop = ticket.awaiter.loop
        self._loops[loop] = self._loops.get(loop, 0) + 1

    def _unsettle(self, ticket: Ticket) -> None:
        loop = ticket.awaiter.loop
        self._loops[loop] -= 1
        if not self._loops[loop]:
            del self._loops[loop]

    def _hold(self, ticket: Ticket) -> None:
        ticket.state = TicketState.HELD
        ticket.began = self._clock()
        self._held[ticket] = None

    def _leave(self, ticket: Ticket, outcome: Outcome) -> Ticket | None:
        """Returns who has the place now."""
        if ticket in self._waiting:
            del self._waiting[ticket]
        elif ticket in self._held:
            del self._held[ticket]
            seconds = max(0.0, self._clock() - ticket.began)
            self.mean = seconds if self.mean is None else self.mean + RECENT * (seconds - self.mean)
        else:
            return None
        ticket.state = TicketState.LEFT
        self._unsettle(ticket)
        self.counts[outcome] += 1
        successor = None
        if self._waiting and self._has_room():
            successor, _ = self._waiting.popitem(last=False)
            self._hold(successor)
        if self.openness is Openness.CLOSING and not self._held:
            self.openness = Openness.CLOSED
        return successor

    def _overloaded(self, pipeline: str) -> Overloaded:
        assert self.max_runs is not None
        mean = UNKNOWN if self.mean is None else self.mean
        seconds = max(LEAST, mean * (len(self._held) + len(self._waiting)) / self.max_runs)
        return Overloaded(
            f"runtime {self.name!r} is full: {len(self._held)} runs in progress and {len(self._waiting)} waiting, "
            f"which is all that max_runs={self.max_runs} and max_waiting={self.max_waiting} allow; a run of "
            f"{pipeline!r} may be tried again in about {seconds:.3g} s",
            retry_after=seconds,
        )

    # Without the lock.

    def _tell(self) -> None:
        with self:
            watchers = list(self._watchers.values())
        for tell in watchers:
            tell()
