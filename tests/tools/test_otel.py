"""Spans, as the SDK of OpenTelemetry exports them: which there are, whose children, with what times and status."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult
from opentelemetry.trace import StatusCode

import dataflow as flow
from dataflow.events import KINDS, Event, LateFailure, OperatorEnded, RunEnded, observed
from dataflow.tools import otel
from tests.engine.clock import until

Runner = Callable[[Any], Any]


@flow.op
def half(x: float) -> float:
    return x / 2


@flow.op
def reciprocal(x: float) -> float:
    return 1 / x


@flow.op
async def later(x: float) -> float:
    await asyncio.sleep(0)
    return x


@flow.pipeline
def mixed(x: Any) -> Any:
    return flow.label(later(half(x)), "back")


class Traced:
    """What was exported, by name."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("tests")

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def __getitem__(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def tree(self) -> set[tuple[str, str | None]]:
        """(name, name of the parent)."""
        names = {span.context.span_id: span.name for span in self.spans}
        return {(span.name, names[span.parent.span_id] if span.parent else None) for span in self.spans}


@pytest.fixture
def traced() -> Iterator[Traced]:
    found = Traced()
    end = otel.instrument(found.provider)
    yield found
    end()
    assert not any(observed(kind) for kind in KINDS)


def attributes(span: ReadableSpan, *names: str) -> tuple[Any, ...]:
    assert span.attributes is not None
    return tuple(span.attributes.get(f"dataflow.{name}") for name in names)


def exceptions(span: ReadableSpan) -> list[Any]:
    return [(event.attributes or {})["exception.type"] for event in span.events if event.name == "exception"]


# ---------------------------------------------------------------- what there is


def test_a_span_for_the_run_and_one_for_each_operator(run_async: Runner, traced: Traced) -> None:
    before = time.time_ns()
    assert run_async(mixed(2)) == 1
    after = time.time_ns()
    assert traced.tree() == {("mixed", None), ("half", "mixed"), ("later", "mixed")}
    run, kernel, on_loop = traced["mixed"], traced["half"], traced["later"]
    number = attributes(run, "run")[0]
    assert attributes(run, "nodes", "outcome") == (2, "done")
    assert attributes(kernel, "run", "node", "label", "outcome") == (number, 1, None, "done")
    assert attributes(on_loop, "run", "node", "label", "outcome") == (number, 2, "back", "done")
    assert kernel.attributes is not None
    assert on_loop.attributes is not None
    assert kernel.attributes["thread.name"].startswith("dataflow-interop")
    assert on_loop.attributes["thread.id"] == threading.get_ident()
    assert {span.status.status_code for span in traced.spans} == {StatusCode.UNSET}
    moments = [before, run.start_time, kernel.start_time, kernel.end_time, on_loop.start_time, on_loop.end_time]
    assert moments == sorted(moments)
    assert on_loop.end_time <= run.end_time + 1_000_000  # two clocks
    assert run.end_time <= after
    assert {span.instrumentation_scope.name for span in traced.spans} == {"dataflow"}


def test_times_are_those_of_the_operator(run_async: Runner, traced: Traced) -> None:
    moments: list[int] = []

    @flow.op
    def kernel() -> None:
        moments.append(time.time_ns())
        time.sleep(0.01)  # a sleep is what is measured here
        moments.append(time.time_ns())

    run_async(flow.pipeline(lambda: kernel())())
    began, ended = moments
    span = traced["kernel"]
    assert span.start_time <= began < ended <= span.end_time + 1_000_000
    assert span.end_time - span.start_time >= 9_000_000


def test_without_operators_there_are_runs_only(run_async: Runner) -> None:
    traced = Traced()
    end = otel.instrument(traced.provider, operators=False)
    run_async(mixed(2))
    assert not observed(OperatorEnded)
    end()
    assert traced.tree() == {("mixed", None)}


def test_the_global_provider_is_the_default(run_async: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = Traced()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: traced.provider)
    end = otel.instrument()
    run_async(mixed(2))
    end()
    assert len(traced.spans) == 3


# ---------------------------------------------------------------- who is whose child


def test_a_run_is_a_child_of_its_callers_span(run_async: Runner, traced: Traced) -> None:
    async def handle() -> None:
        with traced.tracer.start_as_current_span("handler") as span:
            await asyncio.gather(mixed(1), mixed(2))
            assert trace.get_current_span() is span
            assert await half.start(3) == 1.5
        with traced.tracer.start_as_current_span("elsewhere"):
            task = asyncio.create_task(flow.pipeline(lambda x: half(x), name="from a task")(1))
        await task

    run_async(handle())
    assert {("mixed", "handler"), ("half", "handler"), ("half", "half"), ("from a task", "elsewhere")} <= traced.tree()
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert len({span.context.trace_id for span in traced.spans}) == 2


def test_scripts_and_debug_nest_as_well(traced: Traced) -> None:
    with traced.tracer.start_as_current_span("script"):
        mixed.run(2)
        mixed.debug(2)
    assert traced.tree() == {("script", None), ("mixed", "script"), ("half", "mixed"), ("later", "mixed")}
    assert len(traced.spans) == 7


def test_what_operators_do_is_in_their_run(run_async: Runner, traced: Traced) -> None:
    inner = flow.pipeline(lambda x: half(x), name="inner")

    @flow.op
    def kernel(x: float) -> Any:
        with traced.tracer.start_as_current_span("opened in a kernel"):
            return inner.run(x)

    @flow.op(retries=1)
    def attempt(x: float) -> Any:
        traced.tracer.start_span("opened in an attempt").end()
        return inner.replace({half: reciprocal}).run(x)

    @flow.op
    async def on_loop(x: float) -> Any:
        with traced.tracer.start_as_current_span("opened on the loop"):
            await asyncio.sleep(0)
        return await mixed(x)

    outer = flow.pipeline(lambda x: (kernel(x), attempt(x), on_loop(x)), name="outer")
    run_async(outer(2))
    assert traced.tree() == {
        ("outer", None),
        ("kernel", "outer"),
        ("opened in a kernel", "outer"),
        ("inner", "opened in a kernel"),
        ("half", "inner"),
        ("attempt", "outer"),
        ("opened in an attempt", "outer"),
        ("inner", "outer"),
        ("reciprocal", "inner"),
        ("on_loop", "outer"),
        ("opened on the loop", "outer"),
        ("mixed", "outer"),
        ("half", "mixed"),
        ("later", "mixed"),
    }


def test_items_of_a_stream_are_runs_of_their_own(run_async: Runner, traced: Traced) -> None:
    async def main() -> list[Any]:
        with traced.tracer.start_as_current_span("consumer"):
            async with mixed.stream(range(20)) as stream:
                return [x async for x in stream]

    assert run_async(main()) == [x / 2 for x in range(20)]
    runs = [span for span in traced.spans if span.name == "mixed"]
    assert len(runs) == 20
    assert traced.tree() == {("consumer", None), ("mixed", "consumer"), ("half", "mixed"), ("later", "mixed")}
    for run in runs:
        children = [span for span in traced.spans if span.parent and span.parent.span_id == run.context.span_id]
        assert [attributes(child, "run") for child in children] == [attributes(run, "run")] * 2


# ---------------------------------------------------------------- how it ended


def test_failures_are_recorded(run_async: Runner, traced: Traced) -> None:
    with pytest.raises(ZeroDivisionError):
        run_async(flow.pipeline(lambda x: half(reciprocal(x)), name="fails")(0))
    assert traced.tree() == {("fails", None), ("reciprocal", "fails")}
    for span in traced.spans:
        assert attributes(span, "outcome") == ("failed",)
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "ZeroDivisionError: division by zero"
        (event,) = span.events
        assert event.attributes is not None
        assert event.attributes["exception.type"] == "ZeroDivisionError"
        assert "return 1 / x" in str(event.attributes["exception.stacktrace"])
        assert "dataflow/engine" not in str(event.attributes["exception.stacktrace"])
        assert event.timestamp == span.end_time
    (event,) = traced["fails"].events
    assert event.attributes is not None
    assert "dataflow: in operator 'reciprocal'" in str(event.attributes["exception.stacktrace"])


def test_an_exception_that_cannot_be_told_ends_no_tracing(run_async: Runner, traced: Traced) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise LookupError

    @flow.op
    def fails() -> None:
        raise Mute

    with pytest.raises(Mute):
        run_async(flow.pipeline(lambda: fails(), name="mute")())
    run_async(mixed(2))
    assert traced["fails"].status.status_code is traced["mute"].status.status_code is StatusCode.ERROR
    assert exceptions(traced["fails"])[0].endswith("Mute")
    assert len(traced.spans) == 5


def test_cancellation_is_no_error(run_async: Runner, traced: Traced) -> None:
    entered = threading.Event()
    gate = threading.Event()

    @flow.op
    async def waits() -> None:
        await asyncio.Event().wait()

    @flow.op
    def kernel() -> None:
        entered.set()
        assert gate.wait(20)

    async def main() -> None:
        task = asyncio.create_task(flow.pipeline(lambda: (waits(), kernel()), name="cancelled")())
        await until(entered.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert traced.tree() == {("cancelled", None), ("waits", "cancelled")}
        gate.set()
        await flow.quiet()

    run_async(main())
    assert traced.tree() == {("cancelled", None), ("waits", "cancelled"), ("kernel", "cancelled")}
    assert attributes(traced["cancelled"], "outcome") == attributes(traced["waits"], "outcome") == ("cancelled",)
    assert attributes(traced["kernel"], "outcome") == ("done",)
    assert {span.status.status_code for span in traced.spans} == {StatusCode.UNSET}
    assert not any(span.events for span in traced.spans)


def test_a_run_that_its_runtime_has_stopped_is_an_error(run_async: Runner, traced: Traced) -> None:
    """Whoever awaits it gets an exception, and has not asked for it."""

    @flow.op
    async def waits() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        runtime = flow.Runtime()
        task = asyncio.create_task(flow.pipeline(lambda: waits(), name="stopped").on(runtime)())
        await asyncio.sleep(0)
        await runtime.aclose(timeout=0)
        with pytest.raises(flow.RuntimeClosed):
            await task

    run_async(main())
    assert attributes(traced["stopped"], "outcome") == ("cancelled",)
    assert traced["stopped"].status.status_code is StatusCode.ERROR
    assert exceptions(traced["stopped"]) == ["dataflow.errors.RuntimeClosed"]


def test_attempts_and_what_was_tried_again(run_async: Runner, traced: Traced) -> None:
    left = [OSError("first"), OSError("second")]

    @flow.op(retries=2, backoff=0)
    def flaky(x: float) -> float:
        if left:
            raise left.pop(0)
        return x

    assert run_async(flow.pipeline(lambda x: flaky(x), name="in the end")(1)) == 1
    attempts = [span for span in traced.spans if span.name == "flaky"]
    assert [attributes(span, "outcome") for span in attempts] == [("failed",), ("failed",), ("done",)]
    run = traced["in the end"]
    assert run.status.status_code is StatusCode.UNSET
    assert [(event.name, dict(event.attributes or {})) for event in run.events] == [
        (
            "retrying",
            {
                "dataflow.operator": "flaky",
                "dataflow.attempt": attempt,
                "dataflow.delay": 0.0,
                "exception.type": "OSError",
                "exception.message": f"OSError: {which}",
            },
        )
        for attempt, which in ((1, "first"), (2, "second"))
    ]


@pytest.mark.parametrize("operators", [True, False])
def test_late_failures_are_recorded(run_async: Runner, operators: bool, caplog: pytest.LogCaptureFixture) -> None:
    """In the trace of their run, which has ended."""
    traced = Traced()
    end = otel.instrument(traced.provider, operators=operators)
    entered, gate = threading.Event(), threading.Event()

    @flow.op
    def fails() -> None:
        entered.set()
        assert gate.wait(20)
        raise LookupError("too late")

    async def main() -> None:
        task = asyncio.create_task(flow.pipeline(lambda: fails(), name="run")())
        await until(entered.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        await flow.quiet()

    with caplog.at_level(logging.CRITICAL, "dataflow"):
        run_async(main())
    end()
    late = traced["late failure"]
    assert attributes(late, "operator") == ("fails",)
    assert late.status.status_code is StatusCode.ERROR
    assert exceptions(late) == ["LookupError"]
    assert traced.tree() == {("run", None), ("late failure", "run")} | ({("fails", "run")} if operators else set())


def test_a_late_failure_while_the_run_is_still_on_its_way_out(
    run_async: Runner, traced: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    entered: list[str] = []
    cancelled = threading.Event()
    told: list[Event] = []

    @flow.op
    async def takes_its_time() -> None:
        entered.append("async operator")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
            await until(lambda: told)

    @flow.op
    def fails() -> None:
        entered.append("kernel")
        assert cancelled.wait(20)
        raise LookupError("too late")

    async def main() -> None:
        task = asyncio.create_task(flow.pipeline(lambda: (takes_its_time(), fails()), name="run")())
        await until(lambda: len(entered) == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    end = flow.observe(told.append, [LateFailure])
    with caplog.at_level(logging.CRITICAL, "dataflow"):
        run_async(main())
    end()
    run = traced["run"]
    assert exceptions(run) == ["LookupError"]
    assert (run.events[0].attributes or {})["dataflow.operator"] == "fails"
    assert run.status.status_code is StatusCode.UNSET
    assert len(traced.spans) == 3


# ---------------------------------------------------------------- sampling, coming and going


def test_what_is_not_sampled_is_not_traced_and_others_are(run_async: Runner) -> None:
    class ButNotInner(Sampler):
        def should_sample(self, parent_context: Any, trace_id: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            return SamplingResult(Decision.DROP if name == "inner" else Decision.RECORD_AND_SAMPLE)

        def get_description(self) -> str:
            return "all but inner"

    inner = flow.pipeline(lambda x: half(x), name="inner")

    @flow.op
    def kernel(x: float) -> Any:
        return inner.run(x)

    outer = flow.pipeline(lambda x: kernel(x), name="outer")
    for sampler, expected in ((ButNotInner(), {("outer", None), ("kernel", "outer")}), (ALWAYS_OFF, set())):
        traced = Traced(sampler=sampler)
        end = otel.instrument(traced.provider)
        run_async(outer(2))
        end()
        assert traced.tree() == expected


def test_ending_it_lets_runs_in_progress_have_their_spans(run_async: Runner) -> None:
    traced = Traced()
    ends: list[Callable[[], None]] = []

    @flow.op
    def ending(x: float) -> float:
        ends[0]()
        ends[0]()
        assert observed(RunEnded)
        return x

    p = flow.pipeline(lambda x: half(ending(x)), name="run")
    ends.append(otel.instrument(traced.provider))
    run_async(p(2))
    assert not any(observed(kind) for kind in KINDS)
    assert traced.tree() == {("run", None), ("ending", "run"), ("half", "run")}
    run_async(mixed(2))
    assert len(traced.spans) == 3


def test_a_run_that_began_before_is_left_out(run_async: Runner) -> None:
    traced = Traced()
    ends: list[Callable[[], None]] = []

    @flow.op
    def beginning(x: float) -> float:
        ends.append(otel.instrument(traced.provider))
        return float(mixed.run(x))

    async def main() -> None:
        with traced.tracer.start_as_current_span("caller"):
            await flow.pipeline(lambda x: half(beginning(x)), name="run")(2)

    run_async(main())
    ends[0]()
    assert traced.tree() == {("caller", None), ("mixed", "caller"), ("half", "mixed"), ("later", "mixed")}


def test_two_at_once(run_async: Runner) -> None:
    """The second one's spans are in the first one's runs, as all spans that are opened inside of them."""
    first, second = Traced(), Traced()
    ends = [otel.instrument(first.provider), otel.instrument(second.provider)]
    run_async(mixed(2))
    for end in ends:
        end()
    assert first.tree() == {("mixed", None), ("half", "mixed"), ("later", "mixed")}
    assert {span.name for span in second.spans} == {"mixed", "half", "later"}
    run = second["mixed"]
    assert run.parent is not None
    assert run.parent.span_id == first["mixed"].context.span_id
    assert {span.parent.span_id for span in second.spans if span is not run and span.parent} == {run.context.span_id}


def test_a_processor_that_fails_breaks_no_run(run_async: Runner, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(SimpleSpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise LookupError("in the processor")

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Broken(InMemorySpanExporter()))
    end = otel.instrument(provider)
    with caplog.at_level(logging.ERROR, "dataflow"):
        assert run_async(mixed(2)) == 1
    assert not any(observed(kind) for kind in KINDS)
    end()
    (record,) = caplog.records
    assert "switched off" in record.message


def test_nothing_is_kept(run_async: Runner) -> None:
    """Of runs that were done, failed or cancelled: neither spans, nor exceptions, nor books."""

    class Own(Exception):
        pass

    @flow.op
    def fails(x: float) -> float:
        raise Own

    @flow.op
    async def waits(x: float) -> None:
        waiting.append(True)
        await asyncio.Event().wait()

    waiting: list[bool] = []
    spans: weakref.WeakSet[Any] = weakref.WeakSet()
    errors: weakref.WeakSet[BaseException] = weakref.WeakSet()

    class Watching(SimpleSpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            spans.add(span)

        def on_end(self, span: ReadableSpan) -> None:
            pass

    def watch(event: Event) -> None:
        error = getattr(event, "error", None)
        if error is not None:
            errors.add(error)

    async def main() -> None:
        for _ in range(5):
            await mixed(1)
            with suppress(Own):
                await flow.pipeline(lambda x: fails(half(x)))(1)
            task = asyncio.create_task(flow.pipeline(lambda x: waits(half(x)))(1))
            await until(lambda: waiting)
            waiting.clear()
            task.cancel()
            await asyncio.wait([task])
        await flow.quiet()

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Watching(InMemorySpanExporter()))
    end = otel.instrument(provider)
    end_watching = flow.observe(watch)
    tracing = end.__self__  # type: ignore[attr-defined]
    run_async(main())
    gc.collect()
    assert not tracing._open
    assert not spans
    assert not errors
    end()
    end_watching()


# ---------------------------------------------------------------- the extra


def test_importing_the_package_does_not_import_it() -> None:
    program = "import sys, dataflow; sys.exit('opentelemetry' in sys.modules or 'dataflow.tools.otel' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_the_extra_the_error_names_it() -> None:
    program = "import sys; sys.modules['opentelemetry'] = None\nimport dataflow.tools.otel"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "ImportError: dataflow.tools.otel needs" in done.stderr
    assert "pip install 'dataflow-runtime[otel]'" in done.stderr
