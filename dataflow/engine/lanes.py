"""The bounded ThreadPoolExecutor of the process, and the lanes on it.

A *lane* is a job on the executor that executes ready kernels one after another: it claims a segment of a run,
executes it, reports it and claims the next under one lock, with no trip through an event loop in between. It ends
when there is nothing left to do, so an idle process has only sleeping workers.

    offer(run) ─▶ queue ─▶ lane: claim ─▶ execute ─▶ report + claim ─▶ … ─▶ nothing left: the lane ends
                    ▲                                      │
                    └──── runs take turns, a segment each ─┘

Rules, all under the pool's lock:

1. At most `limit` lanes hold a slot, and only a lane with a slot starts kernels. After shrinking, a lane that comes
   to the end of its kernel gives up its slot; none is handed out until fewer than `limit` are held.
   A kernel that has nothing to do but wait for its inner run lends its slot, and gets it back before any further lane
   starts a kernel.
2. A run with ready kernels is in the queue (once). Whoever makes kernels ready offers the run *after* that, and a
   lane drops a run from the queue only while it sees nothing ready in it: no wake-up is lost.
3. Waking by worth: a lane that leaves heavy kernels ready wakes another lane at once. Light kernels (see the
   scheduler) are worth no second lane: one lane, the *sweeper*, takes those of all runs.
4. Delayed, never refused: as long as light kernels wait or run, a watcher looks every `DELAY` seconds. A lane that
   has not come forward since the last look is stuck in a kernel: what it has claimed is taken from it, and if it was
   the sweeper another lane becomes it. So two kernels that wait for each other meet, also if both were thought light.
5. Lock order: the pool's lock is never held while a run's lock is taken, nor the other way round; nor while the last
   reference to a run may go, since freeing what it holds may call user code.
6. Whether a run has anything ready, who is the sweeper and how long the queue is are read without a lock where a stale
   answer only costs a turn: whoever makes a run ready offers it afterwards, under the lock.

Why not `executor.submit` for each kernel: two locks, a future and a thread switch each, tens of microseconds.
Why the executor is replaced when the limit changes: `max_workers` cannot be changed, and a private attribute that
looks as if it could neither adds threads to a backlog nor takes any away.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock, Thread
from time import perf_counter

from dataflow.engine.run import Run, Segment, here
from dataflow.threads.settings import process_settings

logger = logging.getLogger("dataflow")

__all__ = ["DELAY", "THREAD_NAME", "Lane", "Pool", "execute", "process_pool"]

THREAD_NAME = "dataflow-interop"

DELAY = 200e-6
"""Seconds between two looks of the watcher. A look costs about ten microseconds of the interpreter's time."""
GIVE_WAY = 1e-3
"""Seconds after which a lane of light kernels lets other threads have the interpreter."""


class Lane:
    """What the pool knows of a lane."""

    __slots__ = ("doubted", "looked_at", "run", "segment", "turns", "void")

    def __init__(self) -> None:
        self.run: Run | None = None
        self.segment: Segment | None = None
        self.turns = 0
        """How many segments it has begun."""
        self.looked_at = (-1, -1)
        """The watcher's: (turns, steps left) at its last look."""
        self.doubted = False
        """The watcher's: whether nothing had changed at its last look."""
        self.void = False
        """The executor refused it; should it come up after all, it ends at once."""


