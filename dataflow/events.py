"""What the package tells whoever listens: event records, and the hook for them.

An observer is called in the thread where the thing happened, never under a lock of ours; it should be quick. One
that raises is switched off and logged: watching must not break what is watched.

Moments are `time.time_ns()`: nanoseconds of the wall clock, as in other logs and traces. It may be set back, so how
long something took is measured by a clock that is not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar, overload

__all__ = [
    "KINDS",
    "Event",
    "LateFailure",
    "OperatorEnded",
    "Retrying",
    "RunEnded",
    "RunStarted",
    "emit",
    "observe",
    "observed",
]

logger = logging.getLogger("dataflow")


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins; told in the thread that begins it, before anything of it runs."""

    run: int
    """Its number, by which other events speak of it; unique in this process."""
    pipeline: str
    nodes: int
    parent: int | None
    """The run that it is inside of: a kernel or an async operator of that one has begun it. That may be over, if it has
    left a task behind. None also if nobody was told of `RunStarted` when that one began."""
    began: int
    """By the wall clock, in nanoseconds."""


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run's outcome stands: "done", "failed" or "cancelled". Kernels that run on are told of later."""

    run: int
    pipeline: str
    outcome: str
    error: BaseException | None
    """What is raised where it is awaited, other than CancelledError."""
    ended: int
    """By the wall clock, in nanoseconds."""


@dataclass(frozen=True, slots=True)
class OperatorEnded:
    """A kernel or an async operator has ended; with `timeout`, `retries` or a `limit`, one attempt at it.

    Told in the thread where it ran. One that never began is not told of, nor is an operator that is called as the plain
    function that it is. What fails, fails after this was told: so its run has not ended yet, if it was not stopped
    before.
    """

    run: int
    pipeline: str
    operator: str
    node: int
    """Its number in the pipeline's graph, as in `print(p.graph())` and in the notes of errors."""
    label: str | None
    """What `flow.label` has named it."""
    began: int
    """By the wall clock, in nanoseconds."""
    seconds: float
    """How long it took; its result's attributes and constant indices, which are evaluated beside it, included."""
    outcome: str
    """"done": it returned, "failed": it raised, or took longer than its timeout, "cancelled": it was told to stop."""
    error: BaseException | None
    """What it failed with, as it was raised. A kernel that took longer than its timeout is told of when it returns."""
    thread: int
    """`threading.get_ident()` of its thread; that of the event loop for an async operator."""


@dataclass(frozen=True, slots=True)
class LateFailure:
    """An operator failed when its run was over already, so that no awaiter could be told."""

    run: int
    pipeline: str
    operator: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class Retrying:
    """An attempt at an operator failed, and there will be another `delay` seconds later (see `retries` of `op`)."""

    run: int
    pipeline: str
    operator: str
    attempt: int
    """The number of the one that failed; the first is 1."""
    delay: float
    error: Exception


Event = RunStarted | RunEnded | OperatorEnded | LateFailure | Retrying
Observer = Callable[[Event], object]
E = TypeVar("E", bound=Event)

KINDS: tuple[type[Event], ...] = (RunStarted, RunEnded, OperatorEnded, LateFailure, Retrying)

_lock = Lock()
observers: dict[type[Event], tuple[Observer, ...]] = dict.fromkeys(KINDS, ())
"""Who is told of what. The tuples are replaced whole, so that they are read without the lock. The hot path reads them
directly: there even a call of `observed` takes too long."""


@overload
def observe(callback: Observer) -> Callable[[], None]: ...
@overload
def observe(callback: Callable[[E], object], kinds: Iterable[type[E]]) -> Callable[[], None]: ...
def observe(callback: Callable[[Any], object], kinds: Iterable[Any] = KINDS) -> Callable[[], None]:
    """Have `callback(event)` called for every event of this process from now on; returns what ends that.

    The events are `RunStarted`, `RunEnded`, `OperatorEnded`, `LateFailure` and `Retrying`, of `dataflow.events`;
    `kinds` says which of them are wanted. While anybody wants `OperatorEnded`, each node takes a few microseconds more,
    and what the callback takes; else nodes cost nothing more. The others cost a few microseconds a run.

    The callback runs in the thread where the event happened (an inter-op thread, or a thread with an event loop), so it
    must be thread-safe and must not block. If it raises, it is switched off and the error goes to the `dataflow`
    logger.

    It runs in a copy of the context in which the pipeline was called. What it sets in context variables when it is told
    of `RunStarted`, everything in that run finds: operators, runs inside it, observers that are told of its other
    events. What it sets at other times, nobody sees.

    Raises TypeError for what cannot be called, and for kinds that are none of these.
    """
    if not callable(callback):
        raise TypeError(f"observe: the callback must be callable, not {type(callback).__name__}")
    wanted = tuple(kinds)
    for kind in wanted:
        if kind not in KINDS:
            raise TypeError(f"observe: kinds are event classes of dataflow.events, not {kind!r}")

    def watch(event: Event) -> None:
        callback(event)

    with _lock:
        for kind in dict.fromkeys(wanted):
            observers[kind] = (*observers[kind], watch)

    def unsubscribe() -> None:
        _remove(watch)

    return unsubscribe


def observed(kind: type[Event]) -> bool:
    """Whether anybody listens to such events: spares making one for nobody."""
    return bool(observers[kind])


def emit(event: Event) -> None:
    """Tell every observer of such events."""
    for observer in observers[type(event)]:
        try:
            observer(event)
        except BaseException:  # it is no part of what it watches: its SystemExit or CancelledError is not the run's
            _remove(observer)
            logger.exception("an observer failed at %r and is switched off", event)


def _remove(observer: Observer) -> None:
    with _lock:
        for kind, those in observers.items():
            observers[kind] = tuple(other for other in those if other is not observer)
