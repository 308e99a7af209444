"""How many runs this process has started and how they ended: counters without a lock where runs begin and end.

`next` of an `itertools.count` is one step of the interpreter, so no count is lost among threads, and it costs some tens
of nanoseconds. What it cannot do is tell without counting: reading counts too, and takes its own counts off again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from threading import Lock

__all__ = ["RunMetrics", "run_metrics"]


class Counter:
    """One number that only grows."""

    def __init__(self) -> None:
        self.add: Callable[[], int] = count().__next__
        self._lock = Lock()
        self._reads = 0

    def read(self) -> int:
        """How often `add` was called, this aside."""
        with self._lock:
            told = self.add() - self._reads
            self._reads += 1
        return told


class RunMetrics:
    """The counters of all runs."""

    def __init__(self) -> None:
        self._started = Counter()
        self._ended = {outcome: Counter() for outcome in ("done", "failed", "cancelled")}
        self.started = self._started.add
        self.ended = {outcome: counter.add for outcome, counter in self._ended.items()}

    def read(self) -> dict[str, int]:
        """All numbers, and how many runs are in progress."""
        ended = {outcome: counter.read() for outcome, counter in self._ended.items()}  # first: none ends unstarted
        started = self._started.read()
        # In a child forked inside a kernel, a run may end that never started there.
        return {"started": started, "in_progress": max(0, started - sum(ended.values())), **ended}


run_metrics = RunMetrics()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: RunMetrics.__init__(run_metrics))