class Pool:
    """At most `limit` lanes on a ThreadPoolExecutor of as many threads; see the module docstring for the rules."""

    def __init__(self, limit: int) -> None:
        self._lock = Lock()
        self._limit = limit
        self._slots = limit
        """The limit, and one more for each kernel that lends its slot because it only waits."""
        self._returning: deque[Lock] = deque()
        """Kernels that want theirs back; each waits for its lock to be released."""
        self._lanes: set[Lane] = set()
        self._queue: deque[Run] = deque()
        self._sweeper: Lane | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._spare: ThreadPoolExecutor | None = None
        """For lanes on lent slots: the threads of the executor are taken by the kernels that lend them."""
        self._spares = 0
        """How many threads the spare executor may have."""
        self._guests: set[Lane] = set()
        """Kernels' threads that execute the run they wait for, on their kernel's slot."""
        self._watching = False
        self._bell: Lock | None = None
        """Held while the watcher sleeps for want of anything to watch; released to wake it."""

    def __repr__(self) -> str:
        return f"<Pool limit={self._limit} lanes={len(self._lanes)} queued={len(self._queue)}>"

    @property
    def limit(self) -> int:
        """How many kernels may execute at once."""
        return self._limit

    @property
    def busy(self) -> int:
        """How many kernels' slots are taken at the moment."""
        return len(self._lanes) - (self._slots - self._limit)

    @property
    def queued(self) -> int:
        """How many kernels are ready and wait for a lane."""
        with self._lock:
            return sum(run.core.ready for run in self._queue)

    # From outside.

    def offer(self, run: Run) -> None:
        """Kernels of this run became ready: see that lanes take them."""
        with self._lock:
            lane, watch = self._spread(run)
        if lane is not None:
            self._launch(lane)
        if watch:
            self._watch()

    def drive(self, run: Run, wait: Callable[[], object]) -> None:
        """Execute kernels of this run in the calling thread, beside free lanes, until it is settled.

        For a run that a kernel waits for: it has the kernel's slot. `wait` blocks until something has changed.
        """
        lane = Lane()
        lane.run = run
        outer, here.run = here.run, run
        with self._lock:
            self._guests.add(lane)
        try:
            while not run.settled:
                segment = lane.segment = run.claim(light=True)
                more = segment is not None
                while segment is not None and more:
                    lane.turns += 1
                    self._share(lane, run, segment)
                    execute(run, segment)
                    if self._sweeper is lane and len(self._queue) > run.queued:
                        self._pass_on(lane)
                    more = run.proceed(segment, light=True, again=True)
                lane.segment = None
                if segment is not None and segment.frame is not None:
                    segment.frame.clear()  # as in `_serve`
                segment = None
                with self._lock:
                    if self._sweeper is lane:
                        self._sweeper = None
                if not run.settled:
                    self._wait(run, wait)
        except BaseException:  # a bug of ours: the kernel gets it, and nothing waits for our segment
            if lane.segment is not None:
                run.proceed(lane.segment, light=False, again=False)
            raise
        finally:
            here.run = outer
            with self._lock:
                self._guests.discard(lane)
                if self._sweeper is lane:
                    self._sweeper = None
                if run.queued:  # it may take long until a lane comes by and drops it
                    run.queued = False
                    self._queue.remove(run)
            del lane, run, outer, wait  # the frame of a failed kernel refers back to this one

    def _wait(self, run: Run, wait: Callable[[], object]) -> None:
        """Wait for async ops and other lanes, which may need kernels to go on: meanwhile another may have our slot."""
        with self._lock:
            self._slots += 1
            self._give_back()
            queued = list(self._queue)
        for other in queued:
            self.offer(other)
        del queued
        self._watch()  # what our lane has claimed besides this kernel is free for others
        try:
            while not run.settled and not run.core.ready:
                wait()
        finally:
            ours = Lock()
            ours.acquire()
            with self._lock:
                self._returning.append(ours)
                self._give_back()
            ours.acquire()  # at the latest when the next kernel of another lane has ended

    def _give_back(self) -> None:
        """Under the lock: slots that no lane holds go to those who lent theirs, before any lane gets one."""
        while self._returning and len(self._lanes) < self._slots:
            self._slots -= 1
            self._returning.popleft().release()

    def resize(self, limit: int) -> None:
        """Change the limit; acts at once on waiting work, and lets running kernels finish."""
        self.set_limit(limit)()

    def set_limit(self, limit: int) -> Callable[[], None]:
        """Change the limit; the function returned acts on it, and may call user code: not to be called under a lock."""
        with self._lock:
            if limit == self._limit:
                return lambda: None
            held = [(lane.run, lane.segment) for lane in self._lanes] if limit < self._limit else []
            self._slots += limit - self._limit
            self._limit = limit
            self._give_back()
            retired = [executor for executor in (self._executor, self._spare) if executor is not None]
            self._executor = self._spare = None
            queued = list(self._queue)
        return partial(self._resized, retired, held, queued)

    def _resized(
        self, retired: list[ThreadPoolExecutor], held: list[tuple[Run | None, Segment | None]], queued: list[Run]
    ) -> None:
        for executor in retired:
            executor.shutdown(wait=False)  # its lanes go on to the end of their work, then its threads end
        for run, segment in held:
            if run is not None and segment is not None:
                run.relieve(segment)
                self.offer(run)
        for run in queued:
            for _ in range(min(run.core.ready, self._slots)):
                self.offer(run)
        if not held:  # a batch of light kernels may be stuck, and now another lane could take what is left of it
            self._watch()

    def reset(self) -> None:
        """After a fork, in the child: no thread of the parent exists here, and its runs are not ours."""
        Pool.__init__(self, process_settings.interop().value)

    # Slots.

    def _spread(self, run: Run) -> tuple[Lane | None, bool]:
        """Under the lock: what to do about the ready kernels of a run: (a lane to launch, whether to watch)."""
        core = run.core
        if not core.ready:
            return None, False
        if not run.queued:
            run.queued = True
            self._queue.append(run)
        if len(self._lanes) >= self._slots:
            return None, False
        if core.heavy or self._sweeper is None:
            lane = Lane()
            self._lanes.add(lane)
            return lane, False
        return None, True

    def _launch(self, lane: Lane) -> None:
        """Start a lane that holds a slot. Not under the lock: starting a thread takes a while."""
        while True:
            with self._lock:
                executor = self._executor_for_one_more()
            try:
                executor.submit(self._work, lane)
            except BaseException as exc:
                with self._lock:
                    # Void: it may have been queued before a thread for it could not be started.
                    lane.void = True
                    self._lanes.discard(lane)
                    self._give_back()
                    if executor not in (self._executor, self._spare) and isinstance(exc, RuntimeError):
                        lane = Lane()  # a resize came in between
                        self._lanes.add(lane)
                        continue
                    forlorn = [] if self._lanes else list(self._queue)
                    for run in forlorn:
                        run.queued = False
                        self._queue.remove(run)
                # Not raised here: whoever offered the last run may be the watcher, or a kernel that set the limit.
                for run in forlorn:
                    run.crash(
                        RuntimeError(f"no inter-op thread could be started to run {run.plan.graph.name!r}: {exc}")
                    )
                if not forlorn:
                    logger.warning("no further inter-op thread could be started", exc_info=exc)
                if not isinstance(exc, Exception):
                    raise
            return

    def _executor_for_one_more(self) -> ThreadPoolExecutor:
        """Under the lock: where the lane that was added last finds a thread."""
        if len(self._lanes) > self._limit:
            # As many threads as there are slots, since by now all lanes may be here; and some more, lest it be
            # replaced for each slot that is lent.
            if self._spare is None or self._spares < self._slots:
                if self._spare is not None:
                    self._spare.shutdown(wait=False)
                self._spares = 2 * self._slots
                self._spare = ThreadPoolExecutor(self._spares, thread_name_prefix=THREAD_NAME)
            return self._spare
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._limit, thread_name_prefix=THREAD_NAME)
        return self._executor

    # A lane.

    def _work(self, lane: Lane) -> None:
        """The job on the executor."""
        while (run := self._next_run(lane)) is not None:
            here.run = lane.run = run
            try:
                self._serve(lane, run)
            except BaseException as exc:  # a bug of ours; a kernel's exceptions end in execute()
                self._rescue(lane, run, exc)
            here.run = lane.run = lane.segment = None
            del run  # before anything waits

    def _rescue(self, lane: Lane, run: Run, bug: BaseException) -> None:
        """After a bug of ours the run ends with it, and the lane goes on with others."""
        try:
            run.crash(bug)
            if lane.segment is not None:
                run.proceed(lane.segment, light=False, again=False)
        except BaseException:
            logger.exception("a lane could not leave %r in order", run)

    def _next_run(self, lane: Lane) -> Run | None:
        """The run whose turn it is; None ends the lane, whose slot is given up under the same lock."""
        dropped: list[Run] = []  # perhaps for good, which may call user code: not under the lock
        with self._lock:
            queue = self._queue
            if not lane.void and len(self._lanes) <= self._slots and not self._returning:
                for _ in range(len(queue)):
                    run = queue[0]
                    core = run.core
                    if not core.ready:
                        run.queued = False
                        dropped.append(queue.popleft())
                        continue
                    queue.rotate(-1)
                    if core.heavy or self._sweeper is None or self._sweeper is lane:
                        return run
            self._lanes.discard(lane)
            if self._sweeper is lane:
                self._sweeper = None
            self._give_back()
            left = bool(queue)
        if left:  # light kernels, which are the sweeper's; it may be stuck, and now there is a slot
            self._watch()
        return None

    def _serve(self, lane: Lane, run: Run) -> None:
        """Execute segments of this run as long as there are any and no other run waits for its turn."""
        queue, lanes, core = self._queue, self._lanes, run.core
        segment = run.claim(light=self._sweeper is lane or self._sweeper is None)
        if segment is not None:
            with self._lock:
                lane.segment = segment
            gave_way = perf_counter()
            while True:
                # The limit is read without the pool's lock. If it was changed before this segment was filled, we see
                # the new one; if after, whoever changed it finds these steps, since both are under the run's lock.
                if len(lanes) > self._slots:
                    run.relieve(segment)
                lane.turns += 1
                if core.ready or segment.light or self._sweeper is lane:
                    self._share(lane, run, segment)
                now = execute(run, segment)
                if segment.light and now - gave_way > GIVE_WAY:
                    time.sleep(0)
                    gave_way = perf_counter()
                light = self._sweeper is lane or self._sweeper is None
                stay = len(queue) <= run.queued and len(lanes) <= self._slots and not self._returning
                if not run.proceed(segment, light=light, again=stay):
                    break
            lane.segment = None
        if core.ready:
            self.offer(run)
        if segment is not None and segment.frame is not None:
            # A held exception keeps its kernel's frame, which refers back to the frame of `execute` and from there to
            # ours: whatever these hold would live as long. That one is cleared, and ours lets go of everything.
            segment.frame.clear()
            del lane, run, segment, core

    def _share(self, lane: Lane, run: Run, segment: Segment) -> None:
        """A lane is about to execute a segment: see that others take what it leaves, and who takes light kernels."""
        with self._lock:
            if segment.light:
                # A guest stays with its run, so it is sweeper only while there is no other.
                if self._sweeper is None and (lane not in self._guests or len(self._queue) <= run.queued):
                    self._sweeper = lane
            elif self._sweeper is lane:
                self._sweeper = None
            launch, watch = self._spread(run)
        if launch is not None:
            self._launch(launch)
        if watch or len(segment.todo) > 1:
            self._watch()

    def _pass_on(self, sweeper: Lane) -> None:
        """Light kernels of other runs wait for a lane that stays with its own run: let another lane have them."""
        with self._lock:
            if self._sweeper is sweeper:
                self._sweeper = None
            others = [run for run in self._queue if run is not sweeper.run]
        for run in others:
            self.offer(run)

    # The watcher.

    def _watch(self) -> None:
        """Light kernels wait while a slot is free: see that nobody waits for them in vain."""
        if self._slots == 1:
            return
        with self._lock:
            if self._watching:
                return
            self._watching = True
            if self._bell is not None:
                self._bell.release()
                return
            self._bell = bell = Lock()
            bell.acquire()
        # A daemon: it holds nothing that an exit would have to wait for.
        watcher = Thread(target=self._keep_watch, args=(bell,), name="dataflow-watcher", daemon=True)
        try:
            watcher.start()
        except RuntimeError:  # no thread to be had: the interpreter is closing, or the machine is full
            with self._lock:
                self._watching, self._bell = False, None

    def _keep_watch(self, bell: Lock) -> None:
        try:
            while True:
                before = perf_counter()
                time.sleep(DELAY)
                if not self._look(late=perf_counter() - before > 2 * DELAY):
                    bell.acquire()
        except BaseException:  # a bug of ours: the next one who needs a watcher starts another
            with self._lock:
                self._watching, self._bell = False, None
            raise

    def _look(self, *, late: bool) -> bool:
        """One look at all lanes; returns whether to go on looking.

        If the look itself comes late, the machine or the interpreter is busy, and a lane that has not come forward
        may not have had its turn: it gets the benefit of the doubt, once.
        """
        stuck: list[tuple[Run, Segment]] = []
        met: list[Run] = []  # the last reference to one may be ours: it must not go under the lock
        with self._lock:
            free = len(self._lanes) < self._slots
            waiting = next((run for run in self._queue if run.core.ready), None) if free else None
            worth = any(run.core.light for run in self._queue)
            for lane in (*self._lanes, *self._guests):
                segment, run = lane.segment, lane.run
                if segment is None or run is None:
                    worth = worth or lane in self._lanes  # it is about to claim; a guest may wait for long
                    continue
                met.append(run)
                seen = (lane.turns, len(segment.todo))
                worth = worth or (segment.light and bool(segment.todo or segment.done))
                if seen == lane.looked_at and (lane.doubted or not late):
                    if segment.todo or segment.done:
                        stuck.append((run, segment))
                    if self._sweeper is lane:
                        self._sweeper = None
                lane.doubted = seen == lane.looked_at
                lane.looked_at = seen
            if not worth:
                self._watching = False
        for run, segment in stuck:
            run.relieve(segment, stuck=True)
            self.offer(run)
        if waiting is not None:
            self.offer(waiting)
        return worth


