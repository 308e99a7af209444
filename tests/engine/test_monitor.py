"""The monitor: woken, it looks again and again, and sleeps if there is nothing to see; its thread is of nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextvars import ContextVar, copy_context
from queue import SimpleQueue
from typing import Any

import pytest

from dataflow.engine import monitor
from dataflow.engine.monitor import Monitor, View

var: ContextVar[str] = ContextVar("var")


class TheEndError(Exception):
    """Of the test, and so of the monitor's thread."""


class Bell:
    """Of a monitor: it never rings by itself, and says for how long it is waited for."""

    def __init__(self) -> None:
        self.waits: SimpleQueue[float | None] = SimpleQueue()
        """How long each wait would last: None is a sleep, until somebody wakes the monitor."""
        self.rings: SimpleQueue[str] = SimpleQueue()

    def acquire(self, timeout: float | None = None) -> bool:
        self.waits.put(timeout)
        ring = self.rings.get(timeout=20)
        if ring == "the end":
            raise TheEndError
        return ring == "rung"

    def release(self) -> None:
        self.rings.put("rung")


class Watched:
    """A monitor whose clock is the test's: each wait ends when the test says so, and each look finds what it says."""

    def __init__(self) -> None:
        self.finds = View.NOTHING
        self.looks = 0
        self.seen: list[Any] = []
        self.looked: SimpleQueue[int] = SimpleQueue()
        self.lock = threading.Lock()
        self.monitor = Monitor(self.lock, self.look)
        self.bell = self.monitor._bell = Bell()  # type: ignore[assignment]
        """Instead of its own."""
        self.monitor._work = self.work  # type: ignore[method-assign]

    def work(self) -> None:
        """What its thread does, until the test is over."""
        try:
            Monitor._work(self.monitor)
        except TheEndError:
            pass

    def look(self) -> int:
        self.looks += 1
        self.seen.append((threading.current_thread(), var.get(None), len(copy_context())))
        self.looked.put(self.looks)
        return self.finds

    def waits(self) -> float | None:
        """It has come to its next wait: for so long, or for ever."""
        return self.bell.waits.get(timeout=20)

    def passes(self, finds: int) -> float | None:
        """The time it waits for is over, and it finds this; how long it waits next."""
        self.finds = finds
        self.bell.rings.put("nothing")
        return self.waits()

    def falls_asleep(self) -> int:
        """It finds nothing until it sleeps; how often it has looked for that."""
        before = self.looks
        while self.passes(View.NOTHING) is not None:
            assert self.monitor.awake
        return self.looks - before


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.bell.rings.put("the end")
    if watched.monitor._thread is not None:
        watched.monitor._thread.join(20)


def test_nothing_is_begun_before_it_is_needed(watched: Watched) -> None:
    assert not watched.monitor.awake
    assert watched.monitor._thread is None
    assert watched.looks == 0


def test_it_waits_a_moment_before_it_looks(watched: Watched) -> None:
    watched.monitor.wake()
    assert watched.monitor.awake
    assert watched.waits() == monitor.FIRST
    assert watched.looks == 0


def test_as_long_as_all_goes_well_it_looks_again_and_again_and_less_often(watched: Watched) -> None:
    watched.monitor.wake()
    delays = [watched.waits()] + [watched.passes(View.FINE) for _ in range(200)]
    assert delays[:5] == [1e-3, 2e-3, 4e-3, 8e-3, 8e-3]
    assert set(delays[5:]) == {monitor.LAST}
    assert watched.looks == 200
    assert watched.monitor.awake


def test_after_one_who_was_held_up_it_looks_soon_again(watched: Watched) -> None:
    watched.monitor.wake()
    assert watched.waits() == monitor.FIRST
    assert [watched.passes(View.FINE) for _ in range(5)][-1] == monitor.LAST
    assert [watched.passes(View.HELD_UP) for _ in range(3)] == [monitor.FIRST] * 3
    assert watched.passes(View.FINE) == 2 * monitor.FIRST


def test_it_sleeps_after_it_has_found_nothing_for_a_while(watched: Watched) -> None:
    watched.monitor.wake()
    delays = [watched.waits()]
    while delays[-1] is not None:
        assert watched.monitor.awake
        delays.append(watched.passes(View.NOTHING))
    assert not watched.monitor.awake
    waited = [delay for delay in delays if delay is not None]
    assert watched.looks == len(waited)
    assert sum(waited[:-1]) < monitor.LINGER <= sum(waited)


