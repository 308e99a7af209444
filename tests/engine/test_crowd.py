"""crowd: how many lanes are wanted, by what the watcher's looks find."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dataflow.engine import crowd
from dataflow.engine.crowd import STALLS, WAITING, WINDOW, Crowd
from dataflow.engine.lane import Lane
from dataflow.engine.lanes import Pool
from dataflow.engine.segment import Segment, Weight
from dataflow.engine.watcher import CALM, DELAY
from dataflow.threads.budget import Member


class Looks:
    """Looks at a crowd of two CPUs and a limit of eight, with clocks of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, apart: float = WINDOW / 4) -> None:
        self.crowd = Crowd(2)
        self.apart = apart
        self.now = self.used = 12_345.0
        monkeypatch.setattr(crowd, "perf_counter", lambda: self.now)
        monkeypatch.setattr(crowd, "process_time", lambda: self.used)
        self.look(cpus=1.0, stalled=False)

    def look(self, times: int = 1, *, cpus: float, stalled: bool) -> int:
        """So many looks, between which the process used so many CPUs; how many lanes are wanted then."""
        for _ in range(times):
            self.now += self.apart
            self.used += cpus * self.apart
            self.crowd.look(8, stalled=stalled)
        return self.crowd.wanted


def test_lanes_beyond_the_cpus_come_when_all_wait_and_a_cpu_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch)
    assert looks.look(WAITING - 1, cpus=0.1, stalled=True) == 2
    assert looks.look(cpus=0.1, stalled=True) == 8


def test_the_first_look_says_nothing_of_what_was_before(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch)
    looks.crowd.anew()
    looks.now += 1000.0  # in which the process has done nothing
    assert looks.look(2 * WAITING, cpus=1.9, stalled=True) == 2


def test_none_come_while_lanes_get_on_or_use_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch)
    assert looks.look(3 * STALLS, cpus=0.5, stalled=False) == 2  # they wait for the interpreter only
    assert looks.look(STALLS - 1, cpus=1.9, stalled=True) == 2  # long kernels that compute
    assert looks.look(WAITING, cpus=1.9, stalled=True) == 3  # or spin until another one begins: it comes in the end
    assert looks.look(5 * (STALLS + WAITING), cpus=1.9, stalled=True) == 8  # as do all others that they may wait for


@pytest.mark.parametrize("apart", [DELAY, CALM])
def test_what_the_process_uses_is_counted_for_a_while(monkeypatch: pytest.MonkeyPatch, apart: float) -> None:
    """The system tells of it by ticks, so that two busy threads seem to use nothing between two looks, or a lot."""
    looks = Looks(monkeypatch, apart)
    tick = max(1, round(4e-3 / apart))
    for _ in range(STALLS // tick - 1):
        looks.look(tick - 1, cpus=0.0, stalled=True)
        assert looks.look(1, cpus=2.0 * tick, stalled=True) == 2
    looks.look(round(WINDOW / apart) + 1, cpus=2.0, stalled=False)
    waiting = 0
    while looks.look(cpus=0.0, stalled=True) == 2:
        waiting += 1
    assert WAITING <= waiting <= WAITING + WINDOW / apart


class Asked(Crowd):
    """Notes what it is asked."""

    def __init__(self) -> None:
        super().__init__(2)
        self.stalled: list[bool] = []

    def look(self, limit: int, *, stalled: bool) -> None:
        self.stalled.append(stalled)


def test_lanes_that_the_budget_holds_back_are_not_stalled() -> None:
    pool = Pool(limit=8, cpus=2)
    asked = pool._crowd = Asked()
    run: Any = SimpleNamespace(queued=True, core=SimpleNamespace(ready=3, heavy=3))
    pool._queue.append(run)
    for _ in range(2):
        lane = Lane()
        lane.run, lane.segment, lane.member = run, Segment(), Member()
        lane.segment.fill([7], Weight.HEAVY, sweep=False)
        lane.held = True
        pool._lanes.add(lane)
    pool._look(False)
    pool._look(False)
    assert asked.stalled == [False, True]  # nothing has changed
    lane.member.waits = True
    pool._look(False)
    pool._look(False)
    assert asked.stalled[2:] == [False, False]
    lane.member.waits = False
    pool._look(False)
    assert asked.stalled[4:] == [True]


def test_a_new_limit_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch)
    looks.look(2 * WAITING, cpus=0.0, stalled=True)
    assert repr(looks.crowd) == "<Crowd of 8 lanes on 2 CPUs>"
    looks.crowd.anew()
    assert looks.crowd.wanted == 2
