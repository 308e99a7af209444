"""Every way in which a stream can end leaves nothing behind: no task, no run, no thread, no open source."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.engine.service import feeder as engine
from dataflow.engine.service.items import StreamRun
from dataflow.events import RunEnded, RunStarted
from tests.release import FREE_THREADED, let_go

Runner = Callable[[Any], Any]


class Left:
    """What may be left of a stream."""

    def __init__(self) -> None:
        self.runs: weakref.WeakSet[StreamRun] = weakref.WeakSet()
        self.closed = self.opened = self.cancelled = 0
        self.begun: list[int] = []
        self.over: list[int] = []

    def watch(self, event: Any) -> None:
        if isinstance(event, RunStarted):
            self.begun.append(event.run)
        elif isinstance(event, RunEnded):
            self.over.append(event.run)

    def numbers(self, *, fails_at: int | None = None, ends_at: int | None = None) -> Iterator[int]:
        self.opened += 1
        try:
            number = 0
            while number != ends_at:
                if number == fails_at:
                    raise OSError(f"no item {number}")
                yield number
                number += 1
        finally:
            self.closed += 1

    async def numbers_async(self, **options: Any) -> AsyncIterator[int]:
        self.opened += 1
        try:
            for number in self.numbers(**options):
                yield number
                await asyncio.sleep(0)
        finally:
            self.closed += 1
            await asyncio.sleep(0)  # a source may have to wait for something to close
            self.closed += 1

    def source(self, *, asynchronous: bool, **options: Any) -> Any:
        return self.numbers_async(**options) if asynchronous else self.numbers(**options)

    async def nothing(self, tasks: int = 1) -> None:
        """Wait until nothing is left; a worker, or the finaliser of a generator, may need a moment."""
        async with asyncio.timeout(20):
            while len(asyncio.all_tasks()) > tasks or self.runs:
                let_go()
                await asyncio.sleep(0)
            await flow.quiet()
        assert self.closed >= self.opened, "the source is closed"
        assert self.begun == sorted(self.over), "each run that began has ended, once"
        names = [thread.name for thread in threading.enumerate() if not thread.name.startswith("dataflow-")]
        assert names == [threading.current_thread().name]


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> Iterator[Left]:
    found = Left()
    unsubscribe = flow.observe(found.watch)

    class Watched(StreamRun):
        __slots__ = ()

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            found.runs.add(self)

    monkeypatch.setattr(engine, "StreamRun", Watched)
    gc.disable()  # nothing may wait for it
    yield found
    gc.enable()
    unsubscribe()


@pytest.fixture
def held(left: Left) -> Any:
    """A pipeline with something of everything: kernels, and an async operator that takes a moment to be cancelled."""

    @flow.op
    def increment(x: int) -> int:
        if x == 21:
            raise ValueError("item 21")
        return x + 1

    @flow.op
    async def hold(x: int) -> int:
        try:
            for _ in range(3):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            left.cancelled += 1
            raise
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return increment(hold(increment(x) - 1))

    return p


async def take(stream: Any, entered: bool, body: Callable[[int], Any], into: list[int]) -> None:
    """Go through a stream in one of the two ways; `body` breaks by returning False, or raises, or waits."""
    if entered:
        async with stream as s:
            async for y in s:
                into.append(y)
                if await body(y) is False:
                    break
        return
    async for y in stream:
        into.append(y)
        if await body(y) is False:
            break


async def go_on(y: int) -> None:
    return None


async def stop_at_ten(y: int) -> bool:
    return y < 10


async def raise_at_ten(y: int) -> None:
    if y == 10:
        raise KeyError("in the body")


both_ways = pytest.mark.parametrize("entered", [True, False], ids=["entered", "plain"])
both_sources = pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "sync"])


@both_ways
@both_sources
def test_the_source_has_no_more(run_async: Runner, left: Left, held: Any, entered: bool, asynchronous: bool) -> None:
    async def main() -> None:
        found: list[int] = []
        await take(held.stream(left.source(asynchronous=asynchronous, ends_at=20)), entered, go_on, found)
        assert found == list(range(1, 21))
        assert len(asyncio.all_tasks()) == 1
        await left.nothing()

    run_async(main())


@both_ways
@both_sources
def test_the_consumer_breaks(run_async: Runner, left: Left, held: Any, entered: bool, asynchronous: bool) -> None:
    async def main() -> None:
        found: list[int] = []
        await take(held.stream(left.source(asynchronous=asynchronous), in_flight=5), entered, stop_at_ten, found)
        assert found == list(range(1, 11))
        if entered:
            assert len(asyncio.all_tasks()) == 1
            assert left.closed >= left.opened
        await left.nothing()

    run_async(main())


@both_ways
@both_sources
def test_the_body_of_the_loop_raises(
    run_async: Runner, left: Left, held: Any, entered: bool, asynchronous: bool
) -> None:
    async def main() -> None:
        found: list[int] = []
        with pytest.raises(KeyError, match="in the body"):
            await take(held.stream(left.source(asynchronous=asynchronous)), entered, raise_at_ten, found)
        assert found == list(range(1, 11))
        await left.nothing()

    run_async(main())


@both_ways
@both_sources
def test_the_source_fails(run_async: Runner, left: Left, held: Any, entered: bool, asynchronous: bool) -> None:
    async def main() -> None:
        found: list[int] = []
        try:
            await take(held.stream(left.source(asynchronous=asynchronous, fails_at=15)), entered, go_on, found)
        except OSError as exc:
            assert str(exc) == "no item 15"
            frames = []
            entry = exc.__traceback__
            while entry is not None:
                frames.append(entry.tb_frame.f_code.co_name)
                entry = entry.tb_next
            assert frames[-1] == "numbers"
        else:
            raise AssertionError("the failure is raised")
        assert found == list(range(1, 16)), "what was pulled before comes first"
        await left.nothing()

    run_async(main())


@both_ways
@both_sources
@pytest.mark.parametrize("ordered", [True, False])
def test_an_item_fails(
    run_async: Runner, left: Left, held: Any, entered: bool, asynchronous: bool, ordered: bool
) -> None:
    async def main() -> None:
        found: list[int] = []
        try:
            source = left.source(asynchronous=asynchronous)
            await take(held.stream(source, ordered=ordered, in_flight=6), entered, go_on, found)
        except ValueError as exc:
            assert str(exc) == "item 21"
            assert exc.__notes__[0].startswith("dataflow: in operator 'increment', node")
            assert exc.__notes__[1:] == ["dataflow: in item 21 of the stream (the first is item 0)"]
        else:
            raise AssertionError("the failure is raised")
        assert 22 not in found
        assert len(found) == len(set(found)) >= 15
        if ordered:
            assert found == list(range(1, 22))
        await left.nothing()

    run_async(main())


@both_ways
@pytest.mark.parametrize("turns", range(0, 40, 3))
def test_the_consumer_is_cancelled_at_any_moment(
    run_async: Runner, left: Left, held: Any, entered: bool, turns: int
) -> None:
    async def main() -> None:
        for asynchronous in (True, False):
            found: list[int] = []
            stream = held.stream(left.source(asynchronous=asynchronous), in_flight=3)
            consumer = asyncio.create_task(take(stream, entered, go_on, found))
            for _ in range(turns):
                await asyncio.sleep(0)
            consumer.cancel()
            with suppress(asyncio.CancelledError):
                await consumer
            assert consumer.cancelled()
            assert found == list(range(1, len(found) + 1))
            del consumer, stream
            await left.nothing()

    run_async(main())


@both_ways
def test_the_consumer_is_cancelled_again_while_it_leaves(run_async: Runner, left: Left, entered: bool) -> None:
    release = asyncio.Event()

    @flow.op
    async def stubborn(x: int) -> int:
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return stubborn(x)

    async def main() -> None:
        consumer = asyncio.create_task(take(p.stream(left.numbers()), entered, go_on, []))
        for _ in range(5):
            for _ in range(10):
                await asyncio.sleep(0)
            consumer.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not consumer.done(), "its async operators are waited for"
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await consumer
        await left.nothing()

    run_async(main())


def test_a_feeder_that_is_cancelled_again_and_again_waits_for_async_operators(run_async: Runner, left: Left) -> None:
    release = asyncio.Event()

    @flow.op
    async def stubborn(x: int) -> int:
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return stubborn(x)

    async def main() -> None:
        async with p.stream(left.numbers()):
            for _ in range(10):
                await asyncio.sleep(0)
            (feeder,) = (task for task in asyncio.all_tasks() if task.get_name() == "dataflow stream of p")
            for _ in range(3):
                feeder.cancel()
                for _ in range(10):
                    await asyncio.sleep(0)
            assert not feeder.done()
            assert left.closed == 0, "first the items, then the source"
            release.set()
            del feeder
        await left.nothing()

    run_async(main())


@both_ways
def test_a_consumer_cancelled_while_a_failure_ends_the_stream(
    run_async: Runner, left: Left, caplog: pytest.LogCaptureFixture, entered: bool
) -> None:
    release = asyncio.Event()

    @flow.op
    async def stubborn(x: int) -> int:
        while x == 1 and not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()
        if x == 0:
            raise ValueError("item 0")
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return stubborn(x)

    async def main() -> None:
        consumer = asyncio.create_task(take(p.stream(left.numbers(), in_flight=2), entered, go_on, []))
        for _ in range(30):
            await asyncio.sleep(0)
        consumer.cancel()
        for _ in range(30):
            await asyncio.sleep(0)
        assert not consumer.done(), "item 1 has not ended"
        release.set()
        with suppress(asyncio.CancelledError):
            await consumer
        assert consumer.cancelled()
        del consumer
        await left.nothing()

    with caplog.at_level(logging.ERROR, "dataflow"):
        run_async(main())
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [("item 0",)]


@pytest.mark.parametrize("ordered", [True, False])
def test_news_of_a_run_that_is_over_are_no_news(
    run_async: Runner, left: Left, caplog: pytest.LogCaptureFixture, ordered: bool
) -> None:
    flow.set_num_interop_threads(2)
    gate, inside = threading.Event(), threading.Event()

    @flow.op
    def fail(x: int) -> int:
        if x == 0:
            assert inside.wait(20)
            raise ValueError
        return x

    @flow.op
    def slow(x: int) -> int:
        if x == 0:
            inside.set()
            assert gate.wait(20)
        return x

    @flow.pipeline
    def p(x: int) -> Any:
        return fail(x), slow(x)

    async def main() -> None:
        async with p.stream(left.numbers(ends_at=4), on_error="yield", ordered=ordered, in_flight=1) as s:
            assert isinstance(await anext(s), ValueError)
            gate.set()  # its other kernel ends only now
            await flow.quiet()
            for _ in range(10):
                await asyncio.sleep(0)
            assert [y async for y in s] == [(1, 1), (2, 2), (3, 3)]
        await left.nothing()

    run_async(main())
    assert caplog.records == []


def test_a_cancelled_next_loses_no_item(run_async: Runner, left: Left) -> None:
    gates = [asyncio.Event() for _ in range(40)]

    @flow.op
    async def wait(x: int) -> int:
        await gates[x].wait()
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return wait(x)

    async def main() -> None:
        found = []
        async with p.stream(left.numbers(ends_at=40), in_flight=4) as s:
            for turns in range(40):
                waiting = asyncio.create_task(s.__anext__())
                for _ in range(turns // 4):
                    await asyncio.sleep(0)
                gates[turns].set()
                for _ in range(turns % 4):
                    await asyncio.sleep(0)
                waiting.cancel()
                with suppress(asyncio.CancelledError):
                    found.append(await waiting)
            found += [y async for y in s]
        assert found == list(range(40))
        del waiting
        await left.nothing()

    run_async(main())


@both_ways
def test_scopes_of_the_consumer_hold_only_what_is_inside_them(
    run_async: Runner, left: Left, held: Any, entered: bool
) -> None:
    """A generator that yields inside a scope of its own would have the consumer cancelled by it (PEP 789)."""

    async def body(y: int) -> bool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(stopped())
                await asyncio.Event().wait()
        return y < 5

    async def stopped() -> None:
        raise KeyError

    async def main() -> None:
        found: list[int] = []
        await take(held.stream(left.numbers_async()), entered, body, found)
        assert found == [1, 2, 3, 4, 5]
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        del task
        await left.nothing()

    run_async(main())


def test_a_timeout_around_next(run_async: Runner, left: Left, held: Any) -> None:
    async def main() -> None:
        async with held.stream(left.numbers()) as s:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await anext(s)
            assert [await anext(s) for _ in range(5)] == [1, 2, 3, 4, 5]
        await left.nothing()

    run_async(main())


@both_sources
def test_another_task_closes_it(run_async: Runner, left: Left, asynchronous: bool) -> None:
    never = asyncio.Event()

    @flow.op
    async def wait(x: int) -> int:
        if x == 3:
            await never.wait()
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return wait(x)

    async def main() -> None:
        stream, found = p.stream(left.source(asynchronous=asynchronous)), []

        async def consume() -> None:
            async with stream as s:
                found.extend([y async for y in s])

        consumer = asyncio.create_task(consume())
        while len(found) < 3 and stream._pulled < 5:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.gather(stream.aclose(), stream.aclose())
        await consumer  # its loop ended as if there were no more
        assert left.closed >= left.opened
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await stream.__anext__()
        del consumer
        await left.nothing()

    run_async(main())


def test_it_is_closed_before_it_has_begun(run_async: Runner, left: Left, held: Any) -> None:
    async def main() -> None:
        stream = held.stream(left.numbers())
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(RuntimeError, match="has ended was entered again"):
            async with stream:
                pass
        async with held.stream(left.numbers()):
            pass  # before its feeder has had a turn
        async with held.stream(left.numbers()) as s:
            await asyncio.sleep(0)
            await s.aclose()
        await left.nothing()

    run_async(main())


def test_kernels_that_have_not_started_never_do(run_async: Runner, left: Left) -> None:
    flow.set_num_interop_threads(1)
    inside, gate = threading.Event(), threading.Event()
    started: list[int] = []

    @flow.op
    def block(x: int) -> int:
        started.append(x)
        inside.set()
        assert gate.wait(20)
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return block(block(x))

    async def main() -> None:
        async with p.stream(left.numbers(), in_flight=8) as s:
            while not inside.is_set() or s.in_flight < 8:
                await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1, "a kernel that runs is not waited for"
        gate.set()
        await left.nothing()
        assert started == [0]

    run_async(main())


@both_ways
@pytest.mark.parametrize("how", ["returns", "raises", "breaks and returns", "never iterated"])
def test_the_loop_shuts_down(
    run_async: Runner, left: Left, held: Any, caplog: pytest.LogCaptureFixture, entered: bool, how: str
) -> None:
    kept: list[Any] = []

    async def main() -> None:
        stream = held.stream(left.numbers_async())
        if how == "never iterated":
            kept.append(await stream.__aenter__() if entered else aiter(stream))
        elif how == "breaks and returns":
            await take(stream, entered, stop_at_ten, [])
        else:
            task = asyncio.create_task(take(stream, entered, go_on, []))
            kept.append(task)
            for _ in range(20):
                await asyncio.sleep(0)
        del stream
        if how == "raises":
            raise KeyError("main")

    with suppress(KeyError), caplog.at_level(logging.WARNING):
        run_async(main())
    kept.clear()
    assert caplog.records == []
    asyncio.run(left.nothing())


def test_a_loop_that_shuts_down_ends_a_stream_that_nobody_leaves(run_async: Runner, left: Left, held: Any) -> None:
    streams: list[Any] = []

    async def main() -> None:
        stream = await held.stream(left.numbers()).__aenter__()
        assert await anext(stream) == 1
        streams.append(stream)

    run_async(main())
    assert "ended" in repr(streams[0])
    asyncio.run(left.nothing())


def test_a_feeder_that_somebody_cancels_ends_the_stream(run_async: Runner, left: Left) -> None:
    @flow.op
    async def wait(x: int) -> int:
        await asyncio.Event().wait()
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return wait(x)

    async def main() -> None:
        async with p.stream(left.numbers()) as s:
            waiting = asyncio.create_task(s.__anext__())
            for _ in range(10):
                await asyncio.sleep(0)
            (feeder,) = (task for task in asyncio.all_tasks() if task.get_name() == "dataflow stream of p")
            feeder.cancel()
            with pytest.raises(asyncio.CancelledError, match="stream of 'p' was cancelled"):
                await waiting
            del feeder, waiting
        await left.nothing()

    run_async(main())


def test_a_source_that_ignores_its_cancellation_ends_all_the_same(run_async: Runner, left: Left, held: Any) -> None:
    async def source() -> AsyncIterator[int]:
        left.opened += 1
        try:
            yield 0
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            yield 1
        finally:
            left.closed += 1

    async def main() -> None:
        async with held.stream(source()) as s:
            assert await anext(s) == 1
        assert repr(s).startswith("<stream of 'p': ended, 1 pulled")
        await left.nothing()

    run_async(main())


class Raising:
    """A source, not a generator, that raises what no consumer may get raw."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __aiter__(self) -> Raising:
        return self

    async def __anext__(self) -> int:
        raise self.error


