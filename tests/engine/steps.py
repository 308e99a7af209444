"""Hand-made plans for the core, and an honest driver of it: what lanes do, one event at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, product

from dataflow.engine.scheduler import Scheduler
from dataflow.engine.steps import State

LIGHT = 10e-6
"""What the tests call light; the core takes the border as an argument."""
MOST = 50e-6
"""What is expected to take so long is claimed with care."""
SECONDS = {"l": 1e-6, "s": 10e-6, "m": 30e-6, "c": 45e-6, "b": 60e-6, "h": float("inf"), "a": float("inf")}


@dataclass
class FakeCosts:
    """Expected seconds, given by hand."""

    seconds: list[float]
    on_loop: bytes

    @property
    def sweep_from(self) -> int:
        step = len(self.seconds)
        while step and self.seconds[step - 1] < LIGHT and not self.on_loop[step - 1]:
            step -= 1
        return step


@dataclass
class FakeSteps:
    """A graph on numbered steps; `edges` are (from, to).

    `kinds` has a letter for each: l (light), s, m, c, b (heavy, of known costs), h (of unknown cost), a (async).
    """

    kinds: str
    edges: tuple[tuple[int, int], ...]
    outputs: frozenset[int] = frozenset()
    counts: list[int] = field(init=False)
    successors: list[tuple[int, ...]] = field(init=False)
    reads: list[tuple[int, ...]] = field(init=False)
    readers: list[int] = field(init=False)
    releases: list[tuple[int, ...]] = field(init=False)
    on_loop: bytes = field(init=False)
    sources: list[int] = field(init=False)
    costs: FakeCosts = field(init=False)
    numbers: list[int] = field(init=False)

    def __post_init__(self) -> None:
        size = len(self.kinds)
        self.numbers = list(range(size))
        reads = [[a for a, b in self.edges if b == step] for step in range(size)]
        read = {a for a, _ in self.edges} | self.outputs
        for step in range(size):
            if step not in read:
                reads[step].append(step)
        self.reads = [tuple(r) for r in reads]
        self.counts = [sum(b == step for _, b in self.edges) for step in range(size)]
        self.successors = [tuple(b for a, b in self.edges if a == step) for step in range(size)]
        self.readers = [sum(step in r for r in reads) + (step in self.outputs) for step in range(size)]
        last = {slot: max(s for s in range(size) if slot in reads[s]) for slot in range(size) if self.has_readers(slot)}
        self.releases = [
            tuple(slot for slot, step in last.items() if step == s and slot not in self.outputs) for s in range(size)
        ]
        self.on_loop = bytes(kind == "a" for kind in self.kinds)
        self.sources = [step for step in range(size) if not self.counts[step]]
        self.costs = FakeCosts([SECONDS[kind] for kind in self.kinds], self.on_loop)

    def has_readers(self, slot: int) -> bool:
        return any(slot in r for r in self.reads)


def all_graphs(size: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Every set of edges on so many numbered steps."""
    edges = list(combinations(range(size), 2))
    for chosen in product([False, True], repeat=len(edges)):
        yield tuple(edge for edge, there in zip(edges, chosen, strict=True) if there)


