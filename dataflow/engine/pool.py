"""The bounded ThreadPoolExecutor of the process, and the workers on it.

A *worker* is a job on the executor that executes ready kernels one after another, with no trip through an event loop in
between. When there is nothing left to do it is *parked* for a moment, without a slot, since waking it costs less than
starting another; then it ends, so an idle process has only sleeping threads.

    offer(run) ─▶ turns ─▶ worker: take ─▶ execute ─▶ visit: report, take the next ─▶ … ─▶ nothing left: it is parked
                    ▲                                   │
                    └────── runs take turns ────────────┘

Rules, all under the engine's lock:

1. At most `limit` workers hold a slot, and only a worker with a slot starts kernels. After shrinking, a worker that
   comes to the end of its kernel gives up its slot; none is handed out until fewer than `limit` are held.
   A kernel that has nothing to do but wait for its inner run lends its slot, and gets it back before any further worker
   starts a kernel.
2. A run with kernels to start waits in `turns`, once, and leaves it only when nothing of it can be started. Whoever
   makes kernels ready, or leaves some, sees to that under the same lock: no wake-up is lost.
3. Whoever leaves kernels ready calls one more worker, if there is a slot and none is on its way; that one calls the
   next when it comes. So as many kernels execute as there are slots, if as many are ready.
4. A *serial* run has one worker, whatever is ready (see `worker`). While threads take turns at the interpreter there is
   one such worker in the process, besides those whose kernels wait for inner runs: two would only fight for it.
   If it is held up in a kernel for longer than a moment, the monitor ends that: what is ready is for everybody then. So
   two kernels that wait for each other meet, also if both were thought light.
5. A worker leaves its run for one that has been served less; see `turns`.
6. The last reference to a run may not go under the lock, since freeing what it holds may call user code.

Why not `executor.submit` for each kernel: two locks, a future and a thread switch each, tens of microseconds.
Why the executor is replaced when the limit changes: `max_workers` cannot be changed, and a private attribute that
looks as if it could neither adds threads to a backlog nor takes any away.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock, get_ident
from time import perf_counter

from dataflow.engine.executors import submit
from dataflow.engine.monitor import Monitor, View
from dataflow.engine.runs.run import Run, here
from dataflow.engine.scheduler import END, Batch
from dataflow.engine.slots import Slots
from dataflow.engine.steps import Phase
from dataflow.engine.worker import BATCH_SECONDS, FIRST_BATCH, IN_ORDER, LARGEST_BATCH, Worker, clear_frames, serve
from dataflow.events import OperatorEnded, observers
from dataflow.threads.controller import process_intraop
from dataflow.threads.settings import process_settings

logger = logging.getLogger("dataflow")

__all__ = ["Pool", "process_pool"]

OPEN = Phase.OPEN
REST = 10e-3
"""Seconds for which a worker is parked. A process that exits waits so long at the most."""


class Pool(Slots):
    """At most `limit` workers on a ThreadPoolExecutor of as many threads; see the module docstring for the rules."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._guests: set[Worker] = set()
        self._monitor = Monitor(self.lock, self._look)

    def __repr__(self) -> str:
        return f"<Pool limit={self._limit} workers={len(self._workers)} parked={len(self._parked)}>"

    # From outside.

    def offer(self, run: Run) -> None:
        """Kernels of this run became ready: see that workers take them."""
        with self.lock:
            worker = self._call_for(run)
            # Its worker, or that of another serial run for which it waits, may be held up.
            watch = worker is None and run.serial and bool(run.crew or self._right) and self._may_watch
        if worker is not None:
            self._launch(worker)
        if watch:
            self._monitor.wake()

    def drive(self, run: Run, begin: Callable[[], object], wait: Callable[[], object]) -> None:
        """Execute kernels of this run in the calling thread, beside free workers, until it is settled.

        For a run that a kernel waits for: it has the kernel's slot. `begin` begins it, once the kernel counts as one
        that executes nothing: another worker may be quicker. `wait` blocks until something has changed.
        """
        kernel = process_intraop.pause()
        try:
            begin()
            self._drive(run, wait)
        finally:
            process_intraop.resume(kernel)
            del run, begin, wait  # as in `_drive`

    def _drive(self, run: Run, wait: Callable[[], object]) -> None:
        worker = Worker(guest=True)
        worker.thread = get_ident()
        outer, attempt, here.run, here.attempt = here.run, here.attempt, run, None
        with self.lock:
            self._guests.add(worker)
        try:
            worker.member = process_intraop.come()
            while not run.settled:
                with self.lock:
                    comes = run.core.startable > 0
                    if comes:
                        run.crew.add(worker)
                        worker.run = run
                if comes:
                    self._serve(worker, run)
                    if worker.member is not None:
                        process_intraop.rest(worker.member)
                    self._depart(worker, run)
                if run.concluded:  # others are just about to leave it: not worth lending a slot
                    while not run.settled:
                        wait()
                elif not run.settled:
                    self._wait(run, wait)
        finally:
            if worker.member is not None:
                process_intraop.go(worker.member)
            here.run, here.attempt = outer, attempt
            with self.lock:
                self._guests.discard(worker)
                run.wait_no_longer()
            del worker, run, outer, attempt, wait  # the frame of a failed kernel refers back to this one

    def _wait(self, run: Run, wait: Callable[[], object]) -> None:
        """Wait for async ops and other workers, which may need kernels to go on: meanwhile another has our slot."""
        with self.lock:
            if run.core.startable:
                return
            self._slots += 1
            self._give_back()
            called = self._call_for_all()
        self._launch_all(called)
        try:
            while not run.settled and not run.core.startable:
                wait()
        finally:
            ours = Lock()
            ours.acquire()
            with self.lock:
                self._returning.append(ours)
                self._give_back()
            ours.acquire()  # at the latest when the next kernel of another worker has ended

    def resize(self, limit: int) -> None:
        """Change the limit; acts at once on waiting work, and lets running kernels finish."""
        self.set_limit(limit)()

    def set_limit(self, limit: int) -> Callable[[], None]:
        """Change the limit; the function returned acts on it, and may call user code: not to be called under a lock."""
        if limit == self._limit:  # without the lock, as `queued`
            return lambda: None
        with self.lock:
            self._slots += limit - self._limit
            self._limit = limit
            self._give_back()
            retired = self._executors.retire()
            parked, self._parked = self._parked, []
            if len(self._workers) > self._slots:
                for worker in self._workers:
                    if worker.run is not None:
                        worker.run.core.step_by_step()
            called = self._call_for_all()
            # A worker may be held up alone, and now another could take what is left of its batch.
            serial = any(each.run is not None and each.run.serial for each in (*self._workers, *self._guests))
            watch = serial and self._may_watch
        return partial(self._resized, retired, parked, called, watch)

    def _resized(
        self, retired: list[ThreadPoolExecutor], parked: list[Worker], called: list[Worker], watch: bool
    ) -> None:
        for worker in parked:
            worker.void = True
            worker.ring()
        for executor in retired:
            executor.shutdown(wait=False)  # its workers go on to the end of their work, then its threads end
        self._launch_all(called)
        if watch:
            self._monitor.wake()

    def reset(self) -> None:
        """After a fork, in the child: no thread of the parent exists here, and its runs are not ours."""
        Pool.__init__(self, process_settings.interop().value)

    # What workers call between two kernels.

    def visit(self, worker: Worker, run: Run, done: int, now: float, light: bool | None) -> int:
        """Report a step, if any, and take the next one. `light` is what the worker has found of its last kernels.

        END: the worker leaves. IN_ORDER: it may claim batches.
        """
        core, other, watch, trash, dropped = run.core, None, False, None, None
        with self.lock:
            worker.visits += 1
            service = run.service = run.service + now - worker.since
            worker.since = now
            if service > run.rises_at:
                run.rise()
            if done >= 0:
                core.complete(done)
            if core.phase is not OPEN:
                changed, step = run.let_go(), END
                trash = run.take_trash()
            else:
                # Of a run that is serial by now, those who are only leaving have nothing to say.
                if light is not None and light is not run.serial and (light or len(run.crew) == 1):
                    self._judge(run, light)
                changed = run.hand_over() if core.due else False  # first: a step may have what it needs to start
                if self._may_leave(run) and self._leaves(worker, run):
                    step = END
                elif run.serial and not observers[OperatorEnded] and core.may_go_in_order():
                    step = IN_ORDER
                else:
                    step = worker.step = core.take()
                if run.serial:
                    watch = bool(core.ready or self._others_are_serial(run)) and self._may_watch
                if core.ready:
                    if not run.serial and (run.waits_in is None or len(self._workers) < self._slots):
                        other = self._call_for(run)
                    changed = changed or run.driven
            released = core.released
            if released:
                core.released = []
            if self._dropped:
                dropped = self._take_dropped()
        if other is not None:
            self._launch(other)
        for slot in released:
            run.values[slot] = None
        del trash, dropped
        if changed:
            run.changed()
        if watch:
            self._monitor.wake()
        return step

    def claim(self, worker: Worker, run: Run) -> Batch | None:
        """The next batch of a serial run; None if the worker is to see what else there is."""
        with self.lock:
            core = run.core
            if not run.serial or core.over or self._leaves(worker, run) or not core.may_go_in_order():
                return None
            batch = worker.batch = core.claim(worker.batch_size)
            watch = (len(batch.todo) > 1 or self._others_are_serial(run)) and self._may_watch
        if watch:
            self._monitor.wake()
        return batch

    def did_batch(self, worker: Worker, run: Run, batch: Batch, now: float, *, light: bool) -> int:
        """A batch was executed. IN_ORDER: another may be claimed; else the step that is to be reported, or END."""
        with self.lock:
            worker.visits += 1
            worker.batch = None
            seconds, worker.since = now - worker.since, now
            run.service += seconds
            if run.service > run.rises_at:
                run.rise()
            if not run.core.complete_batch(batch):
                return batch.last
            if not light and not run.core.over:
                self._judge(run, light=False)
                return END
        count = len(batch.steps)
        worker.batch_size = max(1, min(LARGEST_BATCH, 4 * count, int(BATCH_SECONDS * count / max(seconds, 1e-9))))
        return IN_ORDER

    @property
    def _may_watch(self) -> bool:
        """Under the lock: whether the monitor sleeps, and could find somebody to go on in place of who is held up."""
        return self._slots > 1 and not self._monitor.awake

    def executing(self) -> list[tuple[Run, int, int, float]]:
        """The runs, the steps, the threads and since when, of kernels that are executed at the moment."""
        with self.lock:
            workers = [worker for worker in (*self._workers, *self._guests) if worker.run is not None]
            found = [(worker.run, worker.executes, worker.thread, worker.since) for worker in workers]
        return [(run, step, thread, since) for run, step, thread, since in found if run is not None and step >= 0]

    # Calling workers.

    def _launch_all(self, workers: list[Worker]) -> None:
        for worker in workers:
            self._launch(worker)

    def _launch(self, worker: Worker) -> None:
        """Start or wake a worker that holds a slot. Not under the lock: starting a thread takes a while."""
        if worker.bell is not None:
            worker.ring()
            return
        while True:
            with self.lock:
                executor = worker.executor = self._executors.for_one_more(
                    workers=len(self._workers), limit=self._limit, slots=self._slots
                )
            try:
                submit(executor, self._work, worker)
            except BaseException as exc:
                with self.lock:
                    # Void: it may have been queued before a thread for it could not be started.
                    worker.void = True
                    self._workers.discard(worker)
                    self._coming -= 1
                    worker.comes = False
                    self._give_back()
                    if executor not in self._executors and isinstance(exc, RuntimeError):
                        worker = self._call(anew=True)  # a resize came in between
                        continue
                    stranded = [] if self._workers else [*self._parallel.clear(), *self._serial.clear()]
                # Not raised here: whoever offered the last run may be the monitor, or a kernel that set the limit.
                for run in stranded:
                    run.crash(
                        RuntimeError(f"no inter-op thread could be started to run {run.plan.graph.name!r}: {exc}")
                    )
                if not stranded and threading.main_thread().is_alive():  # else the interpreter closes: nobody will mind
                    logger.warning("no further inter-op thread could be started", exc_info=exc)
                if not isinstance(exc, Exception):
                    raise
            return

    # A worker.

    def _work(self, worker: Worker) -> None:
        """The job on the executor."""
        worker.thread = get_ident()
        try:
            while True:
                with self.lock:
                    run = self._next(worker)
                    other = None if run is None else self._call_beside(run)
                    dropped = self._take_dropped()
                del dropped
                if other is not None:
                    self._launch(other)
                if run is None:
                    if self._rest(worker):
                        continue
                    return
                here.run = run
                try:
                    worker.member = process_intraop.come()
                except BaseException as bug:
                    run.crash(bug)
                else:
                    self._serve(worker, run)
                if worker.member is not None:  # before whoever waits for the run hears of its end
                    process_intraop.go(worker.member)
                    worker.member = None
                here.run = None
                self._depart(worker, run)
                del run  # before anything waits
        except BaseException:  # a bug of ours: nobody must wait for this worker
            with self.lock:
                self._leave(worker)
                if worker in self._parked:
                    self._parked.remove(worker)
            logger.exception("a worker has ended")

    def _serve(self, worker: Worker, run: Run) -> None:
        worker.since, worker.batch_size = perf_counter(), FIRST_BATCH
        try:
            serve(self, worker, run)
        except BaseException as bug:  # a bug of ours; a kernel's exceptions end in `serve`
            run.crash(bug)

    def _depart(self, worker: Worker, run: Run) -> None:
        """A worker leaves a run, and what is left of it is for others."""
        frame, worker.frame, worker.batch, worker.step = worker.frame, None, None, END
        with self.lock:
            if self._right is worker:
                self._right = None
            worker.run = None
        run.depart(worker)
        with self.lock:
            called = self._call_for(run)
            dropped = self._take_dropped()
        del dropped
        if called is not None:
            self._launch(called)
        if frame is not None:
            # A held exception keeps its kernel's frame, which refers back to the frames of `serve` and from there to
            # ours: whatever these hold would live as long. Those are cleared, and ours lets go of everything.
            clear_frames(frame)
            del worker, run

    def _rest(self, worker: Worker) -> bool:
        """Wait a moment for something to do; False: the worker ends."""
        bell = worker.bell
        if bell is None:  # it has ended under the lock already
            return False
        if not bell.acquire(timeout=REST):
            with self.lock:
                if worker in self._parked:
                    self._parked.remove(worker)
                    return False
            bell.acquire()  # somebody was just about to wake it
        worker.bell = None
        return not worker.void

    # What the monitor is for.

    def _look(self) -> View:
        """One look at the workers of serial runs; who has not got on since the last one is alone no longer."""
        view, called = View.NOTHING, list[Worker]()
        met: list[Run] = []  # the last reference to one may be ours: it must not go under the lock
        with self.lock:
            for worker in (*self._workers, *self._guests):
                run = worker.run
                if run is None or not run.serial:
                    continue
                met.append(run)
                view = max(view, View.FINE)
                progress = worker.progress
                if progress != worker.seen:
                    worker.seen = progress
                elif (
                    (worker.batch is not None and worker.batch.todo)
                    or run.core.ready
                    or (worker is self._right and self._others_are_serial(run))
                ):
                    self._judge(run, light=False)
                    other = self._call_for(run) or self._call_beside(run)
                    if other is not None:
                        called.append(other)
                    view = View.HELD_UP
        self._launch_all(called)
        return view


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
    here.run = here.attempt = None
    if _process_pool is not None:
        _process_pool.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
