"""A worker, and the two ways in which it executes the kernels of a run.

    step by step   execute ─▶ visit ─▶ execute ─▶ …      a visit to the pool between two kernels: see `Pool.visit`
    in order       claim ─▶ execute, execute, … ─▶ claim ─▶ …      by one worker alone, a batch for each visit

A run begins step by step, with as many workers as there are slots and kernels. When sixteen kernels in a row of one of
them took less than `light()` seconds of its processor time on average, several workers would only be in each other's
way: the run is *serial* from then on. When the kernels of a batch, or sixteen in a row, took more, it is no longer.
Processor time tells that where threads wait for the interpreter in peace; on some machines most of it is spent on the
waiting. So with kernels that may be light, one worker is given a batch now and then: if it is quicker than they were
together, it goes on.

Each kernel must run in a context of its own. Entering one for each is what costs most, so kernels run in one copy of
the caller's context, which is given up as soon as one of them has changed it. Comparing two contexts that share
everything is a comparison of pointers. Otherwise it compares values, and an equal one may be another: where the
caller's context holds values that compare by content (a list, a number), each kernel gets its own copy after all.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from threading import Lock
from time import perf_counter, process_time, sleep, thread_time, time_ns
from types import FrameType
from typing import Any, Final, Protocol

from dataflow.engine.runs.failure import trimmed
from dataflow.engine.runs.run import Run
from dataflow.engine.scheduler import END, Batch
from dataflow.events import OperatorEnded, observed
from dataflow.graph.plan import SEVERAL
from dataflow.graph.shown import UNKNOWN
from dataflow.threads.controller import LONG, process_intraop
from dataflow.threads.policy import Member, State

__all__ = ["Worker", "clear_frames", "serve"]

LOCKED: Final = getattr(sys, "_is_gil_enabled", lambda: True)
"""Whether threads take turns at the interpreter; may change when a module is imported."""
WINDOW = 16
"""Kernels after which a worker looks at what they took."""
SAMPLED, APART = 4, 5
"""Of how many of these the processor time is asked for, which takes half a microsecond each time, and how far apart
these are: five, so that of kernels that differ by turns each kind is among them."""
WAITS = 200e-6
"""Seconds by the wall clock from which on a kernel is not light, however little of the processor it needs."""
BATCH_SECONDS = 400e-6
"""The length of a batch; a stop, a resize and the monitor end it at once, and other runs have their turn after it."""
FIRST_BATCH, LARGEST_BATCH = 8, 2048
GIVE_WAY = 1e-3
"""Seconds after which a worker of light kernels lets other threads have the interpreter, if any may want it."""
AWAKE = 3e-6
"""Seconds of processor time that a thread takes at least which wakes, and then waits for the interpreter."""

_BY_NATURE = frozenset((str, bytes, type(None)))
"""Types of which equal values cannot be told apart by what they do."""


def light() -> float:
    """Seconds of processor time below which kernels are too light for several workers.

    What it costs to hand the next kernel over to another thread: 20 microseconds where the two take turns at the
    interpreter, 13 where they do not. Step by step, waiting for the interpreter takes some of what is measured, and in
    order it does not: so kernels about as long as that stay as they are, and do not go to and fro.
    """
    return 20e-6 if LOCKED() else 13e-6


class Worker:
    """What the pool knows of one."""

    __slots__ = (
        "batch",
        "bell",
        "comes",
        "executor",
        "frame",
        "gave_way",
        "guest",
        "member",
        "batch_size",
        "news",
        "others",
        "run",
        "seen",
        "since",
        "step",
        "thread",
        "visits",
        "void",
    )

    def __init__(self, *, guest: bool = False) -> None:
        self.guest = guest
        """Whether it is a kernel's thread that executes the run it waits for, on its kernel's slot."""
        self.run: Run | None = None
        self.batch: Batch | None = None
        """What it executes in order."""
        self.member: Member | None = None
        """Its part in the intra-op policy while it serves a run; None: BLAS is not managed."""
        self.visits = 0
        """How often it has visited the pool."""
        self.seen: tuple[int, int] = (-1, -1)
        """The monitor's: how far it was at the last look."""
        self.news = False
        """Whether whoever waits for its run has yet to hear of a failure."""
        self.comes = False
        """Whether it was called and is not there yet."""
        self.batch_size = FIRST_BATCH
        """How many steps it claims next."""
        self.step = END
        """What it was given last, step by step."""
        self.thread = 0
        """`threading.get_ident()` of its thread."""
        self.since = 0.0
        """When it last visited the pool, or came to its run."""
        self.gave_way = self.others = 0.0
        """When it last asked whether others may want the interpreter, and the processor time of these until then."""
        self.executor: ThreadPoolExecutor | None = None
        """Whose thread it has."""
        self.bell: Lock | None = None
        """Held while it is parked; released to wake it."""
        self.void = False
        """It ends as soon as it comes up: the executor refused it, or is retired."""
        self.frame: FrameType | None = None
        """After a failure: the frame of ours that the kernel's frame refers back to."""

    def give_way(self, now: float, cpu: float) -> None:
        """Let other threads have the interpreter, if any has been awake since the last time; `cpu` is our own time.

        The loop's thread, once it has woken up, waits for the interpreter, and would get it after its switch interval.
        Sleeping takes some 60 microseconds: a shorter moment is over before who waits has woken up.
        """
        self.gave_way = now
        others = process_time() - cpu
        if others - self.others > AWAKE:
            sleep(0)
        self.others = others

    def park(self) -> None:
        """From here on it waits at its bell, or is about to."""
        self.bell = Lock()
        self.bell.acquire()

    def ring(self) -> None:
        """Wake it."""
        assert self.bell is not None
        self.bell.release()

    @property
    def executes(self) -> int:
        """The step that it is in, or has just been in; `END` if it has none. Under the engine's lock."""
        batch = self.batch
        if batch is None:
            return self.step
        left = len(batch.todo)
        return batch.last if batch.last != END else batch.steps[-left - 1] if left < len(batch.steps) else END

    @property
    def progress(self) -> tuple[int, int]:
        """How far it is; the same at two looks means that it is in the same kernel."""
        batch = self.batch  # read once: its worker gives it up without the lock
        return self.visits, -1 if batch is None else len(batch.todo)