def test_what_a_source_raises_is_not_taken_for_something_else(run_async: Runner, left: Left, held: Any) -> None:
    async def main() -> None:
        for error in (asyncio.CancelledError("of the source's"), GeneratorExit()):
            with pytest.raises(RuntimeError, match="source of a stream raised") as caught:
                async for _ in held.stream(Raising(error)):
                    pass
            assert caught.value.__cause__ is error
            del caught
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            async for _ in held.stream(Raising(StopIteration())):
                pass
        with pytest.raises(SystemExit):
            async for _ in held.stream(Raising(SystemExit(3))):
                pass
        await left.nothing()

    run_async(main())


def failing_to_close(log: list[str]) -> Iterator[int]:
    try:
        yield from range(1000)
    finally:
        log.append("closed")
        raise OSError("it does not close")


def test_a_source_that_fails_to_close(
    run_async: Runner, left: Left, held: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        log: list[str] = []
        with pytest.raises(OSError, match="it does not close"):
            async with held.stream(failing_to_close(log)) as s:
                await anext(s)
        with pytest.raises(KeyError):  # which it does not hide
            async with held.stream(failing_to_close(log)) as s:
                await anext(s)
                raise KeyError
        assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [("it does not close",)]
        with pytest.raises(ValueError, match="item 21"):
            async for _ in held.stream(failing_to_close(log)):
                pass
        assert len(caplog.records) == 2
        async with held.stream(failing_to_close(log)) as s:  # nor a cancellation
            await anext(s)
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await s.aclose()
            task.uncancel()
            del task
        assert len(caplog.records) == 3
        assert log == ["closed"] * 4
        await left.nothing()

    with caplog.at_level(logging.ERROR, "dataflow"):
        run_async(main())


def test_a_source_that_fails_after_the_consumer_left_tells_the_log(
    run_async: Runner, left: Left, held: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with held.stream(left.numbers(fails_at=2), in_flight=4) as s:
            assert await anext(s) == 1
            while not s._exhausted:
                await asyncio.sleep(0)
        await left.nothing()

    with caplog.at_level(logging.ERROR, "dataflow"):
        run_async(main())
    assert ["nobody waits for" in record.message for record in caplog.records] == [True]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("in_flight", [1, 4])
def test_failures_in_the_place_of_results(run_async: Runner, left: Left, ordered: bool, in_flight: int) -> None:
    again = ValueError("the same instance each time")

    @flow.op
    def odd(x: int) -> int:
        if x % 3 == 1:
            raise ValueError(x)
        if x % 3 == 2:
            raise again
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return odd(x)

    async def main() -> None:
        found: list[Any] = []
        lengths = set()
        async for y in p.stream(left.numbers(ends_at=300), on_error="yield", ordered=ordered, in_flight=in_flight):
            found.append(y if isinstance(y, int) else y.args[0])
            if isinstance(y, Exception):
                entry, length = y.__traceback__, 0
                while entry is not None:
                    entry, length = entry.tb_next, length + 1
                if y is not again or in_flight == 1:
                    lengths.add(length)
                    assert len(y.__notes__) == 2
                else:  # it may just be raised again, in another thread
                    assert length <= 1 + 2 * in_flight, "what is raised again and again does not grow"
                    assert len(y.__notes__) <= 2
        expected = [x if x % 3 < 2 else again.args[0] for x in range(300)]
        assert found == expected if ordered else sorted(map(str, found)) == sorted(map(str, expected))
        assert lengths == {2}
        await left.nothing()

    run_async(main())


def test_an_exception_that_is_no_exception_ends_the_stream_all_the_same(run_async: Runner, left: Left) -> None:
    class Fatal(BaseException):
        pass

    @flow.op
    def fail(x: int) -> int:
        if x == 3:
            raise Fatal
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return fail(x)

    async def main() -> None:
        found: list[int] = []
        with pytest.raises(Fatal):
            await take(p.stream(left.numbers(), on_error="yield"), False, go_on, found)
        assert found == [0, 1, 2]
        await left.nothing()

    run_async(main())


def test_after_a_failure_there_is_no_more(run_async: Runner, left: Left, held: Any) -> None:
    async def main() -> None:
        async with held.stream(left.numbers()) as s:
            with pytest.raises(ValueError, match="item 21"):
                while True:
                    await anext(s)
            for _ in range(2):
                with pytest.raises(StopAsyncIteration):
                    await anext(s)
            assert len(asyncio.all_tasks()) == 1
        await left.nothing()

    run_async(main())


def test_arguments_that_cannot_be_bound_are_a_failure_of_their_item(run_async: Runner, left: Left) -> None:
    @flow.op
    def first(x: Any) -> Any:
        return x

    @flow.pipeline(static=("x",))
    def p(x: Any) -> Any:
        return first(x)

    async def main() -> None:
        good, bad, last = [y async for y in p.stream([1, [], 2], on_error="yield")]
        assert (good, last) == (1, 2)
        assert isinstance(bad, TypeError)
        assert "static and must be hashable" in str(bad)
        assert bad.__notes__ == ["dataflow: in item 1 of the stream (the first is item 0)"]
        del bad
        found: list[int] = []
        with pytest.raises(TypeError, match="must be hashable"):
            await take(p.stream(iter([1, 2, [], 3])), False, go_on, found)
        assert found == [1, 2]
        await left.nothing()

    run_async(main())


def test_it_is_gone_through_once(run_async: Runner, left: Left, held: Any) -> None:
    async def main() -> None:
        stream = held.stream(range(3))
        with pytest.raises(RuntimeError, match="asked for an item by hand: enter it first"):
            await anext(stream)
        assert [y async for y in stream] == [1, 2, 3]
        with pytest.raises(RuntimeError, match=r"has ended was iterated over again.*make another with p\.stream"):
            async for _ in stream:
                pass
        async with held.stream(range(9)) as s:
            async for y in s:
                if y == 4:
                    break
            assert [y async for y in s] == list(range(5, 10)), "inside its block it can be taken up again"
            with pytest.raises(RuntimeError, match="has ended was iterated"):
                async for _ in s:
                    pass
            with pytest.raises(RuntimeError, match="has ended was entered"):
                async with s:
                    pass
        s = held.stream(range(9))
        async for _ in s:
            with pytest.raises(RuntimeError, match="is under way was iterated"):
                async for _ in s:
                    pass
            with pytest.raises(RuntimeError, match="by hand"):
                await anext(s)
        first, second = aiter(s := held.stream(range(9))), aiter(s)
        assert await anext(first) == 1
        with pytest.raises(RuntimeError, match="is under way was entered"):
            await anext(second)
        del first, second
        await left.nothing()

    run_async(main())


def test_two_consumers_at_once_are_refused(run_async: Runner, left: Left) -> None:
    @flow.op
    async def wait(x: int) -> int:
        await asyncio.sleep(0)
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return wait(x)

    async def main() -> None:
        async with p.stream(left.numbers()) as s:
            one = asyncio.create_task(s.__anext__())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="two consumers"):
                await anext(s)
            assert await one == 0
            assert await anext(s) == 1
            del one
        await left.nothing()

    run_async(main())


def test_it_stays_on_its_loop(run_async: Runner, left: Left, held: Any) -> None:
    async def main() -> None:
        async with held.stream(left.numbers()) as s:

            def elsewhere() -> None:
                with pytest.raises(RuntimeError, match="on another event loop"):
                    asyncio.run(s.__anext__())

            thread = threading.Thread(target=elsewhere)
            thread.start()
            while thread.is_alive():
                await asyncio.sleep(0)
            assert await anext(s) == 1
        await left.nothing()

    run_async(main())


def test_neither_its_source_nor_a_kernel_may_close_or_enter_it(run_async: Runner, left: Left, held: Any) -> None:
    refused = []

    async def source() -> AsyncIterator[int]:
        with pytest.raises(RuntimeError, match="cannot be closed by its own source"):
            await s.aclose()
        yield 1

    @flow.op
    def enter(x: int) -> int:
        async def inside() -> None:
            with pytest.raises(RuntimeError, match="entered inside a kernel"):
                async with held.stream([1]):
                    pass
            refused.append(x)

        asyncio.run(inside())
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return enter(x)

    s = held.stream(source())

    async def main() -> None:
        async with s:
            assert [y async for y in s] == [2]
        assert await p(1) == 1
        assert refused == [1]
        await left.nothing()

    run_async(main())


def test_a_task_factory_that_fails(left: Left, held: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def factory(loop: Any, coroutine: Any, **options: Any) -> Any:
            if coroutine.__qualname__ == "Feed._feed":
                raise OSError("no task")
            return asyncio.Task(coroutine, loop=loop, **options)

        loop.set_task_factory(factory)
        with pytest.raises(OSError, match="no task"):
            async with held.stream(left.numbers()):
                pass
        loop.set_task_factory(None)
        await left.nothing()

    asyncio.run(main())


if hasattr(asyncio, "eager_task_factory"):  # since Python 3.12

    def test_eager_tasks(left: Left, held: Any) -> None:
        async def main() -> None:
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            assert [y async for y in held.stream(left.numbers(ends_at=20))] == list(range(1, 21))
            found: list[int] = []
            await take(held.stream(left.numbers_async()), True, stop_at_ten, found)
            assert found == list(range(1, 11))
            await left.nothing()

        asyncio.run(main())


@pytest.mark.parametrize("on_error", ["raise", "yield"])
def test_a_failed_item_keeps_no_array_alive(run_async: Runner, left: Left, on_error: Any) -> None:
    alive = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    class Array(np.ndarray[Any, Any]):
        pass

    def make() -> Any:
        nonlocal alive
        array = np.zeros(100).view(Array)
        alive += 1
        weakref.finalize(array, gone)
        return array

    @flow.op
    def fail(x: Any, y: Any) -> Any:
        raise ValueError

    @flow.pipeline
    def p(x: Any) -> Any:
        return fail(x * 2, x + 1)

    async def main() -> None:
        with suppress(ValueError):
            async for y in p.stream((make() for _ in range(10)), on_error=on_error):
                assert isinstance(y, ValueError)
                del y
        await left.nothing()
        assert not alive

    run_async(main())
    assert not left.runs


def test_memory_is_flat(run_async: Runner, left: Left, held: Any) -> None:
    async def main() -> None:
        most = 0
        async for y in held.stream((x % 20 for x in range(2000)), in_flight=5):
            most = max(most, len(left.runs))
            del y
        assert FREE_THREADED or most <= 5 + 4  # and one that a worker, or the loop's queue, is about to let go of
        await left.nothing()

    run_async(main())
