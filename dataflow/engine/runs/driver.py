"""The asyncio driver: runs that a coroutine awaits, runs that a kernel waits for, and runs in the calling thread.

    await p(x)       LoopRun   the loop hears of it when async ops are due and when it is over, never in between
    p.run(x)         in a script: the same on a private loop
    p.run(x)         in a kernel: NestedRun, worked off by the kernel's own thread beside free workers
    p.debug(x)       every step in the calling thread, in the order of the body; exceptions keep their whole traceback

Rules:

1. A run belongs to one loop, whose thread alone touches its `tasks`. Other threads reach it by
   `call_soon_threadsafe`, once for any number of news.
2. The awaiter is released when the run is settled: its outcome stands, none of its async ops is left, and workers have
   left it as rule 4 of `run` says. Kernels of a run that was stopped, and that still run, are not waited for.
3. No future ever holds an operator's exception: the waiter is only a signal, so no cycle keeps a traceback alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context, ContextVar
from functools import cache, partial
from threading import Event, get_ident
from typing import Any, Final, TypeVar

from dataflow.engine.pool import process_pool
from dataflow.engine.runs.failure import annotate
from dataflow.engine.runs.hosted import HostedRun
from dataflow.engine.runs.loop import loop_runs_here, running_loop
from dataflow.engine.runs.notify import Stopwatch
from dataflow.engine.runs.orphans import orphans
from dataflow.engine.runs.run import Attempt, Run, here, within
from dataflow.engine.service.ticket import StillRunning, outlived
from dataflow.engine.steps import Phase
from dataflow.events import OperatorEnded, observed
from dataflow.graph.nodes import Kind, OpSpec
from dataflow.graph.plan import Plan, make_plan
from dataflow.graph.pytree import larger_than
from dataflow.graph.readonly import ANY_RESULT, Held
from dataflow.graph.tracing.placeholder import record
from dataflow.graph.tracing.trace import trace

__all__ = [
    "MANY",
    "Driver",
    "NestedRun",
    "awaiting_loop",
    "begin",
    "default_runtime",
    "off_loop",
    "quiet",
]

T = TypeVar("T")

_debugs: ContextVar[int] = ContextVar("dataflow_debugs", default=0)
"""The thread of the `debug` whose operator has this context: what blocks there is debugged, too."""

LOOP_CHECK = 1.0
"""Seconds after which a kernel that waits for an inner run makes sure that the loop is still there."""


class LoopRun(HostedRun):
    """A run that a coroutine awaits."""

    __slots__ = ("waiter",)

    def __init__(self, plan: Plan, inputs: list[Any], context: Context, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(plan, inputs, context, loop)
        self.waiter = loop.create_future()

    def news(self) -> None:
        """The loop's thread is where this run begins: no need to post."""
        self._on_loop()

    def changed(self) -> None:
        self.post()

    def _tell(self) -> None:
        if not self.waiter.done():
            self.waiter.set_result(None)


MANY: Final = 2_000
"""The parts of a container from which on a worker looks through it, not the loop: each takes some 0.1 microseconds."""


class _Errand(LoopRun):
    """Something of our own that a worker does; nobody is told of it."""

    __slots__ = ()

    def tell_started(self) -> None:
        """Nobody."""

    def tell_ended(self, outcome: str, error: BaseException | None = None) -> None:
        """Nobody."""

    def tell_operator(self, step: int, began: int, seconds: float, error: BaseException | None) -> None:
        """Nobody."""


@cache
def _errand_plan() -> Plan:
    def do(job: Callable[[], Any]) -> Any:
        done = job()
        return lambda: done

    spec = OpSpec(do, "looking through an argument", Kind.KERNEL)
    return make_plan(trace("looking through an argument", ("job",), lambda given: record(spec, tuple(given), {})))


def _large(inputs: list[Any]) -> list[int]:
    """Where in these are containers that nobody should look through on the loop."""
    return [place for place, value in enumerate(inputs) if type(value) not in ANY_RESULT and larger_than(value, MANY)]


async def off_loop(job: Callable[[], T], loop: asyncio.AbstractEventLoop) -> T:
    """Have a worker call this, and give what it returns. Cancelled, it is not called any more."""
    run = _Errand(_errand_plan(), [job], Context(), loop)
    try:
        await _settle(run)
        done: Callable[[], T] = run.outcome()
        return done()
    finally:
        del run