IN_ORDER: Final = -3
"""What a visit gives where the next steps may be claimed as a batch."""


class Visited(Protocol):
    """What a worker sees of the pool; said there."""

    def visit(self, worker: Worker, run: Run, done: int, now: float, light: bool | None) -> int: ...

    def claim(self, worker: Worker, run: Run) -> Batch | None: ...

    def did_batch(self, worker: Worker, run: Run, batch: Batch, now: float, *, light: bool) -> int: ...

    def beside(self, run: Run) -> int: ...

    def is_alone(self, run: Run) -> bool: ...


def serve(pool: Visited, worker: Worker, run: Run) -> None:
    """Execute kernels of this run until there are none, or others have their turn, or the worker has to go."""
    if run.apart is None:
        run.apart = _compares_by_content(run.context)
    copy, step = run.context.copy, END
    while True:
        mine = copy()
        step = mine.run(_step_by_step, pool, worker, run, mine, step)
        if step == IN_ORDER:
            step = _batches(pool, worker, run)
        elif step == END:
            return
        if worker.frame is not None:  # a kernel has failed
            return


def _step_by_step(pool: Visited, worker: Worker, run: Run, mine: Context, step: int) -> int:
    """Execute kernels one by one in the context `mine`, which `step` has changed, if any; that step is done.

    Returns END if the worker is to leave, IN_ORDER, or the step after which it needs another context.
    """
    plan, values, base, member, visit = run.plan, run.values, run.context, worker.member, pool.visit
    calls, usual, settled, long, apart = run.calls, plan.usual, plan.settled, plan.shown.long, run.apart
    watched, row = observed(OperatorEnded), run.record.row() if run.record is not None else None
    if member is not None and member.state is not State.SMALL:
        process_intraop.small(member)
    count, wall, spent = 0, perf_counter(), 0.0
    now = wall
    while True:
        light_so_far = None
        if count == WINDOW:
            each, workers = (now - wall) / WINDOW, len(run.crew)
            light_so_far = spent < SAMPLED * light() and each < WAITS
            if not light_so_far and workers > 1 and each < min(2 * workers * light(), WAITS) and plan.shown.tries():
                run.to_beat, light_so_far = each / workers, True
            count, wall, spent = 0, now, 0.0
        step = visit(worker, run, step, now, light_so_far)
        if step < 0:
            return step
        sampled = not count % APART
        count += 1
        began = perf_counter()
        if sampled:
            spent -= thread_time()
        try:
            if watched:
                result = _watched(worker, run, step)
            else:
                kind = long[step]
                # Beside others nobody gets several, and to ask takes longer than most kernels.
                if member is not None and kind and (kind != UNKNOWN or pool.is_alone(run)):
                    result = _with_blas_threads(pool, worker, member, run, step)
                elif apart:
                    result = base.copy().run(calls[step], values)
                else:
                    result = calls[step](values)
                if type(result) is not usual[step]:
                    if type(result) in settled[step]:
                        usual[step] = type(result)
                    else:
                        result = run.settle(step, result)
        except BaseException as exc:
            worker.frame = worker.frame or sys._getframe()
            if row is not None:
                row.append((step, began, perf_counter()))
            run.failed(step, exc, worker)
            return END
        values[step] = result
        result = None
        if sampled:
            spent += thread_time()
        now = perf_counter()
        if row is not None:
            row.append((step, began, now))
        if now - began > LONG:
            long[step] = True
        elif long[step] == UNKNOWN or now - began < LONG / 4:  # with several BLAS threads it takes less
            long[step] = False
        try:
            if mine != base:
                return step
        except Exception:  # what a kernel has set cannot be compared
            return step


