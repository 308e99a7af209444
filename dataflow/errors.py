"""The errors of this package: the type says whose fault it is.

DataflowError
├── GraphError(ValueError)        a graph that cannot be
├── TraceError(TypeError)         a pipeline body that cannot be recorded
├── OperatorError                 what an operator raised and no caller may receive raw
│   └── OperatorTimeout(TimeoutError)
├── Overloaded                    the runtime's waiting room is full
├── RuntimeClosed(RuntimeError)   a run after close, or on a loop that is gone
└── InternalError                 an invariant of this package broke; please report it

Beside them there is `TraceWarning`: what a body does once that it would do in every run on values.

An operator's own exception reaches the awaiter as it is (`except ValueError` works); only the five that
would end a loop, a thread or a neighbour's run travel inside an `OperatorError`. Cancellation is
`asyncio.CancelledError` and never one of these. `ResultWarning(UserWarning)` is no error: a result is not quite the
caller's own.
"""

from __future__ import annotations

__all__ = [
    "DataflowError",
    "GraphError",
    "InternalError",
    "OperatorError",
    "OperatorTimeout",
    "Overloaded",
    "ResultWarning",
    "RuntimeClosed",
    "TraceError",
    "TraceWarning",
]


class DataflowError(Exception):
    """The base of every error that this package itself raises."""


class GraphError(DataflowError, ValueError):
    """A graph that cannot be: an unknown label, a loop in what a program built."""


class TraceError(DataflowError, TypeError):
    """A pipeline body that cannot be recorded faithfully; the message names the line and the remedy."""


class TraceWarning(UserWarning):
    """A pipeline body does what happens once, when it is traced, and on values would happen in every run.

    The message names the line and the remedy. `warnings.simplefilter("error", flow.TraceWarning)` makes it an error,
    and "ignore" silences it.
    """


class OperatorError(DataflowError):
    """An operator raised what no caller may receive raw; the original is `__cause__`.

    Those are StopIteration, CancelledError, SystemExit, KeyboardInterrupt and GeneratorExit: raised into a
    coroutine, each would be taken for something else than a failure.
    """


class OperatorTimeout(OperatorError, TimeoutError):
    """An operator ran longer than its `timeout`."""


class Overloaded(DataflowError):
    """A runtime's waiting room is full; `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RuntimeClosed(DataflowError, RuntimeError):
    """A run was asked of a runtime that is closed, or of an event loop that is gone."""


class ResultWarning(UserWarning):
    """A result holds arrays that are on the memory of an argument, and could not be given memory of their own."""


class InternalError(DataflowError):
    """An invariant of this package broke: report it, with the message (it carries the last events)."""
