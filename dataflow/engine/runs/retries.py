"""Managed kernels: those of operators with a `timeout`, `retries` or a `limit`.

To a worker they are steps like others. The scheduler has their states; here is what brings the events about:

    asks     for a permit of its limit, as soon as it waits for no other step, and again before each further attempt
    begins   in its worker; a timeout counts from here
    expires  on the loop, by one timer for all kernels of the run
    returns  in its worker, which gives its permit back
    rests    between two attempts, for which the loop has a timer

Rules:

1. `Retries` is changed under the engine's lock, so whether a kernel had returned when its time was up is settled. But
   the timers are the loop's thread's alone, and `made` is written by the one who says what became of an attempt.
2. A permit belongs to the step from its `grant` on. The kernel's worker gives it back; if the step is ready and no
   worker has taken it when the run is stopped, whoever stops the run does.
3. A kernel whose time was up has failed with that, if with nothing else, also if it returns a result later. If it is to
   be tried again, `checkpoint` and the runs that it waits for end it as soon as its time is up.
4. There is one timer for all attempts, for the time that is up first; whoever begins one that ends before has the loop
   set it anew. It is set for the smallest timeout of the plan when the run begins, so hardly any kernel needs the loop.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import Any

from dataflow.engine.pool import process_pool
from dataflow.engine.runs import backoff
from dataflow.engine.runs.backoff import delay_after, options_of, tell_retrying
from dataflow.engine.runs.clock import Timer
from dataflow.engine.runs.failure import attempted, timed_out, trimmed
from dataflow.engine.runs.limits import Permit
from dataflow.engine.runs.orphans import orphans
from dataflow.engine.runs.run import Attempt, Run, Serving, here
from dataflow.errors import OperatorTimeout
from dataflow.graph.call import Caller
from dataflow.graph.kinds import LIMITED, MANAGED
from dataflow.graph.plan import Plan

__all__ = ["Retries", "calls_of"]


NEVER = math.inf
LEAST = 1e-3
"""Seconds of a timer; some loops take less for nothing, and would be busy until the time is up."""


class Asking:
    """A step that waits for a permit; see `Waiter`."""

    __slots__ = ("_retries", "_step", "gone", "loop", "run")

    def __init__(self, run: Run, step: int, retries: Retries, loop: asyncio.AbstractEventLoop) -> None:
        self.run: Any = run
        """None once it is gone."""
        self._step = step
        self._retries = retries
        self.loop = loop
        self.gone = False

    def granted(self, permit: Permit) -> bool:
        """Under the lock: the step may start."""
        if self.run.core.stopped:
            return False
        del self._retries.asking[self._step]
        self._retries.held[self._step] = permit
        self.run.core.grant(self._step)
        self.run.hand_over()
        return True

    @property
    def is_kernel(self) -> bool:
        """Whether it is a worker's to start."""
        return bool(self.run.plan.kinds[self._step] == LIMITED)

    def wake(self) -> None:
        """Its loop calls a worker: whoever gives back may be in the middle of anything."""
        self.run.post()