class Driver:
    """Drives a core as lanes and the loop do, and checks the whole story from outside, by its own bookkeeping."""

    def __init__(self, steps: FakeSteps, share: int = 1) -> None:
        self.steps = steps
        self.share = share
        self.core = Scheduler(steps, LIGHT)
        self.lanes: list[list[int]] = []  # claimed, in order; the first one of each is in its kernel
        self.sweeps: list[bool] = []
        self.loop: list[int] = []
        self.started: list[int] = []
        self.ended: set[int] = set()
        self.released: list[int] = []
        self.finished: dict[int, list[int]] = {}  # what each lane has done of its batch, and not reported
        self.stopped = False

    def copy(self) -> Driver:
        """This situation once more, to go on from in another way. The plan is nobody's to change, so all share it."""
        other = object.__new__(Driver)
        other.steps, other.share, other.stopped = self.steps, self.share, self.stopped
        other.core = object.__new__(Scheduler)
        for name in Scheduler.__slots__:
            value = getattr(self.core, name)
            own = type(value) in (list, set, deque) and name not in ("seconds", "_reads", "_successors")
            setattr(other.core, name, value.copy() if own else value)
        other.lanes = [claimed.copy() for claimed in self.lanes]
        other.sweeps, other.loop = self.sweeps.copy(), self.loop.copy()
        other.started, other.ended, other.released = self.started.copy(), self.ended.copy(), self.released.copy()
        other.finished = {lane: done.copy() for lane, done in self.finished.items()}
        return other

    def start(self) -> None:
        self._due(self.core.start())
        self.core.check()

    def moves(self, lanes: int) -> list[tuple[str, int]]:
        """Everything that could happen next."""
        found = [("complete", lane) for lane in range(len(self.lanes))]
        found += [("fail", lane) for lane in range(len(self.lanes))]
        last = [lane for lane, claimed in enumerate(self.lanes) if len(claimed) == 1]
        found += [(what, lane) for lane in last for what in ("exchange", "exchange_lonely")]
        found += [("relieve", lane) for lane, claimed in enumerate(self.lanes) if len(claimed) > 1]
        found += [("resume", step) for step in self.loop] + [("throw", step) for step in self.loop]
        if len(self.lanes) < lanes and self.core.ready:
            found.append(("claim", 0))
        if not self.stopped:
            found.append(("cancel", 0))
        return found

    def move(self, what: str, which: int) -> None:
        getattr(self, what)(which)
        self.core.check()

    def claim(self, _: int) -> None:
        claimed = self.core.claim(lanes=self.share)
        if not claimed:
            return
        assert not self.stopped, "nothing starts after a stop"
        self.lanes.append(list(claimed))
        self.sweeps.append(self.core.sweeping)
        self._begin(claimed[0])

    def complete(self, lane: int) -> None:
        """The lane's kernel returns; it starts the next of its batch, or reports the whole batch."""
        claimed = self.lanes[lane]
        done = claimed.pop(0)
        self._end(done)
        if self.sweeps[lane]:
            self.released += self.steps.releases[done]
        self.finished.setdefault(lane, []).append(done)
        if claimed:
            self._begin(claimed[0])
            return
        reported = self.finished.pop(lane)
        self._leave(lane)
        self._report(reported)

    def exchange(self, lane: int, *, lonely: bool = False) -> None:
        """The lane's kernel returns, the last that it had claimed, and it goes on with the next."""
        (last,) = self.lanes[lane]
        self._end(last)
        if self.sweeps[lane]:
            self.released += self.steps.releases[last]
        done = [*self.finished.pop(lane, []), last]
        following, released, due = self.core.exchange(done, MOST, self.share, lonely=lonely)
        self.released += released
        if not following:
            self._leave(lane)
        else:
            assert not self.stopped, "nothing starts after a stop"
            assert all(SECONDS[self.steps.kinds[step]] < MOST for step in following)
            assert not (lonely and self.core.ready), "nothing is left ready by one who is alone"
            self.lanes[lane], self.sweeps[lane] = list(following), False
            self._begin(following[0])
        self._due(due)

    def exchange_lonely(self, lane: int) -> None:
        self.exchange(lane, lonely=True)

    def relieve(self, lane: int) -> None:
        """The lane is stuck in its kernel: the rest is taken from it, and what is done is reported for it."""
        claimed = self.lanes[lane]
        rest = claimed[1:]
        del claimed[1:]
        self.core.give_back(rest)
        done = self.finished.pop(lane, [])
        if done:
            self._report(done)

    def fail(self, lane: int) -> None:
        claimed = self.lanes[lane]
        failed, rest = claimed[0], claimed[1:]
        first = self.core.fail(failed)
        assert first == (not self.stopped)
        self.stopped = True
        del claimed[1:]
        self._stop_others(lane)
        if rest:
            self.core.give_back(rest)
        done = self.finished.pop(lane, [])
        if done:
            self._report(done)
        self._leave(lane)

    def cancel(self, _: int) -> None:
        if self.core.cancel():
            self.stopped = True
            self._stop_others(-1)
        else:
            assert self.core.done == self.core.size

    def resume(self, step: int) -> None:
        self.loop.remove(step)
        self._end(step)
        self._report([step])

    def throw(self, step: int) -> None:
        self.loop.remove(step)
        assert self.core.fail(step) == (not self.stopped)
        self.stopped = True
        self._stop_others(-1)

    # The story from outside.

    def _stop_others(self, but: int) -> None:
        for lane, claimed in enumerate(self.lanes):
            rest = claimed[1:]
            if lane != but and rest:
                del claimed[1:]
                self.core.give_back(rest)

    def _leave(self, lane: int) -> None:
        del self.lanes[lane], self.sweeps[lane]
        self.finished = {n - (n > lane): done for n, done in self.finished.items()}

    def _begin(self, step: int) -> None:
        assert step not in self.started, "a step starts once"
        assert all(a in self.ended for a, b in self.steps.edges if b == step), "its dependencies are done"
        self.started.append(step)

    def _end(self, step: int) -> None:
        self.ended.add(step)

    def _report(self, steps: Iterable[int]) -> None:
        released, due = self.core.complete(list(steps))
        self.released += released
        self._due(due)

    def _due(self, due: Iterable[int]) -> None:
        for step in due:
            assert not self.stopped
            self._begin(step)
            self.loop.append(step)

    def check_end(self) -> None:
        """Nothing can happen any more: compare the whole answer."""
        size = self.core.size
        assert self.core.over
        assert len(self.released) == len(set(self.released)), "a slot is released once"
        for slot in self.released:
            assert slot not in self.steps.outputs
            assert all(step in self.ended for step in range(size) if slot in self.steps.reads[step])
        if not self.stopped:
            assert sorted(self.started) == list(range(size)) == sorted(self.ended)
            assert set(self.released) == {s for s in range(size) if s not in self.steps.outputs}
            assert all(self.core.state(step) is State.DONE for step in range(size))
        else:
            for step in range(size):
                if step not in self.started:
                    assert self.core.state(step) is State.CANCELLED
