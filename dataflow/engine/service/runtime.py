"""`Runtime`: a bound on runs, and an end to them, for applications that host pipelines.

    p.on(rt)(x) ─▶ a place (see `admission`) ─▶ the run, as in the default runtime ─▶ the place is left
    p.on(rt).stream(xs), entered ─▶ a place ─▶ a run for each item, inside it ─▶ ended, the place is left

A run that begins inside a run of the same runtime needs no place: the one around it has one. Of tasks that outlive that
one, new runs take places of their own, and streams that were entered before begin no further item.
"""

from __future__ import annotations

import asyncio
import math
import operator
import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from functools import cache, partial
from numbers import Real
from threading import Lock
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

from dataflow.engine.runs.driver import Driver, NestedRun, awaiting_loop
from dataflow.engine.runs.loop import loop_runs_here, running_loop
from dataflow.engine.runs.orphans import orphans
from dataflow.engine.runs.run import Run, here
from dataflow.engine.service.admission import Admission, Openness
from dataflow.engine.service.info import ParallelInfo
from dataflow.engine.service.ticket import (
    Awaiter,
    Holder,
    Outcome,
    StillRunning,
    Ticket,
    current_ticket,
    encloses,
    nearest,
)
from dataflow.errors import RuntimeClosed
from dataflow.graph.nodes import Kind, OpSpec
from dataflow.graph.plan import Plan, make_plan
from dataflow.graph.tracing.placeholder import record
from dataflow.graph.tracing.trace import trace

__all__ = ["Runtime"]

GRACE = 0.25
"""Seconds for which `aclose` waits for the async ops, and kernels, of the runs that it has stopped."""
LONGEST = 3600.0
"""Seconds of one wait: event loops differ in how large a number they take."""