def _batches(pool: Visited, worker: Worker, run: Run) -> int:
    """Execute batches in order as long as that may be; a step that is done and was not reported, or END."""
    copy, locked, end = run.context.copy, LOCKED(), IN_ORDER
    while end == IN_ORDER and (batch := pool.claim(worker, run)) is not None:
        count, wall, cpu = len(batch.steps), perf_counter(), thread_time()
        if locked and wall - worker.gave_way > GIVE_WAY:
            worker.give_way(wall, cpu)
            wall = perf_counter()
        while True:
            mine = copy()
            if not mine.run(_in_order, worker, run, batch, mine):
                break
        now, spent = perf_counter(), thread_time() - cpu
        if run.record is not None:
            run.record.row().append((batch.begun, wall, now))
        if worker.frame is not None:
            return END
        # While the first few are executed, others are only just leaving.
        most = count * light() * (3 if count <= FIRST_BATCH else 1)
        is_light = (spent < most and now - wall < count * WAITS) or now - wall < count * run.to_beat
        end = pool.did_batch(worker, run, batch, now, light=is_light)
    return END if end == IN_ORDER else end


def _in_order(worker: Worker, run: Run, batch: Batch, mine: Context) -> bool:
    """Execute what is left of a batch in the context `mine`; whether it is used up, and something may be left."""
    plan, values, base, popleft = run.plan, run.values, run.context, batch.todo.popleft
    calls, usual, settled, last_read, releases = plan.calls, plan.usual, plan.settled, plan.last_read, plan.releases
    apart = run.apart
    while True:
        try:
            step = popleft()
        except IndexError:  # nothing is left
            return False
        try:
            result = base.copy().run(calls[step], values) if apart else calls[step](values)
            if type(result) is not usual[step]:
                if type(result) in settled[step]:
                    usual[step] = type(result)
                else:
                    result = run.settle(step, result)
        except BaseException as exc:
            worker.frame = sys._getframe()
            run.failed(step, exc, worker)
            return False
        values[step] = result
        slot = last_read[step]
        if slot >= 0:
            values[slot] = None
        elif slot == SEVERAL:
            for slot in releases[step]:
                values[slot] = None
            result = None
        try:
            if mine != base:
                return True
        except Exception:
            return True


def _watched(worker: Worker, run: Run, step: int) -> Any:
    """Execute a kernel of a run that observers watch, and settle its result; they are told before it is reported.

    It runs in a context of its own, whatever the others have set.
    """
    plan, began, started = run.plan, time_ns(), perf_counter()
    try:
        result = run.context.copy().run(run.calls[step], run.values)
        if type(result) not in plan.settled[step]:
            result = run.settle(step, result)
    except BaseException as exc:
        worker.frame = sys._getframe()
        run.tell_operator(step, began, perf_counter() - started, trimmed(exc))
        raise
    run.tell_operator(step, began, perf_counter() - started, None)
    return result


def _with_blas_threads(pool: Visited, worker: Worker, member: Member, run: Run, step: int) -> Any:
    """Execute a kernel that takes long with as many BLAS threads as there are for it; see `threads.controller`."""
    process_intraop.start(member, ready=pool.beside(run))
    try:
        return run.context.copy().run(run.calls[step], run.values)
    except BaseException:
        worker.frame = sys._getframe()
        raise
    finally:
        process_intraop.end(member)
        process_intraop.small(member)


def _compares_by_content(context: Context) -> bool:
    """Whether a value that a kernel sets may be equal to one in here and yet another: then equality proves nothing."""
    kinds: list[Any] = [type(value) for value in context.values()]
    return any(kind not in _BY_NATURE and kind.__eq__ is not object.__eq__ for kind in kinds)


def clear_frames(frame: FrameType | None) -> None:
    """Clear the frame of the loop in which a kernel failed, and those behind it that have ended."""
    while frame is not None:
        try:
            frame.clear()
        except RuntimeError:  # it is running: the caller's
            return
        frame = frame.f_back
