"""Managed steps: those of operators with a `timeout`, `retries` or a `limit`.

For the core such a step is one on the event loop, also where it is a kernel. There a coroutine sees it through:

    wait for the limit ─▶ attempt ─▶ succeeded ───────────────────────────────────▶ the outcome
            ▲                └─ failed ─▶ no attempt left, or none is due for this ─────▲
            └──── wait (backoff) ◀───────┘

An attempt at an async operator is a task; one at a kernel is a run of one step that is offered to the pool (see
`dataflow.engine.attempts`). While the coroutine waits, for whatever it is, it holds no thread, and nothing but the
permit of an attempt that is under way. Cancelled, it ends at once: a kernel in it is left to finish unseen, an async
operator is cancelled and awaited.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from dataflow.engine.attempts import Attempt, Turns
from dataflow.engine.clock import Clock
from dataflow.engine.failure import in_one_line, timed_out, trimmed
from dataflow.engine.limits import Limit, Permit
from dataflow.engine.telling import Stopwatch, tell
from dataflow.events import OperatorEnded, Retrying, observed
from dataflow.graph.nodes import Kind, Options

if TYPE_CHECKING:
    from dataflow.engine.runtime import HostedRun

__all__ = ["LONGEST_BACKOFF", "Managed", "awaited", "outcome_of"]

logger = logging.getLogger("dataflow")

LONGEST_BACKOFF = 60.0
"""Seconds to which the wait before an attempt grows, unless it began with more."""

process_clock = Clock()


async def awaited(run: HostedRun, step: int, watch: Stopwatch | None) -> list[Any]:
    """What an async op came to, as a value: a task that raised SystemExit would take the loop with it.

    For `outcome_of`: a task keeps its result, and the frames of an exception often hold their own task (those of
    `asyncio.TaskGroup` do), so what the task keeps is a list that is emptied.
    Not to be awaited by a coroutine of ours: a held exception keeps its frame, and the frames that wait for it.
    """
    try:
        # A run inside a kernel may be stopped, and the run around it be over, before the task takes its first step.
        if run.core.stopped:
            raise asyncio.CancelledError("the run was over before this began")
        if watch is not None:
            watch.start()
        call, values, name = run.plan.calls[step], run.values, run.plan.nodes[step].spec.name
        del run
        awaitable = call(values)
        if not hasattr(awaitable, "__await__"):
            raise TypeError(f"async operator {name!r} returned {type(awaitable).__name__}, which cannot be awaited")
        del values
        return [True, await awaitable]
    except BaseException as exc:
        return [False, exc]
    finally:
        if watch is not None:
            watch.stop()


class Managed:
    """What the managed steps of one run have in common; on the run's loop."""

    __slots__ = ("attempts", "clock", "turns")

    def __init__(self) -> None:
        self.attempts: dict[int, int] = {}
        """How many were made at a step that has failed, if it was not one."""
        self.clock = process_clock
        self.turns = Turns()

    async def see_through(self, run: HostedRun, step: int) -> list[Any]:
        """What the step came to, for `outcome_of`."""
        try:
            return list(await _Step(self, run, step).attempts())
        except BaseException as exc:
            return [False, exc]