class Retries:
    """Of one run: what its managed kernels hold and wait for."""

    __slots__ = (
        "_clock",
        "_loop",
        "_overdue",
        "_rests",
        "_set_for",
        "_timer",
        "_timers",
        "_wakes_at",
        "asking",
        "attempts",
        "held",
        "made",
    )

    def __init__(self, plan: Plan, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._clock = backoff.process_clock
        self._wakes_at = NEVER if plan.least_timeout is None else self._clock.now() + plan.least_timeout
        """No attempt that is under way ends before."""
        self._timer: Timer | None = None
        self._set_for = NEVER
        """The loop's thread's: what the timer is set for."""
        self._timers: dict[int, Timer] = {}
        """Of those that rest."""
        self._rests: list[tuple[int, float]] = []
        """Those that rest and have no timer yet, and how long they do."""
        self.asking: dict[int, Asking] = {}
        self.held: dict[int, Permit] = {}
        self.attempts: dict[int, Attempt] = {}
        """Those that are under way, at kernels with a timeout."""
        self.made: dict[int, int] = {}
        """How many have failed at a step."""
        self._overdue: dict[int, float] = {}
        """The steps that overrun and will be tried again, and how long they are to rest before that."""

    # Permits.

    def ask(self, run: Run) -> None:
        """Under the lock: of the steps that are due, those with a limit ask for a permit; the others are the loop's."""
        core = run.core
        due, core.due = core.due, []
        for step in due:
            if step not in core.asking:
                core.due.append(step)
                continue
            limit = options_of(run.plan, step).limit
            permit = limit._take()
            if permit is None:
                asking = self.asking[step] = Asking(run, step, self, self._loop)
                limit._wait(asking)
            else:
                self.held[step] = permit
                core.grant(step)

    def withdraw(self, run: Run) -> None:
        """The run was stopped just now: what asks waits no longer; what was granted and has not begun is for others."""
        core = run.core
        with run.lock:
            for step, asking in self.asking.items():
                asking.gone, asking.run = True, None
                options_of(run.plan, step).limit._left(1)
            self.asking.clear()
            in_kernels = {step for step in core.running | core.overrunning if run.plan.kinds[step] == LIMITED}
            woken = [self.held.pop(step).hand_on() for step in self.held.keys() - in_kernels]
        for waiter in woken:
            if waiter is not None:
                waiter.wake()

    def permit(self, run: Run, step: int) -> Permit | None:
        """What a step holds is the caller's from now on."""
        with run.lock:
            return self.held.pop(step, None)

    # In the loop's thread.

    def look(self, run: Run) -> None:
        """Start the timers that are missing, or end all if the run is over; call a worker for what was granted."""
        with run.lock:
            rests, self._rests = self._rests, []
            wakes_at = self._wakes_at
        if run.core.over:
            for timer in (self._timer, *self._timers.values()):
                if timer is not None:
                    timer.cancel()
            self._timer = None
            self._timers.clear()
            return
        if wakes_at < self._set_for:
            if self._timer is not None:
                self._timer.cancel()
            self._set(run, wakes_at)
        for step, delay in rests:  # this keeps the run alive, and so the task that waits for it: nobody else need do so
            self._timers[step] = self._clock.rest(self._loop, delay, partial(self._rested, run, step))
        _call_worker(run)

    def _rested(self, run: Run, step: int) -> None:
        """The wait before a further attempt is over."""
        del self._timers[step]
        with run.lock:
            if run.core.stopped:
                return
            run.core.retry(step)
            run.hand_over()
        _call_worker(run)

    def _set(self, run: Run, wakes_at: float) -> None:
        """The timer."""
        self._set_for = wakes_at
        delay = max(wakes_at - self._clock.now(), LEAST)
        self._timer = self._clock.call_later(self._loop, delay, partial(self._expire_some, run))

    def _expire_some(self, run: Run) -> None:
        """The time of some attempt may be up."""
        self._timer, self._set_for = None, NEVER
        now = self._clock.now()
        with run.lock:
            ended = [(step, attempt) for step, attempt in self.attempts.items() if attempt.ends <= now]
        for step, attempt in ended:
            if not attempt.over:
                self._expire(run, step, attempt)
        with run.lock:  # those that have begun in the meantime have left it to us
            ends = [attempt.ends for attempt in self.attempts.values() if not attempt.over]
            wakes_at = self._wakes_at = min(ends, default=NEVER)
        if wakes_at != NEVER and not run.core.over:
            self._set(run, wakes_at)

    def _expire(self, run: Run, step: int, attempt: Attempt) -> None:
        """Its time is up: the run fails, or waits for it to return and tries again."""
        error, node = _timed_out(run.plan, step), run.plan.nodes[step]
        made = self.made.get(step, 0) + 1
        delay = delay_after(run, step, made, error, self._clock)
        if delay is None:
            Run.arrived(run, step, error, node)
            if made > 1:
                attempted(error, made)
        with run.lock:
            if self.attempts.get(step) is not attempt or run.core.stopped:
                return
            attempt.over = True
            if delay is None:
                run.expire(step, error, node)
            else:
                run.core.overrun(step)
                self._overdue[step] = delay
                orphans.enter()
        if delay is None:
            run.has_stopped()
            run.changed()
            return
        self.made[step] = made
        tell_retrying(run, step, made, delay, error)
        for child in list(attempt.children):
            child.stop()

    # In the kernel's worker.

    def begins(self, run: Run, step: int) -> Attempt:
        """A kernel with a timeout begins."""
        attempt = Attempt(self._clock.now() + (options_of(run.plan, step).timeout or 0.0))
        with run.lock:
            self.attempts[step] = attempt
            first = attempt.ends < self._wakes_at
            if first:
                self._wakes_at = attempt.ends
        if first:
            run.post()
        return attempt

    def returned(self, run: Run, step: int) -> Attempt | None:
        """A kernel has returned; its attempt, if its time was up before."""
        with run.lock:
            attempt = self.attempts.get(step)
            if attempt is not None and not attempt.over:
                del self.attempts[step]
            permit = self.held.pop(step, None)
            waiter = None if permit is None else permit.hand_on()
        if type(waiter) is not Asking or not waiter.is_kernel:
            if waiter is not None:
                waiter.wake()
        elif waiter.run is not run:  # else our worker comes by for it
            _call_worker(waiter.run)
        return attempt if attempt is not None and attempt.over else None

    def failed(self, run: Run, step: int, exc: BaseException, worker: Serving) -> bool:
        """A kernel failed; whether that is no failure of its run, since it will be tried again, or was out of time."""
        if run.plan.kinds[step] < MANAGED:
            return False
        attempt = self.attempts.get(step)
        if attempt is not None:
            self._came_late(run, step, exc, attempt, worker)
            return True
        made = self.made.get(step, 0) + 1
        delay = delay_after(run, step, made, exc, self._clock)
        if delay is None:
            self.made[step] = made
            return False
        tell_retrying(run, step, made, delay, trimmed(exc))
        self.made[step] = made
        with run.lock:
            self._rest(run, step, delay, worker)
            trash = run.take_trash()
        del trash
        run.tell_of(worker)
        run.post()
        return True

    def _came_late(self, run: Run, step: int, exc: BaseException, attempt: Attempt, worker: Serving) -> None:
        """A kernel has returned whose time was up: of what it raised itself, only the log is told."""
        told = exc is attempt.error
        if not told:
            node = run.blamed(step)
            late = Run.arrived(run, step, exc, node)  # of how many attempts there were, there is nothing to say yet
        attempt.error = None
        with run.lock:
            del self.attempts[step]
            delay = self._overdue.pop(step, None)
            self._rest(run, step, delay, worker)
            trash = run.take_trash()
        del trash
        if not told:
            run.told_late(node, late)
            del late
        run.tell_of(worker)
        run.post()
        if delay is not None:
            orphans.leave()

    def _rest(self, run: Run, step: int, delay: float | None, worker: Serving) -> None:
        """Under the lock: an attempt is over; the next one is after so long, if the run goes on."""
        if run.core.stopped or delay is None:
            run.fail(step, worker)
            return
        run.core.rest(step)
        self._rests.append((step, delay))


def _call_worker(run: Run) -> None:
    """Kernels of a run may have become ready, and nobody of its workers comes by for them."""
    if run.core.startable:
        process_pool().offer(run)
        # The kernel that waits for it has lent its slot, so a worker comes; to take the slot back for each step costs
        # several switches of threads. But of a serial run it may be the only one who does not wait for its turn.
        if run.driven and run.serial:
            run.changed()


def _timed_out(plan: Plan, step: int) -> OperatorTimeout:
    timeout = options_of(plan, step).timeout
    assert timeout is not None
    return timed_out(plan.nodes[step], plan.graph, timeout)


def calls_of(plan: Plan) -> list[Caller]:
    """The calls of a plan, by which a kernel with a timeout or a limit says that it begins and returns."""
    if not plan.entered:
        calls = plan.calls.copy()
        for step, kind in enumerate(plan.kinds):
            if kind >= MANAGED:
                options = options_of(plan, step)
                if options.timeout is not None:
                    calls[step] = partial(_timed, step, plan.calls)
                elif options.limit is not None:
                    calls[step] = partial(_limited, step, plan.calls)
        plan.entered[:] = calls  # by whom is no matter
        for step, kind in enumerate(plan.kinds):
            if kind < MANAGED:
                plan.entered[step] = plan.calls[step]  # which may be watched since then
    return plan.entered


def _limited(step: int, calls: list[Caller], values: list[Any]) -> Any:
    try:
        return calls[step](values)
    finally:
        run: Any = here.run  # which has `retries`: its plan has this call
        if run is not None:  # else this is the child of a fork in the kernel
            run.retries.returned(run, step)
        del run, values  # a held exception keeps this frame


def _timed(step: int, calls: list[Caller], values: list[Any]) -> Any:
    run: Any = here.run
    outer, result = here.attempt, None
    error: BaseException | None = None
    here.attempt = run.retries.begins(run, step)
    try:
        result = calls[step](values)
    except BaseException as exc:
        error = exc
    try:
        here.attempt = outer
        over = run.retries.returned(run, step) if here.run is not None else None  # as above
        if over is not None and (error is None or isinstance(error, asyncio.CancelledError)):
            error = over.error = _timed_out(run.plan, step)
        if error is not None:
            raise error
        return result
    finally:
        del run, outer, values, result, error, over
