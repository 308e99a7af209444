"""Runs with an event loop, on which their async operators are tasks.

A coroutine sees an operator with a `timeout`, `retries` or a `limit` through:

    attempt ─▶ succeeded ───────────────────────────────────▶ the outcome
      ▲ └─ failed ─▶ no attempt left, or none is due for this ────▲
      └─ wait (backoff), wait for the limit ◀─┘

An attempt is a task. While the coroutine waits, for whatever it is, it holds nothing but the permit of an attempt that
is under way. Cancelled, it cancels the operator and awaits it. Of kernels, see `dataflow.engine.runs.retries`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any

from dataflow.engine.pool import process_pool
from dataflow.engine.runs import backoff
from dataflow.engine.runs.backoff import delay_after, options_of, tell_retrying
from dataflow.engine.runs.clock import Clock
from dataflow.engine.runs.failure import attempted, timed_out, trimmed
from dataflow.engine.runs.notify import Stopwatch
from dataflow.engine.runs.retries import Retries, calls_of
from dataflow.engine.runs.run import Run, Serving, within
from dataflow.engine.service.ticket import current_ticket
from dataflow.engine.steps import Phase
from dataflow.errors import RuntimeClosed
from dataflow.events import OperatorEnded, observed
from dataflow.graph.nodes import Node
from dataflow.graph.plan import Plan

__all__ = ["HostedRun"]


class HostedRun(Run):
    """A run with an event loop for its async ops."""

    __slots__ = ("_inside", "_posted", "_swept_away", "loop", "retries", "tasks", "ticket")

    def __init__(self, plan: Plan, inputs: list[Any], context: Context, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(plan, inputs, context)
        self.loop = loop
        self._inside = context.get(current_ticket)
        self.ticket = self._inside.taken_by(self) if self._inside is not None else None
        """In a bounded runtime: what it holds there, unless it is inside a run that holds one."""
        self.retries = Retries(plan, loop) if plan.managed else None
        if self.retries is not None:
            self.calls = calls_of(plan)
        self.tasks: dict[int, asyncio.Task[list[Any]]] = {}
        self._posted = False
        self._swept_away = False
        """Whether somebody else has cancelled the task of an async op, as a loop does that shuts down."""

    def post(self) -> None:
        """Have the loop look at this run; news that come before it does are one piece of news."""
        with self.lock:
            if self._posted:
                return
            self._posted = True
        try:
            handle = self.loop.call_soon_threadsafe(self._on_loop)
        except RuntimeError:
            self._loop_gone()
            return
        if self.loop.is_closed():
            # Perhaps in the middle of that call: then it never looks, and what it was told holds this run in a cycle.
            handle.cancel()
            self._loop_gone()

    def _loop_gone(self) -> None:
        """The loop was closed: what was on it never ends. A stopped run that outlives its loop may do so."""
        if not self.core.over:
            self.crash(RuntimeClosed(f"the event loop of a run of {self.plan.graph.name!r} was closed while it ran"))
        with self.lock:
            self.loop_steps = 0
        self.tasks.clear()  # theirs is a thread that is gone
        # So is whoever would leave the ticket; but who was told the outcome of a run leaves it himself, and says which.
        if self.ticket is not None and self.core.phase is Phase.CANCELLED:
            self.ticket.host.release(self.ticket)

    def has_stopped(self) -> None:
        super().has_stopped()
        if self.retries is not None:
            self.retries.withdraw(self)
        if self._inside is not None and self.orphaned:
            self._inside.host.orphaned(self, self._inside)

    # Managed kernels.

    def hand_over(self) -> bool:
        """As in every run; those with a limit ask for a permit first."""
        if self.retries is not None and self.core.asking:
            self.retries.ask(self)
        return super().hand_over()

    def _give_back(self, step: int) -> None:
        """A step on the loop has ended, or will never begin: its permit, if its task has not had it."""
        if self.retries is not None and (permit := self.retries.permit(self, step)) is not None:
            permit.give_back()

    def failed(self, step: int, exc: BaseException, worker: Serving | None = None) -> None:
        """As in every run; but a kernel may be tried again."""
        retries = self.retries
        if retries is None or worker is None or not retries.failed(self, step, exc, worker):
            super().failed(step, exc, worker)

    def news(self) -> None:
        """See to what `begin` has brought about."""
        self.changed()

    def _on_loop(self) -> None:
        """In the loop's thread: begin what is due, cancel what is no longer wanted, tell whoever waits."""
        with self.lock:
            self._posted = False
            due, self._due = self._due, []
        for step in due:
            self._start_task(step)
        if self.core.stopped:
            for task in self.tasks.values():
                if not task.cancelling():
                    task.cancel()
        if self.retries is not None:
            self.retries.look(self)
        if self.settled:
            self._tell()

    def _start_task(self, step: int) -> None:
        if self.core.stopped:
            with self.lock:
                self.core.give_back(step)
                self.loop_steps -= 1
            self._give_back(step)
            return
        spec = self.plan.nodes[step].spec
        watch = None
        if spec.options is None:
            watch = Stopwatch() if observed(OperatorEnded) else None
            outcome = awaited(self, step, watch)
        else:
            outcome = see_through(self, step)
        try:
            # In the context rather than with it as an argument, which task factories of before 3.11 do not take.
            task = self.context_inside().run(
                self.loop.create_task, outcome, name=f"dataflow {self.plan.graph.name}.{spec.name}"
            )
        except BaseException as exc:  # the user's task factory failed
            outcome.close()
            self._give_back(step)
            self.failed(step, exc)
            return
        self.tasks[step] = task
        if self.record is not None:
            self.record.loop_began(step)
        task.add_done_callback(partial(self._task_done, step, watch))

    def context_inside(self) -> Context:
        """For one async op: a copy of the run's context, which says that what begins in it is inside this run."""
        context = self.context.copy()
        context.run(within.set, self.number)
        return context

    def _task_done(self, step: int, watch: Stopwatch | None, task: asyncio.Task[list[Any]]) -> None:
        """In the loop's thread: an async op has ended, in whatever way."""
        del self.tasks[step]
        if self.record is not None:
            self.record.loop_ended(step)
        succeeded, value = outcome_of(task)
        self._give_back(step)
        if task.cancelling() and not self.core.stopped:
            self._swept_away = True
        del task
        if watch is not None and watch.began:
            self.tell_operator(step, watch.began, watch.seconds, None if succeeded else trimmed(value))
        if succeeded:
            try:
                if type(value) not in self.plan.settled[step]:
                    value = self.settle(step, value)
                self.values[step] = value
            except BaseException as exc:
                succeeded, value = False, exc
        if succeeded:
            self.completed(step)
            if self.core.startable:
                process_pool().offer(self)
        else:
            self.failed(step, value)
        del value

    def told_late(self, node: Node | None, error: BaseException) -> None:
        """As in every run; but that tasks were swept away is no news to those who swept everything away."""
        if not (self._swept_away and isinstance(error.__cause__, asyncio.CancelledError)):
            super().told_late(node, error)

    def arrived(self, step: int, exc: BaseException, node: Node) -> BaseException:
        """As in every run; and if it was the last of several attempts, that is said, too."""
        error = super().arrived(step, exc, node)
        attempts = 1 if self.retries is None else self.retries.made.pop(step, 1)
        if attempts > 1:
            attempted(error, attempts)
        return error

    def forsake(self) -> None:
        """Stop it, since its awaiter is gone for good: the coroutine was closed, perhaps by the garbage collector.

        The collector may do so in the middle of anything, also in a thread that holds the lock of this very run and
        would wait for itself. So where the lock is taken, the loop does it, with no lock of ours in between.
        """
        if self.lock.acquire(blocking=False):
            self.lock.release()
            self._forsaken()
            return
        with suppress(RuntimeError):  # the loop is closed: nobody is left who could tell the difference
            self.loop.call_soon_threadsafe(self._forsaken)

    def _forsaken(self) -> None:
        self.stop()
        self.abandon()

    def _tell(self) -> None:
        """The run is settled; in the loop's thread."""


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
        made, retries, limit, clock = 0, run.retries, options_of(run.plan, step).limit, backoff.process_clock
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
        with suppress(RuntimeError):  # and so is its loop
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
