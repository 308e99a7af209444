"""Managed async operators: those with a `timeout`, `retries` or a `limit`; and when there is a further attempt.

A coroutine on the loop sees such a step through:

    attempt ─▶ succeeded ───────────────────────────────────▶ the outcome
      ▲ └─ failed ─▶ no attempt left, or none is due for this ────▲
      └─ wait (backoff), wait for the limit ◀─┘

An attempt is a task. While the coroutine waits, for whatever it is, it holds nothing but the permit of an attempt that
is under way. Cancelled, it cancels the operator and awaits it. Of kernels, see `dataflow.engine.retries`.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from dataflow.engine.clock import Clock
from dataflow.engine.failure import in_one_line, timed_out, trimmed
from dataflow.engine.run import Run
from dataflow.engine.telling import Stopwatch, tell
from dataflow.events import OperatorEnded, Retrying, observed
from dataflow.graph.nodes import Options
from dataflow.graph.plan import Plan

if TYPE_CHECKING:
    from dataflow.engine.runtime import HostedRun

__all__ = ["LONGEST_BACKOFF", "awaited", "delay_after", "options_of", "outcome_of", "see_through", "tell_retrying"]

logger = logging.getLogger("dataflow")

LONGEST_BACKOFF = 60.0
"""Seconds to which the wait before an attempt grows, unless it began with more."""

process_clock = Clock()


def options_of(plan: Plan, step: int) -> Options:
    """Of a managed step."""
    return cast(Options, plan.nodes[step].spec.options)


def delay_after(run: Run, step: int, made: int, error: BaseException, clock: Clock) -> float | None:
    """Seconds before the next attempt, if there is to be one after so many of which the last failed with this.

    Any number up to a bound that doubles, so that those who failed together do not come back together ("full jitter";
    Brooker, "Exponential Backoff And Jitter", AWS, 2015). The CancelledError of a run is no Exception, so it is never
    one of those after which there is a further attempt.
    """
    options = options_of(run.plan, step)
    if made > options.retries or run.core.stopped or not isinstance(error, options.retry_on):
        return None
    first = options.backoff
    return min(first * 2.0 ** min(made - 1, 64), max(first, LONGEST_BACKOFF)) * clock.random()


def tell_retrying(run: Run, step: int, made: int, delay: float, error: BaseException) -> None:
    """The log and the observers, that there will be another attempt."""
    name, pipeline = run.plan.nodes[step].spec.name, run.plan.graph.name
    logger.warning(
        "attempt %d of %d at operator %r in a run of %r failed, the next one is in %.3g s: %s",
        *(made, options_of(run.plan, step).retries + 1, name, pipeline, delay, in_one_line(error)),
    )
    if observed(Retrying):
        assert isinstance(error, Exception)
        tell(run.context, Retrying(run.number, pipeline, name, made, delay, error))


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


async def see_through(run: HostedRun, step: int) -> list[Any]:
    """What a managed step came to, for `outcome_of`: of as many attempts as it takes, or as there may be."""
    try:
        made, retries, limit, clock = 0, run.retries, options_of(run.plan, step).limit, process_clock
        assert retries is not None
        permit = retries.permit(run, step)  # which the step was granted before it became due
        while True:
            made += 1
            try:
                succeeded, value = await _attempt(run, step, clock)
            finally:
                if permit is not None:
                    permit.give_back()
            delay = None if succeeded else delay_after(run, step, made, value, clock)
            if delay is None:
                break
            tell_retrying(run, step, made, delay, value)
            del value  # with all that its traceback holds, before anything waits
            await clock.sleep(delay)
            permit = None if limit is None else await limit._permit()
        if not succeeded:
            retries.made[step] = made
        return [succeeded, value]
    except BaseException as exc:
        return [False, exc]


async def _attempt(run: HostedRun, step: int, clock: Clock) -> tuple[bool, Any]:
    """One attempt: whether it succeeded, and what it came to."""
    node, seconds = run.plan.nodes[step], options_of(run.plan, step).timeout
    watch = Stopwatch() if observed(OperatorEnded) else None
    coroutine = awaited(run, step, watch)
    try:
        # As with other async ops, in the context rather than with it as an argument.
        task = run.context_inside().run(
            run.loop.create_task, coroutine, name=f"dataflow {run.plan.graph.name}.{node.spec.name}"
        )
    except BaseException:  # the user's task factory failed
        coroutine.close()
        raise
    late = False

    def time_is_up() -> None:
        nonlocal late
        if not task.done():
            late = True
            task.cancel()

    timer = None if seconds is None else clock.call_later(run.loop, seconds, time_is_up)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        await _ended(task)
        _tell_ended(run, step, watch, *outcome_of(task))
        raise
    except BaseException:  # the coroutine is closed
        task.cancel()
        raise
    finally:
        if timer is not None:
            timer.cancel()
    succeeded, value = outcome_of(task)
    if late:
        assert seconds is not None
        error = timed_out(node, run.plan.graph, seconds)
        if not succeeded and isinstance(value, Exception):  # what it raised instead of ending
            error.__cause__ = value
        succeeded, value = False, error
    _tell_ended(run, step, watch, succeeded, value)
    return succeeded, value


def _tell_ended(run: HostedRun, step: int, watch: Stopwatch | None, succeeded: bool, value: Any) -> None:
    """The observers, how an attempt at an async op ended, if it began."""
    if watch is not None and watch.began:
        run.tell_operator(step, watch.began, watch.seconds, None if succeeded else trimmed(value))


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
