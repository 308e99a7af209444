"""OpenTelemetry: a span for each run, and in it one for each kernel and async operator.

    GET /features         the caller's span, if there is one
    └─ features           a run: from its beginning until its outcome stands
       ├─ fetch           an async operator, or an attempt at one
       ├─ blur            a kernel
       └─ edges           a run that a kernel has begun, and so is what kernels and async operators trace themselves
          └─ subtract

An observer like any other (see `dataflow.events`). When it is told that a run begins, it makes the run's span the
current one in the run's context; so it is the parent of spans that operators open, and of runs inside. All later events
of the run are told in that context, where the span is found again: there are no books to keep, and none to forget.

Needs the extra `otel`, which is the API of OpenTelemetry; the SDK is the application's choice.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import current_thread
from typing import NamedTuple

from dataflow.engine.runs.failure import in_one_line
from dataflow.events import KINDS, Event, LateFailure, OperatorEnded, Retrying, RunEnded, RunStarted, observe

try:
    from opentelemetry.context import attach, create_key, get_value, set_value
    from opentelemetry.trace import (
        Span,
        Status,
        StatusCode,
        Tracer,
        TracerProvider,
        get_tracer,
        set_span_in_context,
    )
except ImportError as exc:
    raise ImportError(
        "dataflow.tools.otel needs the API of OpenTelemetry, which is the extra `otel`: "
        "pip install 'dataflow-runtime[otel]'"
    ) from exc

__all__ = ["instrument"]


def instrument(tracer_provider: TracerProvider | None = None, *, operators: bool = True) -> Callable[[], None]:
    """Make spans of all runs of this process from now on; returns what ends that.

    By default they go to the global tracer provider. With `operators=False` there are spans of runs only, and kernels
    cost what they cost without tracing; with them, each takes some tens of microseconds more where its span is
    recorded. Of a run that the sampler leaves out there are none.

    A run's span has the name of the pipeline, and is a child of the span that was current where the pipeline was
    called; inside of a run that is the outer run's span, or one that the operator has opened. Attributes:
    `dataflow.run` (its number), `dataflow.nodes`, `dataflow.outcome` ("done", "failed", "cancelled"). If awaiting it
    raises, the exception is recorded and the status is ERROR; of cancellation, only the outcome tells. Each attempt
    that is followed by another is an event "retrying".

    A span of a kernel or an async operator has the operator's name, and is a child of its run's span. Attributes:
    `dataflow.run`, `dataflow.node` and, if it has one, `dataflow.label`, as in the pipeline's graph;
    `dataflow.outcome`, `thread.id`, `thread.name`. With `timeout`, `retries` or a `limit` there is one for each
    attempt. It is made when the operator has ended, with the times that were measured. So what the operator itself
    traces is a child of the run's span rather than of this one. A kernel that outlives its run has its span in the
    run's trace all the same.

    A failure that no awaiter was told is recorded on the run's span or, if that has ended, on a span "late failure" in
    it.

    Spans are made in the threads where things happen, so their processor should not block: take a BatchSpanProcessor.
    One that raises ends the tracing, which goes to the `dataflow` logger, and not the run.

    Ending it is for the runs that begin after that: the spans of those in progress are still completed.
    """
    return _Tracing(get_tracer("dataflow", tracer_provider=tracer_provider), operators).close


_Attributes = dict[str, str | int | float]


class _Recorded(NamedTuple):
    """A run of which a span is recorded."""

    run: int
    span: Span


class _Tracing:
    """The observer. Without a lock, since the garbage collector may end a forgotten run in the middle of anything."""

    def __init__(self, tracer: Tracer, operators: bool) -> None:
        self._tracer = tracer
        self._key = create_key("dataflow-run")
        """Under this a run's context has what is recorded of it; inside of one that is not, that of the outer run."""
        self._open: set[int] = set()
        """The runs of which the span has not ended, by their number."""
        self._closing = False
        self._end = observe(self._told, [kind for kind in KINDS if operators or kind is not OperatorEnded])

    def close(self) -> None:
        """No further run is traced."""
        self._closing = True
        self._leave()

    def _leave(self) -> None:
        if self._closing and not self._open:
            self._end()

    def _told(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._started(event)
            return
        found = get_value(self._key)
        if not isinstance(found, _Recorded) or found.run != event.run:  # it began before us, or is not recorded
            return
        run = found.span
        match event:
            case OperatorEnded():
                self._operator_ended(run, event)
            case RunEnded():
                self._ended(run, event)
            case Retrying():
                run.add_event("retrying", _retrying(event))
            case LateFailure():
                self._late(run, event)

    def _started(self, event: RunStarted) -> None:
        if self._closing:
            return
        attributes: _Attributes = {"dataflow.run": event.run, "dataflow.nodes": event.nodes}
        span = self._tracer.start_span(event.pipeline, attributes=attributes, start_time=event.began)
        context = set_span_in_context(span)
        if span.is_recording():
            self._open.add(event.run)
            context = set_value(self._key, _Recorded(event.run, span), context)
        attach(context)  # for good: the run's context is its own

    def _ended(self, span: Span, event: RunEnded) -> None:
        span.set_attribute("dataflow.outcome", event.outcome)
        if event.error is not None:
            _failed(span, event.error, event.ended)
        span.end(event.ended)
        self._open.discard(event.run)
        self._leave()

    def _operator_ended(self, run: Span, event: OperatorEnded) -> None:
        attributes: _Attributes = {
            "dataflow.run": event.run,
            "dataflow.node": event.node,
            "dataflow.outcome": event.outcome,
            "thread.id": event.thread,
            "thread.name": current_thread().name,
        }
        if event.label is not None:
            attributes["dataflow.label"] = event.label
        span = self._child(run, event.operator, attributes, event.began)
        ended = event.began + round(event.seconds * 1e9)
        if event.error is not None:
            _failed(span, event.error, ended)
        span.end(ended)

    def _late(self, run: Span, event: LateFailure) -> None:
        attributes: _Attributes = {"dataflow.run": event.run, "dataflow.operator": event.operator}
        if run.is_recording():
            _record(run, event.error, attributes)
            return
        span = self._child(run, "late failure", attributes)
        _failed(span, event.error)
        span.end()

    def _child(self, run: Span, name: str, attributes: _Attributes, began: int | None = None) -> Span:
        # Not merely the current span: another observer may have set one of its own.
        return self._tracer.start_span(name, set_span_in_context(run), attributes=attributes, start_time=began)


def _retrying(event: Retrying) -> _Attributes:
    return {
        "dataflow.operator": event.operator,
        "dataflow.attempt": event.attempt,
        "dataflow.delay": event.delay,
        "exception.type": type(event.error).__qualname__,
        "exception.message": in_one_line(event.error),
    }


def _failed(span: Span, error: BaseException, moment: int | None = None) -> None:
    _record(span, error, None, moment)
    span.set_status(Status(StatusCode.ERROR, in_one_line(error)))


def _record(span: Span, error: BaseException, attributes: _Attributes | None, moment: int | None = None) -> None:
    try:
        span.record_exception(error, attributes, moment)
    except Exception:  # one whose `str` fails is no reason to trace no more
        span.add_event("exception", {"exception.type": type(error).__qualname__, **(attributes or {})}, moment)
