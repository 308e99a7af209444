"""One execution of a plan: the scheduler's state, the values, and who works on it.

    bind ─▶ begin ─▶ take ─▶ execute ─▶ report ─▶ … ─▶ outcome
                      ▲  (a worker)       │
                      └───────────────────┘

Rules:

1. What says how far the run is (the core, who works on it, what is due, the error) is changed only under the engine's
   lock, which is never held while user code runs (so what is released under it is dropped only after it), nor while
   anything waits.
2. The values need no lock, see `values`. Once the run is stopped, all are let go of but those that a step in flight
   reads or makes.
3. After a stop no step starts: the core gives out nothing, and what a worker has of a batch is taken from it. A kernel
   that still runs makes the run an *orphan* until it returns, and its result is dropped.
4. A run that was not stopped is settled when all workers have left it, and so have put in order what its kernels had,
   such as BLAS threads; one that has failed, when all have left that are in no kernel of it; one that was stopped
   otherwise, at once.
5. Nobody keeps a run alive but its awaiter and the workers that work on it: no cycle, no registry.
"""

from __future__ import annotations

import asyncio
from contextvars import Context, ContextVar
from itertools import count
from threading import local
from time import time_ns
from typing import Any, Protocol

from dataflow.engine.lock import engine_lock
from dataflow.engine.runs.failure import NO_RUN, also_failed, arrive, delivered
from dataflow.engine.runs.metrics import run_metrics
from dataflow.engine.runs.notify import operator_ended, tell, tell_late, told_started
from dataflow.engine.runs.orphans import orphans
from dataflow.engine.runs.record import RunRecord, recorded
from dataflow.engine.runs.values import Values
from dataflow.engine.scheduler import Scheduler
from dataflow.engine.steps import Phase
from dataflow.engine.turns import TURN, Turns
from dataflow.errors import InternalError, RuntimeClosed
from dataflow.events import OperatorEnded, RunEnded, RunStarted, observed
from dataflow.graph.nodes import Node
from dataflow.graph.plan import Plan

__all__ = ["Attempt", "Run", "Serving", "checkpoint", "here", "within"]

_numbers = count(1)


class Attempt:
    """One at a kernel with a timeout."""

    __slots__ = ("children", "ends", "error", "over")

    def __init__(self, ends: float) -> None:
        self.ends = ends
        """When its time is up."""
        self.children: list[Run] = []
        """Runs that it waits for."""
        self.over = False
        """Whether its time is up."""
        self.error: BaseException | None = None
        """With what it has failed then, once its kernel has returned."""


class Here(local):
    """What this thread executes at the moment: set by workers, so that kernels can be asked about their run."""

    run: Run | None = None
    attempt: Attempt | None = None
    """If its kernel has a timeout."""


here = Here()

within: ContextVar[int] = ContextVar("dataflow_within", default=NO_RUN)
"""The number of the run whose async operator, or whose `debug`, has this context. In workers `here` says it."""


def checkpoint() -> None:
    """Raise CancelledError if the run of the kernel that calls this is over, or its time is up; else do nothing.

    For long kernels: a kernel cannot be interrupted, but it can ask. Outside a kernel this does nothing. What the
    kernel raises after its run is over is not reported anywhere if it is this CancelledError.
    """
    run = here.run
    if run is not None and run.core.stopped:
        with run.lock:  # whoever stops it has yet to take what has not started: our worker must not be quicker
            pass
        raise asyncio.CancelledError("the run of this kernel is over")
    if here.attempt is not None and here.attempt.over:
        raise asyncio.CancelledError("the time of this attempt is up")


class Serving(Protocol):
    """What a run knows of a worker."""

    news: bool
    """Whether whoever waits for the run has yet to hear of a failure."""


