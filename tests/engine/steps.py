"""Hand-made plans for the core, and an honest driver of it: what workers and the loop do, one event at a time.

The driver has its own story of the run, told without any counting: a step can start when all that it depends on was
reported, a slot is released when all its readers were. After each event it compares the core with that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, product

from dataflow.engine.scheduler import END, Batch, Scheduler
from dataflow.engine.steps import Phase, State
from dataflow.graph.kinds import KERNEL, LIMITED, LIMITED_ON_LOOP, MANAGED, ON_LOOP

KINDS = {"k": KERNEL, "a": ON_LOOP, "b": LIMITED_ON_LOOP, "m": MANAGED, "l": LIMITED}
MOST_ATTEMPTS = 2


@dataclass
class FakeSteps:
    """A graph on numbered steps; `edges` are (from, to), `letters` has one of `KINDS` for each."""

    letters: str
    edges: tuple[tuple[int, int], ...]
    outputs: frozenset[int] = frozenset()
    counts: list[int] = field(init=False)
    successors: list[tuple[int, ...]] = field(init=False)
    reads: list[tuple[int, ...]] = field(init=False)
    readers: list[int] = field(init=False)
    numbers: list[int] = field(init=False)
    kinds: bytes = field(init=False)
    sources: list[int] = field(init=False)
    releases: list[tuple[int, ...]] = field(init=False)
    """For each step, the slots that it reads last if the steps run in order."""
    needs: list[tuple[int, ...]] = field(init=False)
    """For each step, the ones that it depends on."""

    def __post_init__(self) -> None:
        size = len(self.letters)
        needs: list[list[int]] = [[] for _ in range(size)]
        successors: list[list[int]] = [[] for _ in range(size)]
        for first, then in self.edges:
            needs[then].append(first)
            successors[first].append(then)
        self.needs = [tuple(found) for found in needs]
        self.successors = [tuple(found) for found in successors]
        self.counts = [len(found) for found in needs]
        # A result that nobody reads counts its own step as its reader.
        self.reads = [
            needed if self.successors[step] or step in self.outputs else (*needed, step)
            for step, needed in enumerate(self.needs)
        ]
        self.readers = [0] * size
        last: dict[int, int] = {}
        for step, slots in enumerate(self.reads):
            for slot in slots:
                self.readers[slot] += 1
                last[slot] = step
        for slot in self.outputs:
            self.readers[slot] += 1
        self.releases = [
            tuple(slot for slot in slots if last[slot] == step and slot not in self.outputs)
            for step, slots in enumerate(self.reads)
        ]
        self.numbers = list(range(size))
        self.kinds = bytes(KINDS[letter] for letter in self.letters)
        self.on_loop = [letter in "ab" for letter in self.letters]
        self.managed = [letter in "ml" for letter in self.letters]
        self.limited = [letter in "bl" for letter in self.letters]
        self.sources = [step for step in range(size) if not self.counts[step]]


def advance(core: Scheduler, step: int) -> int:
    """What a worker does between two kernels: it reports one, and takes the next."""
    core.complete(step)
    return core.take()


def all_graphs(size: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Every set of edges on so many numbered steps."""
    edges = list(combinations(range(size), 2))
    for chosen in product([False, True], repeat=len(edges)):
        yield tuple(edge for edge, there in zip(edges, chosen, strict=True) if there)


@dataclass
class InOrder:
    """A worker with a batch, and the step that it is in."""

    batch: Batch
    step: int = END