class Runtime(Driver):
    """Bounds how many runs are in progress, and can be closed. `p.on(rt)` and `op.on(rt)` run in it.

    `max_runs` is how many runs may be in progress at once, None for any number. Further ones wait for a place, first
    come, first served: at most `max_waiting` of them, None for any number. Beyond that, awaiting one raises
    `Overloaded`, with `retry_after` in seconds. Waiting holds no thread, and can be cancelled. `name` is what errors
    call the runtime.

    A run that a kernel or an async op of a run begins belongs to the runtime of the run around it, and needs no further
    place: so runs inside runs do not deadlock at any `max_runs`. An explicit `.on(other)` takes a place in `other`,
    unless there is a run of `other` around it already; two runtimes that wait for each other's places do deadlock.
    What a task of an async op begins when the run is over takes a place as any other run. Being inside goes by the
    context: `asyncio.to_thread` hands it on, `loop.run_in_executor` and threads of your own do not.

    A stream takes one place for all of its items, from when it is entered until it has ended; see `Stream`.

    Bounds are on runs, not on kernels: how many of these execute at once is the inter-op setting, for the whole
    process. A runtime is not bound to an event loop: any number of loops and threads may share it. `async with
    Runtime(...)` closes it at the end (see `aclose`), and drains what runs; also if its body failed or was cancelled.

    Raises TypeError for bounds that are no integers (a bool, a float) and a name that is no str, ValueError for
    `max_runs` below 1, `max_waiting` below 0, and `max_waiting` without `max_runs`.
    """

    def __init__(
        self, max_runs: SupportsIndex | None = None, max_waiting: SupportsIndex | None = None, name: str = "runtime"
    ) -> None:
        runs, waiting = _bound("max_runs", max_runs, least=1), _bound("max_waiting", max_waiting, least=0)
        if runs is None and waiting is not None:
            raise ValueError(
                f"Runtime(max_waiting={waiting}): without max_runs no run ever waits; give max_runs as well, or neither"
            )
        if not isinstance(name, str):
            raise TypeError(f"Runtime(name=) takes a str, not {type(name).__name__}")
        self._admission = Admission(name, runs, waiting)
        self._lock = Lock()
        self._orphaned: dict[int, tuple[weakref.ref[Run], float]] = {}
        """Runs that were stopped while kernels of them ran, which may have returned since, and when they had begun. No
        lock: the garbage collector may stop a forgotten run in the middle of anything (see `admission`)."""
        self._stopped_at: float | None = None
        """When `aclose` lost patience."""
        _runtimes.add(self)

    @property
    def name(self) -> str:
        """What errors call it."""
        return self._admission.name

    def __repr__(self) -> str:
        of = self._admission
        most = "" if of.max_runs is None else f" of {of.max_runs}"
        return f"<Runtime {of.name!r}: {of.openness.value}, {of.running}{most} running, {of.waiting} waiting>"

    def info(self) -> ParallelInfo:
        """What it is set to and what it does at the moment: JSON-safe, and its `str()` reads well.

        Under "runtime": `name`, `state` ("open", "closing", "closed"), `max_runs` and `max_waiting`. Under "runs": how
        many are `running` and `waiting`; how many ended as `done`, `failed` or `cancelled` (also while they waited, or
        because the runtime was closed) or were `refused` (overload, or closed); and `mean_seconds`, a mean over recent
        runs that have ended, None before the first. Runs inside runs are part of these and not counted.
        """
        of = self._admission
        return ParallelInfo(
            runtime={
                "name": of.name,
                "state": of.openness.value,
                "max_runs": of.max_runs,
                "max_waiting": of.max_waiting,
            },
            runs={
                "running": of.running,
                "waiting": of.waiting,
                **{outcome.value: count for outcome, count in of.counts.items()},
                "mean_seconds": of.mean,
            },
        )

    async def aclose(self, timeout: float | None = 10.0) -> list[StillRunning]:
        """Close it: new runs get RuntimeClosed; those in progress, and those that wait, are drained.

        After `timeout` seconds (None: never) those that still wait get RuntimeClosed, and those in progress are
        stopped: no further kernel starts, their async ops are cancelled, and their awaiters get RuntimeClosed as soon
        as these have ended; so do the consumers of streams, which are drained only if their source has an end. Kernels
        that run cannot be interrupted. A quarter of a second later at most this returns, whatever they do: with a
        record for each run that has not ended, or of which a kernel has not returned (also where the run had failed or
        was cancelled before), and so with an empty list if there is none.

        Once closed, it stays closed: further calls only report, and those that are made at the same time all get their
        answer, when the shortest of their timeouts is over. Cancelling this leaves the runtime closing. RuntimeError
        inside a run of this runtime, which would wait for itself; TypeError and ValueError for a timeout that is no
        number of seconds.
        """
        patience = _seconds(timeout)
        if encloses(self, copy_context()):
            raise RuntimeError(
                f"aclose() of runtime {self.name!r} was called inside one of its runs, for which it would wait: "
                "call it from outside"
            )
        loop, news = running_loop(f"aclose() of runtime {self.name!r}"), asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop was closed in the meantime, and nobody waits
                loop.call_soon_threadsafe(news.set)

        deadline = monotonic() + patience
        self._admission.close()
        self._admission.sweep()
        unwatch = self._admission.watch(tell), orphans.watch(tell)
        try:
            while True:
                news.clear()
                if not self._admission.running and not self._unreturned():
                    break
                left = (deadline if self._stopped_at is None else self._stopped_at + GRACE) - monotonic()
                if left > 0:
                    await _heard(news, left)
                elif not self._stop():
                    break
        finally:
            for end in unwatch:
                end()
        return self._still_running()

    async def __aenter__(self) -> Self:
        running_loop(f"`async with` runtime {self.name!r}")
        if self._admission.openness is not Openness.OPEN:
            raise RuntimeClosed(f"runtime {self.name!r} is {self._admission.openness.value}: it cannot be entered")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    if not TYPE_CHECKING:  # for type checkers there are none of these

        def __enter__(self) -> None:
            raise TypeError(
                f"runtime {self.name!r} ends asynchronously: write `async with flow.Runtime(...) as rt:` in a "
                "coroutine. In a script, without a loop, it needs no `with`: p.on(rt).run(...)"
            )

        def __exit__(self, *_: object) -> None:
            """`with` asks for it before it enters."""

    # How runs of it are run: as in the default runtime, with a place.

    async def execute(self, plan: Plan, inputs: list[Any], context: Context) -> Any:
        """See `Driver`; cancelled while it waits for a place, it leaves the waiting room."""
        if here.run is not None or encloses(self, context):
            return await super().execute(plan, inputs, context)
        awaiter = LoopAwaiter(awaiting_loop(plan))
        with Admitted(self, plan.graph.name, awaiter, context) as ticket:
            if not self._admission.enter(ticket):
                await awaiter.woken
            self._come_in(ticket, context)
            run = super().execute(plan, inputs, context)
            del inputs, context  # what is raised here keeps this frame
            return await run

    def block(self, plan: Plan, inputs: list[Any], context: Context) -> Any:
        """See `Driver`; waits for a place in this thread, which has nothing else to do."""
        if here.run is not None or loop_runs_here() or encloses(self, context):
            return super().block(plan, inputs, context)
        awaiter = ThreadAwaiter()
        with Admitted(self, plan.graph.name, awaiter, context) as ticket:
            if not self._admission.enter(ticket):
                awaiter.woken.acquire()
            self._come_in(ticket, context)
            return super().block(plan, inputs, context)

    def drive(self, plan: Plan, inputs: list[Any], context: Context, kind: type[NestedRun] = NestedRun) -> Any:
        """See `Driver`; while it waits for a place, the kernel lends its slot, as it does while it waits for a run."""
        outer: Any = here.run
        if outer.core.stopped or encloses(self, context):
            return super().drive(plan, inputs, context, kind)
        awaiter = LoopAwaiter(outer.loop)
        with Admitted(self, plan.graph.name, awaiter, context) as ticket:
            del outer
            if not self._admission.enter(ticket):
                super().drive(_wait_plan(), [awaiter.woken], context.copy(), PlaceWait)
            self._come_in(ticket, context)
            return super().drive(plan, inputs, context, kind)

    def serial(self, plan: Plan, inputs: list[Any], context: Context) -> Any:
        """See `Driver`; it takes no place, since it is for debuggers, which stop in the middle."""
        if not encloses(self, context):
            self._admission.refuse_if_closed(plan.graph.name)
        return super().serial(plan, inputs, context)

    async def admit(self, stream: Holder, pipeline: str, context: Context) -> Callable[[Outcome], None]:
        """See `Host`; what the source of the stream begins, in the task that calls this, is inside it as well."""
        if encloses(self, context):
            return lambda _: None
        awaiter = LoopAwaiter(asyncio.get_running_loop())
        ticket = Ticket(self, pipeline, awaiter, nearest(context))
        ticket.taken_by(stream)
        try:
            if not self._admission.enter(ticket):
                await awaiter.woken
            self._come_in(ticket, context)
        except BaseException:
            self.release(ticket)
            raise
        current_ticket.set(ticket)
        return partial(self.release, ticket)

    def _come_in(self, ticket: Ticket, context: Context) -> None:
        if ticket not in self._admission:  # it waited until the runtime was closed
            raise self._admission.closed(ticket.pipeline)
        context.run(current_ticket.set, ticket)

    def release(self, ticket: Ticket, outcome: Outcome = Outcome.CANCELLED) -> None:
        """Its run is over, or will never be any further."""
        self._admission.leave(ticket, outcome)

    def orphaned(self, run: Run, ticket: Ticket) -> None:
        """See `Host`."""
        self._unreturned()  # lets go of those that have returned since
        self._orphaned[run.number] = weakref.ref(run), ticket.began

    # The end.

    def _stop(self) -> bool:
        """Patience is at its end: end all runs. Returns whether that was not done before."""
        with self._lock:
            if self._stopped_at is not None:
                return False
            self._stopped_at = monotonic()
        for ticket in self._admission.expel():
            holder = ticket.holder
            if holder is not None:
                holder.stop(ticket.expulsion())
        return True

    def _unreturned(self) -> dict[Run, float]:
        """The runs that are over while kernels of theirs still run, and when they had begun."""
        found = {}
        for number, (reference, began) in self._orphaned.copy().items():
            run = reference()
            if run is not None and run.orphaned:
                found[run] = began
            else:
                self._orphaned.pop(number, None)
        return found

    def _still_running(self) -> list[StillRunning]:
        now = monotonic()
        held = [(ticket.holder, ticket.pipeline, ticket.began) for ticket in self._admission.held]
        left = {holder: (pipeline, began) for holder, pipeline, began in held if holder is not None}
        for run, began in self._unreturned().items():
            left[run] = run.plan.graph.name, began
        return [
            StillRunning(pipeline, max(0.0, now - began), holder.still_running())
            for holder, (pipeline, began) in left.items()
        ]

    def _after_fork(self) -> None:
        """In the child: none of these runs is here, nor is whoever held a lock."""
        before = self._admission
        self._lock = Lock()
        self._orphaned = {}
        self._admission = Admission(before.name, before.max_runs, before.max_waiting)
        self._admission.openness = before.openness