class Run(Values):
    """One run. Subclasses say how whoever waits for it is told (`changed`)."""

    __slots__ = (
        "_also",
        "_orphaned",
        "_due",
        "_error",
        "_failed_node",
        "_failing",
        "apart",
        "calls",
        "children",
        "core",
        "crew",
        "driven",
        "level",
        "lock",
        "loop_steps",
        "number",
        "outer",
        "over_at",
        "record",
        "rises_at",
        "serial",
        "service",
        "to_beat",
        "waits_in",
        "__weakref__",
    )

    def __init__(self, plan: Plan, inputs: list[Any], context: Context) -> None:
        self.number = next(_numbers)
        self.outer = context.get(within, NO_RUN) if here.run is None else here.run.told_as
        """The number of the run that this one is inside of."""
        super().__init__(plan, inputs, context)
        self.calls = plan.calls
        """As workers call them."""
        self.apart: bool | None = None
        """Whether each kernel needs a copy of `context` to itself; None until a worker has looked."""
        self.core = Scheduler(plan)
        self.lock = engine_lock()
        self.crew: set[Serving] = set()
        """The workers that are here."""
        self._failing: Serving | None = None
        """The one whose kernel has failed and so stopped the run, until it departs."""
        self._orphaned = False
        """Whether the run was stopped while workers were in its kernels, and they still are."""
        self._due: list[int] = []
        self.loop_steps = 0
        """How many steps are with the loop, begun or not."""
        self._error: BaseException | None = None
        self._failed_node: Node | None = None
        self._also: list[tuple[Node, BaseException]] = []
        self.driven = False
        """Whether a kernel's thread waits for this run and helps with it: it must hear of kernels that are ready."""
        self.children: list[Run] = []
        """Runs that kernels of this one wait for: a stop goes on to them."""
        self.serial = plan.shown.light
        """Whether one worker is enough, since kernels are so light that several would only be in each other's way."""
        self.to_beat = plan.shown.to_beat
        """Seconds for each kernel in which several workers executed them: one alone goes on if it is quicker."""
        self.waits_in: Turns[Run] | None = None
        """Where it waits for workers, if it does; see `turns`."""
        self.level, self.service, self.rises_at = 0, 0.0, TURN
        """See `turns`: seconds for which workers have served it, and at how many it rises to the next level."""
        self.record: RunRecord | None = None
        """What is recorded of it, if anybody does; see `record`."""
        self.over_at: int | None = None
        """When it was over, by the wall clock, if that is known and not when its outcome is asked for."""

    def __repr__(self) -> str:
        return f"<run {self.number} of {self.plan.graph.name!r}: {self.core!r}>"

    # The life of a run: each of these takes the lock.

    def begin(self) -> None:
        """Start the core: sources become ready or due."""
        self.tell_started()
        self.record = recorded(self)
        with self.lock:
            self.core.start()
            self.hand_over()

    def depart(self, worker: Serving) -> None:
        """A worker leaves this run, with nothing of it begun. The last one tells whoever waits of the end."""
        with self.lock:
            crew, core = self.crew, self.core
            crew.discard(worker)
            if worker is self._failing:
                self._failing = None
            if core.over:
                self.wait_no_longer()
            if core.over and not core.stopped:
                changed = not crew
                self.plan.shown.light, self.plan.shown.to_beat = self.serial, self.to_beat
            else:
                # Of one that has failed, whoever waits is told when the last one has gone that is in no kernel.
                changed = worker.news or core.phase is Phase.FAILED or (self.driven and core.startable > 0)
            worker.news = False
            back = self._orphaned and not crew
            if back:
                self._orphaned = False
            trash = self.take_trash()
        del trash
        try:
            if changed:
                self.changed()
        finally:
            if back:  # last: whoever waits for it finds everything gone
                orphans.leave()

    def rise(self) -> None:
        """Under the lock: workers have served it for long enough to rise."""
        while self.service > self.rises_at:
            self.level += 1
            self.rises_at *= 2

    def completed(self, step: int) -> None:
        """A step on the loop is done; its value is stored."""
        with self.lock:
            self.loop_steps -= 1
            self.core.complete(step)
            changed = self.let_go() or self.driven
            trash = self.take_trash()
        del trash
        if changed:
            self.changed()

    def failed(self, step: int, exc: BaseException, worker: Serving | None = None) -> None:
        """A step (of a worker's, or on the loop) failed: the run ends with this, or, if it is over, tells the log."""
        if isinstance(exc, asyncio.CancelledError) and self.core.stopped:
            with self.lock:  # it saw that it was no longer wanted
                self.fail(step, worker)
                trash = self.take_trash()
            del trash
            self.tell_of(worker)
            return
        node = self.blamed(step)
        error = self.arrived(step, exc, node)
        with self.lock:
            stops = self.fail(step, worker)
            late = not stops and (self._error is None)
            if stops:
                self._error, self._failed_node, self._failing = error, node, worker
                self._stop_all()
            elif not late:
                self._also.append((node, error))
            trash = self.take_trash()
        del trash
        if late:
            self.told_late(node, error)
        if stops:
            self.has_stopped()
        self.tell_of(worker)

    def crash(self, error: BaseException) -> None:
        """What should not happen did, outside any operator: the run ends with this error, and does not hang."""
        with self.lock:
            stops = self.core.cancel()
            if stops:
                self._error = error
                self._stop_all()
        if stops:
            self.has_stopped()
            self.changed()
        else:
            self.told_late(None, error)

    def stop(self, error: BaseException | None = None) -> None:
        """Nobody wants the outcome any more: nothing starts from here on.

        Whoever waits gets the error, if one is given. A run that has come to its end is left alone.
        """
        with self.lock:
            stops = self.core.cancel()
            if stops:
                self._error = error
                self._stop_all()
                self._drop_values()
            trash = self.take_trash()
        del trash
        if stops:
            self.has_stopped()
            self.changed()

    # For the awaiter, once the run is over.

    def outcome(self) -> Any:
        """The result, or the error raised. Leaves nothing behind: neither values nor the error."""
        with self.lock:
            phase = self.core.phase
            error, self._error = self._error, None
            also, self._also = self._also, []
        if error is not None and also:
            also_failed(error, also, self.plan.graph)
        self.tell_ended("done" if phase is Phase.OPEN else phase.value, error)
        if phase is Phase.OPEN:
            return self.result()
        with self.lock:
            self._drop_values()
            trash = self.take_trash()
        del trash
        if error is None:
            raise asyncio.CancelledError(f"the run of {self.plan.graph.name!r} was cancelled")
        delivered(error, self.number, self.outer, self._failed_node, self.plan.graph)
        try:
            raise error
        finally:
            del error, also, self

    def abandon(self) -> None:
        """The awaiter left without looking at the outcome: failures that nobody saw go to the log, values nowhere."""
        with self.lock:
            error, self._error = self._error, None
            also, self._also = self._also, []
            self._drop_values()
            trash = self.take_trash()
        del trash
        if error is not None and (self._failed_node is not None or not isinstance(error, RuntimeClosed)):
            self.told_late(self._failed_node, error)
        for node, other in also:
            self.told_late(node, other)
        self.tell_ended(Phase.CANCELLED.value)

    # For a host that is about to leave.

    @property
    def orphaned(self) -> bool:
        """Whether the run is over while kernels of it still run."""
        return self._orphaned

    def still_running(self) -> tuple[str, ...]:
        """Of a stopped run, the operators that have not returned yet."""
        with self.lock:
            steps = sorted(self.core.running | self.core.overrunning) if self.core.stopped else []
        return tuple(self.plan.nodes[step].spec.name for step in steps)

    # What observers, the counters and the log are told.

    def tell_started(self) -> None:
        """To the observers and the counters."""
        run_metrics.started()
        if observed(RunStarted):
            self.context = told_started(self.number, self.plan, self.context)

    def tell_ended(self, outcome: str, error: BaseException | None = None) -> None:
        """To the observers and the counters."""
        run_metrics.ended[outcome]()
        if self.record is not None:
            self.record.end(outcome)
        if observed(RunEnded):
            ended = time_ns() if self.over_at is None else self.over_at
            tell(self.context, RunEnded(self.number, self.plan.graph.name, outcome, error, ended))

    def tell_operator(self, step: int, began: int, seconds: float, error: BaseException | None) -> None:
        """To the observers, if there are any for this: the operator of a step has ended."""
        if observed(OperatorEnded):
            stopped = self.core.stopped
            tell(
                self.context,
                operator_ended(self.number, self.plan, step, began, seconds, error, stopped=stopped),
            )

    def told_late(self, node: Node | None, error: BaseException) -> None:
        """A failure that no awaiter can be told goes to the log and to the observers."""
        tell_late(self.number, self.plan.graph.name, self.context, node, error)

    # Under the lock.

    def _stop_all(self) -> None:
        """The run was stopped just now: nothing of it may start."""
        self.wait_no_longer()
        if self.crew:
            self._orphaned = True
            orphans.enter()
        for step in self._due:
            self.core.give_back(step)
        self.loop_steps -= len(self._due)
        self._due = []

    def wait_no_longer(self) -> None:
        """No worker is wanted: nor must a run that is over be held by those that wait."""
        if self.waits_in is not None:
            self.waits_in.remove(self)

    def hand_over(self) -> bool:
        """What has become due is the loop's from now on; returns whether anything has."""
        due = self.core.due
        if not due:
            return False
        self.core.due = []
        self._due += due
        self.loop_steps += len(due)
        return True

    def fail(self, step: int, worker: Serving | None) -> bool:
        """The core is told; whether that stops the run."""
        core = self.core
        if worker is None:
            self.loop_steps -= 1
        elif step not in core.running:  # it stands in a batch
            core.step_by_step()
        stops = core.fail(step)
        if not stops:
            self._drop_values()
        return stops

    def expire(self, step: int, error: BaseException, node: Node) -> None:
        """The time of a kernel is up: the run fails with this, while the kernel runs on."""
        self.core.expire(step)
        self._error, self._failed_node = error, node
        self._stop_all()

    def let_go(self) -> bool:
        """After the core was told: what comes of it; returns whether whoever waits for the run has to know."""
        core = self.core
        released = core.released
        if released:
            core.released = []
            self.release(released)
        if core.stopped:
            self._drop_values()
            return True
        return self.hand_over() or core.done == core.size

    def _drop_values(self) -> None:
        self.drop(self.core.running | self.core.overrunning)

    def tell_of(self, worker: Serving | None) -> None:
        """A step has failed; not under the lock. If a worker had taken it, it tells as it departs: see rule 4."""
        if worker is None:
            self.changed()
        else:
            worker.news = True

    # Hooks.

    def arrived(self, step: int, exc: BaseException, node: Node) -> BaseException:
        """What the awaiter gets for `exc`, with which this step failed at this node."""
        return arrive(exc, node, self.plan.graph, self.seen_by(step), self.number)

    def has_stopped(self) -> None:
        """The run was stopped just now: inner runs have no one left to wait for them."""
        for child in list(self.children):
            child.stop()

    @property
    def told_as(self) -> int:
        """The number under which failures, events and inner runs speak of this run."""
        return self.number

    @property
    def settled(self) -> bool:
        """Whether the outcome stands, nothing of this run is left on the loop, and workers have left; see rule 4."""
        if not self.concluded:
            return False
        if self.core.phase is Phase.FAILED:
            in_kernels = len(self.core.running) + len(self.core.overrunning)
            return self._failing is None and len(self.crew) <= in_kernels
        return self.core.stopped or not self.crew

    @property
    def concluded(self) -> bool:
        """The same, wherever workers are: who was cancelled waits for no more."""
        return self.core.over and not self.loop_steps

    def post(self) -> None:
        """Have the loop look at this run."""
        raise InternalError(f"{type(self).__name__} has no loop")

    def changed(self) -> None:
        """Something happened that whoever waits for this run must know: steps due, a stop, the end."""
        raise InternalError(f"{type(self).__name__} does not say whom to tell")