class Driver:
    """Drives a core as workers and the loop do, and checks the whole story from outside, by its own bookkeeping."""

    def __init__(self, steps: FakeSteps, workers: int = 2) -> None:
        self.steps = steps
        self.most_workers = workers
        self.core = Scheduler(steps)
        self.workers: list[int] = []
        """The steps that workers have taken one by one, or still have of a batch that was revoked."""
        self.loop: list[int] = []
        """The steps that the loop has."""
        self.holders: list[InOrder] = []
        """Workers with a batch; one of them at most has a batch that was not revoked."""
        self.started: set[int] = set()
        self.ended: set[int] = set()
        """The steps of which the kernel has returned."""
        self.reported: set[int] = set()
        """The steps of which the core was told, or can tell, that they are done."""
        self.failed: set[int] = set()
        self.asked: set[int] = set()
        """The steps that have asked for a permit for this attempt, and maybe have it."""
        self.granted: set[int] = set()
        """Those of them that have it."""
        self.overrunning: set[int] = set()
        self.resting: set[int] = set()
        self.rested: list[int] = []
        """The steps that were put to rest, once for each time."""
        self.by_core: set[int] = set()
        """The slots released step by step, and below in order."""
        self.by_plan: set[int] = set()
        self.twice: set[int] = set()
        """The slots that may be released by both: what the step reads last that a worker was in at a revocation."""
        self.in_order = False
        self.phase = Phase.OPEN

    def copy(self) -> Driver:
        """This situation once more, to go on from in another way. The plan is nobody's to change, so all share it."""
        other = object.__new__(Driver)
        batches = {id(holder.batch): holder.batch for holder in self.holders}
        for key, batch in batches.items():
            twin = batches[key] = object.__new__(Batch)
            twin.steps, twin.todo, twin.last = batch.steps, batch.todo.copy(), batch.last
        for name, value in vars(self).items():
            setattr(other, name, value.copy() if isinstance(value, (list, set)) else value)
        other.holders = [InOrder(batches[id(holder.batch)], holder.step) for holder in self.holders]
        core = other.core = object.__new__(Scheduler)
        for name in Scheduler.__slots__:
            value = getattr(self.core, name)
            owned = type(value) in (list, set, deque) and name not in ("_reads", "_successors")
            setattr(core, name, value.copy() if owned else value)
        if core.batch is not None:
            core.batch = batches[id(core.batch)]
        return other

    def situation(self) -> Hashable:
        """What decides how it can go on; all that the core has, and all of our own story."""
        core = self.core
        return (
            tuple(core._counts),
            tuple(core._readers),
            (core.done, core._booked, core._cursor, core._apart_left, core.in_order, core.phase),
            (tuple(core.ready), frozenset(core.running), frozenset(core._late), frozenset(core._failed)),
            (frozenset(core.asking), frozenset(core.overrunning), frozenset(core.resting)),
            (frozenset(self.asked), frozenset(self.granted), tuple(sorted(self.rested))),
            tuple(
                (holder.batch is core.batch, holder.batch.steps[0], len(holder.batch.steps), holder.step)
                for holder in self.holders
            ),
            (tuple(sorted(self.workers)), tuple(sorted(self.loop)), frozenset(self.ended), frozenset(self.reported)),
            (frozenset(self.by_core), frozenset(self.by_plan)),
        )

    # What can happen.

    def moves(self) -> list[tuple[str, int]]:
        """Everything that could happen next."""
        found = [(what, step) for what in ("complete", "advance", "fail", "give_back") for step in self.workers]
        found += [(what, step) for what in ("complete", "fail") for step in self.loop]
        if self.stopped:
            found += [("give_back", step) for step in self.loop]
        found += [("fail", step) for step in self.overrunning]
        if not self.stopped:
            found += [("grant", step) for step in self.asked - self.granted]
            found += [("retry", step) for step in self.resting]
            for step in (step for step in self.workers if self.steps.managed[step]):
                found.append(("expire", step))
                if self.rested.count(step) + 1 < MOST_ATTEMPTS:
                    found += [("overrun", step), ("rest", step)]
            found += [("rest", step) for step in self.overrunning]
        if len(self.workers) + len(self.holders) + len(self.overrunning) < self.most_workers:
            if self.core.ready:
                found.append(("take", 0))
            if self.may_go_in_order():
                found += [("claim", most) for most in range(1, self.core.size - len(self.reported) + 1)]
        for number, holder in enumerate(self.holders):
            found.append(("pop", number) if holder.batch.todo else ("report", number))
            if holder.step != END:
                found.append(("fail_in_batch", number))
        if self.in_order:
            found.append(("step_by_step", 0))
        if not self.stopped:
            found.append(("cancel", 0))
        return found

    def progress(self) -> list[tuple[str, int]]:
        """Those that bring the run nearer to its end by themselves; where there are none, it has come to its end."""
        nearer = ("complete", "advance", "take", "claim", "pop", "report", "grant", "retry")
        returns = "fail" if self.stopped else "rest"  # what a kernel that overruns does in the end
        return [
            (what, which)
            for what, which in self.moves()
            if what in nearer or (what == returns and which in self.overrunning)
        ]

    def start(self) -> None:
        """The run begins."""
        self.core.start()
        self._compare(done=None)

    def move(self, what: str, which: int) -> None:
        """Let it happen, and compare everything."""
        getattr(self, what)(which)

    def take(self, _: int) -> None:
        ready = [] if self.in_order else self._ready()
        step = self.core.take()
        assert step == (min(ready) if ready else END)
        if step != END:
            self._begin(step)
            self.workers.append(step)
        self._compare(done=None)

    def complete(self, step: int) -> None:
        where = self.workers if step in self.workers else self.loop
        where.remove(step)
        self.ended.add(step)
        self.reported.add(step)
        self.core.complete(step)
        self._compare(done=step)

    def advance(self, step: int) -> None:
        self.workers.remove(step)
        self.ended.add(step)
        self.reported.add(step)
        ready = self._ready()
        following = advance(self.core, step)
        assert following == (min(ready) if ready else END)
        if following != END:
            self._begin(following)
            self.workers.append(following)
        self._compare(done=step)

    def fail(self, step: int) -> None:
        where = next(held for held in (self.workers, self.loop, self.overrunning) if step in held)
        where.remove(step)
        self._fails(step)

    def grant(self, step: int) -> None:
        """It gets the permit that it has asked for."""
        self.granted.add(step)
        self.core.grant(step)
        self._compare(done=None)

    def overrun(self, step: int) -> None:
        """The time of its kernel is up, and it will be tried again."""
        self.workers.remove(step)
        self.overrunning.add(step)
        self.core.overrun(step)
        self._compare(done=None)

    def expire(self, step: int) -> None:
        """The time of its kernel is up for good."""
        self.workers.remove(step)
        self.overrunning.add(step)
        self.core.expire(step)
        self._stops(Phase.FAILED)
        self._compare(done=None)

    def rest(self, step: int) -> None:
        """Its kernel has returned from an attempt that failed; what it has begun, it will begin again."""
        where = self.workers if step in self.workers else self.overrunning
        where.remove(step)
        self.started.remove(step)
        self.asked.discard(step)
        self.granted.discard(step)
        self.resting.add(step)
        self.rested.append(step)
        self.core.rest(step)
        self._compare(done=None)

    def retry(self, step: int) -> None:
        """It has rested."""
        self.resting.remove(step)
        self.core.retry(step)
        self._compare(done=None)

    def give_back(self, step: int) -> None:
        """It was taken, and has not begun after all."""
        where = self.workers if step in self.workers else self.loop
        where.remove(step)
        self.started.remove(step)
        self.core.give_back(step)
        self._compare(done=None)

    def cancel(self, _: int) -> None:
        stops = self.core.cancel()
        assert stops == (not self.stopped and len(self.reported) < self.core.size)
        if stops:
            self._stops(Phase.CANCELLED)
        self._compare(done=None)

    def claim(self, most: int) -> None:
        first = len(self.reported)
        batch = self.core.claim(most)
        assert batch.steps == list(range(first, min(first + most, self.core.size))) == list(batch.todo)
        assert self.core.batch is batch
        self.in_order = True
        self.holders.append(InOrder(batch))
        self._compare(done=None)

    def pop(self, number: int) -> None:
        """The worker's kernel, if it was in one, returns, and it goes on with the next of its batch."""
        holder = self.holders[number]
        self._returned(holder)
        holder.step = holder.batch.todo.popleft()
        assert not self.stopped, "nothing starts after a stop"
        self._begin(holder.step)
        self._compare(done=None)

    def report(self, number: int) -> None:
        """Nothing is left of the batch; the worker reports it, or its last step if it was revoked."""
        holder = self.holders.pop(number)
        batch, ours = holder.batch, holder.batch is self.core.batch
        self._returned(holder)
        assert self.core.complete_batch(batch) is ours
        if ours:
            self.reported.update(batch.steps)
            assert batch.last == END
        else:
            assert batch.last == holder.step, "whoever revoked it knows how far its worker was"
            if batch.last != END:
                self.reported.add(batch.last)
                self.core.complete(batch.last)
                self._compare(done=batch.last)
                return
        self._compare(done=None)

    def fail_in_batch(self, number: int) -> None:
        """The worker's kernel fails: what is left of the batch is taken back, and it reports as for any other step."""
        holder = self.holders[number]
        if holder.step not in self.core.running:
            self.core.step_by_step()
            self._revoked()
            self._compare(done=None)
        self.holders.remove(holder)
        assert holder.batch.last == holder.step
        self._fails(holder.step)

    def step_by_step(self, _: int) -> None:
        self.core.step_by_step()
        self._revoked()
        self._compare(done=None)

    # The story from outside.

    @property
    def stopped(self) -> bool:
        return self.phase is not Phase.OPEN

    def may_go_in_order(self) -> bool:
        """Whether one worker alone could go on in the order of the numbers."""
        if self.stopped or len(self.reported) == self.core.size:
            return False
        if self.in_order:
            return not any(holder.batch is self.core.batch for holder in self.holders)
        nothing_apart = all(step in self.reported for step, kind in enumerate(self.steps.letters) if kind != "k")
        exactly_those_below = self.reported == set(range(len(self.reported)))
        return nothing_apart and exactly_those_below and not self._running()

    def _running(self) -> set[int]:
        """What is running one by one."""
        revoked = {holder.step for holder in self.holders if holder.batch is not self.core.batch}
        return {*self.workers, *self.loop, *revoked} - {END}

    def _free(self) -> list[int]:
        """What waits for nothing any more, and was not begun."""
        if self.stopped:
            return []
        reported, needs = self.reported, self.steps.needs
        taken = self._running() | self.failed | self.overrunning | self.resting
        return [
            step
            for step in range(self.core.size)
            if step not in reported and step not in taken and reported.issuperset(needs[step])
        ]

    def _ready(self) -> list[int]:
        return [step for step in self._free() if not self.steps.on_loop[step] and self._has_permit(step)]

    def _has_permit(self, step: int) -> bool:
        return not self.steps.limited[step] or step in self.granted

    def _stops(self, phase: Phase) -> None:
        self._revoked()
        self.phase = phase
        self.asked.clear()
        self.resting.clear()

    def _begin(self, step: int) -> None:
        assert step not in self.started, "a step starts once"
        assert self.ended.issuperset(self.steps.needs[step]), "all that it depends on is done"
        assert not self.stopped, "nothing starts after a stop"
        self.started.add(step)

    def _returned(self, holder: InOrder) -> None:
        """It is done, and what it reads last is released by the plan's rule, told or not."""
        if holder.step == END:
            return
        self.ended.add(holder.step)
        slots = set(self.steps.releases[holder.step])
        assert not slots & (self.by_plan | self.by_core), "a slot is released once"
        self._may_release(slots)
        self.by_plan |= slots
        if holder.batch is not self.core.batch:
            self.twice |= slots

    def _revoked(self) -> None:
        """Going in order has ended just now: all before the step that the worker is in is done, and that one runs."""
        self.in_order = False
        assert self.core.batch is None
        for holder in self.holders:
            assert not holder.batch.todo, "nothing is left to a worker whose batch was revoked"
            if holder.batch.last == END:
                assert holder.step == END
            else:
                assert holder.batch.last == holder.step
                self.reported.update(range(holder.batch.steps[0], holder.step))

    def _fails(self, step: int) -> None:
        assert self.core.fail(step) == (not self.stopped)
        if not self.stopped:
            self._stops(Phase.FAILED)
        self.failed.add(step)
        self._compare(done=None)

    def _may_release(self, slots: set[int]) -> None:
        for slot in slots:
            assert slot not in self.steps.outputs
            for step in {slot, *self.steps.successors[slot]}:
                assert step in self.ended, "a slot is released after its last reader"

    def _compare(self, done: int | None) -> None:
        """After each event, what the core says with what we know; `done` is the step that was reported, if any."""
        core, size = self.core, self.core.size
        free = [] if self.in_order else self._free()
        asks = [step for step in free if not self._has_permit(step) and step not in self.asked]
        due = [step for step in free if self.steps.on_loop[step] and self._has_permit(step)]
        assert sorted(core.due) == sorted(asks + due)
        core.due = []
        self.asked.update(asks)
        for step in due:
            self._begin(step)
            self.loop.append(step)
        released, core.released = core.released, []
        expected: set[int] = set()
        if done is not None and not self.stopped:
            expected = {
                slot
                for slot in self.steps.reads[done]
                if slot not in self.steps.outputs and self.reported.issuperset(self.steps.successors[slot])
            }
        assert sorted(released) == sorted(expected)
        assert not expected & self.by_core
        assert expected & self.by_plan <= self.twice, "a slot is released once"
        self._may_release(expected)
        self.by_core |= expected

        assert core.phase is self.phase
        assert core.stopped is self.stopped
        assert core.in_order is self.in_order
        assert core.done == len(self.reported)
        assert core.over == (self.stopped or len(self.reported) == size)
        assert core.running == self._running()
        assert core.asking == self.asked - self.granted
        assert (core.overrunning, core.resting) == (self.overrunning, self.resting)
        if self.in_order:
            assert core.take() == END
            assert core.startable == (1 if core.batch is None and len(self.reported) < size else 0)
        else:
            assert sorted(core.ready) == self._ready()
            assert core.startable == len(core.ready)
        assert core.may_go_in_order() == self.may_go_in_order()
        assert [core.state(step) for step in range(size)] == [self._state(step) for step in range(size)]
        core.check()

    def _state(self, step: int) -> State:
        batch = self.core.batch
        if step in self._running() or (batch is not None and step in batch.steps):
            return State.RUNNING
        if step in self.overrunning:
            return State.OVERRUNNING
        if step in self.failed:
            return State.FAILED
        if step in self.reported:
            return State.DONE
        if self.stopped:
            return State.CANCELLED
        if self.in_order:
            return State.READY if batch is None and step == len(self.reported) else State.WAITING
        if step in self.resting:
            return State.RESTING
        if step in self.asked - self.granted:
            return State.ASKING
        return State.READY if self.reported.issuperset(self.steps.needs[step]) else State.WAITING

    def check_end(self) -> None:
        """Nothing can happen any more: compare the whole answer."""
        size, core = self.core.size, self.core
        assert core.over
        assert not core.running | core.asking | core.overrunning | core.resting
        assert core.batch is None
        assert not self.started - self.ended - self.failed
        if self.stopped:
            assert not core.ready
            return
        assert self.started == set(range(size)) == self.ended
        assert self.by_core | self.by_plan == set(range(size)) - self.steps.outputs
        assert self.by_core & self.by_plan <= self.twice
