"""The places of a runtime: every short story of a few runs, against a naive reference, and the figures it tells."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dataflow.engine.service.admission import LEAST, RECENT, UNKNOWN, Admission, Openness
from dataflow.engine.service.ticket import Outcome, Ticket, TicketState
from dataflow.errors import InternalError, Overloaded, RuntimeClosed


class LoopOfAwaiter:
    """A loop of one: closed or not."""

    def __init__(self) -> None:
        self.closed = False

    def is_closed(self) -> bool:
        return self.closed


class Waiter:
    """Notes that it was woken; dead, it cannot be."""

    def __init__(self) -> None:
        self.woken = 0
        self.dead = False
        self.loop = LoopOfAwaiter()

    def wake(self) -> bool:
        self.woken += not self.dead
        return not self.dead


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def place(name: str = "p") -> Ticket:
    nobody: Any = None
    return Ticket(nobody, name, Waiter())


def waiter(of: Ticket) -> Waiter:
    assert isinstance(of.awaiter, Waiter)
    return of.awaiter


class Reference:
    """What should happen, by lists: names of those inside, of those that wait, and how the others ended."""

    def __init__(self, max_runs: int | None, max_waiting: int | None) -> None:
        self.runs = math.inf if max_runs is None else max_runs
        self.waits = math.inf if max_waiting is None else max_waiting
        self.inside: list[int] = []
        self.queue: list[int] = []
        self.dead: set[int] = set()
        self.woken: set[int] = set()
        self.sent: set[int] = set()
        self.ended = 0
        self.state = "open"

    def enter(self, who: int) -> str:
        if self.state != "open":
            return "closed"
        if len(self.inside) < self.runs:
            self.inside.append(who)
            return "held"
        if len(self.queue) == self.waits:
            return "overloaded"
        self.queue.append(who)
        return "waiting"

    def leave(self, who: int) -> None:
        for group in (self.inside, self.queue):
            if who in group:
                group.remove(who)
                self.ended += 1
        while self.queue and len(self.inside) < self.runs:
            successor = self.queue.pop(0)
            if successor in self.dead:
                self.ended += 1
                continue
            self.woken.add(successor)
            self.inside.append(successor)
        if self.state == "closing" and not self.inside:
            self.state = "closed"

    def close(self) -> None:
        if self.state == "open":
            self.state = "closing" if self.inside else "closed"

    def expel(self) -> None:
        self.sent |= set(self.queue)
        self.woken |= set(self.queue) - self.dead
        self.queue = []
        self.state = "closed"


Move = tuple[str, int]


class Story:
    """An admission and the reference, told the same."""

    def __init__(self, max_runs: int | None, max_waiting: int | None) -> None:
        self.clock = Clock()
        self.real = Admission("r", max_runs, max_waiting, self.clock)
        self.ideal = Reference(max_runs, max_waiting)
        self.places: list[Ticket] = []
        self.refused = 0

    def moves(self, size: int) -> Iterator[Move]:
        if len(self.places) < size:
            yield "enter", 0
        for who in self.ideal.inside + self.ideal.queue:
            yield "leave", who
        for who in self.ideal.queue:
            if who not in self.ideal.dead:
                yield "die", who
        if self.ideal.state == "open":
            yield "close", 0
        if self.ideal.state != "closed":
            yield "expel", 0

    def tell(self, what: str, who: int) -> None:
        if what == "enter":
            self.enter()
        elif what == "leave":
            self.real.leave(self.places[who], Outcome.DONE)
            self.ideal.leave(who)
        elif what == "die":
            waiter(self.places[who]).dead = True
            self.ideal.dead.add(who)
        elif what == "close":
            self.real.close()
            self.ideal.close()
        else:
            held = self.real.expel()
            self.ideal.expel()
            assert held == [self.places[who] for who in self.ideal.inside]
            assert all(each.expelled for each in held)
        self.compare()

    def enter(self) -> None:
        new = place()
        self.places.append(new)
        try:
            said = "held" if self.real.enter(new) else "waiting"
        except Overloaded:
            said = "overloaded"
        except RuntimeClosed:
            said = "closed"
        self.refused += said in ("overloaded", "closed")
        assert said == self.ideal.enter(len(self.places) - 1)

    def compare(self) -> None:
        real, ideal = self.real, self.ideal
        real.check()
        state = [each.state for each in self.places]
        assert [who for who, at in enumerate(state) if at is TicketState.HELD] == sorted(ideal.inside)
        assert [who for who, at in enumerate(state) if at is TicketState.WAITING] == sorted(ideal.queue)
        assert real.held == [self.places[who] for who in ideal.inside]
        assert real.openness.value == ideal.state
        assert {who for who, each in enumerate(self.places) if waiter(each).woken} == ideal.woken
        assert all(waiter(each).woken <= 1 for each in self.places)
        assert real.counts[Outcome.REFUSED] == self.refused + len(ideal.sent)
        assert sum(real.counts.values()) - real.counts[Outcome.REFUSED] == ideal.ended


@pytest.mark.parametrize(
    ("max_runs", "max_waiting"), [(1, 0), (1, 1), (1, 2), (1, None), (2, 0), (2, 1), (2, None), (None, None)]
)
def test_every_short_story(max_runs: int | None, max_waiting: int | None) -> None:
    told = 0
    stories: list[list[Move]] = [[]]
    while stories:
        moves = stories.pop()
        story = Story(max_runs, max_waiting)
        for move in moves:
            story.tell(*move)
        told += 1
        if len(moves) < 8:
            stories += [[*moves, move] for move in story.moves(size=4)]
    assert told > 300


def test_leaving_twice_or_without_a_place_is_nothing() -> None:
    admission = Admission("r", 1, 0)
    first, second = place(), place()
    assert admission.enter(first)
    with pytest.raises(Overloaded):
        admission.enter(second)
    admission.leave(second)
    admission.leave(place())
    assert (admission.running, admission.counts[Outcome.CANCELLED]) == (1, 0)
    admission.leave(first, Outcome.FAILED)
    admission.leave(first, Outcome.DONE)
    assert admission.counts == {Outcome.DONE: 0, Outcome.FAILED: 1, Outcome.CANCELLED: 0, Outcome.REFUSED: 1}
    admission.check()


def test_retry_after_is_what_recent_runs_took_times_those_ahead_by_the_places() -> None:
    clock = Clock()
    admission = Admission("api", 2, 2, clock)

    def refused() -> float:
        with pytest.raises(Overloaded, match="'api' is full: 2 runs in progress and 2 waiting") as info:
            admission.enter(place("features"))
        assert "'features' may be tried again in about" in str(info.value)
        return info.value.retry_after

    inside, queue = [place(), place()], [place(), place()]
    assert [admission.enter(each) for each in inside + queue] == [True, True, False, False]
    assert refused() == UNKNOWN * 4 / 2  # before any run has ended
    clock.now += 3
    admission.leave(inside[0])
    assert admission.mean == 3
    assert not admission.enter(place())
    assert refused() == 3 * 4 / 2
    clock.now += 5
    admission.leave(inside[1])
    assert admission.mean == 3 + RECENT * (8 - 3)
    assert admission.enter(place()) is False
    assert refused() == pytest.approx(4.0 * 4 / 2)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_retry_after_is_positive_also_where_the_clock_stands(seconds: float) -> None:
    clock = Clock()
    admission = Admission("r", 1, 0, clock)
    first = place()
    admission.enter(first)
    clock.now += seconds
    admission.leave(first)
    admission.enter(place())
    with pytest.raises(Overloaded) as info:
        admission.enter(place())
    assert info.value.retry_after == LEAST


def test_those_whose_loop_was_closed_make_room() -> None:
    admission = Admission("r", 1, 1)
    dead, waits = place(), place()
    admission.enter(dead)
    admission.enter(waits)
    with pytest.raises(Overloaded):
        admission.enter(place())
    waiter(dead).loop.closed = True
    last = place()
    assert not admission.enter(last)
    assert (waits.state, waiter(waits).woken) == (TicketState.HELD, 1)
    assert last.state is TicketState.WAITING
    admission.check()


def test_a_free_place_goes_past_the_dead_to_the_first_alive() -> None:
    admission = Admission("r", 1, None)
    places = [place() for _ in range(5)]
    for each in places:
        admission.enter(each)
    waiter(places[1]).dead = waiter(places[2]).dead = True
    admission.leave(places[0])
    assert [each.state for each in places[1:]] == [
        TicketState.LEFT,
        TicketState.LEFT,
        TicketState.HELD,
        TicketState.WAITING,
    ]
    admission.check()


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.CANCELLED])
def test_a_place_may_be_left_in_a_thread_that_has_the_lock(outcome: Outcome) -> None:
    """The garbage collector closes a forgotten coroutine there: the clock, read under the lock, stands for it here."""
    forgotten: list[Ticket] = []

    def clock() -> float:
        while forgotten:
            admission.leave(forgotten.pop(), outcome)
        return 0.0

    admission = Admission("r", 2, None, clock)
    first, second, third = place(), place(), place()

    admission.enter(first)
    forgotten.append(first)
    admission.enter(second)
    assert (first.state, second.state) == (TicketState.LEFT, TicketState.HELD)
    admission.check()
    admission.enter(place())
    admission.enter(third)
    forgotten.append(third)
    admission.leave(second)
    assert third.state is TicketState.LEFT
    admission.check()
    assert sum(admission.counts.values()) == 3


def test_watchers_hear_of_the_last_who_leaves_and_of_expulsion() -> None:
    admission = Admission("r", 2, None)
    heard: list[str] = []
    end = admission.watch(lambda: heard.append("x"))
    first, second = place(), place()
    admission.enter(first)
    admission.enter(second)
    admission.leave(first)
    assert not heard
    admission.leave(second)
    assert len(heard) == 1
    admission.expel()
    assert len(heard) == 2
    end()
    end()
    admission.expel()
    assert len(heard) == 2


def test_the_last_to_leave_may_be_one_that_could_not_be_woken() -> None:
    admission = Admission("r", 1, None)
    first, dead = place(), place()
    admission.enter(first)
    admission.enter(dead)
    waiter(dead).dead = True
    admission.close()
    heard: list[str] = []
    admission.watch(lambda: heard.append("x"))
    admission.leave(first)
    assert heard
    assert admission.openness is Openness.CLOSED


def test_check_finds_what_is_broken() -> None:
    admission = Admission("r", 1, 1)
    admission.enter(place())
    admission.check()
    admission._held[place()] = None
    with pytest.raises(InternalError, match="invariant 1 "):
        admission.check()
    admission._held.clear()
    with pytest.raises(InternalError, match="invariant 4 "):
        admission.check()
    admission._loops.clear()
    with pytest.raises(InternalError, match="invariant 5 "):
        admission.check()
    admission._waiting[place()] = None
    with pytest.raises(InternalError, match="invariant 2 "):
        admission.check()
    assert repr(admission) == "<Admission 'r' open: 0 running, 1 waiting>"


def test_many_threads_never_exceed_the_places_and_lose_none() -> None:
    admission = Admission("r", 3, None)
    inside, most, lock, failures = [0], [0], threading.Lock(), []

    class Bell:
        def __init__(self) -> None:
            self.event = threading.Event()
            self.loop = loop

        def wake(self) -> bool:
            self.event.set()
            return True

    loop = LoopOfAwaiter()

    def visit() -> None:
        try:
            for _ in range(100):
                bell = Bell()
                nobody: Any = None
                mine = Ticket(nobody, "p", bell)
                if not admission.enter(mine):
                    assert bell.event.wait(20)
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                with lock:
                    inside[0] -= 1
                admission.leave(mine, Outcome.DONE)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=visit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert most[0] <= 3
    assert admission.counts[Outcome.DONE] == 800
    admission.check()
