"""Slots: which worker serves which run. All under the engine's lock; nothing here starts a thread or calls user code.

    a run with kernels to start ─▶ waits in `Turns` ─▶ a worker is called, with a slot ─▶ `_next`: it serves a run
                                                                ▲                            │
                                                                └── `_leaves`: other runs ◀──┘
                                                                     have their turn

The rules are those of the pool, which adds the threads; see `pool`.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from threading import Lock

from dataflow.engine.executors import Executors
from dataflow.engine.lock import engine_lock
from dataflow.engine.runs.run import Run
from dataflow.engine.turns import NOBODY, Turns
from dataflow.engine.worker import LOCKED, Worker

__all__ = ["Slots"]


class Slots:
    """At most `limit` workers, and the runs that wait for them."""

    def __init__(self, limit: int) -> None:
        self.lock = engine_lock()
        self._limit = limit
        self._slots = limit
        """The limit, and one more for each kernel that lends its slot because it only waits."""
        self._returning: deque[Lock] = deque()
        """Kernels that want theirs back; each waits for its lock to be released."""
        self._workers: set[Worker] = set()
        """Those that hold a slot."""
        self._coming = 0
        """How many of them were called, and have not looked for a run yet."""
        self._parked: list[Worker] = []
        """Workers without a slot and with nothing to do; the one that came last is woken first."""
        self._parallel, self._serial = Turns[Run](), Turns[Run]()
        """The runs that have kernels to start, by whether they are for all workers, or for one."""
        self._right: Worker | None = None
        """The worker of a serial run, while there may be but one."""
        self._dropped: list[Run] = []
        """Runs that wait no longer, for whoever has the lock to let go of after it."""
        self._executors = Executors()

    @property
    def limit(self) -> int:
        """How many kernels may execute at once."""
        return self._limit

    @property
    def busy(self) -> int:
        """How many kernels' slots are taken at the moment."""
        return len(self._workers) - (self._slots - self._limit)

    @property
    def parked(self) -> int:
        """How many workers wait a moment for something to do before they end."""
        return len(self._parked)

    @property
    def queued(self) -> int:
        """How many kernels are ready and wait for a worker. Asked without the lock, as a finaliser may: it runs in the
        midst of anything, also where its thread has the lock."""
        return sum(run.core.startable for turns in (self._parallel, self._serial) for run in turns.copied())

    def beside(self, run: Run) -> int:
        """How many kernels could be executed beside one of this run."""
        with self.lock:
            return min(len(run.core.ready), self._slots - 1)

    def is_alone(self, run: Run) -> bool:
        """Whether nothing else of this run can be executed now; asked without the lock."""
        return (self._slots == 1 or not run.core.ready) and len(run.core.running) + len(run.core.overrunning) <= 1

    # All that follows is called under the lock.

    def _give_back(self) -> None:
        """Slots that no worker holds go to those who lent theirs, before any worker gets one."""
        while self._returning and len(self._workers) < self._slots:
            self._slots -= 1
            self._returning.popleft().release()

    def _may_leave(self, run: Run) -> bool:
        """Whether there may be a reason for a worker to leave this run; a quick look between two kernels."""
        level = run.level
        return (
            run.serial
            or bool(self._returning)
            or len(self._workers) > self._slots
            or self._parallel.lowest < level
            or self._serial.lowest < level
        )

    def _leaves(self, worker: Worker, run: Run) -> bool:
        """Whether it is to leave this run."""
        if worker.guest:
            return False
        if len(self._workers) > self._slots or self._returning:
            return True
        if run.serial and (len(run.crew) > 1 or not self._has_right(worker)):
            return True
        both = run.serial or self._right is None
        if self._lowest(both) >= run.level:
            return False
        if run.waits_in is not None:  # still at the level that it had when it was served last
            run.waits_in.move(run)
        return self._lowest(both) < run.level

    def _others_are_serial(self, run: Run) -> bool:
        """Whether a serial run but this one waits for its worker."""
        return len(self._serial) > (run.waits_in is self._serial)

    def _lowest(self, both: bool) -> int:
        parallel = self._parallel.lowest
        return min(parallel, self._serial.lowest) if both else parallel

    def _has_right(self, worker: Worker) -> bool:
        """Whether it may be the worker of a serial run; if so, it is."""
        if not LOCKED():
            return True
        if self._right is None:
            self._right = worker
        return self._right is worker

    def _judge(self, run: Run, light: bool) -> None:
        """Its kernels are too light for several workers, or not."""
        run.wait_no_longer()
        run.serial = light
        if not light:
            run.to_beat = 0.0
            run.core.step_by_step()
            if self._right in run.crew:
                self._right = None
        self._wait_for_turn(run)

    # Whose turn it is.

    def _wait_for_turn(self, run: Run) -> bool:
        """It waits for workers, if it has kernels for another; whether it does."""
        if not run.core.startable or (run.serial and run.crew):
            return False
        if run.waits_in is None:
            (self._serial if run.serial else self._parallel).add(run)
        return True

    def _drop(self, run: Run) -> None:
        if not self._wait_for_turn(run):  # else among those of the other kind
            self._dropped.append(run)

    def _take_dropped(self) -> list[Run]:
        dropped = self._dropped
        if dropped:
            self._dropped = []
        return dropped

    def _next(self, worker: Worker) -> Run | None:
        """The run whose turn it is, to which the worker belongs now; None: it has given up its slot."""
        if worker.comes:
            worker.comes = False
            self._coming -= 1
        run = None
        if not (worker.void or len(self._workers) > self._slots or self._returning):
            both = [self._parallel, self._serial]
            if self._serial.lowest < self._parallel.lowest:
                both.reverse()
            for turns in both:
                if turns.lowest == NOBODY or (turns is self._serial and LOCKED() and self._right is not None):
                    continue
                is_serial = turns is self._serial
                run = turns.first(partial(_may_begin, serial=is_serial), self._drop)
                if run is not None:
                    if is_serial and LOCKED():
                        self._right = worker
                    break
        if run is None:
            self._leave(worker)
            return None
        run.crew.add(worker)
        worker.run = run
        return run

    def _leave(self, worker: Worker) -> None:
        """Its slot is free; it is parked, if its thread has a future."""
        self._workers.discard(worker)
        self._give_back()
        if not worker.void and worker.executor in self._executors:
            worker.park()
            self._parked.append(worker)

    def _call_for(self, run: Run) -> Worker | None:
        """It has kernels to start; a worker to launch, if one is to come for them."""
        if not self._wait_for_turn(run) or self._coming or len(self._workers) >= self._slots:
            return None
        if run.serial and LOCKED() and self._right is not None:
            return None
        return self._call()

    def _call_beside(self, run: Run) -> Worker | None:
        """A worker has come to this run; the next to launch, if something is left for it."""
        if self._coming or len(self._workers) >= self._slots:
            return None
        others = len(self._parallel) + len(self._serial) - (run.waits_in is not None)
        if not others and (run.serial or not run.core.startable > 1):
            return None
        return self._call()

    def _call(self, *, anew: bool = False) -> Worker:
        worker = self._parked.pop() if self._parked and not anew else Worker()
        worker.comes = True
        self._coming += 1
        self._workers.add(worker)
        return worker

    def _call_for_all(self) -> list[Worker]:
        """As many workers as there are slots, for all kernels that wait."""
        waiting = sum(run.core.startable for turns in (self._parallel, self._serial) for run in turns)
        return [self._call() for _ in range(min(self._slots - len(self._workers), waiting - self._coming))]


def _may_begin(run: Run, *, serial: bool) -> bool:
    """Whether another worker may come to a run that waits among those that are serial, or those that are not."""
    return run.serial is serial and run.core.startable > 0 and not (serial and run.crew)
