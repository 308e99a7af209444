"""`observe`: who is told what, where, in which order and context, and what becomes of an observer that fails."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

import dataflow as flow
from dataflow.engine import worker
from dataflow.engine.runs import hosted
from dataflow.events import KINDS, Event, LateFailure, OperatorEnded, Retrying, RunEnded, RunStarted, observed
from tests.engine.clock import failure, until

Runner = Callable[[Any], Any]
RUNS: list[type[Event]] = [RunStarted, RunEnded]

number: ContextVar[str] = ContextVar("number", default="none")


@flow.op
def reciprocal(x: float) -> float:
    return 1 / x


@flow.op
async def later(x: float) -> float:
    await asyncio.sleep(0)
    return 1 / x


@flow.pipeline
def reciprocals(x: Any) -> Any:
    return reciprocal(x), reciprocal(x)


@flow.pipeline
def both_kinds(x: Any) -> Any:
    return flow.label(later(reciprocal(x)), "back")


@contextmanager
def listening(*kinds: type[Event]) -> Iterator[list[Any]]:
    """The events, in the order of telling."""
    events: list[Event] = []
    end = flow.observe(events.append, kinds or KINDS)
    try:
        yield events
    finally:
        end()


@pytest.fixture(autouse=True)
def _nobody_listens_afterwards() -> Iterator[None]:
    yield
    assert not any(observed(kind) for kind in KINDS)


# ---------------------------------------------------------------- runs


def test_a_run_begins_and_ends(run_async: Runner) -> None:
    before = time.time_ns()
    with listening(*RUNS) as events:
        assert run_async(reciprocals(2)) == (0.5, 0.5)
        with pytest.raises(ZeroDivisionError) as caught:
            run_async(reciprocals(0))
    run_async(reciprocals(2))
    after = time.time_ns()
    begun, done, begun_bad, failed = events
    assert events == [
        RunStarted(begun.run, "reciprocals", 2, None, begun.began),
        RunEnded(begun.run, "reciprocals", "done", None, done.ended),
        RunStarted(begun_bad.run, "reciprocals", 2, None, begun_bad.began),
        RunEnded(begun_bad.run, "reciprocals", "failed", caught.value, failed.ended),
    ]
    assert before <= begun.began <= done.ended <= begun_bad.began <= failed.ended <= after


def test_each_subscription_is_one_and_ends_alone(run_async: Runner) -> None:
    events: list[Event] = []
    ends = [flow.observe(events.append, RUNS), flow.observe(events.append, RUNS)]
    run_async(reciprocals(2))
    assert len(events) == 4
    ends[0]()
    ends[0]()  # twice is once
    run_async(reciprocals(2))
    assert len(events) == 6
    ends[1]()
    assert not observed(RunStarted)


@pytest.mark.parametrize("kind", KINDS)
def test_an_observer_is_told_of_the_kinds_that_it_wants(run_async: Runner, kind: type[Event]) -> None:
    with listening(kind) as events:
        assert [observed(other) for other in KINDS] == [other is kind for other in KINDS]
        run_async(both_kinds(2))
        with pytest.raises(ZeroDivisionError):
            run_async(both_kinds(0))
    assert all(type(event) is kind for event in events)
    assert len(events) == {RunStarted: 2, RunEnded: 2, OperatorEnded: 3, LateFailure: 0, Retrying: 0}[kind]


def test_cancelled_runs_say_so(run_async: Runner) -> None:
    @flow.op
    async def for_ever() -> None:
        await asyncio.Event().wait()

    @flow.pipeline
    def waits() -> Any:
        return for_ever()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await waits()
        task = asyncio.create_task(waits())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with listening(*RUNS) as events:
        run_async(main())
    outcomes = [(event.outcome, event.error) for event in events if isinstance(event, RunEnded)]
    assert outcomes == [("cancelled", None)] * len(outcomes)
    assert len(outcomes) == sum(isinstance(event, RunStarted) for event in events) >= 1


def test_a_run_that_its_runtime_has_stopped_says_with_what(run_async: Runner) -> None:
    @flow.op
    async def for_ever() -> None:
        await asyncio.Event().wait()

    waits = flow.pipeline(lambda: for_ever())

    async def main() -> None:
        rt = flow.Runtime()
        task = asyncio.create_task(waits.on(rt)())
        await asyncio.sleep(0)
        await rt.aclose(timeout=0)
        with pytest.raises(flow.RuntimeClosed):
            await task

    with listening(RunEnded) as events:
        run_async(main())
    (ended,) = events
    assert ended.outcome == "cancelled"
    assert isinstance(ended.error, flow.RuntimeClosed)


# ---------------------------------------------------------------- parents, threads and contexts


def test_runs_inside_runs_name_the_one_around_them(run_async: Runner) -> None:
    inner = flow.pipeline(lambda x: reciprocal(x), name="inner")

    @flow.op
    def in_kernel(x: float) -> Any:
        return inner.run(x)

    @flow.op(retries=1)
    def in_attempt(x: float) -> Any:
        return inner.run(x)

    @flow.op
    async def on_loop(x: float) -> Any:
        return await inner(x), await asyncio.to_thread(inner.run, x)

    @flow.pipeline
    def outer(x: Any) -> Any:
        return in_kernel(x), in_attempt(x), on_loop(x), flow.map(reciprocal, [x, x])

    with listening(RunStarted) as events:
        run_async(outer(2))
        run_async(inner(2))
    first, *others, last = events
    assert (first.pipeline, first.parent) == ("outer", None)
    assert Counter(event.pipeline for event in others) == {"inner": 4, "map of reciprocal": 1}
    assert {event.parent for event in others} == {first.run}
    assert last.parent is None, "the run that came before is no run around it"


def test_debug_names_its_parents_too() -> None:
    inner = flow.pipeline(lambda x: reciprocal(x))

    @flow.op
    def in_kernel(x: float) -> Any:
        return inner.debug(x), inner.run(x)

    with listening(RunStarted) as events:
        flow.pipeline(lambda x: in_kernel(x)).debug(2)
    outer, *others = events
    assert [event.parent for event in others] == [outer.run] * 2


def test_a_run_that_began_unobserved_is_nobodys_parent(run_async: Runner) -> None:
    ends: list[Callable[[], None]] = []
    events: list[Any] = []

    @flow.op
    def begins(x: float) -> Any:
        ends.append(flow.observe(events.append, RUNS))
        return reciprocals.run(x)

    run_async(flow.pipeline(lambda x: begins(x), name="outer")(2))
    ends[0]()
    started, *_, last = events
    assert started.parent is None
    assert last.pipeline == "outer"


def test_a_run_begins_in_its_callers_thread_and_context(run_async: Runner) -> None:
    seen: list[tuple[type[Event], int, str]] = []

    def looks(event: Event) -> None:
        seen.append((type(event), threading.get_ident(), number.get()))

    @flow.op
    def stranger(x: float) -> float:
        number.set("of a kernel")
        return x

    @flow.op
    async def on_loop(x: float) -> float:
        number.set("of an async operator")
        return x

    p = flow.pipeline(lambda x: on_loop(stranger(stranger(x))))

    async def main() -> None:
        number.set("of the caller")
        call = p(1)
        number.set("of a later moment")
        await call

    end = flow.observe(looks)
    run_async(main())
    p.run(1)
    end()
    here = threading.get_ident()
    assert {context for *_, context in seen[:5]} == {"of the caller"}
    assert {context for *_, context in seen[5:]} == {"none"}
    assert [kind for kind, thread, _ in seen if thread != here] == [OperatorEnded] * 4
    assert len(seen) == 10


def test_what_an_observer_sets_when_a_run_begins_all_of_it_finds(run_async: Runner) -> None:
    found: list[str] = []

    def sets(event: Event) -> None:
        if isinstance(event, RunStarted):
            number.set(f"{number.get()}/{event.pipeline}")
        else:
            found.append(number.get())
            number.set("what nobody sees")

    def look(x: float) -> float:
        found.append(number.get())
        return x

    inner = flow.pipeline(lambda x: flow.op(look)(x), name="inner")

    @flow.op
    def kernel(x: float) -> float:
        return look(inner.run(x))

    @flow.op(timeout=20)
    def attempt(x: float) -> float:
        return look(x)

    @flow.op
    async def on_loop(x: float) -> float:
        return look(await inner(x))

    outer = flow.pipeline(lambda x: (kernel(x), attempt(x), on_loop(x)), name="outer")

    async def main() -> None:
        await outer(1)
        assert number.get() == "none"

    end = flow.observe(sets)
    run_async(main())
    end()
    assert Counter(found) == {"none/outer": 3 + 3 + 1, "none/outer/inner": 2 * (1 + 1 + 1)}


def test_the_items_of_a_stream_do_not_share_what_is_set(run_async: Runner) -> None:
    found: list[tuple[Any, str]] = []

    @flow.op
    def look(x: int) -> int:
        found.append((x, number.get()))
        return x

    def sets(event: Event) -> None:
        assert isinstance(event, RunStarted)
        number.set(f"{number.get()} {event.run}")

    async def main() -> list[int]:
        async with flow.pipeline(lambda x: look(x)).stream(range(10)) as stream:
            return [x async for x in stream]

    end = flow.observe(sets, [RunStarted])
    assert run_async(main()) == list(range(10))
    end()
    assert len(found) == len({context for _, context in found}) == 10
    assert {len(context.split()) for _, context in found} == {2}


# ---------------------------------------------------------------- operators


def test_each_operator_of_a_run_is_told_of_when_it_has_ended(run_async: Runner) -> None:
    async def main() -> int:
        await both_kinds(2)
        return threading.get_ident()

    before = time.time_ns()
    with listening() as events:
        loop_thread = run_async(main())
    started, kernel, on_loop, ended = events
    assert started.nodes == 2
    assert kernel == OperatorEnded(
        started.run,
        "both_kinds",
        "reciprocal",
        1,
        None,
        kernel.began,
        kernel.seconds,
        "done",
        None,
        kernel.thread,
    )
    assert (on_loop.operator, on_loop.node, on_loop.label, on_loop.outcome) == ("later", 2, "back", "done")
    assert on_loop.thread == loop_thread != kernel.thread
    assert str(both_kinds.graph()).splitlines()[2].split()[0] == str(kernel.node)
    moments = [started.began, kernel.began, on_loop.began, ended.ended]
    assert before <= moments[0]
    assert moments == sorted(moments)
    for event in (kernel, on_loop):
        assert 0 <= event.seconds < 60
        assert event.began + event.seconds * 1e9 <= ended.ended + 1e6  # two clocks


@pytest.mark.parametrize("size", [1, 100, 3000])
def test_as_many_as_the_run_has_nodes_whatever_they_cost(run_async: Runner, size: int) -> None:
    """Unknown ones, light ones in batches, and those that wait."""

    @flow.op
    def wait(x: int) -> int:
        time.sleep(1e-4)
        return x

    @flow.pipeline
    def wide(x: Any) -> Any:
        return [reciprocal(x) for _ in range(size)], [wait(x) for _ in range(min(size, 50))], abs(x.real)

    for _ in range(4):
        with listening() as events:
            run_async(wide(2))
        started, *operators, ended = events
        assert len(operators) == started.nodes
        assert len({event.node for event in operators}) == started.nodes
        assert {event.outcome for event in operators} == {"done"}
        assert {event.run for event in events} == {ended.run}
        names = Counter(event.operator for event in operators)
        assert names["reciprocal"] == size


@pytest.mark.parametrize("declare", ["kernel", "async"])
@pytest.mark.parametrize("error", [ValueError, StopIteration, SystemExit, asyncio.CancelledError])
def test_a_failure_is_told_before_its_run_has_failed(
    run_async: Runner, declare: str, error: type[BaseException]
) -> None:
    raised = error("on purpose")

    def fails(x: int) -> int:
        raise raised

    async def fails_on_loop(x: int) -> int:
        return fails(x)

    p = flow.pipeline(lambda x: flow.op(fails if declare == "kernel" else fails_on_loop, name="fails")(x))
    if declare == "async" and error is StopIteration:
        return  # Python makes it a RuntimeError

    async def main() -> None:
        assert await failure(p(1)) is not None

    with listening() as events:
        run_async(main())
    _, failed, ended = events
    assert (failed.operator, failed.outcome, failed.error) == ("fails", "failed", raised)
    assert ended.error is raised or ended.error.__cause__ is raised


def test_the_traceback_of_a_failure_begins_in_the_operator(run_async: Runner) -> None:
    first: list[str] = []

    def look(event: Event) -> None:
        assert isinstance(event, OperatorEnded)
        if event.error is not None:
            assert event.error.__traceback__ is not None
            first.append(event.error.__traceback__.tb_frame.f_code.co_name)

    end = flow.observe(look, [OperatorEnded])
    for op in (reciprocal, later):
        with pytest.raises(ZeroDivisionError):
            run_async(flow.pipeline(lambda x, op=op: op(x))(0))
    end()
    assert first == ["reciprocal", "later"]


def test_a_wrong_result_is_its_operators_failure(run_async: Runner) -> None:
    @flow.op
    def yields(x: int) -> Any:
        yield x

    with listening(OperatorEnded) as events, pytest.raises(TypeError, match="generator"):
        run_async(flow.pipeline(lambda x: yields(x))(1))
    (ended,) = events
    assert ended.outcome == "failed"
    assert isinstance(ended.error, TypeError)


def test_cancelled_operators_say_so_and_those_that_never_began_nothing(run_async: Runner) -> None:
    gate = threading.Event()
    entered: list[str] = []

    @flow.op
    def heeds() -> None:
        entered.append("kernel")
        assert gate.wait(20)
        flow.checkpoint()

    @flow.op
    def does_not() -> int:
        entered.append("kernel")
        assert gate.wait(20)
        return 1

    @flow.op
    async def waits() -> None:
        entered.append("async")
        await asyncio.Event().wait()

    @flow.pipeline
    def p() -> Any:
        return waits(), reciprocal(heeds()), reciprocal(does_not())

    async def main() -> None:
        task = asyncio.create_task(p())
        await until(lambda: len(entered) == 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        await flow.quiet()

    flow.set_num_interop_threads(2)
    with listening() as events:
        run_async(main())
    started, on_loop, ended, *late = events
    assert started.nodes == 5
    assert (on_loop.operator, on_loop.outcome, on_loop.error) == ("waits", "cancelled", None)
    assert ended.outcome == "cancelled"
    assert {(event.operator, event.outcome, event.error) for event in late} == {
        ("heeds", "cancelled", None),
        ("does_not", "done", None),
    }


def test_a_late_failure_is_told_of_twice(run_async: Runner) -> None:
    """As the end of an operator, and as what no awaiter was told."""
    gate, entered = threading.Event(), threading.Event()

    @flow.op
    def fails() -> None:
        entered.set()
        assert gate.wait(20)
        raise LookupError("too late")

    async def main() -> None:
        task = asyncio.create_task(flow.pipeline(lambda: fails())())
        await until(entered.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        await flow.quiet()

    with listening() as events:
        run_async(main())
    _, ended, operator, late = events
    assert (ended.outcome, operator.outcome) == ("cancelled", "failed")
    assert isinstance(late, LateFailure)
    assert late.error is operator.error


def test_operators_outside_of_pipelines(run_async: Runner) -> None:
    """A task is a run of one node; a call is the plain function, of which nobody is told."""

    async def main() -> None:
        assert await reciprocal.start(later.start(2)) == 2
        assert reciprocal(2) == await later(2) == 0.5

    with listening() as events:
        run_async(main())
    assert [getattr(event, "operator", event.pipeline) for event in events] == ["later"] * 3 + ["reciprocal"] * 3


def test_items_of_a_stream_are_runs(run_async: Runner) -> None:
    async def source() -> AsyncIterator[float]:
        for x in (1, 2, 0, 4):
            yield x

    async def main() -> list[Any]:
        async with both_kinds.stream(source(), on_error="yield") as stream:
            return [x async for x in stream]

    with listening() as events:
        results = run_async(main())
    assert [x for x in results if isinstance(x, float)] == [1, 2, 4]
    begun = [event.run for event in events if isinstance(event, RunStarted)]
    told = {run: [event for event in events if event.run == run] for run in begun}
    assert [len(each) for each in told.values()] == [4, 4, 3, 4]
    for started, *operators, ended in told.values():
        assert isinstance(ended, RunEnded)
        assert ended.outcome == operators[-1].outcome
        assert started.parent is None


def test_a_failed_item_ended_when_it_did_and_not_when_it_was_handed_out(run_async: Runner) -> None:
    ended: list[bool] = []
    waited_until = 0

    @flow.op
    def fails(x: float) -> float:
        ended.append(True)
        return 1 / x

    async def main() -> None:
        nonlocal waited_until
        async with flow.pipeline(lambda x: fails(x)).stream([0], on_error="yield") as stream:
            waiting = stream.__aiter__()
            await until(lambda: stream._items and next(iter(stream._items.values())).state.value == "failed")
            waited_until = time.time_ns()
            assert isinstance(await anext(waiting), ZeroDivisionError)

    with listening(RunEnded) as events:
        run_async(main())
    (told,) = events
    assert told.outcome == "failed"
    assert told.ended <= waited_until


def test_debug_tells_of_each_step_in_the_calling_thread() -> None:
    with listening() as events:
        both_kinds.debug(2)
        with pytest.raises(ZeroDivisionError) as caught:
            both_kinds.debug(0)
    assert [getattr(event, "outcome", "begun") for event in events] == [
        "begun",
        "done",
        "done",
        "done",
        "begun",
        "failed",
        "failed",
    ]
    assert {event.thread for event in events if isinstance(event, OperatorEnded)} == {threading.get_ident()}
    assert events[-1].error is events[-2].error is caught.value


def test_an_observer_may_come_and_go_in_the_middle_of_a_run(run_async: Runner) -> None:
    events: list[Any] = []
    ends: list[Callable[[], None]] = []

    @flow.op
    def comes(x: float) -> float:
        ends.append(flow.observe(events.append))
        return x

    @flow.op(name="between")
    async def between(x: float) -> float:
        return x

    @flow.op
    def goes(x: float) -> float:
        ends[-1]()
        return x

    p = flow.pipeline(lambda x: reciprocal(goes(between(reciprocal(between(comes(between(x))))))))
    for _ in range(3):
        events.clear()
        run_async(p(2))
        assert [event.operator for event in events][-2:] == ["reciprocal", "between"]
        assert len(events) in (3, 4), "that of the operator that was under way may be told of"
        assert len({event.run for event in events}) == 1


def test_without_observers_of_operators_kernels_take_the_usual_way(
    run_async: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look when a worker comes, and none for each kernel."""
    looks: list[type[Event]] = []

    def counts(kind: type[Event]) -> bool:
        looks.append(kind)
        return observed(kind)

    def refused(*_: Any) -> Any:
        raise AssertionError("not for nobody")

    wide = flow.pipeline(lambda x: [reciprocal(x) for _ in range(10_000)])
    run_async(wide(2))  # finds that they are light
    monkeypatch.setattr(worker, "observed", counts)
    monkeypatch.setattr(worker, "_watched", refused)
    monkeypatch.setattr(hosted, "Stopwatch", refused)
    with listening(*RUNS, LateFailure, Retrying):
        run_async(wide(2))
        run_async(both_kinds(2))
    assert set(looks) == {OperatorEnded}
    assert len(looks) < 1_000


