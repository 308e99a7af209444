"""One attempt at a managed kernel: a run of one step, whose outcome is told on the loop of the run it is made for.

    loop     offer ──────────────────────── time is up ─▶ stop: a stray, if the kernel has begun
    worker           begin ─▶ kernel ────────────────────────────────▶ end: the permit goes back

Rules:

1. A kernel begins under the attempt's lock, and only if the attempt is not over. So it is settled who gives the permit
   back: the kernel's thread if it has begun, and else whoever made the attempt.
2. An attempt takes its values from the outer run while the step is in flight there, and has no reference to it: a stray
   kernel keeps nothing alive but its arguments.
3. It is no run that observers see. Its failure is stored as it is, for the outer run to annotate; one that comes late
   is told as one of the outer run, and so is its kernel's end.
4. Attempts wait for their turn before they are offered to the pool, so that a run has no more than a few in the pool's
   queue: there runs take turns, and one with a thousand managed kernels is to have no more of them than others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dataflow.engine.clock import Clock, Timer
from dataflow.engine.failure import timed_out
from dataflow.engine.limits import Permit
from dataflow.engine.pool import process_pool
from dataflow.engine.run import Run, Serving, here
from dataflow.engine.steps import Phase
from dataflow.engine.telling import operator_ended, tell, tell_late
from dataflow.events import OperatorEnded, observed
from dataflow.graph.call import Caller
from dataflow.graph.nodes import Node
from dataflow.graph.plan import Plan
from dataflow.graph.single import one_step, read_by

if TYPE_CHECKING:
    from dataflow.engine.runtime import HostedRun

__all__ = ["Attempt", "Turns"]


class Attempt(Run):
    """Offered to the pool by `go`; `waiter` is done when it is over. Lives on the loop of its outer run."""

    __slots__ = (
        "_back",
        "_clock",
        "_inside",
        "_permit",
        "_timer",
        "_turns",
        "began",
        "crashed",
        "ended",
        "loop",
        "of",
        "timed_out",
        "timeout",
        "waiter",
    )

    def __init__(self, outer: HostedRun, step: int, permit: Permit | None, turns: Turns, clock: Clock) -> None:
        super().__init__(_plan_of(outer.plan, step), [], outer.context)
        self._inside = outer._inside
        self.of = outer.number
        self.loop = outer.loop
        self.waiter: asyncio.Future[None] = self.loop.create_future()
        self.values[1 : self.plan.constants_from] = [outer.values[slot] for slot in read_by(outer.plan, step)]
        options = outer.plan.nodes[step].spec.options
        self.timeout = options.timeout if options is not None else None
        self.timed_out = self.crashed = False
        self.began: float | None = None
        """When its kernel began; under the lock, as is the next."""
        self.ended = False
        """Whether its kernel has returned."""
        self._permit = permit
        self._turns = turns
        self._clock = clock
        self._timer: Timer | None = None
        self._back: asyncio.Future[None] | None = None
        """For whoever waits until the kernel has returned."""

    def __repr__(self) -> str:
        return f"<attempt at {self.plan.nodes[0].spec.name!r} in run {self.of}: {self.core!r}>"

    @property
    def told_as(self) -> int:
        """As the run that it was made for."""
        return self.of

    # On the loop.

    def go(self) -> None:
        """Have a worker execute it, from now on."""
        self.begin()
        if self.timeout is not None:
            self._timer = self._clock.call_later(self.loop, self.timeout, self._look)
        process_pool().offer(self)

    def _look(self) -> None:
        """The kernel may have had its time. It counts from its start, which our timer was not told of."""
        if self.core.over or self.timeout is None:
            return
        began = self.began
        left = self.timeout if began is None else began + self.timeout - self._clock.now()
        if left > 0:
            self._timer = self._clock.call_later(self.loop, left, self._look)
            return
        self.timed_out = True
        self.stop()
        self._tell()

    def close(self) -> None:
        """Nobody is interested any more, if it is not over; a kernel that has not begun never will."""
        self.stop()
        if self._timer is not None:
            self._timer.cancel()
        with self.lock:
            permit = self._permit if self.began is None else None
        if permit is not None:
            permit.give_back()

    def came_to(self) -> tuple[bool, Any]:
        """Whether it succeeded, and the result or the error; of one that was stopped a CancelledError. Once."""
        with self.lock:
            error, self._error = self._error, None
            succeeded = self.core.phase is Phase.OPEN
            value = self.values[0] if succeeded else error
            self._drop_values()
            trash = self.take_trash()
        del trash
        return succeeded, asyncio.CancelledError() if not succeeded and value is None else value

    async def returned(self) -> None:
        """Wait until the kernel, which has begun, has returned. Cancelling this is harmless."""
        with self.lock:
            if self.ended:
                return
            back = self._back = self.loop.create_future()
        await back

    def _tell(self) -> None:
        _ring(self.waiter)

    # In the kernel's thread.

    def enter(self) -> None:
        """The kernel begins."""
        with self.lock:
            if self.core.stopped:
                raise asyncio.CancelledError("the attempt was over before it began")
            self.began = self._clock.now()
        if self._turns.waiting:  # it is in the queue no more
            self._post(self._turns.look)

    def leave(self) -> None:
        """The kernel has returned, in whatever way."""
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.give_back()
        with self.lock:
            self.ended = True
            back = self._back
        if back is not None:
            self._post(_ring, back)

    def _post(self, call: Any, *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits there
            self.loop.call_soon_threadsafe(call, *args)

    # What is other than with other runs.

    def failed(self, step: int, exc: BaseException, worker: Serving | None = None) -> None:
        """As `Run.failed`, but what it keeps is the exception as it was raised."""
        with self.lock:
            first = not self.core.stopped
            if first:
                self._error, self._failing = exc, worker
                self._fail(step, worker)
                self._stop_all()
                trash = self.take_trash()
        if not first:
            super().failed(step, exc, worker)
            return
        del trash
        self._stopped()
        self._tell_of(worker)

    def crash(self, error: BaseException) -> None:
        """As `Run.crash`; it is for the outer run to crash with it, and no failure of the operator."""
        self.crashed = True
        super().crash(error)

    def _stopped(self) -> None:
        super()._stopped()
        if self._inside is not None and self.astray:  # its kernel is one of the runtime's, and outlives the outer run
            self._inside.host.notice(self, self._inside)

    def tell_started(self) -> None:
        """Nobody: see rule 3."""

    def tell_ended(self, outcome: str, error: BaseException | None = None) -> None:
        """Nobody: see rule 3."""

    def tell_operator(self, step: int, began: int, seconds: float, error: BaseException | None) -> None:
        """As of the run that it was made for; and one that took too long has failed with that, if with nothing else."""
        if self.began is None or not observed(OperatorEnded):
            return
        stopped = self.core.stopped
        if self.timed_out and stopped and (error is None or isinstance(error, asyncio.CancelledError)):
            assert self.timeout is not None
            error = timed_out(self.plan.nodes[step], self.plan.graph, self.timeout)
        tell(self.context, operator_ended(self.of, self.plan, step, began, seconds, error, stopped=stopped))

    def told_late(self, node: Node | None, error: BaseException) -> None:
        """As a failure of the run that it was made for."""
        tell_late(self.of, self.plan.graph.name, self.context, node, error)

    def changed(self) -> None:
        if self.core.over:
            self._post(self._tell)


class Turns:
    """The attempts of one run that wait for their turn to be offered to the pool; on the run's loop."""

    __slots__ = ("_offered", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[Attempt, asyncio.Future[None]]] = deque()
        """Those that were cancelled stay until their turn comes."""
        self._offered: list[Attempt] = []
        """Those that may be in the pool's queue."""

    async def take(self, attempt: Attempt) -> None:
        """Wait until it may be offered."""
        turn: asyncio.Future[None] = attempt.loop.create_future()
        self.waiting.append((attempt, turn))
        self.look()  # after that: a kernel that begins looks whether anybody waits
        await turn

    def look(self) -> None:
        """Give turns for attempts that are no longer in the queue."""
        most = 2 * process_pool().limit  # so many that no worker waits for the loop
        self._offered = [attempt for attempt in self._offered if attempt.began is None and not attempt.core.over]
        while self.waiting and len(self._offered) < most:
            attempt, turn = self.waiting.popleft()
            if not turn.done():
                self._offered.append(attempt)
                turn.set_result(None)


def _ring(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _plan_of(plan: Plan, step: int) -> Plan:
    """The plan of one attempt at this step; made once."""
    made = plan.attempts.get(step)
    return made if made is not None else plan.attempts.setdefault(step, one_step(plan, step, _entered))


def _entered(call: Caller) -> Caller:
    """The call of a kernel, with its attempt told when it begins and ends."""

    def called(values: list[Any]) -> Any:
        attempt = here.run
        assert isinstance(attempt, Attempt)
        try:
            attempt.enter()
            return call(values)
        finally:
            if attempt.began is not None:
                attempt.leave()
            del attempt  # a held exception keeps this frame

    return called
