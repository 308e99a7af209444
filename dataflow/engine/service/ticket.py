"""Tickets: a run of a bounded runtime holds one while it is in progress, and what it brings about needs none.

The context of such a run points at its ticket, so that whatever runs inside it is found to be inside it: kernels, async
ops, the tasks that these create. Tickets compare by identity, since values that compare by content would cost kernels
their shared copy of the context (see `worker`). A ticket refers to its holder weakly: a task that an op has left behind
keeps its context, but nothing of the run.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from dataflow.engine.runs.run import Run
from dataflow.errors import RuntimeClosed
from dataflow.graph.plan import Plan

__all__ = [
    "Awaiter",
    "Host",
    "LoopOfAwaiter",
    "Outcome",
    "StillRunning",
    "Ticket",
    "TicketState",
    "current_ticket",
    "encloses",
    "nearest",
    "outlived",
]


class TicketState(Enum):
    """What can be said of a place that was asked for."""

    ASKED = "asked"
    WAITING = "waiting"
    HELD = "held"
    REFUSED = "refused"
    LEFT = "left"


class Outcome(Enum):
    """How one that asked for a place ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"


class LoopOfAwaiter(Protocol):
    """Where somebody waits: an event loop, say. Compared by identity."""

    def is_closed(self) -> bool:
        """Whether nobody there ever wakes again."""


class Awaiter(Protocol):
    """Whoever waits for a place."""

    @property
    def loop(self) -> LoopOfAwaiter:
        """Where it waits, and runs then."""

    def wake(self) -> bool:
        """Tell it that its state has changed, from any thread; False if it is not there any more."""


class Holder(Protocol):
    """Whoever has a place: a run, or a stream for all runs of its items. Referred to weakly."""

    def stop(self, error: BaseException | None = None) -> None:
        """End, from any thread; whoever waits for it gets the error."""

    def still_running(self) -> tuple[str, ...]:
        """The operators that it is about to end without and that have not returned; once it was stopped."""


class Host(Protocol):
    """The runtime of a place, as runs and streams see it."""

    @property
    def name(self) -> str:
        """What it is called in errors."""

    async def execute(self, plan: Plan, inputs: list[Any], context: Context) -> Any:
        """See `Driver`."""

    def block(self, plan: Plan, inputs: list[Any], context: Context) -> Any:
        """See `Driver`."""

    async def admit(self, stream: Holder, pipeline: str, context: Context) -> Callable[[Outcome], None]:
        """A place for a stream, which is left by calling what this returns. Its items are inside, by their context."""

    def release(self, ticket: Ticket) -> None:
        """The event loop of the run that holds it is closed."""

    def orphaned(self, run: Run, ticket: Ticket) -> None:
        """A run, which holds this place or is inside the one that does, was stopped while kernels of it run."""


@dataclass(frozen=True, slots=True)
class StillRunning:
    """What had not ended when its runtime was closed."""

    pipeline: str
    seconds: float
    """How long ago its run, or its stream, was admitted."""
    operators: tuple[str, ...]
    """Those that have not returned: kernels that nobody can interrupt, async ops that do not heed cancellation."""


class Ticket:
    """For a place in a runtime, asked for or held."""

    __slots__ = ("__weakref__", "_holder", "awaiter", "began", "expelled", "host", "outer", "pipeline", "state")

    def __init__(self, host: Host, pipeline: str, awaiter: Awaiter, outer: Ticket | None = None) -> None:
        self.host = host
        self.pipeline = pipeline
        self.awaiter = awaiter
        self.outer = outer
        """The nearest ticket inside whose run this one was asked for."""
        self.state = TicketState.ASKED
        self.expelled = False
        """Whether the runtime was closed while this was held: its run is to end."""
        self.began = 0.0
        """By the admission's clock, since when it is held."""
        self._holder: weakref.ref[Holder] | None = None

    @property
    def holder(self) -> Holder | None:
        """The run or the stream that holds it, as long as there is one."""
        return self._holder() if self._holder is not None else None

    def taken_by(self, holder: Holder) -> Ticket | None:
        """Note who holds it: the first one in its context. Others are inside that one, and hold nothing."""
        if self._holder is not None:
            return None
        self._holder = weakref.ref(holder)
        return self

    def expulsion(self) -> RuntimeClosed:
        """The error for whoever awaits its run."""
        return RuntimeClosed(f"runtime {self.host.name!r} was closed while {self.pipeline!r} was in progress")

    def __repr__(self) -> str:
        return f"<ticket of {self.pipeline!r}: {self.state.value}>"


current_ticket: ContextVar[Ticket | None] = ContextVar("dataflow_ticket", default=None)


def _enclosing(ticket: Ticket | None) -> Iterator[Ticket]:
    """Of this ticket and those around it the ones that are held, the nearest first."""
    while ticket is not None:
        if ticket.state is TicketState.HELD:
            yield ticket
        ticket = ticket.outer


def encloses(host: Host, context: Context) -> bool:
    """Whether this context is inside a run that holds a place of this runtime: one more could be waited for in vain."""
    ticket = context.get(current_ticket)
    return ticket is not None and any(held.host is host for held in _enclosing(ticket))


def nearest(context: Context) -> Ticket | None:
    """The ticket of the innermost run that this context is inside of."""
    return next(_enclosing(context.get(current_ticket)), None)


def outlived(context: Context) -> Host | None:
    """The runtime inside whose run this context was, if that run is over and no other one is around it."""
    ticket = context.get(current_ticket)
    return ticket.host if ticket is not None and next(_enclosing(ticket), None) is None else None