def test_waiting_for_a_place_in_a_kernel_is_no_run(run_async: Runner) -> None:
    """Though inside it is one."""
    held, entered = threading.Event(), threading.Event()

    @flow.op
    def holds() -> None:
        entered.set()
        assert held.wait(20)

    @flow.op
    def waits(inner: Any) -> Any:
        return inner.run(2)

    async def main() -> None:
        rt = flow.Runtime(max_runs=1)
        holder = asyncio.create_task(flow.pipeline(lambda: holds(), name="holder").on(rt)())
        await until(entered.is_set)
        waiter = asyncio.create_task(flow.pipeline(lambda p: waits(p), name="waiter")(reciprocals.on(rt)))
        await until(lambda: rt.info()["runs"]["waiting"])
        held.set()
        await asyncio.gather(holder, waiter)

    with listening() as events:
        run_async(main())
    assert Counter(event.pipeline for event in events) == {"holder": 3, "waiter": 3, "reciprocals": 4}


# ---------------------------------------------------------------- observers


@pytest.mark.parametrize("error", [LookupError, asyncio.CancelledError, SystemExit, GeneratorExit])
@pytest.mark.parametrize("kind", [RunStarted, OperatorEnded, RunEnded])
def test_an_observer_that_fails_is_switched_off_and_logged(
    run_async: Runner, caplog: pytest.LogCaptureFixture, error: type[BaseException], kind: type[Event]
) -> None:
    told: list[Event] = []

    def fails(event: Event) -> None:
        if type(event) is kind:
            told.append(event)
            raise error("in the observer")

    end_failing = flow.observe(fails)
    with listening() as others, caplog.at_level(logging.ERROR, "dataflow"):
        assert run_async(both_kinds(2)) == 2
        assert run_async(both_kinds(4)) == 4
    end_failing()
    assert len(told) == 1
    assert len(others) == 8
    (record,) = caplog.records
    assert "switched off" in record.message
    assert record.exc_info is not None
    assert "in the observer" in str(record.exc_info[1])


