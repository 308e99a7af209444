"""What an awaiter gets when an operator fails."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.events import LateFailure, RunEnded, RunStarted

Runner = Callable[[Any], Any]


@flow.op
def double(x: Any) -> Any:
    return x * 2


@flow.op
def broken(x: Any) -> Any:
    raise ValueError("no such luck")


@flow.op
async def broken_async(x: Any) -> Any:
    await asyncio.sleep(0)
    raise KeyError("gone")


def ours(exc: BaseException) -> list[str]:
    return [note for note in getattr(exc, "__notes__", []) if note.startswith("dataflow:")]


def test_the_original_exception_arrives_with_one_note(run_async: Runner) -> None:
    @flow.pipeline
    def p(x: Any) -> Any:
        return double(broken(double(x)))

    with pytest.raises(ValueError, match="no such luck") as info:
        run_async(p(np.zeros((3, 4), np.float32)))
    (note,) = ours(info.value)
    assert "operator 'broken', node 2 of pipeline 'p'" in note
    assert "float32[3, 4]" in note
    assert f"declared at {__file__}:" in note
    assert type(info.value) is ValueError


def test_a_recorded_operator_is_named_by_the_line_of_the_body(run_async: Runner) -> None:
    @flow.pipeline
    def p(x: Any) -> Any:
        return np.reshape(x, (7, 7))

    with pytest.raises(ValueError, match="reshape") as info:
        run_async(p(np.zeros(3)))
    line = p.__wrapped__.__code__.co_firstlineno + 2
    assert f"recorded at {__file__}:{line}" in ours(info.value)[0]


def test_plumbing_that_fails_is_named(run_async: Runner) -> None:
    @flow.op
    def pair() -> Any:
        return (1, 2)

    @flow.pipeline
    def p() -> Any:
        return double(pair()[5])

    with pytest.raises(IndexError) as info:
        run_async(p())
    assert "getitem" in ours(info.value)[0]


def test_the_traceback_begins_in_the_users_function(run_async: Runner) -> None:
    @flow.pipeline
    def p(x: Any) -> Any:
        return broken(x)

    async def main() -> list[str]:
        try:
            await p(1)
        except ValueError as exc:
            return [frame.name for frame in traceback.extract_tb(exc.__traceback__)]
        return []

    names = run_async(main())
    assert names[0] == "main"
    assert names[-1] == "broken"
    ours = {"_work", "_serve", "serve", "_step_by_step", "_batches", "_in_order", "_watched", "<lambda>"}
    assert not ours & set(names)


@pytest.mark.parametrize("kind", [StopIteration, asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("on_loop", [False, True])
def test_what_no_caller_may_get_raw_beside_an_innocent_run(
    run_async: Runner, kind: type[BaseException], on_loop: bool
) -> None:
    if on_loop:

        @flow.op
        async def nasty(x: Any) -> Any:
            await asyncio.sleep(0)
            raise kind("x")

    else:

        @flow.op
        def nasty(x: Any) -> Any:
            raise kind("x")

    @flow.pipeline
    def guilty(x: Any) -> Any:
        return double(nasty(double(x)))

    @flow.pipeline
    def innocent(x: Any) -> Any:
        for _ in range(20):
            x = double(x)
        return x

    async def main() -> None:
        for _ in range(5):
            bad, good = await asyncio.gather(guilty(1), innocent(1), return_exceptions=True)
            assert good == 2**20
            if on_loop and kind is StopIteration:  # Python itself turns it into a RuntimeError in a coroutine
                assert type(bad) is RuntimeError
                continue
            assert type(bad) is flow.OperatorError
            assert type(bad.__cause__) is kind
            assert "operator 'nasty'" in str(bad)

    run_async(main())
    assert not [t for t in threading.enumerate() if t.ident is not None and not t.is_alive()]  # nor about to start
    run_async(innocent(1))


def test_failures_known_by_then_are_notes(run_async: Runner) -> None:
    flow.set_num_interop_threads(2)
    together, begun = threading.Barrier(2), threading.Event()

    @flow.op
    def both(name: str) -> Any:
        together.wait(10)
        assert begun.wait(10)
        raise RuntimeError(name)

    @flow.op
    async def slow_to_leave(x: Any) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.to_thread(flow_idle)

    @flow.pipeline
    def p() -> Any:
        return both("one"), both("two"), slow_to_leave(1)

    with pytest.raises(RuntimeError) as info:
        run_async(p())
    notes = ours(info.value)
    assert len(notes) == 2
    other = {"one": "two", "two": "one"}[str(info.value)]
    assert f"also failed: operator 'both', RuntimeError: {other}" in notes[1]


def flow_idle() -> None:
    """Wait, in a thread, until no kernel of a run that is over still runs."""
    asyncio.run(flow.quiet())


def test_a_late_failure_goes_to_the_log_and_the_observers(run_async: Runner, caplog: pytest.LogCaptureFixture) -> None:
    flow.set_num_interop_threads(2)
    started, go = threading.Event(), threading.Event()
    seen: list[Any] = []

    @flow.op
    def late(x: Any) -> Any:
        started.set()
        go.wait(10)
        raise OSError("too late")

    @flow.op
    def first(x: Any) -> Any:
        started.wait(10)
        raise ValueError("first")

    @flow.pipeline
    def p() -> Any:
        return late(1), first(1)

    async def main() -> None:
        with pytest.raises(ValueError, match="first"):
            await p()
        assert flow.parallel_info()["interop_threads"]["overrunning"] == 1
        go.set()
        await flow.quiet()
        assert flow.parallel_info()["interop_threads"]["overrunning"] == 0

    unsubscribe = flow.observe(seen.append)
    with caplog.at_level(logging.ERROR, logger="dataflow"):
        run_async(main())
    unsubscribe()
    (record,) = caplog.records
    assert "late failure" in record.getMessage()
    assert "'late'" in record.getMessage()
    (event,) = [e for e in seen if isinstance(e, LateFailure)]
    assert (event.pipeline, event.operator, str(event.error)) == ("p", "late", "too late")


def test_async_siblings_are_cancelled_and_awaited(run_async: Runner) -> None:
    left: list[str] = []
    waiting = []

    @flow.op
    async def sibling(x: Any) -> Any:
        waiting.append(1)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            left.append("cleaned up")

    @flow.op
    async def fails(x: Any) -> Any:
        while not waiting:
            await asyncio.sleep(0)
        raise ValueError("now")

    @flow.pipeline
    def p() -> Any:
        return sibling(1), fails(1)

    async def main() -> None:
        with pytest.raises(ValueError, match="now"):
            await p()
        assert left == ["cleaned up"]
        assert len(asyncio.all_tasks()) == 1

    run_async(main())


def test_the_same_instance_raised_again_does_not_grow(run_async: Runner) -> None:
    stored = ValueError("stored")

    @flow.op
    def raises(x: Any) -> Any:
        return helper()

    def helper() -> Any:
        raise stored

    @flow.pipeline
    def p(x: Any) -> Any:
        return raises(x)

    @flow.pipeline
    def q(x: Any) -> Any:
        return raises(double(x))

    async def main() -> list[tuple[int, int]]:
        sizes = []
        for n in range(12):
            try:
                await (p, q)[n % 2](1)
            except ValueError as exc:
                assert exc is stored
                assert f"pipeline {'pq'[n % 2]!r}" in ours(exc)[0]
                names = [frame.name for frame in traceback.extract_tb(exc.__traceback__)]
                assert names[-2:] == ["raises", "helper"]
                sizes.append((len(ours(exc)), len(names)))
        return sizes

    sizes = run_async(main())
    assert set(sizes) == {sizes[0]}
    assert sizes[0][0] == 1


def test_an_exception_that_refuses_attributes_arrives_all_the_same(run_async: Runner) -> None:
    class Stubborn(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

        def __str__(self) -> str:
            raise RuntimeError("not even this")

    @flow.op
    def raises() -> Any:
        raise Stubborn

    @flow.pipeline
    def p() -> Any:
        return raises()

    with pytest.raises(Stubborn):
        run_async(p())


@pytest.mark.parametrize("what", ["coroutine", "generator"])
def test_a_kernel_must_return_a_value(run_async: Runner, what: str) -> None:
    async def coroutine() -> int:
        return 1

    @flow.op
    def mistaken() -> Any:
        return coroutine() if what == "coroutine" else (x for x in [1])

    @flow.pipeline
    def p() -> Any:
        return mistaken()

    with pytest.raises(TypeError, match="async def" if what == "coroutine" else "yield"):
        run_async(p())


def test_debug_keeps_the_exception_and_its_traceback() -> None:
    @flow.pipeline
    def p(x: Any) -> Any:
        return broken(x)

    with pytest.raises(ValueError, match="no such luck") as info:
        p.debug(1)
    assert len(ours(info.value)) == 1
    assert info.traceback[-1].name == "broken"


def test_an_async_failure_has_its_note(run_async: Runner) -> None:
    @flow.pipeline
    def p(x: Any) -> Any:
        return broken_async(double(x))

    with pytest.raises(KeyError) as info:
        run_async(p(np.zeros(5)))
    assert "operator 'broken_async', node 2 of pipeline 'p'" in ours(info.value)[0]
    assert "float64[5]" in ours(info.value)[0]


# The same instance again, and exceptions that make trouble themselves.


def frames(exc: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(exc.__traceback__)]


class Stored:
    """Operators that raise one and the same instance, and pipelines of different shapes around them."""

    def __init__(self, stored: BaseException) -> None:
        def helper() -> Any:
            raise stored

        async def helper_async() -> Any:
            await asyncio.sleep(0)
            raise stored

        @flow.op
        def raises(x: Any) -> Any:
            return helper()

        @flow.op
        async def raises_async(x: Any) -> Any:
            return await helper_async()

        @flow.pipeline
        def in_kernel(x: Any) -> Any:
            return raises(x)

        @flow.pipeline
        def in_kernel_later(x: Any) -> Any:
            return raises(double(x))

        @flow.pipeline
        def on_loop(x: Any) -> Any:
            return raises_async(double(x))

        @flow.op
        def runs(x: Any) -> Any:
            return in_kernel_later.run(x)

        @flow.op
        async def awaits(x: Any) -> Any:
            return await on_loop(x)

        @flow.pipeline
        def nested(x: Any) -> Any:
            return runs(x)

        @flow.pipeline
        def nested_on_loop(x: Any) -> Any:
            return awaits(x)

        self.pipelines: dict[str, Any] = {
            "in_kernel": in_kernel,
            "in_kernel_later": in_kernel_later,
            "on_loop": on_loop,
            "nested": nested,
            "nested_on_loop": nested_on_loop,
        }


ENDS = {
    "in_kernel": ["raises", "helper"],
    "in_kernel_later": ["raises", "helper"],
    "on_loop": ["raises_async", "helper_async"],
    "nested": ["raises", "helper"],
    "nested_on_loop": ["raises_async", "helper_async"],
}


@dataclass(frozen=True)
class Frozen(Exception):
    """Refuses attributes, so also notes."""

    code: int


class Slotted(Exception):
    """Has slots, and takes no others."""

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code

    def __setattr__(self, name: str, value: object) -> None:
        if name != "code":
            raise AttributeError(name)
        super().__setattr__(name, value)


@pytest.mark.parametrize("which", ENDS)
@pytest.mark.parametrize("make", [ValueError, Frozen, Slotted])
def test_an_instance_raised_many_times_keeps_its_size(
    run_async: Runner, which: str, make: Callable[[int], Exception]
) -> None:
    stored = make(1)
    p = Stored(stored).pipelines[which]
    sizes = []

    async def main() -> None:
        for _ in range(30):
            try:
                await p(1)
            except type(stored) as exc:
                assert exc is stored
                assert frames(exc)[-2:] == ENDS[which]
                sizes.append((len(ours(exc)), len(frames(exc))))

    run_async(main())
    assert len(sizes) == 30
    assert len(set(sizes)) == 1, sizes
    assert sizes[0][0] == (make is ValueError)


def test_an_instance_raised_through_different_pipelines_is_told_anew_each_time(run_async: Runner) -> None:
    stored = ValueError("stored")
    pipelines = Stored(stored).pipelines
    told: dict[str, set[Any]] = {name: set() for name in pipelines}

    async def main() -> None:
        for _ in range(10):
            for name, p in pipelines.items():
                try:
                    await p(1)
                except ValueError as exc:
                    assert frames(exc)[-2:] == ENDS[name]
                    told[name].add((*ours(exc), len(frames(exc))))

    run_async(main())
    for name, stories in told.items():
        ((note, _length),) = stories
        inner = {"nested": "in_kernel_later", "nested_on_loop": "on_loop"}.get(name, name)
        assert f"of pipeline {inner!r}," in note


@pytest.mark.parametrize("kind", [StopIteration, asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_stored_instance_of_the_five_kinds_does_not_grow_either(run_async: Runner, kind: type[BaseException]) -> None:
    stored = kind("stored")
    p = Stored(stored).pipelines["in_kernel"]
    sizes = set()

    async def main() -> None:
        for _ in range(10):
            try:
                await p(1)
            except flow.OperatorError as exc:
                assert exc.__cause__ is stored
                assert len(ours(exc)) == 1
                assert frames(stored)[-2:] == ["raises", "helper"]
                sizes.add((len(ours(stored)), len(frames(stored)), len(frames(exc))))

    run_async(main())
    assert len(sizes) == 1, sizes


@pytest.mark.parametrize("which", ["nested", "nested_on_loop"])
def test_the_traceback_of_an_inner_failure_goes_to_the_function_that_raised(run_async: Runner, which: str) -> None:
    p = Stored(ValueError("inside")).pipelines[which]

    async def main() -> list[str]:
        try:
            await p(1)
        except ValueError as exc:
            assert len(ours(exc)) == 1
            assert "operator 'raises" in ours(exc)[0]
            return frames(exc)
        return []

    names = run_async(main())
    assert names[0] == "main"
    assert names[-2:] == ENDS[which]
    assert names[-3] == "outcome"
    assert {"runs", "awaits"} & set(names)


@pytest.mark.parametrize("base", [Exception, ValueError])
def test_an_exception_that_cannot_be_printed_arrives_as_it_is(run_async: Runner, base: type[Exception]) -> None:
    class Unprintable(base):  # type: ignore[misc, valid-type]
        def __str__(self) -> str:
            raise RuntimeError("not even this")

        __repr__ = __str__

    @flow.op
    def raises(x: Any) -> Any:
        raise Unprintable

    @flow.op
    async def raises_async(x: Any) -> Any:
        raise Unprintable

    @flow.pipeline
    def p(x: Any) -> Any:
        return raises(x)

    @flow.pipeline
    def q(x: Any) -> Any:
        return raises_async(x)

    async def main() -> None:
        for run in (p, q, p, q):
            try:
                await run(np.zeros(2))
            except Unprintable as exc:
                assert len(ours(exc)) == 1
            else:
                pytest.fail("nothing was raised")
        assert await flow.pipeline(lambda x: double(x))(1) == 2
        await flow.quiet()  # a worker that has told of a failure may be on its way out

    run_async(main())
    assert flow.parallel_info()["interop_threads"]["overrunning"] == 0


def test_an_exception_with_strange_notes_arrives_as_it_is(run_async: Runner) -> None:
    class Strange(ValueError):
        __notes__ = 7

    @flow.op
    def raises(x: Any) -> Any:
        raise Strange

    @flow.pipeline
    def p(x: Any) -> Any:
        return raises(x)

    for _ in range(2):
        try:
            run_async(p(1))
        except Strange:
            pass
        else:
            pytest.fail("nothing was raised")


def test_notes_of_the_users_own_stay(run_async: Runner) -> None:
    stored = ValueError("stored")
    stored.add_note("mine")
    pipelines = Stored(stored).pipelines

    async def main() -> None:
        for p in [*pipelines.values()] * 3:
            with suppress(ValueError):
                await p(1)
            assert [note for note in stored.__notes__ if not note.startswith("dataflow:")] == ["mine"]

    run_async(main())


def test_an_exception_group_and_its_causes_arrive_as_they_are(run_async: Runner) -> None:
    parts = [ValueError(1), KeyError(2)]
    cause = OSError("why")

    @flow.op
    def raises(x: Any) -> Any:
        raise ExceptionGroup("several", parts) from cause

    @flow.op
    def in_handler(x: Any) -> Any:
        try:
            return 1 // x
        except ZeroDivisionError:
            raise ValueError("while handling")  # noqa: B904

    @flow.pipeline
    def p(x: Any) -> Any:
        return raises(x)

    @flow.pipeline
    def q(x: Any) -> Any:
        return in_handler(x)

    async def main() -> None:
        try:
            await p(0)
        except* ValueError as group:
            assert list(group.exceptions) == parts[:1]
        except* KeyError as group:
            assert group.__cause__ is cause
            assert list(group.exceptions) == parts[1:]
        try:
            await q(0)
        except ValueError as exc:
            assert type(exc.__context__) is ZeroDivisionError
            assert not exc.__suppress_context__

    run_async(main())


# The note.


def test_the_note_tells_shapes_of_everything_the_operator_was_given(run_async: Runner) -> None:
    @flow.op
    def takes(a: Any, b: Any, *, c: Any, d: Any) -> Any:
        raise ValueError("taken")

    @flow.pipeline
    def p(a: Any, b: Any, c: Any, d: Any) -> Any:
        return takes(a, b, c=c, d=[d, 1])

    values = (np.zeros(()), np.zeros((0, 2), bool), np.zeros((1, 2, 3), "M8[s]"), np.zeros(7, np.complex64))
    try:
        run_async(p(*values))
    except ValueError as exc:
        (note,) = ours(exc)
    for shape in ("float64[]", "bool[0, 2]", "datetime64[s][1, 2, 3]", "complex64[7]"):
        assert shape in note


def test_the_note_tells_shapes_of_constants_too(run_async: Runner) -> None:
    weights = np.zeros((5, 6), np.float32)

    @flow.op
    def takes(x: Any, w: Any) -> Any:
        raise ValueError("taken")

    @flow.pipeline
    def p(x: Any) -> Any:
        return takes(x, weights)

    try:
        run_async(p(np.zeros(3)))
    except ValueError as exc:
        (note,) = ours(exc)
    assert "float64[3]" in note
    assert "float32[5, 6]" in note


# What comes to light beside a failure, and after it.


@pytest.mark.parametrize("threads", [1, 2])
def test_what_has_not_started_never_starts(run_async: Runner, threads: int) -> None:
    flow.set_num_interop_threads(threads)
    ran: list[int] = []

    @flow.op
    def note(n: int, x: Any) -> Any:
        ran.append(n)
        return x

    @flow.pipeline
    def p(x: Any) -> Any:
        bad = broken(x)
        return [note(n, bad) for n in range(20)]

    async def main() -> None:
        for _ in range(20):
            with suppress(ValueError):
                await p(1)
        await flow.quiet()

    run_async(main())
    assert ran == []


class Late:
    """A run that is over while one of its kernels, and one of its async ops, are still there."""

    def __init__(self, error: BaseException) -> None:
        self.inside, self.go = threading.Event(), threading.Event()
        self.asked, self.leave = asyncio.Event(), asyncio.Event()

        @flow.op
        def late(x: Any) -> Any:
            self.inside.set()
            assert self.go.wait(20)
            raise error

        @flow.op
        async def lingers(x: Any) -> Any:
            try:
                await asyncio.Event().wait()
            finally:
                self.asked.set()
                await self.leave.wait()

        @flow.op
        async def fails(x: Any) -> Any:
            while not self.inside.is_set():
                await asyncio.sleep(0)
            raise ValueError("first")

        @flow.pipeline
        def failing(x: Any) -> Any:
            return late(x), fails(x), lingers(x)

        @flow.pipeline
        def kernel_only(x: Any) -> Any:
            return late(x)

        self.failing, self.kernel_only = failing, kernel_only


@pytest.fixture
def events() -> Any:
    seen: list[Any] = []
    unsubscribe = flow.observe(seen.append)
    yield seen
    unsubscribe()


def test_a_failure_that_the_awaiter_did_not_stay_for_goes_to_the_log(
    run_async: Runner, caplog: pytest.LogCaptureFixture, events: list[Any]
) -> None:
    async def main() -> None:
        run = Late(KeyError("second"))
        task = asyncio.create_task(run.failing(1))
        await run.asked.wait()  # the run has failed, and waits for what it cancelled
        run.go.set()
        await flow.quiet()
        task.cancel()
        run.leave.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await flow.quiet()

    with caplog.at_level(logging.ERROR, logger="dataflow"):
        run_async(main())
    late = [(event.operator, type(event.error)) for event in events if isinstance(event, LateFailure)]
    assert sorted(late, key=str) == [("fails", ValueError), ("late", KeyError)]
    assert sorted(record.exc_info[0].__name__ for record in caplog.records) == ["KeyError", "ValueError"]


@pytest.mark.parametrize("kind", [ValueError, StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_kernel_that_fails_after_its_run_was_cancelled_is_told_to_the_log(
    run_async: Runner, caplog: pytest.LogCaptureFixture, events: list[Any], kind: type[BaseException]
) -> None:
    class Unprintable(kind):  # type: ignore[misc, valid-type]
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    async def main() -> None:
        run = Late(Unprintable())
        task = asyncio.create_task(run.kernel_only(np.zeros(3)))
        await asyncio.to_thread(run.inside.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        run.go.set()
        await flow.quiet()
        assert await flow.pipeline(lambda x: double(x))(1) == 2

    with caplog.at_level(logging.ERROR, logger="dataflow"):
        run_async(main())
    (event,) = [event for event in events if isinstance(event, LateFailure)]
    assert (event.pipeline, event.operator) == ("kernel_only", "late")
    assert type(event.error) is (Unprintable if kind is ValueError else flow.OperatorError)
    assert "float64[3]" in ours(event.error)[0]
    (record,) = caplog.records
    assert "late failure in a run of 'kernel_only' that is over: operator 'late'" in record.getMessage()


def test_an_unprintable_failure_among_others_is_noted(run_async: Runner) -> None:
    class Unprintable(ValueError):
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    flow.set_num_interop_threads(2)
    together, begun = threading.Barrier(2), threading.Event()

    @flow.op
    def both(n: int) -> Any:
        together.wait(20)
        assert begun.wait(20)
        raise Unprintable

    @flow.op
    async def until_both(x: Any) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.to_thread(flow_idle)

    @flow.pipeline
    def p() -> Any:
        return both(1), both(2), until_both(1)

    try:
        run_async(p())
    except Unprintable as exc:
        assert len(ours(exc)) == 2
        assert "also failed: operator 'both', Unprintable" in ours(exc)[1]
    else:
        pytest.fail("nothing was raised")


def test_every_run_ends_once_with_its_outcome(run_async: Runner, events: list[Any]) -> None:
    @flow.op
    async def hangs(x: Any) -> Any:
        await asyncio.Event().wait()

    @flow.pipeline
    def done(x: Any) -> Any:
        return double(x)

    @flow.pipeline
    def failed(x: Any) -> Any:
        return broken(double(x))

    @flow.pipeline
    def cancelled(x: Any) -> Any:
        return hangs(double(x))

    @flow.op
    def inside(x: Any) -> Any:
        with suppress(ValueError):
            failed.run(x)
        return done.run(x)

    @flow.pipeline
    def outer(x: Any) -> Any:
        return inside(x)

    async def main() -> None:
        task = asyncio.create_task(cancelled(1))
        await asyncio.gather(done(1), failed(1), outer(1), return_exceptions=True)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run_async(main())
    begun = {event.run: event.pipeline for event in events if isinstance(event, RunStarted)}
    ended = [(event.run, event.outcome) for event in events if isinstance(event, RunEnded)]
    assert len(ended) == len(begun) == 6
    assert {(begun[run], outcome) for run, outcome in ended} == {
        ("done", "done"),
        ("failed", "failed"),
        ("cancelled", "cancelled"),
        ("outer", "done"),
    }


# debug().


def test_debug_gives_the_same_results_in_the_calling_thread() -> None:
    threads = set()

    @flow.op
    def kernel(x: Any) -> Any:
        threads.add(threading.get_ident())
        return x + 1

    @flow.op
    async def on_loop(x: Any) -> Any:
        threads.add(threading.get_ident())
        await asyncio.sleep(0)
        return x * 2

    @flow.pipeline
    def p(x: Any, y: Any) -> Any:
        a = kernel(x)
        b, c = on_loop(a), kernel(y)
        return {"both": [b, c], "sum": np.add(b, c)[::2], "constant": (1, "x")}

    x, y = np.arange(6.0), np.ones(6)
    one, two = p.debug(x, y), p.run(x, y)
    assert one.keys() == two.keys()
    assert one["constant"] == two["constant"] == (1, "x")
    for mine, other in zip([*one["both"], one["sum"]], [*two["both"], two["sum"]]):
        np.testing.assert_array_equal(mine, other)
        assert mine.flags.writeable == other.flags.writeable
    threads.clear()
    p.debug(x, y)
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("kind", [StopIteration, asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_debug_passes_every_exception_as_it_is(kind: type[BaseException]) -> None:
    raised = kind("raw")
    p = Stored(raised).pipelines["in_kernel"]
    try:
        p.debug(1)
    except BaseException as exc:
        assert exc is raised
        assert frames(exc)[-2:] == ["raises", "helper"]


def test_debug_shows_what_was_being_handled() -> None:
    @flow.op
    def in_handler(x: Any) -> Any:
        try:
            return 1 // x
        except ZeroDivisionError:
            raise ValueError("while handling")  # noqa: B904

    @flow.pipeline
    def p(x: Any) -> Any:
        return in_handler(x)

    with pytest.raises(ValueError, match="while handling") as info:
        p.debug(0)
    assert type(info.value.__context__) is ZeroDivisionError
    assert not info.value.__suppress_context__


def test_debug_with_async_ops_on_a_running_loop_is_refused(run_async: Runner) -> None:
    @flow.pipeline
    def p(x: Any) -> Any:
        return broken_async(x)

    @flow.pipeline
    def q(x: Any) -> Any:
        return double(x)

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"p\.debug\(\) has async operators"):
            p.debug(1)
        assert q.debug(1) == 2

    run_async(main())
    with pytest.raises(KeyError):
        p.debug(1)


def test_a_task_factory_of_the_users_own(run_async: Runner) -> None:
    """One of before 3.11 knows no context, which asyncio allows; one that fails is an error of the run, and no hang."""

    @flow.op
    async def on_loop(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    @flow.op
    def kernel(x: int) -> int:
        return x * 2

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return on_loop(kernel(x)), on_loop(x)

    def without_context(loop: Any, coro: Any, **options: Any) -> Any:
        assert "context" not in options  # asyncio itself hands on the name, from 3.13.3 on
        return asyncio.Task(coro, loop=loop)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if isinstance(loop, asyncio.BaseEventLoop):
            loop.set_task_factory(without_context)
        assert await pipeline(1) == (3, 2)

        def refuse(loop: Any, coro: Any, **_: Any) -> Any:
            raise OSError("no more tasks")

        loop.set_task_factory(refuse)
        try:
            with pytest.raises(OSError, match="no more tasks"):
                await pipeline(1)
        finally:
            loop.set_task_factory(None)
        assert await pipeline(1) == (3, 2)

    run_async(main())


@pytest.mark.parametrize("inner_way", ["run", "debug"])
@pytest.mark.parametrize("outer_way", ["run", "debug"])
def test_the_note_is_the_inner_operators_in_every_way(inner_way: str, outer_way: str) -> None:
    @flow.op
    def fails(x: int) -> int:
        raise KeyError(x)

    inner = flow.pipeline(lambda x: fails(x))

    @flow.op
    def calls(x: int) -> Any:
        return getattr(inner, inner_way)(x)

    outer = flow.pipeline(lambda x: calls(x))
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            getattr(outer, outer_way)(1)
        (note,) = caught.value.__notes__
        assert "operator 'fails'" in note


def test_the_note_tells_shapes_within_dicts() -> None:
    @flow.op
    def fails(weights: Any) -> Any:
        raise KeyError

    with pytest.raises(KeyError) as caught:
        flow.pipeline(lambda x: fails(x)).run({"a": np.ones((2, 3)), "b": 1})
    assert "on dict(float64[2, 3])" in caught.value.__notes__[0]


def test_debug_tells_observers_and_names_plumbing() -> None:
    @flow.op
    def pair(x: int) -> tuple[int, int]:
        return x, x

    good, bad = flow.pipeline(lambda x: pair(x)[0]), flow.pipeline(lambda x: pair(x)[5])
    told: list[Any] = []
    end = flow.observe(told.append, kinds=(RunStarted, RunEnded))
    assert good.debug(1) == 1
    with pytest.raises(IndexError) as caught:
        bad.debug(1)
    end()
    assert "operator 'getitem'" in caught.value.__notes__[0]
    assert [getattr(event, "outcome", "started") for event in told] == ["started", "done", "started", "failed"]


# An instance that is raised again: what is new of its traceback, and by several threads at once.


def test_a_stored_instance_that_is_caught_and_raised_in_one_function_keeps_both_ends(run_async: Runner) -> None:
    stored = ValueError("stored")

    def helper() -> None:
        raise stored

    @flow.op
    def raises(x: Any) -> Any:
        try:
            helper()
        except ValueError as exc:
            raise exc  # as people write it: the frame has two entries

    p = flow.pipeline(lambda x: raises(x))

    async def main() -> set[tuple[str, ...]]:
        told = set()
        for _ in range(5):
            try:
                await p(1)
            except ValueError as exc:
                told.add(tuple(frames(exc)))
        return told

    (names,) = run_async(main())
    assert names[-3:] == ("raises", "raises", "helper")


def test_a_stored_instance_that_c_code_raises_does_not_grow(run_async: Runner) -> None:
    stored = ValueError("stored")

    @flow.op
    def raises(x: Any) -> Any:
        return next(iter([]), None) or asyncio.Future.result(future)

    p = flow.pipeline(lambda x: raises(x))

    async def main() -> set[tuple[int, int]]:
        nonlocal future
        future = asyncio.get_running_loop().create_future()
        future.set_exception(stored)
        sizes = set()
        for _ in range(12):
            try:
                await p(1)
            except ValueError as exc:
                assert exc is stored
                sizes.add((len(ours(exc)), len(frames(exc))))
        return sizes

    future: Any = None
    sizes = run_async(main())
    assert all(notes == 1 and length < 12 for notes, length in sizes), sizes


@pytest.mark.parametrize("which", ENDS)
def test_one_instance_raised_from_four_loops_in_four_threads(which: str) -> None:
    found = hammered(Stored(ValueError("stored")).pipelines[which], seconds=0.3)
    assert found.runs > 20
    assert found.notes <= 1
    assert found.strangers == 0
    # An awaiter may meet what other threads have added meanwhile, but none of it stays.
    assert found.longest < 200
    assert len(found.settled_frames) < 12
    assert found.settled_frames[-2:] == ENDS[which]
    assert found.settled_notes == 1


@dataclass
class Hammered:
    """What awaiters in four threads saw of one instance, and one alone after them."""

    runs: int = 0
    notes: int = 0
    longest: int = 0
    strangers: int = 0
    settled_frames: tuple[str, ...] | list[str] = ()
    settled_notes: int = 0


def hammered(p: Any, seconds: float) -> Hammered:
    """Await a pipeline that fails with one and the same instance, from four loops in four threads."""
    found, lock, begin = Hammered(), threading.Lock(), threading.Barrier(4)

    async def main() -> None:
        begin.wait(10)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                await p(1)
            except ValueError as exc:
                length, entry = 0, exc.__traceback__
                while entry is not None:
                    length, entry = length + 1, entry.tb_next
                notes = len(ours(exc))
                del entry
                with lock:
                    found.runs += 1
                    found.notes = max(found.notes, notes)
                    found.longest = max(found.longest, length)
            except BaseException:
                found.strangers += 1
                raise

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 60)
        assert not thread.is_alive()
    for _ in range(3):
        try:
            p.run(1)
        except ValueError as exc:
            found.settled_frames, found.settled_notes = frames(exc), len(ours(exc))
    return found


def in_itself(kind: str) -> Any:
    value: Any = {"list": [np.ones(3)], "dict": {"a": np.ones(3)}, "two": [[], np.ones(3)]}[kind]
    if kind == "dict":
        value["b"] = value
    elif kind == "two":
        value[0].append(value)
    else:
        value.append(value)
    return value


@pytest.mark.parametrize("kind", ["list", "dict", "two"])
def test_an_argument_that_contains_itself_does_not_hide_the_error(kind: str) -> None:
    value = in_itself(kind)
    with pytest.raises(ValueError, match="no such luck") as caught:
        flow.pipeline(lambda x: broken(x)).run(value)
    assert "float64[3]" in "".join(caught.value.__notes__)
    with pytest.raises(TypeError):
        flow.pipeline(lambda x: x / 2).run(value)