def test_one_look_that_finds_something_and_it_is_awake_as_long_as_at_first(watched: Watched) -> None:
    watched.monitor.wake()
    assert watched.waits() == monitor.FIRST
    needed = watched.falls_asleep()
    watched.monitor.wake()
    assert watched.waits() == monitor.FIRST
    for _ in range(needed - 1):
        assert watched.passes(View.NOTHING) is not None
    assert watched.passes(View.FINE) == monitor.LAST
    assert watched.falls_asleep() > 1
    assert not watched.monitor.awake


def test_it_is_woken_again_and_again_and_its_thread_begins_once(watched: Watched) -> None:
    for _ in range(20):
        assert not watched.monitor.awake
        watched.monitor.wake()
        assert watched.monitor.awake
        assert watched.waits() == monitor.FIRST
        assert watched.passes(View.FINE) == 2 * monitor.FIRST
        watched.falls_asleep()
    assert {thread for thread, *_ in watched.seen} == {watched.monitor._thread}


def test_while_it_is_awake_nobody_needs_to_wake_it(watched: Watched) -> None:
    for _ in range(10):
        watched.monitor.wake()
    assert watched.waits() == monitor.FIRST
    for _ in range(10):
        watched.monitor.wake()
    assert watched.bell.rings.empty(), "it is not rung out of its wait"
    watched.falls_asleep()
    assert watched.bell.rings.empty(), "nor out of its sleep, by one who came before"


def test_of_many_who_wake_it_at_once_one_begins_it(watched: Watched) -> None:
    together = threading.Barrier(8)

    def wake() -> None:
        together.wait(20)
        watched.monitor.wake()

    for _ in range(20):
        threads = [threading.Thread(target=wake) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert watched.waits() == monitor.FIRST
        assert watched.bell.rings.empty()
        watched.falls_asleep()
    assert len({thread for thread, *_ in watched.seen}) == 1


def test_its_thread_is_a_daemon_and_has_no_context_of_anybody(watched: Watched) -> None:
    def wake() -> None:
        var.set("of whoever came first")
        watched.monitor.wake()

    copy_context().run(wake)
    watched.waits()
    watched.passes(View.FINE)
    ((thread, value, variables),) = watched.seen
    assert thread is watched.monitor._thread
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert thread.name == "dataflow-monitor"
    assert (value, variables) == (None, 0)


def test_it_looks_without_the_lock_and_falls_asleep_under_it(watched: Watched) -> None:
    """Whoever has the lock can count on what it says: as long as it is awake, it cannot fall asleep."""
    watched.monitor.wake()
    assert watched.waits() == monitor.FIRST
    needed = watched.falls_asleep()
    assert list(_all(watched.looked)) == list(range(1, needed + 1))
    watched.monitor.wake()
    assert watched.waits() == monitor.FIRST
    with watched.lock:
        for number in range(1, needed + 1):
            watched.bell.rings.put("nothing")
            assert watched.looked.get(timeout=20) == needed + number
        assert watched.monitor.awake, "though it has looked as often as it does before it sleeps"
        assert len(list(_all(watched.bell.waits))) == needed - 1
    assert watched.waits() is None
    assert not watched.monitor.awake


def _all(queue: SimpleQueue[Any]) -> Iterator[Any]:
    while not queue.empty():
        yield queue.get()


def test_by_the_real_clock_it_looks_until_it_sleeps_and_can_be_woken() -> None:
    """With its own bell, and nothing of it replaced."""
    lock = threading.Lock()
    looks: SimpleQueue[int] = SimpleQueue()
    asleep = threading.Event()
    finds = View.FINE

    def look() -> int:
        looks.put(finds)
        return finds

    class Told(Monitor):
        """One that tells when it falls asleep."""

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "awake" and value is False:
                asleep.set()

    ours = Told(lock, look)
    for _ in range(5):
        finds = View.FINE
        asleep.clear()
        ours.wake()
        for _ in range(5):
            assert looks.get(timeout=20) == View.FINE
        assert ours.awake
        finds = View.NOTHING
        assert asleep.wait(20)
        assert not ours.awake
        assert list(_all(looks))[-1] == View.NOTHING
    assert [thread for thread in threading.enumerate() if thread is ours._thread] == [ours._thread]
