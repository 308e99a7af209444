"""The scheduler: a state machine on step numbers. Events in, decisions out.

It knows no asyncio, thread, clock, environment, log or numpy, and no value ever enters it: whoever drives it (a worker,
the loop, a test) holds the engine's lock, reports what happened, and acts on what is returned. Steps are numbered by
priority, which is a topological order: the smaller number goes first.

    WAITING ──deps done──▶ READY ──take──▶ RUNNING ──complete──▶ DONE
       │                     │                └────fail────────▶ FAILED
       └───────stop──────────┴──▶ CANCELLED    (a stop leaves RUNNING alone)

A run is stopped by its first `fail` or `expire`, or by `cancel`; from then on nothing starts, and what still runs may
only report in. A step on the event loop becomes RUNNING in the moment it becomes ready: it is added to `due`, once.

A step with a limit asks before it is ready: it is added to `due`, and waits for `grant`. A *managed* kernel (with
retries, a timeout or a limit) may rest between two attempts, and overruns if its time is up and it has not returned; if
that was the last attempt, `expire` stops the run.

    WAITING ──deps done──▶ ASKING ──grant──▶ READY ──take──▶ RUNNING ──complete──▶ DONE
                             ▲                                │   │└─────fail────▶ FAILED ◀──fail──┐
                             │                   rest         │   └──overrun, expire──▶ OVERRUNNING
                             └──retry── RESTING ◀─────────────┴─────────────rest───────────┘

Without a limit there is no ASKING. A stop cancels ASKING and RESTING, as it does READY.

**Step by step.** Ready kernels wait in one heap. `complete` reports the step that is done and books its followers and
readers; `take` gives out the next one.

**In order.** If one worker alone goes on with a run, no count is needed to know whose turn it is: in the order of the
numbers, all that a step depends on is done before it. So where nothing runs, all steps below the first ready one are
done, and no step on the loop and no managed kernel is left, `claim` gives out a *batch*: the next so many steps. The
books (counts, readers, the heap) stand still at `_booked` meanwhile, and whoever works a batch off releases what a step
reads last by the plan.

    0 ……… done, booked ……… _booked ……… done, not booked ……… _cursor … the batch … ……… size

A batch may be *revoked* at any moment: what its worker has not started is taken back, the books are brought up to date,
each step once, and the step that its worker is in becomes RUNNING like any other.

Invariants, asserted by `check()`:
 1. A step is RUNNING only when all steps it depends on are DONE, or come before it in the same batch.
 2. A step starts at most once, a managed kernel once for each attempt: it has one state, and is in the heap once.
 3. Once stopped, the heap is empty and nothing is taken.
 4. A slot is released exactly once, after its last reader is DONE; an output never is.
 5. Not over, and nothing running, means something is ready, asks or rests: a run cannot get stuck.
 6. `done` counts the DONE steps; the run is complete when it reaches the number of steps.
 7. While steps are taken in order, the steps below `_cursor` are DONE, and no other.
 8. Only a managed kernel overruns or rests; only a step with a limit asks; once stopped, none asks or rests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Any

from dataflow.engine.steps import Phase, State, Steps
from dataflow.errors import InternalError
from dataflow.graph.kinds import KERNEL, LIMITED, LIMITED_ON_LOOP, MANAGED, ON_LOOP

__all__ = ["END", "Batch", "Scheduler"]

END = -1
"""No step."""
LOG_EVENTS = 256

_OPEN = Phase.OPEN


class Batch:
    """Steps that one worker executes in order. It takes them from the left of `todo`; what it has not taken, others may
    take back from the right. Both need no lock."""

    __slots__ = ("last", "steps", "todo")

    def __init__(self, steps: list[int]) -> None:
        self.steps = steps
        self.todo = deque(steps)
        self.last = END
        """Once it was revoked: the step that its worker was in, and has to report."""

    @property
    def begun(self) -> list[int]:
        """The steps that its worker has taken."""
        count = len(self.steps) - len(self.todo) if self.last == END else self.last - self.steps[0] + 1
        return self.steps[:count]

    def __repr__(self) -> str:
        return f"<batch {self.steps[0]}–{self.steps[-1]}, {len(self.todo)} not started>"


class Scheduler:
    """One run's order of events. Every method must be called under the engine's lock; none blocks or calls out."""

    __slots__ = (
        "_apart_left",
        "_booked",
        "_counts",
        "_cursor",
        "_failed",
        "_kinds",
        "_late",
        "_log",
        "_readers",
        "_reads",
        "_started",
        "_steps",
        "_successors",
        "asking",
        "batch",
        "done",
        "due",
        "in_order",
        "overrunning",
        "phase",
        "ready",
        "released",
        "resting",
        "running",
        "size",
    )

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._successors, self._reads, self._kinds = steps.successors, steps.reads, steps.kinds
        self._counts, self._readers = steps.counts.copy(), steps.readers.copy()
        self.size = len(steps.kinds)
        self._apart_left = self.size - steps.kinds.count(KERNEL)
        """How many steps are not done that never stand in a batch: those on the loop, and managed kernels."""
        self.phase = Phase.OPEN
        self.done = 0
        self.ready: list[int] = []
        """A heap: the kernels that could start now. It stands still while steps are taken in order."""
        self.running: set[int] = set()
        """The steps that were taken, or are with the loop, and have not reported; without those of the batch."""
        self.overrunning: set[int] = set()
        """The managed kernels whose time is up and that have not reported; not among the running ones."""
        self.asking: set[int] = set()
        """The steps that wait for `grant`."""
        self.resting: set[int] = set()
        """The managed kernels that wait for their next attempt."""
        self.due: list[int] = []
        """Steps on the loop that have become ready, and those that have begun to ask; whoever drives this takes them
        out."""
        self.released: list[int] = []
        """Slots that nobody reads any more; likewise."""
        self.in_order = False
        """Whether steps are taken in order."""
        self.batch: Batch | None = None
        """What a worker executes in order."""
        self._failed: set[int] = set()
        self._late: set[int] = set()
        """Done when the run was over: the books are closed by then."""
        self._started = False
        self._booked = 0
        self._cursor = 0
        self._log: deque[Any] = deque(maxlen=LOG_EVENTS)

    # What can be asked.

    @property
    def stopped(self) -> bool:
        """Whether nothing may start any more."""
        return self.phase is not _OPEN

    @property
    def over(self) -> bool:
        """Whether the outcome stands: every step done, or stopped."""
        return self.done == self.size or self.phase is not _OPEN

    @property
    def startable(self) -> int:
        """How many kernels could start now, if a worker came for each."""
        if self.in_order:
            return 0 if self.batch is not None else min(1, self.size - self._cursor)
        return len(self.ready)

    def state(self, step: int) -> State:
        """The state of one step; for questions and tests, not for the hot path."""
        if step in self.running or (self.batch is not None and step in self.batch.steps):
            return State.RUNNING
        for where, state in (
            (self.asking, State.ASKING),
            (self.resting, State.RESTING),
            (self.overrunning, State.OVERRUNNING),
        ):
            if step in where:
                return state
        if step in self._failed:
            return State.FAILED
        if self._counts[step] < 0 or step in self._late or (self.in_order and step < self._cursor):
            return State.DONE
        if self.stopped:
            return State.CANCELLED
        if self.in_order:
            return State.READY if step == self._cursor else State.WAITING
        return State.READY if step in self.ready else State.WAITING

    # The events.

    def start(self) -> None:
        """The run begins: sources become ready, or due."""
        if self._started:
            raise self._illegal("start", (), "the run has begun already")
        self._started = True
        self._log.append("start")
        if self.phase is _OPEN:
            self.ready = self._steps.sources.copy()
            if self._apart_left:
                sources, self.ready = self.ready, []
                for step in sources:
                    self._has_all(step)

    def take(self) -> int:
        """The next kernel, which begins with this; END if none is ready, or steps are taken in order."""
        if self.in_order or not self.ready:
            return END
        step = heappop(self.ready)
        self.running.add(step)
        return step

    def give_back(self, step: int) -> None:
        """One that was taken and has not begun: it is ready again, or cancelled if the run was stopped.

        One that is due on the loop is given back only after a stop: it is nothing that a worker could take.
        """
        self._must_run("give_back", step)
        if self.phase is _OPEN and self._kinds[step] in (ON_LOOP, LIMITED_ON_LOOP):
            raise self._illegal("give_back", (step,), "it is the loop's, and the run goes on")
        self.running.remove(step)
        self._log.append(("give_back", step))
        if self.phase is _OPEN:
            heappush(self.ready, step)

    def complete(self, step: int) -> None:
        """A running step is done."""
        running = self.running
        if step not in running:
            raise self._illegal("complete", (step,), "it must be running")
        running.remove(step)
        self._log.append(step)
        self.done += 1
        if self.phase is not _OPEN:
            self._late.add(step)
            return
        counts, kinds = self._counts, self._kinds
        counts[step] = -1
        if kinds[step]:
            self._apart_left -= 1
        for follower in self._successors[step]:
            left = counts[follower] = counts[follower] - 1
            if not left:
                if kinds[follower]:
                    self._has_all(follower)
                else:
                    heappush(self.ready, follower)
        readers = self._readers
        for slot in self._reads[step]:
            left = readers[slot] = readers[slot] - 1
            if not left:
                self.released.append(slot)

    def fail(self, step: int) -> bool:
        """A step that runs, or overruns, failed. Returns whether that stops the run: not if it is over already."""
        where = self.overrunning if step in self.overrunning else self.running
        self._must_be(where, "fail", step, "it must be running")
        where.remove(step)
        self._log.append(("fail", step))
        stops = self._stop(Phase.FAILED)
        self._failed.add(step)
        return stops

    def cancel(self) -> bool:
        """The run is no longer wanted. Returns whether this stops it (it was neither stopped nor complete)."""
        if self.done == self.size and self._started:
            return False
        self._log.append("cancel")
        return self._stop(Phase.CANCELLED)

    # The events of steps with a limit, and of managed kernels.

    def grant(self, step: int) -> None:
        """One that has asked may start."""
        self._must_be(self.asking, "grant", step, "it must be asking")
        self.asking.remove(step)
        self._log.append(("grant", step))
        self._may_start(step)

    def overrun(self, step: int) -> None:
        """The time of a running one is up, and there will be a further attempt once it has reported."""
        self._tried("overrun", step, self.running)
        self.overrunning.add(step)

    def expire(self, step: int) -> None:
        """The same, but it was the last attempt: that stops the run."""
        self._tried("expire", step, self.running)
        self.overrunning.add(step)
        self._stop(Phase.FAILED)

    def rest(self, step: int) -> None:
        """An attempt has failed, whose kernel has returned, and another is due after a while; not after a stop."""
        self._tried("rest", step, self.overrunning if step in self.overrunning else self.running)
        self.resting.add(step)

    def retry(self, step: int) -> None:
        """The wait of one that rests is over."""
        self._must_be(self.resting, "retry", step, "it must be resting")
        self.resting.remove(step)
        self._log.append(("retry", step))
        self._has_all(step)

    # In order.

    def may_go_in_order(self) -> bool:
        """Whether the next steps can be claimed as a batch: see above."""
        if self.in_order:
            return self.batch is None and self._cursor < self.size
        ready = self.ready
        return bool(ready) and ready[0] == self.done and not self.running and not self._apart_left

    def claim(self, most: int) -> Batch:
        """The next steps in order, so many at most; only if that may be."""
        if not self.may_go_in_order() or self.phase is not _OPEN:
            raise self._illegal("claim", (), "something runs, or is done out of order")
        if not self.in_order:
            self.in_order = True
            self._booked = self._cursor = self.done
        first = self._cursor
        batch = self.batch = Batch(self._steps.numbers[first : first + most])
        self._log.append(("claim", first, first + most))
        return batch

    def complete_batch(self, batch: Batch) -> bool:
        """All steps of a batch are done; False if it was revoked: then its last step is reported like any other."""
        if batch is not self.batch:
            return False
        self.batch = None
        self._log.append(("batch", batch.steps[0], batch.steps[-1]))
        self.done += len(batch.steps)
        self._cursor += len(batch.steps)
        return True

    def step_by_step(self) -> None:
        """End going in order. Of a batch that a worker has, what it has not started is taken back."""
        if not self.in_order:
            return
        self.in_order = False
        batch, self.batch = self.batch, None
        running = END
        if batch is not None:
            unstarted = _drained(batch.todo)
            started = len(batch.steps) - unstarted
            self._log.append(("revoke", batch.steps[0], started))
            if started:
                running = batch.last = batch.steps[started - 1]
                self.done += started - 1
                self._cursor = running
        self._book(self._booked, self._cursor)
        if running != END:
            self.running.add(running)
            self.ready = [step for step in self.ready if step != running]
            heapify(self.ready)

    def _book(self, first: int, end: int) -> None:
        """Enter steps done in order into the books. What they read last, their worker has released."""
        counts, readers, successors, reads = self._counts, self._readers, self._successors, self._reads
        ready = [step for step in self.ready if step >= end]
        for step in range(first, end):
            counts[step] = -1
            for follower in successors[step]:
                left = counts[follower] = counts[follower] - 1
                if not left and follower >= end:
                    ready.append(follower)
            for slot in reads[step]:
                readers[slot] -= 1
        heapify(ready)
        self.ready = ready

    # How it is done.

    def _has_all(self, step: int) -> None:
        """A step waits for no other any more."""
        if self._kinds[step] in (LIMITED, LIMITED_ON_LOOP):
            self.asking.add(step)
            self.due.append(step)
        else:
            self._may_start(step)

    def _may_start(self, step: int) -> None:
        if self._kinds[step] in (ON_LOOP, LIMITED_ON_LOOP):
            self.running.add(step)
            self.due.append(step)
        else:
            heappush(self.ready, step)

    def _stop(self, phase: Phase) -> bool:
        if self.phase is not _OPEN:
            return False
        self.step_by_step()  # first: the steps done in order are entered into the books
        self.phase = phase
        self.ready = []
        self.asking.clear()
        self.resting.clear()
        return True

    def _tried(self, event: str, step: int, where: set[int]) -> None:
        """A managed kernel leaves the steps that run, or overrun, without a result."""
        self._must_be(where, event, step, "it must be running")
        if self.phase is not _OPEN or self._kinds[step] < MANAGED:
            raise self._illegal(event, (step,), "the run must go on, and the step be a managed kernel")
        where.remove(step)
        self._log.append((event, step))

    def _must_run(self, event: str, step: int) -> None:
        self._must_be(self.running, event, step, "it must be running")

    def _must_be(self, where: set[int], event: str, step: int, why: str) -> None:
        if step not in where:
            raise self._illegal(event, (step,), why)

    def _illegal(self, event: str, steps: Sequence[int], why: str) -> InternalError:
        states = ", ".join(f"{step} {self.state(step).name}" for step in steps if 0 <= step < self.size)
        story = "\n".join(f"  {f'complete {each}' if isinstance(each, int) else each}" for each in self._log)
        return InternalError(
            f"scheduler: {event}({list(steps)}) is not allowed: {why} (states: {states or 'none'}; "
            f"{self!r}). This is a bug in dataflow: please report it with these last events:\n{story}"
        )

    def __repr__(self) -> str:
        order = f" in order from {self._cursor}" if self.in_order else ""
        named = ("overrunning", self.overrunning), ("asking", self.asking), ("resting", self.resting)
        apart = "".join(f" {name}={len(steps)}" for name, steps in named if steps)
        return (
            f"<Scheduler {self.phase.name} done={self.done}/{self.size} running={len(self.running)} "
            f"ready={len(self.ready)}{apart}{order}>"
        )

    def log(self) -> list[Any]:
        """The last events, oldest first; a number is a step that was completed."""
        return list(self._log)

    def check(self) -> None:
        """Assert every invariant; in proportion to the size of the graph, for tests and post-mortems."""
        steps, wrong = self._steps, list[str]()

        def require(number: int, holds: bool, what: object) -> None:
            if not holds:
                wrong.append(f"invariant {number}: {what}")

        states = [self.state(step) for step in range(self.size)]
        done = {step for step, state in enumerate(states) if state is State.DONE}
        batch = set() if self.batch is None else set(self.batch.steps)
        for step in range(self.size):
            for follower in steps.successors[step] if step not in done else ():
                together = step in batch and follower in batch and step < follower
                require(1, together or states[follower] not in (State.RUNNING, State.DONE), (step, follower))
                if not self.in_order:
                    require(1, follower not in self.ready, (step, follower))
        require(2, len(set(self.ready)) == len(self.ready), self.ready)
        if not self.in_order:
            require(2, not set(self.ready) & (self.running | done | self._failed), self.ready)
        apart = (self.running, self.overrunning, self.asking, self.resting)
        taken = set().union(*apart)
        require(2, len(taken) == sum(map(len, apart)) and not taken & {*self.ready, *done}, apart)
        require(8, all(self._kinds[step] >= MANAGED for step in self.overrunning | self.resting), apart)
        require(8, all(self._kinds[step] in (LIMITED, LIMITED_ON_LOOP) for step in self.asking), self.asking)
        require(6, self.done == len(done), (self.done, len(done)))
        if self.stopped:
            require(3, not self.ready and not self.in_order, self.ready)
            require(8, not self.asking and not self.resting, apart)
        elif self._started and self.in_order:
            require(7, done == set(range(self._cursor)), (self._cursor, done))
            require(7, not taken and not self._apart_left, taken)
        elif self._started:
            require(5, self.done == self.size or bool(taken) or bool(self.ready), self)
            for slot, readers in enumerate(steps.readers):
                left = readers - sum(slot in steps.reads[step] for step in done)
                require(4, self._readers[slot] == left >= 0, (slot, self._readers[slot], left))
            free = {s for s in range(self.size) if not self._counts[s] and s not in taken | self._failed}
            require(5, free == set(self.ready), (free, self.ready))
        if wrong:
            raise self._illegal("check", (), "; ".join(wrong))


def _drained(todo: deque[int]) -> int:
    """Take all that is left, and say how much that was; whoever takes from the left meanwhile gets his, or nothing."""
    count = 0
    try:
        while True:
            todo.pop()
            count += 1
    except IndexError:
        return count