def test_no_lock_of_ours_is_held_while_an_observer_is_told(run_async: Runner) -> None:
    """It may ask, set and subscribe, and wait for runs of other threads, if there are inter-op threads for these."""
    flow.set_num_interop_threads(3)
    told: list[type[Event]] = []
    inner = flow.pipeline(lambda x: reciprocal(x) + 1)
    runtime = flow.Runtime()

    @flow.op(retries=1, backoff=0)
    def flaky(x: float) -> float:
        if not told.count(Retrying):
            raise LookupError
        return x

    def elsewhere() -> None:
        assert inner.on(runtime).run(2) == 1.5
        flow.set_num_interop_threads(7 - flow.get_num_interop_threads())

    def curious(event: Event) -> None:
        if event.pipeline == inner.name:
            return
        told.append(type(event))
        flow.parallel_info()
        runtime.info()
        flow.observe(lambda _: None)()
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()

    @flow.op
    def nested(x: float) -> float:
        return reciprocals.run(x)[0]

    outer = flow.pipeline(lambda x: later(flaky(nested(x))), name="outer")
    end = flow.observe(curious)
    try:
        assert run_async(outer(2)) == 2
        run_async(reciprocals(2))
    finally:
        end()
    assert Counter(told) == {RunStarted: 3, RunEnded: 3, OperatorEnded: 4 + 2 + 2, Retrying: 1}


def test_subscribing_and_ending_from_many_threads_at_once() -> None:
    def churn() -> None:
        for _ in range(500):
            flow.observe(lambda _: None)()

    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("callback", [None, 3, "print"])
def test_what_cannot_be_called_is_refused(callback: Any) -> None:
    with pytest.raises(TypeError, match="observe: the callback must be callable, not"):
        flow.observe(callback)


@pytest.mark.parametrize("kind", ["RunStarted", int, None])
def test_what_is_no_kind_of_event_is_refused(kind: Any) -> None:
    with pytest.raises(TypeError, match="observe: kinds are event classes"):
        flow.observe(print, [RunStarted, kind])