class _Step:
    """One managed step of a run."""

    __slots__ = ("_all", "_clock", "_limit", "_node", "_options", "_run", "_step")

    def __init__(self, all_: Managed, run: HostedRun, step: int) -> None:
        self._all = all_
        self._clock = all_.clock
        self._run = run
        self._step = step
        self._node = run.plan.nodes[step]
        self._options = cast(Options, self._node.spec.options)
        self._limit: Limit | None = self._options.limit

    async def attempts(self) -> tuple[bool, Any]:
        """As many as it takes, or as there may be."""
        made = 0
        while True:
            made += 1
            succeeded, value, overrunning = await self._attempt()
            if succeeded or not self._tries_again(value, made):
                break
            delay = self._delay(made)
            self._tell(value, made, delay)
            del value  # with all that its traceback holds, before anything waits
            if overrunning is not None:
                await overrunning.returned()
                del overrunning
            await self._clock.sleep(delay)
        if not succeeded and made > 1:
            self._all.attempts[self._step] = made
        return succeeded, value

    def _tries_again(self, error: BaseException, made: int) -> bool:
        """The run's own CancelledError is no Exception, so it is never one of these."""
        options = self._options
        return made <= options.retries and isinstance(error, options.retry_on) and not self._run.core.stopped

    def _delay(self, made: int) -> float:
        """Seconds before the next attempt: any number up to a bound that doubles, so that those who failed together
        do not come back together ("full jitter"; Brooker, "Exponential Backoff And Jitter", AWS, 2015)."""
        first = self._options.backoff
        bound = min(first * 2.0 ** min(made - 1, 64), max(first, LONGEST_BACKOFF))
        return bound * self._clock.random()

    def _tell(self, error: Exception, made: int, delay: float) -> None:
        """The log and the observers, that there will be another attempt."""
        name, pipeline = self._node.spec.name, self._run.plan.graph.name
        logger.warning(
            "attempt %d of %d at operator %r in a run of %r failed, the next one is in %.3g s: %s",
            *(made, self._options.retries + 1, name, pipeline, delay, in_one_line(error)),
        )
        if observed(Retrying):
            tell(self._run.context, Retrying(self._run.number, pipeline, name, made, delay, error))

    async def _attempt(self) -> tuple[bool, Any, Attempt | None]:
        """One attempt: whether it succeeded, what it came to, and itself if its kernel goes on all the same."""
        permit = None if self._limit is None else await self._limit._permit()
        if self._node.spec.kind is not Kind.ASYNC:
            return await self._at_kernel(permit)
        try:
            succeeded, value = await self._at_async_op()
        finally:
            if permit is not None:
                permit.give_back()
        return succeeded, value, None

    async def _at_kernel(self, permit: Permit | None) -> tuple[bool, Any, Attempt | None]:
        run, turns = self._run, self._all.turns
        attempt = Attempt(run, self._step, permit, turns, self._clock)
        try:
            await turns.take(attempt)
            run.children.append(attempt)  # a stop of the run reaches it at once, in whatever thread that happens
            try:
                if run.core.stopped:
                    attempt.stop()
                else:
                    attempt.go()
                    await attempt.waiter
            finally:
                run.children.remove(attempt)
        finally:
            attempt.close()
            turns.look()
        succeeded, value = attempt.came_to()
        if attempt.crashed:
            run.crash(value)
            return False, asyncio.CancelledError(), None
        if attempt.timed_out and isinstance(value, asyncio.CancelledError):
            return False, self._timed_out(), attempt
        return succeeded, value, None

    async def _at_async_op(self) -> tuple[bool, Any]:
        run, seconds = self._run, self._options.timeout
        watch = Stopwatch() if observed(OperatorEnded) else None
        task = self._task(watch)
        late = False

        def time_is_up() -> None:
            nonlocal late
            if not task.done():
                late = True
                task.cancel()

        timer = None if seconds is None else self._clock.call_later(run.loop, seconds, time_is_up)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await _ended(task)
            self._tell_ended(watch, *outcome_of(task))
            raise
        except BaseException:  # the coroutine is closed
            task.cancel()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        succeeded, value = outcome_of(task)
        if late:
            error = self._timed_out()
            if not succeeded and isinstance(value, Exception):  # what it raised instead of ending
                error.__cause__ = value
            succeeded, value = False, error
        self._tell_ended(watch, succeeded, value)
        return succeeded, value

    def _tell_ended(self, watch: Stopwatch | None, succeeded: bool, value: Any) -> None:
        """The observers, how an attempt at an async op ended, if it began."""
        if watch is not None and watch.began:
            self._run.tell_operator(self._step, watch.began, watch.seconds, None if succeeded else trimmed(value))

    def _task(self, watch: Stopwatch | None) -> asyncio.Task[list[Any]]:
        """One attempt at an async op, under way; in the caller's context, of which it gets a copy to itself."""
        run, name = self._run, self._node.spec.name
        coroutine = awaited(run, self._step, watch)
        try:
            # As with other async ops, not as an argument.
            return run.context_inside().run(
                run.loop.create_task, coroutine, name=f"dataflow {run.plan.graph.name}.{name}"
            )
        except BaseException:  # the user's task factory failed
            coroutine.close()
            raise

    def _timed_out(self) -> BaseException:
        assert self._options.timeout is not None
        return timed_out(self._node, self._run.plan.graph, self._options.timeout)


def outcome_of(task: asyncio.Task[list[Any]]) -> tuple[bool, Any]:
    """Whether an async op, or a managed step, succeeded, and its result or its exception. Once.

    A task that was cancelled before its first step keeps the frame of its coroutine, with all arguments, in its
    CancelledError, until somebody has asked for it.
    """
    try:
        came_to = task.result()
    except asyncio.CancelledError:
        return False, asyncio.CancelledError()
    succeeded, value = came_to
    came_to.clear()
    return succeeded, value


async def _ended(task: asyncio.Task[Any]) -> None:
    """Wait for a task that was cancelled; a further cancellation does not cut this short."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