class NestedRun(HostedRun):
    """A run that a kernel waits for, in the kernel's thread; its async ops run on the outer run's loop."""

    __slots__ = ("bell",)

    def __init__(self, plan: Plan, inputs: list[Any], context: Context, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(plan, inputs, context, loop)
        self.bell = Event()
        self.driven = True

    def wait(self) -> None:
        """Block until something has changed since the last call."""
        while not self.bell.wait(LOOP_CHECK):
            if self.loop.is_closed():  # its steps there never end, and nobody will ring
                self._loop_gone()
                break
        self.bell.clear()

    def _loop_gone(self) -> None:
        super()._loop_gone()
        self.bell.set()

    def changed(self) -> None:
        if self.loop_steps or self.retries is not None:
            self.post()
        self.bell.set()

    def _tell(self) -> None:
        self.bell.set()


class Driver:
    """Where runs are started; not bound to a loop, and shared by all of them. It sets no bounds: `Runtime` does."""

    async def execute(self, plan: Plan, inputs: list[Any], context: Context) -> Any:
        """Run a plan and return its result.

        Cancelling this stops the run: kernels that have not started never start, async ops are cancelled and
        awaited, and kernels that run are left to finish unseen.
        """
        host = outlived(context)
        if host is not None:
            return await host.execute(plan, inputs, context)
        if here.run is not None:
            raise RuntimeError(
                f"{plan.graph.name!r} was awaited inside a kernel, on a loop of the kernel's own: that would hold "
                "the kernel's inter-op thread while waiting for another; call its .run(...) there"
            )
        loop = awaiting_loop(plan)
        for place in _large(inputs):
            inputs[place] = await off_loop(partial(Held.looked_through, inputs[place]), loop)
        run = LoopRun(plan, inputs, context, loop)
        inputs.clear()  # our callers' frames have it too
        del inputs, context
        try:
            await _settle(run)
            return run.outcome()
        finally:
            del run  # what is raised here keeps this frame

    def block(self, plan: Plan, inputs: list[Any], context: Context) -> Any:
        """Run a plan and return its result, from a thread without a running loop; in a kernel, see `drive`.

        Inside of `debug` it is `serial`, so that a debugger sees what `flow.map` calls as well.
        """
        if loop_runs_here():
            raise RuntimeError(
                f"{plan.graph.name}.run() would block the event loop that runs in this thread: "
                f"use `await {plan.graph.name}(...)`"
            )
        if context.get(_debugs, 0) == get_ident():
            return self.serial(plan, inputs, context)
        if here.run is not None:
            return self.drive(plan, inputs, context)
        host = outlived(context)
        if host is not None:
            return host.block(plan, inputs, context)

        async def main() -> LoopRun:
            run = LoopRun(plan, inputs, context, asyncio.get_running_loop())
            inputs.clear()
            await _settle(run)
            return run

        # The outcome is raised here: an exception that leaves a task is held by it, and by its traceback holds the
        # frame of `Runner.run`, which holds the task.
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            run = runner.run(main(), context=context)
        try:
            return run.outcome()
        finally:
            del run, runner, main

    def drive(self, plan: Plan, inputs: list[Any], context: Context, kind: type[NestedRun] = NestedRun) -> Any:
        """In a kernel: run a plan in this thread, beside free workers, and return its result.

        If the outer run is stopped, or the time of the kernel is up, this one is stopped too, and CancelledError is
        raised in the kernel that waits.
        """
        outer = here.run
        assert isinstance(outer, HostedRun)
        run = kind(plan, inputs, context, outer.loop)
        inputs.clear()
        del inputs, context
        attempt = here.attempt
        siblings = [outer.children] if attempt is None else [outer.children, attempt.children]
        for children in siblings:
            children.append(run)
        try:
            process_pool().drive(run, partial(_begin_inside, run, outer, attempt), run.wait)
        except BaseException:
            run.stop()
            run.abandon()
            raise
        finally:
            for children in siblings:
                children.remove(run)
            del outer, attempt, siblings, children
        try:
            return run.outcome()
        finally:
            del run

    def serial(self, plan: Plan, inputs: list[Any], context: Context) -> Any:
        """Run a plan step by step in the calling thread, in the order of the body, async ops on a private loop.

        Exceptions pass untouched. The order of the steps is that of priority, which is not the body's.
        """
        if plan.has_async and loop_runs_here():
            raise RuntimeError(
                f"{plan.graph.name}.debug() has async operators to run, and this thread's event loop is running "
                "already: call it from a thread without one"
            )
        run = Run(plan, inputs, context)
        run.tell_started()
        context = run.context.copy()
        context.run(within.set, run.number)
        context.run(_debugs.set, get_ident())
        watch = Stopwatch() if observed(OperatorEnded) else None
        left = plan.readers.copy()
        came: list[tuple[bool, Any]] = []
        with asyncio.Runner() if plan.has_async else _NoRunner() as runner:
            for step in sorted(plan.numbers, key=lambda step: plan.nodes[step].number):
                if watch is not None:
                    watch.start()
                try:
                    result = context.copy().run(plan.calls[step], run.values)
                    if plan.nodes[step].spec.kind is Kind.ASYNC:
                        runner.run(_capture(result, came), context=context.copy())
                        result = _raised(*came.pop())
                    if type(result) not in plan.settled[step]:
                        result = run.settle(step, result)
                except BaseException as exc:
                    if watch is not None:
                        watch.stop()
                    if isinstance(exc, Exception):
                        annotate(exc, run.blamed(step), plan.graph, run.seen_by(step), run.number, run.outer)
                    if watch is not None:
                        run.tell_operator(step, watch.began, watch.seconds, exc)
                    run.tell_ended(Phase.FAILED.value, exc)
                    raise
                if watch is not None:
                    watch.stop()
                    run.tell_operator(step, watch.began, watch.seconds, None)
                run.values[step] = result
                del result
                for slot in plan.reads[step]:
                    left[slot] -= 1
                    if not left[slot]:
                        run.values[slot] = None
        return run.outcome()

    async def aclose(self, timeout: float | None = None) -> list[StillRunning]:
        """RuntimeError: it is everybody's."""
        raise RuntimeError(
            "the default runtime belongs to the whole process and cannot be closed: make a flow.Runtime(...), "
            "and run on it what is to end with it, by .on(runtime)"
        )


class _NoRunner:
    """Stands for the private loop where there is nothing to run on it."""

    def __enter__(self) -> Any:
        return None

    def __exit__(self, *_: object) -> None:
        return None


async def _capture(awaitable: Awaitable[Any], into: list[tuple[bool, Any]]) -> None:
    """What came of it; not as the task's result, since the frames of a traceback lead to the task: see `block`."""
    try:
        into.append((True, await awaitable))
    except asyncio.CancelledError:
        raise  # an interrupted program is cancelled, and the runner makes a KeyboardInterrupt of that
    except BaseException as exc:
        into.append((False, exc))


def _raised(succeeded: bool, value: Any) -> Any:
    try:
        if succeeded:
            return value
        raise value
    finally:
        del value


def begin(run: HostedRun) -> None:
    """Start a run, and offer what is ready of it to the pool; in the thread that waits for it."""
    run.begin()
    if run.ticket is not None and run.ticket.expelled:  # between its admission and now: who expelled it saw no run
        run.stop(run.ticket.expulsion())
    if run.core.startable:
        process_pool().offer(run)
    if run.loop_steps or run.settled or run.retries is not None:
        run.news()


def _begin_inside(run: HostedRun, outer: Run, attempt: Attempt | None) -> None:
    if outer.core.stopped or (attempt is not None and attempt.over):
        # Before anything of it starts; a stop from now on reaches it, as one of the children.
        run.stop()
    begin(run)


def awaiting_loop(plan: Plan) -> asyncio.AbstractEventLoop:
    """The loop on which a run of this plan is awaited, or a RuntimeError that says what to do."""
    name = plan.graph.name
    return running_loop(f"`await {name}(...)`", blocking=f"{name}.run, ...")


async def _settle(run: LoopRun) -> None:
    """Begin a run and wait until it is settled; cancelled, it is stopped and its async ops are awaited."""
    try:
        begin(run)
        await run.waiter
    except asyncio.CancelledError:
        run.stop()
        await _until_ended(run)
        run.abandon()
        raise
    except BaseException:  # the coroutine is closed, or the program interrupted
        run.forsake()
        raise
    finally:
        del run


async def _until_ended(run: LoopRun) -> None:
    """Wait for the async ops of a stopped run; a second cancellation does not cut this short."""
    while not run.concluded:
        try:
            if run.waiter.done():  # cancelled along with its awaiter: it needs a fresh one
                run.waiter = run.loop.create_future()
            run._on_loop()
            await run.waiter
        except asyncio.CancelledError:
            continue


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not on Windows
        return None
    return uvloop.new_event_loop


async def quiet() -> None:
    """Wait until no kernel of a run that is over is still running, in the whole process.

    For tests, and for a shutdown that must not pull resources from under a kernel. Cancelling this is harmless.
    """
    loop = running_loop("flow.quiet()")
    waiter = loop.create_future()

    def done() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def tell() -> None:
        with suppress(RuntimeError):  # the loop was closed in the meantime, and nobody waits
            loop.call_soon_threadsafe(done)

    orphans.when_none(tell)
    await waiter


_default = Driver()


def default_runtime() -> Driver:
    """The runtime of every call that is not bound to another: it has no bounds and no end."""
    return _default
