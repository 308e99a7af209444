"""crowd: how many lanes are wanted, by what the watcher's looks find."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dataflow.engine import crowd
from dataflow.engine.crowd import STALLS, WAITING, Crowd
from dataflow.engine.lane import Lane
from dataflow.engine.lanes import Pool
from dataflow.engine.segment import Segment, Weight
from dataflow.engine.watcher import DELAY
from dataflow.threads.budget import Member


class Looks:
    """Looks at a crowd of two CPUs and a limit of eight, with clocks of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.crowd = Crowd(2)
        self.now = self.used = 100.0
        monkeypatch.setattr(crowd, "perf_counter", lambda: self.now)
        monkeypatch.setattr(crowd, "process_time", lambda: self.used)

    def look(self, times: int = 1, *, cpus: float, stalled: bool) -> int:
        """So many looks, between which the process used so many CPUs; how many lanes are wanted then."""
        for _ in range(times):
            self.now += DELAY
            self.used += cpus * DELAY
            self.crowd.look(8, stalled=stalled)
        return self.crowd.wanted


def test_lanes_beyond_the_cpus_come_when_all_wait_and_a_cpu_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch)
    assert looks.look(WAITING - 1, cpus=0.1, stalled=True) == 2
    assert looks.look(cpus=0.1, stalled=True) == 8
    assert looks.look(cpus=1.9, stalled=False) == 2


def test_none_come_while_lanes_get_on_or_use_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch)
    assert looks.look(3 * STALLS, cpus=0.5, stalled=False) == 2  # they wait for the interpreter only
    assert looks.look(STALLS - 1, cpus=1.9, stalled=True) == 2  # long kernels that compute
    assert looks.look(cpus=1.9, stalled=True) == 3  # or spin until another one begins: it comes in the end


def test_what_the_process_uses_is_counted_over_several_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system tells of it by ticks, so that two busy threads seem to use nothing between two looks, or a lot."""
    looks = Looks(monkeypatch)
    for _ in range(STALLS // 4):
        assert looks.look(3, cpus=0.0, stalled=True) == 2
        assert looks.look(1, cpus=8.0, stalled=True) == 2
    looks = Looks(monkeypatch)
    looks.look(2 * WAITING, cpus=2.0, stalled=True)
    assert looks.look(WAITING - 1, cpus=0.0, stalled=True) == 2
    assert looks.look(WAITING, cpus=0.0, stalled=True) == 8  # it has computed before, and waits now


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
    lane.member.held = True
    pool._look(False)
    pool._look(False)
    assert asked.stalled[2:] == [False, False]
    lane.member.held = False
    pool._look(False)
    assert asked.stalled[4:] == [True]


def test_a_new_limit_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch)
    looks.look(WAITING, cpus=0.0, stalled=True)
    assert repr(looks.crowd) == "<Crowd of 8 lanes on 2 CPUs>"
    looks.crowd.anew()
    assert looks.crowd.wanted == 2
