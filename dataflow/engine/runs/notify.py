"""Telling of a run: what observers and the log get to know, and in which context.

Of the beginning, observers are told in what is the run's context from then on, so that everything in the run finds
what they set there; of all else in a copy of it, which nobody else sees. So a tracer needs no books to know what is
inside of what: the caller's span is the current one when a run begins, and the run's own one after that.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context, ContextVar
from threading import get_ident
from time import perf_counter, time_ns

from dataflow.events import Event, LateFailure, OperatorEnded, RunStarted, emit
from dataflow.graph.nodes import Node
from dataflow.graph.plan import Plan

__all__ = ["Stopwatch", "operator_ended", "tell", "tell_late", "told_started"]

logger = logging.getLogger("dataflow")


class Inside:
    """Says in a context that it is inside a run. Compared by identity, as tickets are, and for the same reason."""

    __slots__ = ("run",)

    def __init__(self, run: int) -> None:
        self.run = run


_inside: ContextVar[Inside | None] = ContextVar("dataflow_run", default=None)


class Stopwatch:
    """When something began, by the wall clock, and how long it took, by a clock that is never set back."""

    __slots__ = ("_started", "began", "seconds")

    def __init__(self) -> None:
        self.began = 0
        """0: it never did."""
        self.seconds = self._started = 0.0

    def start(self) -> None:
        """It begins."""
        self.began, self._started = time_ns(), perf_counter()

    def stop(self) -> None:
        """It has ended."""
        self.seconds = perf_counter() - self._started


def tell(context: Context, event: Event) -> None:
    """Tell observers of an event in a run that has this context."""
    context.copy().run(emit, event)


def told_started(run: int, plan: Plan, context: Context) -> Context:
    """Tell observers that a run begins in this context; returns what is its context from now on.

    A copy, since runs may share the given one, as those of a stream do.
    """
    outer, context = context.get(_inside), context.copy()
    context.run(_inside.set, Inside(run))
    parent = outer.run if outer is not None else None
    context.run(emit, RunStarted(run, plan.graph.name, len(plan), parent, time_ns()))
    return context


def tell_late(run: int, pipeline: str, context: Context, node: Node | None, error: BaseException) -> None:
    """To the log and to the observers: a failure in a run that was over already, or in an attempt that was."""
    operator = node.spec.name if node is not None else "?"
    logger.error("late failure in a run of %r that is over: operator %r", pipeline, operator, exc_info=error)
    tell(context, LateFailure(run, pipeline, operator, error))


def operator_ended(
    run: int, plan: Plan, step: int, began: int, seconds: float, error: BaseException | None, *, stopped: bool
) -> OperatorEnded:
    """How the operator of a step ended, in the thread where it did; `stopped` says whether it was told to stop."""
    node, graph = plan.nodes[step], plan.graph
    outcome = "done" if error is None else "failed"
    if stopped and isinstance(error, asyncio.CancelledError):
        outcome, error = "cancelled", None
    label = graph.labels.get(node.number)
    return OperatorEnded(
        run, graph.name, node.spec.name, node.number, label, began, seconds, outcome, error, get_ident()
    )
