"""Records of runs: which kernel was executed when, by which thread. For `flow.profile`; off, it costs nothing.

    run ──begin──▶ RunRecord ◀── rows, one for each thread: (step, began, ended), (steps of a batch, began, ended), …

Rules:

1. Moments are those of `time.perf_counter`, in seconds: one clock for all threads, never set back.
2. A row belongs to one thread, which alone appends to it; so recording takes no lock. Who reads one copies it first.
3. Recording changes nothing of what runs where: a batch that is executed in order is one entry, without the times of
   its kernels. What a batch left to others, since it was revoked, is not in it.
4. A record holds the plan, with its graph and constants, and no value of the run.
5. Memory is bounded: a recorder keeps runs until their plans have `most` steps in all, each run counting for one more;
   it refuses the runs that begin after that, and counts them. The first run is kept, however large.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from threading import Lock, get_ident
from time import perf_counter
from typing import Final, Protocol

from dataflow.graph.plan import Plan
from dataflow.threads.settings import get_num_interop_threads

__all__ = ["LOOP", "MOST_STEPS", "Entry", "Recorder", "RunRecord", "recorded"]

Entry = tuple[int | list[int], float, float]
"""A step, or the steps of a batch in order; when it began, and when it ended."""
LOOP: Final = 0
"""Stands for the event loop among the threads: async operators overlap there."""
MOST_STEPS: Final = 1_000_000

_lock = Lock()
_recorders: tuple[Recorder, ...] = ()


class RunRecord:
    """What was recorded of one run."""

    __slots__ = ("began", "ended", "number", "outcome", "outer", "plan", "rows", "started", "thread", "threads")

    def __init__(self, number: int, outer: int, plan: Plan, threads: int) -> None:
        self.number = number
        self.outer = outer
        """The number of the run that it is inside of; `failure.NO_RUN` if there is none."""
        self.plan = plan
        self.threads = threads
        """The inter-op threads that there were when it began."""
        self.thread = get_ident()
        """Which thread began it."""
        self.began = perf_counter()
        self.ended: float | None = None
        """When its outcome was taken; None: it has not been."""
        self.outcome = ""
        """"done", "failed" or "cancelled"; empty as long as it has not ended."""
        self.rows: dict[int, list[Entry]] = {}
        """By `threading.get_ident()`."""
        self.started: dict[int, float] = {}
        """When async operators that have not ended began. The loop's thread alone uses it."""

    def row(self) -> list[Entry]:
        """That of the calling thread."""
        return self.rows.setdefault(get_ident(), [])

    def loop_began(self, step: int) -> None:
        """An async operator begins; in the loop's thread."""
        self.started[step] = perf_counter()

    def loop_ended(self, step: int) -> None:
        """It has ended."""
        began = self.started.pop(step, None)
        if began is not None:
            self.rows.setdefault(LOOP, []).append((step, began, perf_counter()))

    def end(self, outcome: str) -> None:
        """The run's outcome was taken, or nobody waits for it any more."""
        self.ended, self.outcome = perf_counter(), outcome

    @property
    def entries(self) -> int:
        """How many there are."""
        return sum(map(len, list(self.rows.values())))


class Recorder:
    """Records all runs that begin in this process while it is on; in whichever thread and loop."""

    def __init__(self, most: int = MOST_STEPS) -> None:
        self._most = most
        self._lock = Lock()
        self._runs: list[RunRecord] = []
        self._steps = 0
        """Those of the plans of all runs, and one for each run."""
        self.dropped = 0
        """How many runs were not recorded, since there was no room."""

    def start(self) -> None:
        """From now on."""
        global _recorders
        with _lock:
            _recorders = (*_recorders, self)

    def stop(self) -> None:
        """No run that begins from now on is recorded; those that are under way still are."""
        global _recorders
        with _lock:
            _recorders = tuple(each for each in _recorders if each is not self)

    def add(self, record: RunRecord) -> bool:
        """Keep a record, if there is room."""
        with self._lock:
            self._steps += len(record.plan) + 1
            if self.dropped or (self._runs and self._steps > self._most):
                self.dropped += 1
                return False
            self._runs.append(record)
            return True

    def renew_lock(self) -> None:
        """In the child of a fork: another thread of the parent may have held it, and is not there."""
        self._lock = Lock()

    def __iter__(self) -> Iterator[RunRecord]:
        """The records so far, in the order in which the runs began."""
        with self._lock:
            return iter(list(self._runs))


class Recordable(Protocol):
    """What is asked of a run."""

    number: int
    outer: int
    plan: Plan


def recorded(run: Recordable) -> RunRecord | None:
    """The record of a run that begins; None if nobody records."""
    recorders = _recorders
    if not recorders:
        return None
    record = RunRecord(run.number, run.outer, run.plan, get_num_interop_threads())
    kept = [recorder.add(record) for recorder in recorders]
    return record if any(kept) else None


def _after_fork() -> None:
    global _lock
    _lock = Lock()
    for recorder in _recorders:
        recorder.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