class Admitted:
    """From asking for a place to leaving it, in whatever way. A class, since it must add no frame to errors."""

    __slots__ = ("ticket", "runtime")

    def __init__(self, runtime: Runtime, pipeline: str, awaiter: Awaiter, context: Context) -> None:
        self.runtime = runtime
        self.ticket = Ticket(runtime, pipeline, awaiter, nearest(context))

    def __enter__(self) -> Ticket:
        return self.ticket

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            outcome = Outcome.DONE
        elif self.ticket.expelled or issubclass(kind, (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt)):
            outcome = Outcome.CANCELLED
        else:
            outcome = Outcome.FAILED
        self.runtime.release(self.ticket, outcome)


class LoopAwaiter:
    """A coroutine that waits for a place."""

    __slots__ = ("loop", "woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.woken: asyncio.Future[None] = loop.create_future()

    def wake(self) -> bool:
        """See `Awaiter`."""
        try:
            self.loop.call_soon_threadsafe(_set, self.woken)
        except RuntimeError:  # it is closed
            return False
        return True


class Threads:
    """Where those wait that have no loop."""

    def is_closed(self) -> bool:
        """Never: a thread does not end while it waits."""
        return False


_threads = Threads()


class ThreadAwaiter:
    """A thread without a loop that waits for a place."""

    __slots__ = ("loop", "woken")

    def __init__(self) -> None:
        self.loop = _threads
        self.woken = Lock()  # an Event has one inside that `set` would wait for, if the collector wakes its own thread
        self.woken.acquire()

    def wake(self) -> bool:
        """See `Awaiter`."""
        self.woken.release()
        return True


class PlaceWait(NestedRun):
    """Stands for waiting in a kernel: a run of one async op that waits. Nobody is told of it, since nothing is run."""

    __slots__ = ()

    def tell_started(self) -> None:
        """Nobody."""

    def tell_ended(self, outcome: str, error: BaseException | None = None) -> None:
        """Nobody."""

    def tell_operator(self, step: int, began: int, seconds: float, error: BaseException | None) -> None:
        """Nobody."""


@cache
def _wait_plan() -> Plan:
    async def wait(woken: asyncio.Future[None]) -> None:
        await woken

    spec = OpSpec(wait, "waiting for a place", Kind.ASYNC)
    return make_plan(trace("waiting for a place", ("woken",), lambda given: record(spec, tuple(given), {})))


def _set(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


async def _heard(news: asyncio.Event, seconds: float) -> None:
    """Wait for news, but no longer than that."""
    with suppress(TimeoutError):
        async with asyncio.timeout(min(seconds, LONGEST)):
            await news.wait()


def _bound(argument: str, given: SupportsIndex | None, least: int) -> int | None:
    """Check a bound that the user gave; True would quietly mean one."""
    if given is None:
        return None
    try:
        count = None if isinstance(given, bool) else operator.index(given)
    except TypeError:
        count = None
    if count is None:
        raise TypeError(
            f"Runtime({argument}=) takes an int or None, not {type(given).__name__}: pass a whole number of runs"
        )
    if count < least:
        raise ValueError(f"Runtime({argument}={count}): pass {least} or more, or None for no bound")
    return count


def _seconds(timeout: float | None) -> float:
    if timeout is None:
        return math.inf
    given: Any = timeout
    if isinstance(given, bool) or not isinstance(given, Real):
        raise TypeError(f"aclose(timeout) takes a number of seconds or None, not {type(timeout).__name__}")
    seconds = float(given)
    if not seconds >= 0:
        raise ValueError(f"aclose({timeout}): pass 0 or more seconds, or None to wait for as long as it takes")
    return seconds


_runtimes: weakref.WeakSet[Runtime] = weakref.WeakSet()
"""For the child of a fork, which has none of the runs that hold their places."""


def _after_fork() -> None:
    for runtime in list(_runtimes):
        runtime._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
