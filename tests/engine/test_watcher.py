"""watcher: when it looks, when it sleeps, and whether lanes of light kernels need to give way."""

from __future__ import annotations

import threading

from dataflow.engine.watcher import CALM, CROWDED, DELAY, GIVE_WAY, LINGER, Haste, Watcher


class Watched:
    """A watcher whose looks are counted, and end as they are told to."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.watcher = Watcher(self.lock, self.look)
        self.looks = threading.Semaphore(0)
        self.asleep = threading.Event()
        self.worth = True

    def look(self, late: bool) -> bool:
        with self.lock:
            goes_on = self.watcher.settle(worth=self.worth, idle=True, haste=Haste.URGENT)
        self.looks.release()
        if not goes_on:
            self.asleep.set()
        return goes_on

    def looked(self, times: int) -> None:
        for _ in range(times):
            assert self.looks.acquire(timeout=20)


def test_it_looks_while_there_is_anything_then_lingers_then_sleeps_and_can_be_woken() -> None:
    watched = Watched()
    assert repr(watched.watcher) == "<Watcher asleep>"
    for _ in range(3):
        watched.asleep.clear()
        watched.worth = True
        watched.watcher.wake()
        watched.looked(5)
        assert watched.watcher.awake
        watched.worth = False
        assert watched.asleep.wait(20)
        assert not watched.watcher.awake
    while watched.looks.acquire(blocking=False):
        pass
    assert not watched.looks.acquire(timeout=3 * CALM)  # it sleeps


def test_what_is_urgent_is_looked_at_sooner() -> None:
    watched = Watched()
    watched.watcher.wake(3600.0)
    watched.watcher.wake(7200.0)  # changes nothing
    assert not watched.looks.acquire(timeout=CALM)
    watched.watcher.wake()
    watched.looked(1)
    watched.worth = False
    assert watched.asleep.wait(20)


def test_it_lingers_at_an_idle_pool_only() -> None:
    watcher = Watcher(threading.Lock(), lambda _: False)
    assert watcher.settle(worth=True, idle=True, haste=Haste.NONE)
    for _ in range(LINGER):
        assert watcher.settle(worth=False, idle=True, haste=Haste.NONE)
    assert not watcher.settle(worth=False, idle=True, haste=Haste.NONE)
    assert watcher.settle(worth=True, idle=False, haste=Haste.NONE)
    assert not watcher.settle(worth=False, idle=False, haste=Haste.NONE)
    assert not watcher.sleep()


def test_lanes_give_way_unless_it_gets_its_turn_without() -> None:
    watcher, now = Watcher(threading.Lock(), lambda _: False), 100.0
    assert watcher.spared < now
    watcher.had_its_turn(now, late=0.1 * GIVE_WAY)
    assert watcher.spared > now
    watcher.had_its_turn(now + 1e-3, late=2 * GIVE_WAY)
    assert watcher.spared > now + 1e-3  # once may be the machine
    watcher.had_its_turn(now + 2e-3, late=2 * GIVE_WAY)
    assert watcher.spared < now
    watcher.had_its_turn(now + 3e-3, late=0.0)
    assert watcher.spared < now
    now += 3e-3 + CROWDED
    watcher.had_its_turn(now, late=0.0)
    assert watcher.spared > now


def test_while_lanes_get_on_looks_come_at_longer_and_longer_intervals() -> None:
    watcher, delays = Watcher(threading.Lock(), lambda _: False), []
    for haste in [Haste.URGENT, *[Haste.LESSENS] * 5, Haste.URGENT, Haste.LESSENS, Haste.NONE]:
        watcher.settle(worth=True, idle=False, haste=haste)
        delays.append(watcher._delay)
    assert delays == [DELAY, 2 * DELAY, 4 * DELAY, 8 * DELAY, CALM, CALM, DELAY, 2 * DELAY, CALM]
