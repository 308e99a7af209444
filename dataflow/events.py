"""What the package tells whoever listens: event records, and the hook for them.

An observer is called in the thread where the thing happened, never under a lock of ours; it should be quick. One
that raises is switched off and logged: watching must not break what is watched.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

__all__ = ["Event", "LateFailure", "Retrying", "RunEnded", "RunStarted", "emit", "observe", "observed"]

logger = logging.getLogger("dataflow")


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run began."""

    run: int
    pipeline: str
    nodes: int


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run's outcome stands: "done", "failed" or "cancelled"."""

    run: int
    pipeline: str
    outcome: str


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


Event = RunStarted | RunEnded | LateFailure | Retrying
Observer = Callable[[Event], object]

_lock = Lock()
_observers: tuple[Observer, ...] = ()


def observe(callback: Observer) -> Callable[[], None]:
    """Have `callback(event)` called for every event of this process from now on; returns what ends that.

    The events are `RunStarted`, `RunEnded`, `LateFailure` and `Retrying`. The callback runs in the thread where the
    event happened (an inter-op thread, or a thread with an event loop), so it must be thread-safe and must not block.
    If it raises, it is switched off and the error goes to the `dataflow` logger.
    """
    if not callable(callback):
        raise TypeError(f"observe: the callback must be callable, not {type(callback).__name__}")
    global _observers

    def watch(event: Event) -> None:
        callback(event)

    with _lock:
        _observers = (*_observers, watch)

    def unsubscribe() -> None:
        _remove(watch)

    return unsubscribe


def observed() -> bool:
    """Whether anybody listens: spares making an event for nobody."""
    return bool(_observers)


def emit(event: Event) -> None:
    """Tell every observer."""
    for observer in _observers:
        try:
            observer(event)
        except BaseException:  # it is no part of what it watches: its SystemExit or CancelledError is not the run's
            _remove(observer)
            logger.exception("an observer failed at %r and is switched off", event)


def _remove(observer: Observer) -> None:
    global _observers
    with _lock:
        _observers = tuple(other for other in _observers if other is not observer)