def execute(run: Run, segment: Segment) -> float:
    """Execute what is in a segment, and learn what it costs; returns the time at the end.

    The hot path: everything that happens for each kernel happens in this loop. A kernel runs in a context of its
    own. Whatever it raises ends the run and never leaves this function.
    """
    plan, values, copy = run.plan, run.values, run.context.copy
    calls, settled, releases = plan.calls, plan.settled, plan.releases
    todo, done, sweep = segment.todo, segment.done, segment.sweep
    pop, report = todo.pop, done.append
    result = step = None
    began = perf_counter()
    try:
        while todo:
            try:
                step = pop()
            except IndexError:  # whoever took the rest away was quicker
                break
            result = copy().run(calls[step], values)
            if type(result) not in settled[step]:
                result = run.settle(step, result)
            values[step] = result
            if last_read := releases[step]:
                if sweep:
                    for slot in last_read:
                        values[slot] = None
                elif step in last_read:  # nobody reads it: a batch must not hold it back
                    values[step] = None
                result = None  # it may have been what nobody reads
            report(step)
    except BaseException as exc:
        assert step is not None
        segment.frame = sys._getframe()
        run.failed(step, exc)
    result = None
    now = perf_counter()
    if step is not None:
        learn(run, segment, step, now - began)
    return now


def learn(run: Run, segment: Segment, step: int, seconds: float) -> None:
    """Note what a segment took, of which `step` was the last to start."""
    costs = run.plan.costs
    if segment.stuck:
        costs.stuck(step, DELAY)
    elif segment.relieved:
        return
    elif len(segment.done) > 1:
        costs.batch(segment.done, seconds)
    elif not 0.8 < seconds / costs.seconds[step] < 1.25 and costs.measured(step, seconds):
        run.reconsider()


_process_pool: Pool | None = None
_creating = Lock()


def process_pool() -> Pool:
    """The one pool of this process, made at the first call; it follows the inter-op setting."""
    global _process_pool
    if _process_pool is None:
        limit = process_settings.interop().value  # may warn, which is user code: not under the lock
        with _creating:
            if _process_pool is None:
                pool = Pool(limit)
                process_settings.subscribe(pool.set_limit)
                _process_pool = pool
    return _process_pool


def _after_fork() -> None:
    global _creating
    _creating = Lock()
    here.run = None
    if _process_pool is not None:
        _process_pool.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
