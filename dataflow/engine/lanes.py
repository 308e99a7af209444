"""The bounded ThreadPoolExecutor of the process, and the lanes on it.

A *lane* is a job on the executor that executes ready kernels one after another: it claims a segment of a run,
executes it, reports it and claims the next under one lock, with no trip through an event loop in between. When there
is nothing left to do it *rests* for a moment, without a slot, since waking it costs less than starting another; then it
ends, so an idle process has only sleeping workers.

    offer(run) ─▶ queue ─▶ lane: claim ─▶ execute ─▶ report + claim ─▶ … ─▶ nothing left: the lane rests, then ends
                    ▲                                      │
                    └──── runs take turns ─────────────────┘   (in calm: execute ─▶ exchange ─▶ execute ─▶ …)

Rules, all under the pool's lock:

1. At most `limit` lanes hold a slot, and only a lane with a slot starts kernels. After shrinking, a lane that comes
   to the end of its kernel gives up its slot; none is handed out until fewer than `limit` are held.
   A kernel that has nothing to do but wait for its inner run lends its slot, and gets it back before any further lane
   starts a kernel.
2. A run with ready kernels is in the queue (once). Whoever makes kernels ready offers the run *after* that, and a
   lane drops a run from the queue only while it sees nothing ready in it: no wake-up is lost.
3. Waking by worth: a lane wakes another at once if the heavy kernels that it leaves ready are worth it, as kernels of
   unknown cost are. Light kernels (see the scheduler) are worth no second lane: one lane, the *sweeper*, takes those
   of all runs. A lane that finds nothing takes half of the heavy kernels that another has claimed and not
   started, unless they depend on each other. Lanes tell the plan's costs how they get on together (see `appraisal`),
   which decides what counts as light. Whatever the limit, no more lanes than CPUs come at once, besides those whose
   kernels wait for inner runs.
4. Delayed, never refused: as long as anything waits while a slot is free, the watcher looks every `DELAY` seconds if
   heavy kernels are ready, and otherwise every `CALM` seconds. What is ready then gets a lane, worth it or not. A lane
   that has not come forward since the last look is stuck in a kernel: what it has claimed is taken from it, and if it
   was the sweeper another lane becomes it. So two kernels that wait for each other meet, also if both were thought
   light. How many lanes come beyond the CPUs, `crowd` says.
5. Lock order: the pool's lock is never held while a run's lock is taken, nor the other way round; nor while the last
   reference to a run may go, since freeing what it holds may call user code.
6. *Calm*: while all lanes that are wanted are there, or nothing is ready for those to come, there is nothing to decide
   between two heavy kernels. A lane then goes from one to the next with one short visit to its run (`Run.go_on`), for
   `CALM_SECONDS` (`LOOK_SECONDS` while it has much to learn, `TURN` if other runs wait); unless somebody stirs it up
   (`_stir`): whoever changes who has a slot, who waits for one, or what is in the queue, after the change. All of that
   is done under the lock, and so is the look around by which a lane becomes calm. Where slots are free,
   no lane is calm unless the watcher is awake, which sees to what a calm lane does not, or the lane is *lonely*: lanes
   that are wanted have yet to come, and it stops as soon as something would be left for them.
   A lane that makes something ready looks after that whether others are there to take it (`_turn`, `Run.go_on`); a lane
   that leaves looks after that what has been made ready meanwhile. One of the two sees the other.
7. Whether a run has anything ready, who is the sweeper and how long the queue is are read without a lock where a stale
   answer only costs a turn: whoever makes a run ready offers it afterwards, under the lock.

Why not `executor.submit` for each kernel: two locks, a future and a thread switch each, tens of microseconds.
Why the executor is replaced when the limit changes: `max_workers` cannot be changed, and a private attribute that
looks as if it could neither adds threads to a backlog nor takes any away.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import inf
from threading import Lock

from dataflow.engine.appraisal import appraise
from dataflow.engine.crowd import Crowd
from dataflow.engine.execute import clear_frames, execute
from dataflow.engine.executors import Executors, submit
from dataflow.engine.lane import Lane
from dataflow.engine.run import Run, here
from dataflow.engine.scheduler import BATCH_SECONDS
from dataflow.engine.segment import END, Segment, Weight
from dataflow.engine.watcher import CALM, DELAY, GIVE_WAY, Haste, Watcher
from dataflow.threads.budget import LONG, Member, State
from dataflow.threads.intraop import BIG, process_intraop
from dataflow.threads.settings import process_settings

logger = logging.getLogger("dataflow")

__all__ = ["Pool", "process_pool"]

WORTH = 40e-6
"""Seconds of work that a lane leaves ready, below which it wakes no other: that one would come too late for it."""
TURN = 400e-6
"""Seconds for which a lane goes on in calm while other runs wait for their turn. Two runs at once of kernels of 30, 60
and 100 microseconds were 0.48, 1.24 and 1.4 times as fast as a loop over both where each turn was one kernel, 0.9, 1.42
and 1.49 times with 200 microseconds, 0.94, 1.5 and 1.59 with 400, 1.2, 1.52 and 1.61 with 1,000 (medians of 25, 2 CPUs,
Python 3.11). A run has to wait so long for each other one, or for one kernel of it, or for one batch of light ones."""
CALM_SECONDS = 25e-3
"""For so long a lane goes on in calm otherwise, before it looks around and learns from a segment, which takes it 45
microseconds. With 4 milliseconds that was one in ten kernels of 400 microseconds. Beside another lane, kernels of 40
microseconds cost 7 to 9 microseconds more each than in a bare loop, of which the visit to the run is 5, and 22 where
each came with the full round (2 CPUs, Python 3.11)."""
LOOK_SECONDS = 4e-3
"""The same for kernels below `BATCH_SECONDS`, as long as it is not settled whether several lanes are worth it."""
REST = 10e-3
"""Seconds for which a lane rests. A process that exits waits so long at the most."""


class Pool:
    """At most `limit` lanes on a ThreadPoolExecutor of as many threads; see the module docstring for the rules."""

    def __init__(self, limit: int, cpus: int) -> None:
        self._lock = Lock()
        self._limit = limit
        self._crowd = Crowd(cpus)
        self._slots = limit
        """The limit, and one more for each kernel that lends its slot because it only waits."""
        self._among = min(limit, cpus)
        """Among how many lanes work is shared: those wanted, and those whose kernels only wait; see `_count_wanted`."""
        self._returning: deque[Lock] = deque()
        """Kernels that want theirs back; each waits for its lock to be released."""
        self._lanes: set[Lane] = set()
        self._queue: deque[Run] = deque()
        self._sweeper: Lane | None = None
        self._executors = Executors()
        self._guests: set[Lane] = set()
        """Kernels' threads that execute the run they wait for, on their kernel's slot."""
        self._resting: list[Lane] = []
        """Lanes without a slot and with nothing to do; the one that came last is woken first."""
        self._watcher = Watcher(self._lock, self._look)

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
    def resting(self) -> int:
        """How many lanes wait a moment for something to do before they end."""
        return len(self._resting)

    @property
    def queued(self) -> int:
        """How many kernels are ready and wait for a lane."""
        with self._lock:
            return sum(run.core.ready for run in self._queue)

    # From outside.

    def offer(self, run: Run) -> None:
        """Kernels of this run became ready: see that lanes take them."""
        lanes: list[Lane] = []
        with self._lock:
            comes_new = not run.queued
            lane, watch = self._spread(run, worth=0.0)
            all_taken = comes_new and run.queued and lane is None and not watch
            victim = self._victim() if all_taken else None
            while lane is not None:  # and those that it would wake
                lanes.append(lane)
                lane = self._spread(run, WORTH, beside=len(lanes))[0]
        for lane in lanes:
            self._launch(lane)
        if watch:
            self._watch()
        if victim is not None and victim[0] is not run:
            # So that its lane comes back after one kernel, and takes turns: one that it was about to start goes first.
            victim[0].relieve(victim[1], but_first=True)

    def drive(self, run: Run, begin: Callable[[], object], wait: Callable[[], object]) -> None:
        """Execute kernels of this run in the calling thread, beside free lanes, until it is settled.

        For a run that a kernel waits for: it has the kernel's slot. `begin` begins it, once the kernel counts as one
        that executes nothing: another lane may be quicker. `wait` blocks until something has changed.
        """
        kernel = process_intraop.pause()
        try:
            begin()
            self._drive(run, wait)
        finally:
            process_intraop.resume(kernel)
            del run, begin, wait  # as in `_drive`

    def _drive(self, run: Run, wait: Callable[[], object]) -> None:
        lane = Lane()
        lane.run = run
        outer, here.run = here.run, run
        with self._lock:
            self._guests.add(lane)
        lane.member = process_intraop.come()
        try:
            while not run.settled:
                segment = lane.segment = run.claim(light=True, lanes=self._among)
                if segment is not None:
                    while True:
                        self._turn(lane, run, segment)
                        if self._sweeper is lane and len(self._queue) > run.queued:
                            self._pass_on(lane)
                        if not run.proceed(segment, light=True, lanes=self._among, again=True):
                            break
                with self._lock:
                    if self._sweeper is lane:
                        self._sweeper = None
                if lane.member is not None:
                    process_intraop.rest(lane.member)
                lane.segment = None
                if segment is not None:
                    run.depart(segment)
                    if segment.frame is not None:
                        clear_frames(segment.frame)  # as in `_serve`
                segment = None
                if run.concluded:  # others are just about to leave it: not worth lending a slot
                    while not run.settled:
                        wait()
                elif not run.settled:
                    self._wait(run, wait)
        except BaseException:  # a bug of ours: the kernel gets it, and nothing waits for our segment
            if lane.segment is not None:
                _give_up(run, lane.segment)
            raise
        finally:
            if lane.member is not None:
                process_intraop.go(lane.member)
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
            self._among += 1
            self._stir()
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
                self._stir()
                self._give_back()
            ours.acquire()  # at the latest when the next kernel of another lane has ended

    def _give_back(self) -> None:
        """Under the lock: slots that no lane holds go to those who lent theirs, before any lane gets one."""
        while self._returning and len(self._lanes) < self._slots:
            self._slots -= 1
            self._among -= 1
            self._returning.popleft().release()
            self._stir()

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
            self._crowd.anew()
            self._count_wanted()
            self._give_back()
            retired = self._executors.retire()
            resting, self._resting = self._resting, []
            queued = list(self._queue)
        return partial(self._resized, retired, resting, held, queued)

    def _resized(
        self,
        retired: list[ThreadPoolExecutor],
        resting: list[Lane],
        held: list[tuple[Run | None, Segment | None]],
        queued: list[Run],
    ) -> None:
        for lane in resting:
            lane.void = True
            lane.ring()
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
        Pool.__init__(self, process_settings.interop().value, self._crowd.cpus)

    # Slots.

    def _count_wanted(self) -> None:
        """Under the lock: the limit, or how many lanes are wanted, was changed."""
        self._among = self._slots - max(0, self._limit - self._crowd.wanted)
        self._stir()

    def _stir(self) -> None:
        """Under the lock: something has changed that lanes have to see to, so none goes on in calm."""
        for lane in (*self._lanes, *self._guests):
            segment = lane.segment  # read once: its lane gives it up without the lock
            if segment is not None:
                segment.calm = False

    def _spread(self, run: Run, worth: float, beside: int = 0) -> tuple[Lane | None, bool]:
        """Under the lock: what to do about the ready kernels of a run: (a lane to launch, whether to watch).

        Heavy kernels are left to the watcher if they take no more than `worth` seconds in all, but for the first ones,
        of which lanes that are on their way take one each.
        """
        core = run.core
        if not core.ready:
            return None, False
        if not run.queued:
            run.queued = True
            self._queue.append(run)
            self._stir()
        if len(self._lanes) >= self._slots:
            return None, False
        if len(self._lanes) >= self._among:
            return None, True
        if core.heavy_seconds(beside) > worth or (self._sweeper is None and not beside):
            lane = self._resting.pop() if self._resting else Lane()
            lane.came = time.perf_counter()
            self._lanes.add(lane)
            self._stir()
            return lane, False
        return None, True

    def _launch(self, lane: Lane) -> None:
        """Start or wake a lane that holds a slot. Not under the lock: starting a thread takes a while."""
        if lane.bell is not None:
            lane.ring()
            return
        while True:
            with self._lock:
                executor = lane.executor = self._executors.for_one_more(
                    lanes=len(self._lanes), limit=self._limit, slots=self._slots
                )
            try:
                submit(executor, self._work, lane)
            except BaseException as exc:
                with self._lock:
                    # Void: it may have been queued before a thread for it could not be started.
                    lane.void = True
                    self._lanes.discard(lane)
                    self._give_back()
                    if executor not in self._executors and isinstance(exc, RuntimeError):
                        lane = Lane()  # a resize came in between
                        lane.came = time.perf_counter()
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
                if not forlorn and threading.main_thread().is_alive():  # else the interpreter closes: nobody will mind
                    logger.warning("no further inter-op thread could be started", exc_info=exc)
                if not isinstance(exc, Exception):
                    raise
            return

    # A lane.

    def _work(self, lane: Lane) -> None:
        """The job on the executor."""
        try:
            while (run := self._next_run(lane)) is not None or self._rest(lane):
                if run is None:
                    continue
                here.run = lane.run = run
                try:
                    lane.member = process_intraop.come()
                    self._serve(lane, run)
                except BaseException as exc:  # a bug of ours; a kernel's exceptions end in execute()
                    self._rescue(lane, run, exc)
                if lane.member is not None:
                    process_intraop.go(lane.member)
                    lane.member = None
                here.run = lane.run = lane.segment = None
                del run  # before anything waits
        except BaseException:  # another bug of ours: nobody must wait for this lane
            with self._lock:
                self._leave(lane)
                if lane in self._resting:
                    self._resting.remove(lane)
            logger.exception("a lane has ended")

    def _rest(self, lane: Lane) -> bool:
        """Wait a moment for something to do; False: the lane ends."""
        bell = lane.bell
        if bell is None:  # it has ended under the lock already
            return False
        if not bell.acquire(timeout=REST):
            with self._lock:
                if lane in self._resting:
                    self._resting.remove(lane)
                    return False
            bell.acquire()  # somebody was just about to wake it
        lane.bell = None
        return not lane.void

    def _rescue(self, lane: Lane, run: Run, bug: BaseException) -> None:
        """After a bug of ours the run ends with it, and the lane goes on with others."""
        try:
            try:
                run.crash(bug)
            finally:
                if lane.segment is not None:
                    _give_up(run, lane.segment)
        except BaseException:
            logger.exception("a lane could not leave %r in order", run)

    def _next_run(self, lane: Lane) -> Run | None:
        """The run whose turn it is. None: the lane has given up its slot, and rests if it has a bell."""
        may_take = True
        while True:
            dropped: list[Run] = []  # perhaps for good, which may call user code: not under the lock
            with self._lock:
                run = self._choose(lane, dropped)
                victim = self._victim() if run is None and may_take else None
                if run is None and victim is None:
                    self._leave(lane)
                    left = bool(self._queue) or self._any_unstarted()
                    # Whoever made something ready just now, before we had left, has taken us for one who is there.
                    served = [other.run for other in (*self._lanes, *self._guests)]  # read once, as segments are
                    late = {other for other in served if other is not None}
            del dropped
            if run is not None:
                return run
            if victim is None:
                del served
                for other in late:
                    with other.lock:  # else what its lane is just about to take would count
                        ready = other.core.ready
                    if ready and not other.queued:
                        self.offer(other)
                del late
                if left:  # light kernels of the sweeper's, or of a guest: it may be stuck, and now there is a slot
                    self._watch()
                return None
            run, segment = victim
            may_take = run.split(segment)
            if may_take:
                with self._lock:
                    if not run.queued:
                        run.queued = True
                        self._queue.append(run)
                        self._stir()
            del run, segment, victim

    def _choose(self, lane: Lane, dropped: list[Run]) -> Run | None:
        """Under the lock: the run whose turn it is, if the lane may go on; those with nothing ready are `dropped`."""
        queue = self._queue
        if lane.void or len(self._lanes) > self._among or self._returning:
            for _ in range(len(queue)):  # in their order; perhaps no other lane comes by to drop those that are over
                run = queue.popleft()
                if run.core.ready:
                    queue.append(run)
                else:
                    run.queued = False
                    dropped.append(run)
            return None
        if len(queue) > 1 and queue[0].number == lane.served and queue[0].core.ready:
            queue.rotate(-1)  # who came while the lane served that one has its turn first
        for _ in range(len(queue)):
            run = queue[0]
            core = run.core
            if not core.ready:
                run.queued = False
                dropped.append(queue.popleft())
                continue
            queue.rotate(-1)
            if core.heavy or self._sweeper is None or self._sweeper is lane:
                lane.served = run.number
                return run
        return None

    def _victim(self) -> tuple[Run, Segment] | None:
        """Under the lock: the segment of heavy kernels of which the most have not started."""
        most, found = 0, None
        for lane in (*self._lanes, *self._guests):
            segment, run = lane.segment, lane.run
            if (
                segment is not None
                and run is not None
                and segment.weight is not Weight.LIGHT
                and segment.unstarted > most
                and not lane.held
            ):
                most, found = segment.unstarted, (run, segment)
        return found

    def _any_unstarted(self) -> bool:
        """Under the lock: whether any lane has claimed something that it has not started."""
        segments = [lane.segment for lane in (*self._lanes, *self._guests)]
        return any(segment is not None and segment.unstarted for segment in segments)

    def _leave(self, lane: Lane) -> None:
        """Under the lock: the lane's slot is free; the lane rests, if its thread has a future."""
        self._lanes.discard(lane)
        self._stir()
        if self._sweeper is lane:
            self._sweeper = None
        self._give_back()
        if not lane.void and lane.executor in self._executors:
            lane.rest()
            self._resting.append(lane)

    def _serve(self, lane: Lane, run: Run) -> None:
        """Execute segments of this run as long as there are any and no other run waits for its turn."""
        queue, lanes, core = self._queue, self._lanes, run.core
        segment = run.claim(light=self._sweeper is lane or self._sweeper is None, lanes=self._among)
        if segment is not None:
            with self._lock:
                lane.segment = segment
            while True:
                # The limit is read without the pool's lock. If it was changed before this segment was filled, we see
                # the new one; if after, whoever changed it finds these steps, since both are under the run's lock.
                if len(lanes) > self._slots:
                    run.relieve(segment)
                self._turn(lane, run, segment)
                light = self._sweeper is lane or self._sweeper is None
                stay = len(queue) <= run.queued and len(lanes) <= self._among and not self._returning
                if not run.proceed(segment, light=light, lanes=self._among, again=stay):
                    break
            if lane.member is not None:  # before whoever waits for the run hears of its end
                process_intraop.go(lane.member)
                lane.member = None
            lane.segment = None
            run.depart(segment)
        if core.ready:
            self.offer(run)
        if segment is not None and segment.frame is not None:
            # A held exception keeps its kernel's frame, which refers back to the frames of `execute` and from there to
            # ours: whatever these hold would live as long. Those are cleared, and ours lets go of everything.
            clear_frames(segment.frame)
            del lane, run, segment, core

    def _turn(self, lane: Lane, run: Run, segment: Segment) -> None:
        """Execute one segment, having seen to it that others take what it leaves; in calm, also what follows it."""
        lane.turns += 1
        if (
            segment.weight is Weight.LIGHT
            and lane.ended - lane.gave_way > GIVE_WAY
            and (lane.ended > self._watcher.spared or self._slots == 1)
        ):
            time.sleep(0)
            lane.gave_way = lane.ended
        ready = run.core.ready
        if (self._sweeper is lane) != (segment.weight is Weight.LIGHT) or (ready and len(self._lanes) < self._among):
            self._share(lane, run, segment)
        elif not self._watcher.awake and len(self._lanes) < self._slots and (ready or len(segment.todo) > 2):
            self._watch()
        segment.calm, segment.most = False, inf if lane.member is None else BIG
        steps = segment.claimed  # read once: others may take from it
        heavy = steps[0] if segment.weight is Weight.HEAVY and steps else END
        if heavy != END:
            self._be_calm(run, segment, heavy)
        if lane.member is None:
            lane.ended = execute(run, segment)
        else:
            self._execute_within_budget(lane, lane.member, run, segment)
        if appraise(lane, run.plan.costs, heavy, self._lanes):
            run.reconsider()
            with self._lock:
                self._stir()  # lanes of other runs of the plan should see to that, too

    def _be_calm(self, run: Run, segment: Segment, step: int) -> None:
        """A lane may go on for a while, beginning with this step, until a lane comes or goes or a run is queued."""
        with self._lock:  # what changes after this stirs the lane up
            segment.among, segment.lonely = self._among, len(self._lanes) < self._among
            segment.calm = (
                len(self._lanes) <= self._among
                and not self._returning
                and (self._watcher.awake or segment.lonely or self._among == self._slots)
            )
        if len(self._queue) > run.queued:
            segment.calm_seconds = TURN
        else:
            costs = run.plan.costs
            settled = costs.settled or costs.seconds[step] >= BATCH_SECONDS
            segment.calm_seconds = CALM_SECONDS if settled else LOOK_SECONDS

    def _execute_within_budget(self, lane: Lane, member: Member, run: Run, segment: Segment) -> None:
        """Execute one segment with as many BLAS threads as there are for it; see `threads.intraop`."""
        costs, step = run.plan.costs, segment.todo[-1] if segment.todo else END
        if step == END or segment.weight is Weight.LIGHT or costs.seconds[step] < BIG:
            if step != END and member.state is not State.SMALL:  # else all was taken from it already
                process_intraop.small(member)
            lane.ended = execute(run, segment)
            return
        seconds = costs.seconds[step]
        others = min(run.startable(segment), self._slots - 1)
        single, gain, trial = costs.gains.advice(step, lonely=not others)
        lane.held = True
        try:
            process_intraop.start(member, seconds=seconds if single is None else single, gain=gain, ready=others)
            # With all CPUs, what it is just about to start it had better start itself.
            lane.held = member.threads > 1 and len(segment.todo) <= 2
            if member.threads > 1 or costs.gains.some or trial:
                segment.calm = False  # the next kernel may have other threads, or this one is to be looked at
            segment.gained = member.gained
            segment.most = LONG  # whoever goes on for longer may get more of them in its midst
            try:
                lane.ended = execute(run, segment)
            finally:
                sample = process_intraop.end(member)
        finally:
            lane.held = False
        if sample is not None and segment.frame is None and list(segment.claimed) == [step]:
            if sample.several:
                costs.gains.took_several(step, sample.seconds, warm=sample.warm, helped=sample.helped)
            else:
                costs.gains.took_one(step, sample.seconds, alone=sample.alone)

    def _share(self, lane: Lane, run: Run, segment: Segment) -> None:
        """A lane is about to execute a segment: see that others take what it leaves, and who takes light kernels."""
        with self._lock:
            if segment.weight is Weight.LIGHT:
                # A guest stays with its run, so it is sweeper only while there is no other.
                if self._sweeper is None and (lane not in self._guests or len(self._queue) <= run.queued):
                    self._sweeper = lane
            elif self._sweeper is lane:
                self._sweeper = None
            launch, watch = self._spread(run, WORTH)
        if launch is not None:
            self._launch(launch)
        if watch or len(segment.todo) > 2:
            self._watch(DELAY if watch and run.core.heavy else CALM)

    def _pass_on(self, sweeper: Lane) -> None:
        """Light kernels of other runs wait for a lane that stays with its own run: let another lane have them."""
        with self._lock:
            if self._sweeper is sweeper:
                self._sweeper = None
            others = [run for run in self._queue if run is not sweeper.run]
        for run in others:
            self.offer(run)

    # What the watcher is for.

    def _watch(self, delay: float = CALM) -> None:
        """Something waits while a slot is free: see that nobody waits for it in vain, from `delay` seconds on."""
        if self._slots > 1:
            self._watcher.wake(delay)

    def _look(self, late: bool) -> bool:
        """One look at all lanes; returns whether to go on looking.

        If the look itself comes late, the machine or the interpreter is busy, and a lane that has not come forward
        may not have had its turn: it gets the benefit of the doubt, once.
        """
        stuck: list[tuple[Run, Segment]] = []
        met: list[Run] = []  # the last reference to one may be ours: it must not go under the lock
        with self._lock:
            if len(self._lanes) >= self._slots and self._crowd.wanted <= self._crowd.cpus:
                return self._watcher.sleep()  # who frees a slot wakes it
            waiting = next((run for run in self._queue if run.core.ready), None)
            worth = waiting is not None
            stalled = bool(self._lanes)
            for lane in (*self._lanes, *self._guests):
                segment, run = lane.segment, lane.run
                if segment is None or run is None:
                    worth = worth or lane in self._lanes  # it is about to claim; a guest may wait for long
                    continue
                met.append(run)
                claimed = segment.claimed  # read once
                seen = (lane.turns, len(segment.todo), claimed[0] if claimed else END)
                worth = worth or len(segment.todo) > 1 or len(claimed) > 1
                if seen == lane.looked_at and (lane.doubted or not late) and not lane.held:
                    if len(segment.todo) > 1 or len(claimed) > 1:
                        stuck.append((run, segment))
                    if self._sweeper is lane:
                        self._sweeper = None
                # One that the budget holds back is not stalled: a further one would not help it.
                member = lane.member  # read once: its lane gives it up without the lock
                lane.doubted = seen == lane.looked_at and not (member is not None and member.waits)
                stalled = stalled and lane.doubted
                lane.looked_at = seen
            more = 1
            if self._crowd.wanted < self._limit:
                self._crowd.look(self._limit, stalled=stalled and waiting is not None)
                self._count_wanted()
                more = self._among - len(self._lanes)
            haste = Haste.NONE
            if waiting is not None and waiting.core.heavy:
                haste = Haste.LESSENS if len(self._lanes) >= self._among and not stalled else Haste.URGENT
            go_on = self._watcher.settle(worth=worth, idle=not self._lanes, haste=haste)
            if not go_on:
                self._stir()
        for run, segment in stuck:
            run.relieve(segment, stuck=True)
            self.offer(run)
        if waiting is not None:
            for _ in range(max(1, min(more, waiting.core.ready))):
                self.offer(waiting)
        return go_on


def _give_up(run: Run, segment: Segment) -> None:
    """A lane leaves a run after a bug of ours: nobody must wait for it."""
    try:
        run.proceed(segment, light=False, lanes=1, again=False)
    finally:
        run.depart(segment)


_process_pool: Pool | None = None
_creating = Lock()


def process_pool() -> Pool:
    """The one pool of this process, made at the first call; it follows the inter-op setting."""
    global _process_pool
    if _process_pool is None:
        # These may warn, which is user code: not under the lock.
        limit, cpus = process_settings.interop().value, process_settings.cpus()
        with _creating:
            if _process_pool is None:
                pool = Pool(limit, cpus)
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
