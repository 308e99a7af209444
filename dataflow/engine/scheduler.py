"""The scheduler core: a state machine on step numbers. Events in, decisions out.

It knows no asyncio, thread, clock, environment, log or numpy, and no value ever enters it: whoever drives it (a
lane, the loop, a test) holds the run's lock, reports what happened, and acts on what is returned. Steps are
numbered by priority: the smaller number goes first.

    WAITING ──deps done──▶ READY ──claim──▶ RUNNING ──complete──▶ DONE
       │                     │  ◀─give_back──  │  └────fail──────▶ FAILED
       └───────stop──────────┴──▶ CANCELLED    └ (a stop leaves RUNNING alone)

A run is stopped by its first `fail` or by `cancel`; from then on nothing starts, and what still runs may only
report in. A step on the event loop becomes RUNNING in the moment it becomes ready: it is returned as due, once.

Ready kernels wait in two heaps. *Light* ones are expected to take less than `LIGHT` seconds: on two threads they
would run slower than on one (they pass the GIL back and forth), so one lane takes them in batches. All others,
also those of unknown cost, are *heavy*: claimed one by one, each worth a lane of its own.

Invariants, asserted by `check()`:
 1. A step is RUNNING only when all steps it depends on are DONE.
 2. A step starts at most once: it is never in a heap and running, nor twice in the heaps (except `give_back`,
    which takes back steps that were claimed and never started).
 3. Once stopped, both heaps stay empty and `claim` returns nothing.
 4. A slot is released exactly once, after its last reader is DONE; a pinned slot (an output) never is.
 5. Not over, and nothing running, means something is ready: a run cannot get stuck.
 6. `done` counts the DONE steps; the run is complete when it reaches the number of steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from heapq import heapify, heappop, heappush
from typing import Protocol

from dataflow.errors import InternalError

__all__ = ["LIGHT", "Phase", "Scheduler", "State", "Steps"]

LIGHT = 10e-6
"""Seconds. Below 8 to 12 microseconds two threads were slower than one in every measurement (2 cores, 3.11)."""
BATCH_SECONDS = 40e-6
"""Expected length of a batch of light kernels: some ten times what claiming and reporting it costs."""
BATCH_STEPS = 32
"""Steps a batch may hold: beyond it nothing is gained, and the results it holds back cost memory."""
LOG_EVENTS = 256

_NO_STEPS: tuple[int, ...] = ()


class State(Enum):
    """What can be said of a step."""

    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Phase(Enum):
    """What can be said of a run."""

    OPEN = "open"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Steps(Protocol):
    """The part of a plan that the core reads. It changes none of it."""

    @property
    def counts(self) -> list[int]:
        """For each step, how many steps it depends on."""

    @property
    def successors(self) -> list[tuple[int, ...]]:
        """For each step, the steps that depend on it."""

    @property
    def reads(self) -> list[tuple[int, ...]]:
        """For each step, the slots that it reads and that are released after their last reader."""

    @property
    def readers(self) -> list[int]:
        """For each slot, how many steps read it, plus one that never reports if it is an output."""

    @property
    def on_loop(self) -> bytes:
        """For each step, 1 if it runs on the event loop, 0 if it is a kernel."""

    @property
    def sources(self) -> list[int]:
        """The steps that depend on none, in order."""

    @property
    def costs(self) -> list[float]:
        """For each step, the seconds it is expected to take; infinity as long as nobody knows."""


class Scheduler:
    """One run's order of events. Every method must be called under the run's lock; none blocks or calls out."""

    __slots__ = (
        "_counts",
        "_failed",
        "_heavy",
        "_light",
        "_log",
        "_readers",
        "_running",
        "_steps",
        "done",
        "phase",
        "released",
        "size",
    )

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.size = len(steps.counts)
        self.phase = Phase.OPEN
        self.done = 0
        self.released = 0
        self._counts = steps.counts.copy()
        self._readers = steps.readers.copy()
        self._light: list[int] = []
        self._heavy: list[int] = []
        self._running: set[int] = set()
        self._failed: set[int] = set()
        self._log: deque[tuple[str, tuple[int, ...]]] = deque(maxlen=LOG_EVENTS)

    # What can be asked.

    @property
    def stopped(self) -> bool:
        """Whether nothing may start any more."""
        return self.phase is not Phase.OPEN

    @property
    def over(self) -> bool:
        """Whether the outcome stands: every step done, or stopped."""
        return self.done == self.size or self.phase is not Phase.OPEN

    @property
    def running(self) -> int:
        """How many steps are running."""
        return len(self._running)

    @property
    def heavy(self) -> int:
        """How many ready kernels are each worth a lane."""
        return len(self._heavy)

    @property
    def light(self) -> int:
        """How many ready kernels are worth only the one lane that takes light ones."""
        return len(self._light)

    @property
    def ready(self) -> int:
        """How many kernels could start now."""
        return len(self._heavy) + len(self._light)

    def state(self, step: int) -> State:
        """The state of one step; for questions and tests, not for the hot path."""
        if step in self._running:
            return State.RUNNING
        if step in self._failed:
            return State.FAILED
        if self._counts[step] < 0:
            return State.DONE
        if self.stopped:
            return State.CANCELLED
        return State.WAITING if self._counts[step] else State.READY

    # The events.

    def start(self) -> Sequence[int]:
        """The run begins. Returns the steps due on the loop."""
        if self._log:
            raise self._illegal("start", _NO_STEPS, "the run has begun already")
        self._log.append(("start", _NO_STEPS))
        return self._admit(self._steps.sources)

    def claim(self, *, light: bool = True) -> list[int]:
        """Take what one lane should execute next, in this order; nothing if nothing is ready or the run is stopped.

        With `light=False` light kernels are left alone: another lane sees to them.
        """
        if self._heavy and not (light and self._light and self._light[0] < self._heavy[0]):
            taken = [heappop(self._heavy)]
        elif light and self._light:
            taken = self._claim_light()
        else:
            return []
        self._running.update(taken)
        self._log.append(("claim", tuple(taken)))
        return taken

    def give_back(self, steps: Sequence[int]) -> None:
        """Steps that were claimed and never started are ready again, or cancelled if the run was stopped."""
        marked = self._must_be_running("give_back", steps)
        self._log.append(("give_back", tuple(steps)))
        self._running -= marked
        if not self.stopped:
            self._push(steps)

    def complete(self, steps: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """Running steps are done. Returns (slots to release, steps due on the loop)."""
        marked = self._must_be_running("complete", steps)
        self._log.append(("complete", tuple(steps)))
        self._running -= marked
        counts = self._counts
        if self.phase is not Phase.OPEN:
            for step in steps:
                counts[step] = -1
            self.done += len(steps)
            return _NO_STEPS, _NO_STEPS
        readers, successors, reads = self._readers, self._steps.successors, self._steps.reads
        fresh: list[int] = []
        released: list[int] = []
        for step in steps:
            counts[step] = -1
            for follower in successors[step]:
                left = counts[follower] - 1
                counts[follower] = left
                if not left:
                    fresh.append(follower)
            for slot in reads[step]:
                left = readers[slot] - 1
                readers[slot] = left
                if not left:
                    released.append(slot)
        self.done += len(steps)
        self.released += len(released)
        return released, self._admit(fresh) if fresh else _NO_STEPS

    def fail(self, step: int) -> bool:
        """A running step failed. Returns whether it is this failure that stops the run."""
        self._must_be_running("fail", (step,))
        self._log.append(("fail", (step,)))
        self._running.discard(step)
        self._failed.add(step)
        return self._stop(Phase.FAILED)

    def cancel(self) -> bool:
        """The run is no longer wanted. Returns whether this stops it (it was neither stopped nor complete)."""
        if self.done == self.size:
            return False
        self._log.append(("cancel", _NO_STEPS))
        return self._stop(Phase.CANCELLED)

    # How it is done.

    def _stop(self, phase: Phase) -> bool:
        if self.phase is not Phase.OPEN:
            return False
        self.phase = phase
        self._light.clear()
        self._heavy.clear()
        return True

    def _admit(self, fresh: Sequence[int]) -> Sequence[int]:
        """Steps whose dependencies are done become ready; those on the loop become running and are returned."""
        on_loop = self._steps.on_loop
        due = [step for step in fresh if on_loop[step]]
        if due:
            self._running.update(due)
            self._log.append(("due", tuple(due)))
            fresh = [step for step in fresh if not on_loop[step]]
        self._push(fresh)
        return due

    def _push(self, steps: Sequence[int]) -> None:
        costs, light, heavy = self._steps.costs, self._light, self._heavy
        if len(steps) > 64:  # a wide front: two list extensions beat thousands of sifts
            light += [step for step in steps if costs[step] < LIGHT]
            heavy += [step for step in steps if not costs[step] < LIGHT]
            heapify(light)
            heapify(heavy)
            return
        for step in steps:
            heappush(light if costs[step] < LIGHT else heavy, step)

    def _claim_light(self) -> list[int]:
        costs, light = self._steps.costs, self._light
        taken: list[int] = []
        budget = BATCH_SECONDS
        while light and budget > 0 and len(taken) < BATCH_STEPS:
            step = heappop(light)
            taken.append(step)
            budget -= costs[step]
        return taken

    def _must_be_running(self, event: str, steps: Sequence[int]) -> set[int]:
        marked = set(steps)
        if len(marked) != len(steps) or not marked <= self._running:
            raise self._illegal(event, steps, "each step must be running, and named once")
        return marked

    def _illegal(self, event: str, steps: Sequence[int], why: str) -> InternalError:
        states = ", ".join(f"{step} {self.state(step).name}" for step in steps if 0 <= step < self.size)
        story = "\n".join(f"  {name} {list(which)}" for name, which in self._log)
        return InternalError(
            f"scheduler: {event}({list(steps)}) is not allowed: {why} (states: {states or 'none'}; "
            f"{self!r}). This is a bug in dataflow: please report it with these last events:\n{story}"
        )

    def __repr__(self) -> str:
        return (
            f"<Scheduler {self.phase.name} done={self.done}/{self.size} running={len(self._running)} "
            f"heavy={len(self._heavy)} light={len(self._light)}>"
        )

    def log(self) -> list[tuple[str, tuple[int, ...]]]:
        """The last events, oldest first: enough to replay a run of up to some hundred events."""
        return list(self._log)

    def check(self) -> None:
        """Assert every invariant; in proportion to the size of the graph, for tests and post-mortems."""
        steps, counts = self._steps, self._counts
        waiting = self._light + self._heavy
        wrong: list[str] = []

        def require(number: int, holds: bool, what: object) -> None:
            if not holds:
                wrong.append(f"invariant {number}: {what}")

        done = {step for step in range(self.size) if counts[step] < 0}
        for step in range(self.size):
            followers = steps.successors[step]
            if step not in done:
                for follower in followers:
                    require(1, follower not in self._running and follower not in done, (step, follower))
                    require(1, follower not in waiting, (step, follower))
        require(2, len(set(waiting)) == len(waiting), waiting)
        require(2, not (set(waiting) | self._failed | done) & self._running, waiting)
        require(2, not set(waiting) & (done | self._failed), waiting)
        if self.stopped:
            require(3, not waiting, waiting)
        else:
            released = 0
            for slot, pinned in enumerate(steps.readers):
                left = self._readers[slot]
                still = pinned - sum(slot in steps.reads[step] for step in done) if self.size <= 64 else left
                require(4, left == still >= 0, (slot, left, still))
                released += pinned > 0 and left == 0
            require(4, released == self.released, (released, self.released))
            require(5, self.done == self.size or bool(self._running) or bool(waiting) or not self._log, self)
        require(6, self.done == len(done), (self.done, len(done)))
        if wrong:
            raise self._illegal("check", _NO_STEPS, "; ".join(wrong))
