"""The scheduler core: a state machine on step numbers. Events in, decisions out.

It knows no asyncio, thread, clock, environment, log or numpy, and no value ever enters it: whoever drives it (a
lane, the loop, a test) holds the run's lock, reports what happened, and acts on what is returned. Steps are
numbered by priority, which is a topological order: the smaller number goes first.

    WAITING ──deps done──▶ READY ──claim──▶ RUNNING ──complete──▶ DONE
       │                     │  ◀─give_back──  │  └────fail──────▶ FAILED
       └───────stop──────────┴──▶ CANCELLED    └ (a stop leaves RUNNING alone)

A run is stopped by its first `fail` or by `cancel`; from then on nothing starts, and what still runs may only
report in. A step on the event loop becomes RUNNING in the moment it becomes ready: it is returned as due, once.

Ready kernels wait in two heaps. *Light* ones are expected to take so little that on two threads they would run slower
than on one (they pass the interpreter's lock back and forth), so one lane takes them, in batches. All others, also
those of unknown cost, are *heavy*: work for as many lanes as there are.

A *batch* is what one `claim` takes, to be started in its order; whoever has it may give back what has not started. It
is worth about `BATCH_SECONDS` of expected time, or `FINE_SECONDS` of short kernels, since claiming and reporting cost
some tens of microseconds. It goes on with steps that wait for nothing but steps of the batch, which are claimed
*ahead*, before what they depend on is done. Where the graph forks it stops: what begins there is for other lanes, which
learn of it when the batch is reported. A heavy batch also takes light steps ahead, which are worth no hand-over; not
the other way round.

    ready: a b │ 1 lane:   a ─▶ c ─▶ e
            [a b c d e]    b ─▶ d ─┬▶ f
                                   └▶ g

Beside other lanes heavy kernels are claimed one by one, and `exchange` hands a lane the next one for the one it has
done, or a few short ones for a few. A batch costs less, but all at once: while it is reported and the next one claimed,
some tens of microseconds, the kernel of every other lane ends and waits for the interpreter. Two lanes on a stencil, a
transform or chains were 1.1 times as fast as one loop with batches of kernels of 25 to 28 microseconds, and 1.2 to 1.4
times one by one (2 CPUs, Python 3.11).

*Sweeping.* Where every step from some number on is light, and everything before is done, one lane may simply run the
steps in order: no count is needed to know that their turn has come. While a core sweeps, its books (counts, readers,
heaps) stand still at `_booked`; all steps below `_cursor` are done, and those from `_cursor` to `_swept` are claimed
as one batch. Sweeping ends when a batch is not completed as a whole; then the books are brought up to date. Each
step is booked once, in either way, so however often this happens it costs no more than never sweeping.

    0 ………… done, booked ………… _booked …… done, not booked …… _cursor … claimed … _swept ………… size

A lane that sweeps releases values itself, step by step, by the plan's `releases`: in order of number, the last reader
is known beforehand. So what sweeping steps release is never returned by `complete`.

Invariants, asserted by `check()`:
 1. A step is RUNNING only when all steps it depends on are DONE, or claimed before it in the same batch: then it is
    `_ahead`, or in a sweep.
 2. A step starts at most once: it is never ready and running, nor twice in the heaps (except after `give_back`,
    which takes back steps that were claimed and never started).
 3. Once stopped, both heaps stay empty and `claim` returns nothing.
 4. A slot is released exactly once, after its last reader is DONE; a pinned slot (an output) never is.
 5. Not over, and nothing running, means something is ready: a run cannot get stuck.
 6. `done` counts the DONE steps; the run is complete when it reaches the number of steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Any

from dataflow.engine.steps import Phase, State, Steps
from dataflow.errors import InternalError

__all__ = ["Scheduler"]

BATCH_SECONDS = 200e-6
"""Expected length of a batch, each of which costs some tens of microseconds more than its kernels. Steps of this length
and more are claimed one by one."""
BATCH_STEPS = 32
"""Steps of a batch outside of a sweep: the results that it holds back cost memory."""
FINE = 32e-6
"""Expected seconds of a kernel below which a lone lane's batch may be longer, and an exchange takes several. The
results that this holds back cost memory: at 50 microseconds it would be twice the live results."""
FINE_SECONDS = 1e-3
FINE_STEPS = 64
"""A batch of such kernels."""
EXCHANGED = 8
"""Steps shorter than `FINE` that one exchange takes at the most. Two lanes on kernels of 30 microseconds (a stencil of
width 16) were 1.33 times as fast as one loop where each was exchanged for one, 1.47 times with four, 1.5 with eight; on
20 microseconds without dependencies 0.9 times with four and 1.0 with eight. Bare threads that take steps from a heap
under a lock, which we measure against, are 1.6 and 1.1 times as fast (medians of 15 to 30 runs, interleaved, 2 CPUs,
Python 3.11)."""
SWEEP_SECONDS = 1e-3
"""The length of a sweep's batch, which holds no results back. With 250 microseconds, claiming and reporting were three
to six percent of it. A run of light kernels that comes meanwhile waits for its end."""
SWEEP_STEPS = 2048
"""Steps of a batch of a sweep; a stop is seen between any two of them."""
WIDE = 64
"""From so many newly ready steps on, sorting the whole heap is quicker than sifting them in one by one."""
LOG_EVENTS = 256

_NONE: tuple[int, ...] = ()
_OPEN = Phase.OPEN


class Scheduler:
    """One run's order of events. Every method must be called under the run's lock; none blocks or calls out."""

    __slots__ = (
        "_ahead",
        "_any_on_loop",
        "_booked",
        "_counts",
        "_cursor",
        "_failed",
        "_heavy",
        "_late",
        "_light",
        "_log",
        "_on_loop",
        "_plain",
        "_readers",
        "_reads",
        "_running",
        "_started",
        "_steps",
        "_successors",
        "_swept",
        "_sweeping",
        "done",
        "light_below",
        "phase",
        "released",
        "seconds",
        "size",
    )

    def __init__(self, steps: Steps, light_below: float) -> None:
        self._steps = steps
        self._successors, self._reads, self._on_loop = steps.successors, steps.reads, steps.on_loop
        self.seconds = steps.costs.seconds
        self.light_below = light_below
        """Kernels expected to take less are light, unless a sweep has begun with them."""
        self.size = len(steps.on_loop)
        self._any_on_loop = 1 in steps.on_loop
        self.phase = Phase.OPEN
        self.done = 0
        self.released = 0
        """Slots that `complete` and `exchange` have returned."""
        self._counts: list[int] = []  # copied at the first booking: a sweep from the start needs none
        self._readers: list[int] = []
        self._light: list[int] = []
        self._heavy: list[int] = []
        self._running: set[int] = set()
        self._ahead: set[int] = set()
        """Those of `_running` that depend on others of it, which were claimed before them in the same batch."""
        self._failed: set[int] = set()
        self._late: set[int] = set()
        """Done when the run was over: the books are closed by then."""
        self._plain = False
        """Whether `exchange` needs to look at nothing but counts and heaps."""
        self._started = False
        self._sweeping = False
        self._booked = 0
        self._cursor = 0
        self._swept = 0
        self._log: deque[tuple[str, Sequence[Any]]] = deque(maxlen=LOG_EVENTS)

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
        """How many steps are claimed, or with the loop, and have not reported."""
        return len(self._running) + (self._swept - self._cursor if self._sweeping else 0)

    @property
    def in_flight(self) -> set[int]:
        """The steps that are claimed, or with the loop, and have not reported; of a sweep, once it has ended."""
        return self._running

    @property
    def heavy(self) -> int:
        """How many ready kernels are work for any lane."""
        return 0 if self._sweeping else len(self._heavy)

    def heavy_seconds(self, beside: int = 0) -> float:
        """About how long these, but for so many, would take one lane, by the first of them; infinity if nobody knows.

        May be asked without the lock.
        """
        heavy = self._heavy
        try:
            left = len(heavy) - beside
            return left * self.seconds[heavy[0]] if left > 0 and not self._sweeping else 0.0
        except IndexError:  # somebody has just taken the last one
            return 0.0

    @property
    def light(self) -> int:
        """How many ready kernels are worth only the one lane that takes light ones."""
        if self._sweeping:
            return 0 if self._swept > self._cursor else self.size - self._cursor
        return len(self._light)

    @property
    def ready(self) -> int:
        """How many kernels could start now."""
        return self.light if self._sweeping else len(self._heavy) + len(self._light)

    @property
    def sweeping(self) -> bool:
        """Whether the batch claimed last is part of a sweep: whoever runs it in order releases what it reads last."""
        return self._sweeping

    def is_ahead(self, steps: Sequence[int]) -> bool:
        """Whether any of these running steps waits for another of its batch."""
        return not self._ahead.isdisjoint(steps)

    def state(self, step: int) -> State:
        """The state of one step; for questions and tests, not for the hot path."""
        if step in self._running or (self._sweeping and self._cursor <= step < self._swept):
            return State.RUNNING
        if step in self._failed:
            return State.FAILED
        if step < self._cursor or step in self._late or (self._counts and self._counts[step] < 0):
            return State.DONE
        if self.stopped:
            return State.CANCELLED
        ready = self._cursor == step if self._sweeping else step in self._light or step in self._heavy
        return State.READY if ready and self._started else State.WAITING

    # The events.

    def start(self) -> Sequence[int]:
        """The run begins. Returns the steps due on the loop."""
        if self._started:
            raise self._illegal("start", _NONE, "the run has begun already")
        self._started = True
        self._log.append(("start", _NONE))
        if self.stopped:
            return _NONE
        if self._steps.costs.sweep_from == 0 and self.size:
            self._sweeping = True
            self._light = self._steps.sources.copy()
            return _NONE
        self._open_books()
        return self._admit(self._steps.sources)

    def claim(self, *, light: bool = True, lanes: int = 1) -> list[int]:
        """Take what one lane should execute next, in this order; nothing if nothing is ready or the run is stopped.

        The list is the log's as well: do not change it. With `light=False` light kernels are left alone: another
        lane sees to them. Among several `lanes`, heavy kernels are taken one by one.
        """
        if self._sweeping:
            return self._claim_sweep() if light else []
        if self._heavy and not (light and self._light and self._light[0] < self._heavy[0]):
            taken = self._claim_heavy(lanes)
        elif light and self._light:
            if self._may_sweep():
                self._sweeping, self._plain = True, False
                self._booked = self._cursor = self._swept = self.done
                return self._claim_sweep()
            taken = self._claim_light()
        else:
            return []
        self._running.update(taken)
        self._log.append(("claim", taken))
        self._plain = not (self._ahead or self._swept)
        return taken

    def give_back(self, steps: Sequence[int]) -> None:
        """Steps that were claimed and never started are ready again, or cancelled if the run was stopped.

        Steps due on the loop are given back only after a stop: they are nothing that a lane could take.
        """
        marked = self._must_be_running("give_back", steps)
        self._log.append(("give_back", tuple(steps)))
        if self._sweeping:
            self._end_sweep(marked)
            return
        self._running -= marked
        if not self.stopped:
            ahead = self._ahead
            self._push([step for step in steps if step not in ahead] if ahead else steps)
        self._ahead -= marked

    def complete(self, steps: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """Running steps are done, in this order. Returns (slots to release, steps due on the loop).

        The steps become the log's: do not change them afterwards.
        """
        running = self._running
        if self._sweeping:
            if len(steps) == self._swept - self._cursor and steps[0] == self._cursor and steps[-1] == self._swept - 1:
                self._log.append(("complete", range(self._cursor, self._swept)))
                self.done += len(steps)
                self._cursor = self._swept
                return _NONE, _NONE
            self._must_be_running("complete", steps)
            self._end_sweep(set())
        if len(steps) == 1 and steps[0] in running:
            running.remove(steps[0])
        else:
            running -= self._must_be_running("complete", steps)
        self._log.append(("complete", steps))
        self.done += len(steps)
        if self.phase is not Phase.OPEN:
            self._late.update(steps)
            self._ahead.difference_update(steps)
            return _NONE, _NONE
        fresh, released = self._book(steps)
        return released, self._admit(fresh) if fresh else _NONE

    def exchange(
        self, steps: Sequence[int], most: float, lanes: int, *, lonely: bool = False
    ) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """`complete` and `claim`, for a lane among so many that goes from one heavy step to the next, or to a few.

        Returns (the next steps, slots to release, steps due on the loop). There are no next steps if what comes next
        needs a closer look: nothing is ready, or light kernels are, or a step of unknown cost or of `most` seconds or
        more; or, for a lane that is `lonely`, also work for another lane. But a light step that a heavy one has made
        ready is the next, whatever else is. One long function, because it is what other lanes wait for.
        """
        taken: Sequence[int] = _NONE
        released: Sequence[int] = _NONE
        due: Sequence[int] = _NONE
        running, heavy, light, seconds = self._running, self._heavy, self._light, self.seconds
        if self._plain:
            if len(steps) == 1 and steps[0] in running:
                running.remove(steps[0])
            else:
                running -= self._must_be_running("exchange", steps)
            counts, readers = self._counts, self._readers
            self.done += len(steps)
            for step in steps:
                counts[step] = -1
                for slot in self._reads[step]:
                    left = readers[slot] = readers[slot] - 1
                    if not left:
                        released = [*released, slot]
                        self.released += 1
                for follower in self._successors[step]:
                    left = counts[follower] = counts[follower] - 1
                    if not left:
                        if self._on_loop[follower]:
                            due = [*due, *self._admit((follower,))]
                        elif not seconds[follower] < self.light_below:
                            heappush(heavy, follower)
                        elif not (taken or lonely) and (follower == step + 1 or not seconds[step] < self.light_below):
                            taken = (follower,)  # worth no hand-over, but a column of them is for the one lane
                        else:
                            heappush(light, follower)
        else:
            released, due = self.complete(steps)
            if self._ahead or self._swept or self.phase is not Phase.OPEN:
                return _NONE, released, due
            self._plain, steps = True, _NONE
        if taken:
            running.add(taken[0])
        elif heavy and not light and seconds[heavy[0]] < most and not (lonely and len(heavy) > 1):
            step = heappop(heavy)
            running.add(step)
            taken = (step,) if seconds[step] >= FINE or len(heavy) <= lanes else self._take_more(step, lanes)
        self._log.append(("exchange", (steps, taken)))
        return taken, released, due

    def fail(self, step: int) -> bool:
        """A running step failed. Returns whether it is this failure that stops the run."""
        self._must_be_running("fail", (step,))
        self._log.append(("fail", (step,)))
        stops = self._stop(Phase.FAILED)
        self._running.discard(step)
        self._ahead.discard(step)
        self._failed.add(step)
        return stops

    def cancel(self) -> bool:
        """The run is no longer wanted. Returns whether this stops it (it was neither stopped nor complete)."""
        if self.done == self.size and self._started:
            return False
        self._log.append(("cancel", _NONE))
        return self._stop(Phase.CANCELLED)

    def reconsider(self, light_below: float) -> None:
        """Expectations have changed: sort what is ready anew into light and heavy."""
        self.light_below = light_below
        if not self._sweeping and not self.stopped:
            ready = self._light + self._heavy
            self._light, self._heavy = [], []
            self._push(ready)

    # How it is done.

    def _stop(self, phase: Phase) -> bool:
        if self.phase is not Phase.OPEN:
            return False
        self.phase = phase
        self._plain = False
        if self._sweeping:
            self._end_sweep(set())
        self._light.clear()
        self._heavy.clear()
        return True

    def _admit(self, fresh: Sequence[int]) -> Sequence[int]:
        """Steps whose dependencies are done become ready; those on the loop become running and are returned."""
        due: Sequence[int] = _NONE
        if self._any_on_loop:
            on_loop = self._on_loop
            due = [step for step in fresh if on_loop[step]]
            if due:
                self._running.update(due)
                self._log.append(("due", due))
                fresh = [step for step in fresh if not on_loop[step]]
        self._push(fresh)
        return due

    def _push(self, steps: Sequence[int]) -> None:
        seconds, light_below, light, heavy = self.seconds, self.light_below, self._light, self._heavy
        # Costs change at any time, so each step is looked at once: else it could be in both heaps, or in none.
        if len(steps) > WIDE:
            for step in steps:
                (light if seconds[step] < light_below else heavy).append(step)
            heapify(light)
            heapify(heavy)
            return
        for step in steps:
            heappush(light if seconds[step] < light_below else heavy, step)

    def _claim_light(self) -> list[int]:
        seconds, light = self.seconds, self._light
        taken: list[int] = []
        budget = BATCH_SECONDS
        while light and budget > 0 and len(taken) < BATCH_STEPS:
            step = heappop(light)
            taken.append(step)
            budget -= seconds[step]
        if not light and budget > 0:
            self._claim_ahead(taken, budget, BATCH_STEPS)
        return taken

    def _claim_heavy(self, lanes: int) -> list[int]:
        seconds, heavy = self.seconds, self._heavy
        cost = seconds[heavy[0]]
        # Infinity, which is of unknown cost, is more than that.
        if cost >= BATCH_SECONDS or (lanes > 1 and (self._running or len(heavy) > 1)):
            return [heappop(heavy)]
        budget, most = (FINE_SECONDS, FINE_STEPS) if cost < FINE else (BATCH_SECONDS, BATCH_STEPS)
        taken: list[int] = []
        while heavy and len(taken) < most:
            step = heavy[0]
            budget -= seconds[step]
            if taken and (budget < 0 or seconds[step] >= FINE > cost):
                return taken
            taken.append(heappop(heavy))
        self._claim_ahead(taken, budget, most)
        return taken

    def _take_more(self, step: int, lanes: int) -> list[int]:
        """What goes with this short step in one exchange: of what is ready no more than one lane's share."""
        seconds, heavy = self.seconds, self._heavy
        taken = [step]
        for _ in range(min(len(heavy) // lanes, EXCHANGED - 1)):
            step = heavy[0]
            if not seconds[step] < FINE:
                break
            taken.append(heappop(heavy))
            self._running.add(step)
        return taken

    def _claim_ahead(self, taken: list[int], budget: float, most: int) -> None:
        """Follow the steps taken to those that wait for nothing but steps of the batch, level by level."""
        seconds, counts, on_loop, light_below = self.seconds, self._counts, self._on_loop, self.light_below
        light = seconds[taken[0]] < light_below
        successors = self._successors
        left: dict[int, int] = {}
        level = taken.copy()
        while level:
            fresh: list[int] = []
            for step in level:
                for follower in successors[step]:
                    needs = left[follower] = left.get(follower, counts[follower]) - 1
                    if not needs:
                        fresh.append(follower)
                        del left[follower]
            if len(fresh) > len(level):  # a fork: others should have their share
                return
            for follower in fresh:
                cost = seconds[follower]
                budget -= cost
                if budget < 0 or len(taken) >= most or on_loop[follower] or (light and not cost < light_below):
                    return
                if cost >= FINE and most == FINE_STEPS:
                    return
                taken.append(follower)
                self._ahead.add(follower)
            level = fresh

    def _book(self, steps: Sequence[int]) -> tuple[list[int], list[int]]:
        """Enter done steps into the books. Returns (steps whose last dependency this was, slots to release)."""
        counts, readers = self._counts, self._readers
        successors, reads, releases, swept = (
            self._successors,
            self._reads,
            self._steps.releases,
            self._swept,
        )
        fresh: list[int] = []
        released: list[int] = []
        ahead = self._ahead
        for step in steps:
            counts[step] = -1
            for follower in successors[step]:
                left = counts[follower] - 1
                counts[follower] = left
                if not left:
                    if follower in ahead:
                        ahead.remove(follower)
                    else:
                        fresh.append(follower)
            for slot in reads[step]:
                left = readers[slot] - 1
                readers[slot] = left
                # What a sweeping step read last, its lane has released.
                if not left and not (step < swept and slot in releases[step]):
                    released.append(slot)
        self.released += len(released)
        return fresh, released

    def _open_books(self) -> None:
        if not self._counts:
            self._counts = self._steps.counts.copy()
            self._readers = self._steps.readers.copy()

    # Sweeping.

    def _may_sweep(self) -> bool:
        """Whether exactly the steps below the first ready one are done, and all others are light kernels."""
        return (
            not self._running
            and not self._heavy
            and self._light[0] == self.done
            and self._steps.costs.sweep_from <= self.done
        )

    def _claim_sweep(self) -> list[int]:
        first = self._cursor
        if self._swept > first or first == self.size:
            return []
        # The first step stands for its neighbours: costs are no more than guesses.
        length = min(SWEEP_STEPS, int(SWEEP_SECONDS / max(self.seconds[first], 1e-7)) + 1)
        self._swept = min(first + length, self.size)
        self._log.append(("sweep", range(first, self._swept)))
        return self._steps.numbers[first : self._swept]

    def _end_sweep(self, unstarted: set[int]) -> None:
        """Bring the books up to date; the claimed steps but these run on, and become running in the usual sense."""
        self._sweeping = False
        first, cursor, end = self._booked, self._cursor, self._swept - len(unstarted)
        running = range(cursor, end)
        self._running.update(running)
        self._swept = max(end, cursor)
        parked = self._light
        self._light = []
        if self.stopped:
            self._ahead.update(running)
            return
        self._open_books()
        self._ahead.update(range(first, end))  # so that none of them is taken for ready
        fresh, _ = self._book(range(first, cursor))
        self._ahead = {step for step in running if self._counts[step] > 0}
        self._push([step for step in parked if step >= end] + fresh)

    def _must_be_running(self, event: str, steps: Sequence[int]) -> set[int]:
        marked = set(steps)
        if len(marked) == len(steps):
            if marked <= self._running:
                return marked
            batch = range(self._cursor, self._swept) if self._sweeping else ()
            # What was never started is the end of the batch; else the steps were not run in order.
            if marked.issubset(batch if event != "give_back" else batch[len(batch) - len(marked) :]):
                return marked
        raise self._illegal(event, steps, "each step must be running, and named once")

    def _illegal(self, event: str, steps: Sequence[int], why: str) -> InternalError:
        states = ", ".join(f"{step} {self.state(step).name}" for step in steps if 0 <= step < self.size)
        story = "\n".join(f"  {name} {list(which)}" for name, which in self._log)
        return InternalError(
            f"scheduler: {event}({list(steps)}) is not allowed: {why} (states: {states or 'none'}; "
            f"{self!r}). This is a bug in dataflow: please report it with these last events:\n{story}"
        )

    def __repr__(self) -> str:
        sweep = f" sweeping {self._cursor}–{self._swept}" if self._sweeping else ""
        return (
            f"<Scheduler {self.phase.name} done={self.done}/{self.size} running={self.running} "
            f"heavy={self.heavy} light={self.light}{sweep}>"
        )

    def log(self) -> list[tuple[str, Sequence[Any]]]:
        """The last events, oldest first: enough to replay a run of up to some hundred events."""
        return list(self._log)

    def check(self) -> None:
        """Assert every invariant; in proportion to the size of the graph, for tests and post-mortems."""
        if self._sweeping:
            self._booked_copy().check()
            return
        steps, counts = self._steps, self._counts
        waiting = self._light + self._heavy
        wrong: list[str] = []

        def require(number: int, holds: bool, what: object) -> None:
            if not holds:
                wrong.append(f"invariant {number}: {what}")

        done = {step for step in range(self.size) if self.state(step) is State.DONE}
        in_sweep = range(self._cursor, self._swept)
        for step in range(self.size):
            for follower in steps.successors[step] if step not in done else ():
                together = (step in in_sweep and follower in in_sweep) or follower in self._ahead
                require(1, together or (follower not in self._running and follower not in done), (step, follower))
                require(1, follower not in waiting, (step, follower))
        require(
            1,
            self._ahead <= self._running and (self.stopped or all(counts[step] > 0 for step in self._ahead)),
            self._ahead,
        )
        require(2, len(set(waiting)) == len(waiting), waiting)
        require(2, not (set(waiting) | self._failed | done) & self._running, waiting)
        require(2, not set(waiting) & (done | self._failed), waiting)
        require(6, self.done == len(done), (self.done, len(done)))
        if self.stopped:
            require(3, not waiting, waiting)
        elif self._started:
            require(5, self.done == self.size or bool(self._running) or bool(waiting), self)
            for slot, readers in enumerate(steps.readers):
                left = readers - sum(slot in steps.reads[step] for step in done)
                require(4, self._readers[slot] == left >= 0, (slot, self._readers[slot], left))
            require(4, self.released <= sum(n > 0 == left for n, left in zip(steps.readers, self._readers)), self)
            ready = {s for s in range(self.size) if not counts[s] and s not in self._running and s not in self._failed}
            require(5, ready == set(waiting), (ready, waiting))
        if wrong:
            raise self._illegal("check", _NONE, "; ".join(wrong))

    def _booked_copy(self) -> Scheduler:
        """This core, had it not swept: with its books up to date."""
        copy = Scheduler(self._steps, self.light_below)
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(copy, name, value.copy() if isinstance(value, (list, set, deque)) else value)
        copy._end_sweep(set())
        return copy
