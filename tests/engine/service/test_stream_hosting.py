"""Streams in a bounded runtime: one place each, waited for and left in every way; expelled when it is closed."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import dataflow as flow
from dataflow.engine.service.admission import Openness

Runner = Callable[[Any], Any]


@flow.op
def double(x: int) -> int:
    return 2 * x


@flow.pipeline
def doubled(x: int) -> int:
    return double(x)


@flow.pipeline
def failing(x: int) -> float:
    return flow.op(lambda x: 1 / (x - 2))(x)


def runs_of(rt: flow.Runtime) -> dict[str, Any]:
    """What `info` says of runs, without the mean."""
    return {key: value for key, value in rt.info()["runs"].items() if key != "mean_seconds" and value}


def endless() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


async def leaves_nothing(rt: flow.Runtime) -> None:
    await flow.quiet()
    rt._admission.check()
    assert (rt._admission.running, rt._admission.waiting) == (0, 0)
    assert len(asyncio.all_tasks()) == 1


def test_a_stream_takes_one_place_until_it_has_ended(run_async: Runner) -> None:
    async def main() -> None:
        rt = flow.Runtime(max_runs=1, max_waiting=0)
        async with doubled.on(rt).stream(range(5), in_flight=3) as s:
            assert runs_of(rt) == {"running": 1}
            with pytest.raises(flow.Overloaded) as full:
                await doubled.on(rt)(1)
            assert full.value.retry_after > 0
            assert [y async for y in s] == [0, 2, 4, 6, 8]
            assert runs_of(rt) == {"done": 1, "refused": 1}
        assert await doubled.on(rt)(1) == 2
        await leaves_nothing(rt)

    run_async(main())


def test_items_and_what_is_inside_them_need_no_further_place(run_async: Runner) -> None:
    rt = flow.Runtime(max_runs=1)

    @flow.op
    async def awaits(x: int) -> int:
        return await doubled.on(rt)(x)

    @flow.op
    def runs(x: int) -> int:
        return doubled.on(rt).run(x)

    @flow.op
    async def streams(x: int) -> list[int]:
        return [y async for y in doubled.on(rt).stream(range(x))]

    @flow.pipeline
    def nested(x: int) -> Any:
        return awaits(x), runs(x), streams(x)

    async def source() -> AsyncIterator[int]:
        for x in range(4):
            yield await doubled.on(rt)(x)  # inside, too

    async def main() -> None:
        results = [y async for y in nested.on(rt).stream(source(), in_flight=2)]
        assert results == [(4 * x, 4 * x, [2 * i for i in range(2 * x)]) for x in range(4)]
        assert runs_of(rt) == {"done": 1}
        await leaves_nothing(rt)

    run_async(main())


@pytest.mark.parametrize("plain", [False, True])
def test_it_waits_for_its_place_and_pulls_nothing_meanwhile(run_async: Runner, plain: bool) -> None:
    async def main() -> None:
        rt = flow.Runtime(max_runs=1)
        pulled: list[int] = []

        def source() -> Iterator[int]:
            for x in range(3):
                pulled.append(x)
                yield x

        async def consume() -> list[int]:
            if plain:
                return [y async for y in doubled.on(rt).stream(source())]
            async with doubled.on(rt).stream(source()) as s:
                return [y async for y in s]

        async with doubled.on(rt).stream(endless()) as first:
            assert await anext(first) == 0
            second = asyncio.create_task(consume())
            while not rt._admission.waiting:
                await asyncio.sleep(0)
            assert await anext(first) == 2
            assert pulled == []
        assert await second == [0, 2, 4]
        assert runs_of(rt) == {"done": 2}
        await leaves_nothing(rt)

    run_async(main())


@pytest.mark.parametrize("plain", [False, True])
def test_refused_it_raises_on_entering_or_with_the_first_item(
    run_async: Runner, caplog: pytest.LogCaptureFixture, plain: bool
) -> None:
    async def consume(rt: flow.Runtime) -> None:
        if plain:
            async for _ in doubled.on(rt).stream(endless()):
                raise AssertionError
        async with doubled.on(rt).stream(endless()):
            raise AssertionError

    async def main() -> None:
        rt = flow.Runtime(max_runs=1, max_waiting=0, name="sessions")
        async with doubled.on(rt).stream(endless()):
            with pytest.raises(flow.Overloaded, match=r"'sessions' is full.* a run of 'doubled'"):
                await consume(rt)
        await rt.aclose()
        with pytest.raises(flow.RuntimeClosed, match="'sessions' is closed"):
            await consume(rt)
        await leaves_nothing(rt)

    with caplog.at_level(logging.WARNING):
        run_async(main())
    assert caplog.records == []


def test_cancelled_while_it_waits_it_leaves_the_waiting_room(run_async: Runner) -> None:
    async def main() -> None:
        rt = flow.Runtime(max_runs=1)

        async def consume() -> None:
            async with doubled.on(rt).stream(endless()):
                raise AssertionError

        async with doubled.on(rt).stream(endless()):
            waiting = asyncio.create_task(consume())
            while not rt._admission.waiting:
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert rt._admission.waiting == 0
        assert runs_of(rt) == {"done": 1, "cancelled": 1}
        await leaves_nothing(rt)

    run_async(main())


@pytest.mark.parametrize("ended", ["break", "item", "source", "cancelled", "aclose"])
def test_however_it_ends_the_place_is_left(run_async: Runner, caplog: pytest.LogCaptureFixture, ended: str) -> None:
    def breaks() -> Iterator[int]:
        yield 0
        raise OSError("no more")

    async def main() -> None:
        rt = flow.Runtime(max_runs=1)
        if ended == "break":
            async with doubled.on(rt).stream(endless()) as s:
                async for _ in s:
                    break
        elif ended == "item":
            with pytest.raises(ZeroDivisionError):
                async for _ in failing.on(rt).stream(endless()):
                    pass
        elif ended == "source":
            with pytest.raises(OSError, match="no more"):
                async for _ in doubled.on(rt).stream(breaks()):
                    pass
        elif ended == "cancelled":
            async with doubled.on(rt).stream(endless()) as s:
                assert s._feeder is not None
                s._feeder.cancel()
                with pytest.raises(asyncio.CancelledError):
                    while True:
                        await anext(s)
        else:
            s = doubled.on(rt).stream(endless())
            await s.__aenter__()
            await s.aclose()
        outcome = {"item": "failed", "source": "failed", "cancelled": "cancelled"}.get(ended, "done")
        assert runs_of(rt) == {outcome: 1}
        assert await doubled.on(rt)(1) == 2
        await leaves_nothing(rt)

    run_async(main())
    assert caplog.records == []


def test_closing_drains_a_stream_that_ends(run_async: Runner) -> None:
    async def main() -> None:
        rt = flow.Runtime(max_runs=1)
        async with doubled.on(rt).stream(range(100)) as s:
            assert await anext(s) == 0
            closing = asyncio.create_task(rt.aclose(60))
            assert [y async for y in s] == [2 * x for x in range(1, 100)]
        assert await closing == []
        assert runs_of(rt) == {"done": 1}
        await leaves_nothing(rt)

    run_async(main())


@pytest.mark.parametrize("waits", [True, False])
def test_closing_ends_an_endless_one_when_its_patience_is_over(
    run_async: Runner, caplog: pytest.LogCaptureFixture, waits: bool
) -> None:
    cancelled: list[int] = []

    @flow.op
    async def never(x: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(x)
        return x

    @flow.pipeline
    def stays(x: int) -> int:
        return never(x)

    async def main() -> None:
        rt = flow.Runtime(max_runs=2, name="sessions")
        async with (stays if waits else doubled).on(rt).stream(endless(), in_flight=3) as s:
            if not waits:
                assert await anext(s) == 0
            while s.in_flight < 3:
                await asyncio.sleep(0)
            if waits:
                closing = asyncio.create_task(rt.aclose(0))
            else:
                assert await rt.aclose(0) == []
            with pytest.raises(flow.RuntimeClosed, match=r"'sessions' was closed while '(stays|doubled)' was in prog"):
                await anext(s)
            with pytest.raises(StopAsyncIteration):
                await anext(s)
        if waits:
            assert await closing == []
            assert sorted(cancelled) == [0, 1, 2]
        assert runs_of(rt) == {"cancelled": 1}
        assert rt._admission.openness is Openness.CLOSED
        await leaves_nothing(rt)

    run_async(main())
    assert caplog.records == []


def test_closing_tells_of_kernels_that_have_not_returned(run_async: Runner) -> None:
    flow.set_num_interop_threads(2)
    inside, gate = threading.Event(), threading.Event()

    @flow.op
    def stay(x: int) -> int:
        inside.set()
        assert gate.wait(20)
        return x

    @flow.pipeline
    def stays(x: int) -> int:
        return stay(x)

    async def main() -> None:
        rt = flow.Runtime(max_runs=1)
        async with stays.on(rt).stream([1]) as s:
            assert await asyncio.to_thread(inside.wait, 20)
            left = await rt.aclose(0)
            assert [(record.pipeline, record.operators) for record in left] == [("stays", ("stay",))]
            with pytest.raises(flow.RuntimeClosed):
                await anext(s)
        gate.set()
        await flow.quiet()
        assert await rt.aclose(0) == []
        await leaves_nothing(rt)

    run_async(main())


def test_it_may_be_closed_from_another_thread(run_async: Runner) -> None:
    async def main() -> None:
        rt = flow.Runtime(max_runs=1)
        async with doubled.on(rt).stream(endless()) as s:
            assert await anext(s) == 0
            closing = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(rt.aclose(0))))
            with pytest.raises(flow.RuntimeClosed):
                while True:
                    await anext(s)
        assert await closing == []
        await leaves_nothing(rt)

    run_async(main())


def test_those_who_wait_are_sent_away_when_it_is_closed(run_async: Runner) -> None:
    async def main() -> None:
        rt = flow.Runtime(max_runs=1)

        async def consume() -> None:
            async with doubled.on(rt).stream(endless()):
                raise AssertionError

        async with doubled.on(rt).stream(endless()) as first:
            assert await anext(first) == 0
            waiting = asyncio.create_task(consume())
            while not rt._admission.waiting:
                await asyncio.sleep(0)
            assert await rt.aclose(0) == []
            with pytest.raises(flow.RuntimeClosed, match="it starts no run of 'doubled'"):
                await waiting
        await leaves_nothing(rt)

    run_async(main())


def test_what_a_run_has_left_behind_streams_no_further_than_that_run(run_async: Runner) -> None:
    rt = flow.Runtime(max_runs=1, name="sessions")
    left: list[asyncio.Task[Any]] = []
    taken: list[int] = []
    over = asyncio.Event()

    async def consume(bound: bool) -> None:
        async for y in (doubled.on(rt) if bound else doubled).stream(endless()):
            taken.append(y)
            await asyncio.sleep(0)

    async def begin_late() -> list[int]:
        await over.wait()
        return [y async for y in doubled.stream(range(3))]

    @flow.op
    async def leaves(x: int) -> int:
        left.extend(asyncio.create_task(coroutine) for coroutine in (consume(True), consume(False), begin_late()))
        while len(taken) < 6:
            await asyncio.sleep(0)
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return leaves(x)

    async def main() -> None:
        assert await p.on(rt)(1) == 1
        for task in left[:2]:
            with pytest.raises(flow.RuntimeClosed, match="was begun inside a run, and that is over"):
                await task
        over.set()
        assert await left[2] == [0, 2, 4]  # in the runtime of that run, like any call
        assert runs_of(rt) == {"done": 2}
        left.append(asyncio.create_task(begin_late()))
        assert await rt.aclose() == []
        await leaves_nothing_but(rt, left[3])

    async def leaves_nothing_but(rt: flow.Runtime, task: asyncio.Task[Any]) -> None:
        await task
        await leaves_nothing(rt)

    run_async(main())


def test_ended_before_the_loop_over_it_the_loop_is_told_why(run_async: Runner) -> None:
    async def main() -> None:
        rt = flow.Runtime(max_runs=1, name="sessions")
        async with doubled.on(rt).stream(endless()) as s:
            assert await rt.aclose(0) == []
            with pytest.raises(flow.RuntimeClosed, match="'sessions' was closed"):
                async for _ in s:
                    raise AssertionError
        rt = flow.Runtime(max_runs=1, name="sessions")
        async with doubled.on(rt).stream(endless()) as s:
            async for _ in s:
                break
            assert await rt.aclose(0) == []
            with pytest.raises(flow.RuntimeClosed, match="'sessions' was closed"):
                async for _ in s:
                    raise AssertionError
            with pytest.raises(RuntimeError, match="has ended was iterated over again"):
                aiter(s)
        async with doubled.stream(endless()) as s:
            await s.aclose()
            assert [y async for y in s] == []
        await leaves_nothing(rt)

    run_async(main())


def test_who_asks_for_an_item_while_it_waits_for_its_place_is_told(run_async: Runner) -> None:
    async def main() -> None:
        rt = flow.Runtime(max_runs=1)
        async with doubled.on(rt).stream(endless()):
            s = doubled.on(rt).stream(endless())
            entering = asyncio.create_task(s.__aenter__())
            while not rt._admission.waiting:
                await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="two consumers"):
                await anext(s)
            await s.aclose()
            await entering
        await leaves_nothing(rt)

    run_async(main())


@pytest.mark.parametrize("hidden", [False, True])
def test_an_operator_cannot_close_the_stream_that_waits_for_it(run_async: Runner, hidden: bool) -> None:
    streams: list[flow.Stream[int]] = []

    @flow.op
    async def closes(x: int) -> int:
        if x == 2:
            await (asyncio.create_task(streams[0].aclose()) if hidden else streams[0].aclose())
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return closes(x)

    async def main() -> None:
        async with p.stream(range(5), in_flight=1) as s:
            streams.append(s)
            with pytest.raises(RuntimeError, match="cannot be closed by an operator of its own items"):
                async for _ in s:
                    pass
        assert len(asyncio.all_tasks()) == 1

    run_async(main())


@pytest.mark.parametrize("waits_for", ["operator", "source", "room"])
def test_a_forgotten_stream_that_is_collected_leaves_its_place(waits_for: str) -> None:
    @flow.op
    async def waits(event: asyncio.Event) -> bool:
        return await event.wait()

    @flow.pipeline
    def p(event: asyncio.Event) -> bool:
        return waits(event)

    async def source() -> AsyncIterator[asyncio.Event]:
        yield asyncio.Event()
        await asyncio.Event().wait()

    async def main() -> None:
        rt = flow.Runtime(max_runs=1)
        events = source() if waits_for == "source" else [asyncio.Event()] * (2 if waits_for == "room" else 1)
        s = p.on(rt).stream(events, in_flight=1 if waits_for == "room" else 2)
        await s.__aenter__()
        while not s.in_flight:
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        coroutine = s._feeder.get_coro()  # type: ignore[union-attr]
        coroutine.close()  # type: ignore[union-attr]  # as the collector does
        rt._admission.check()
        assert runs_of(rt) == {"cancelled": 1}
        assert await rt.aclose(0) == []
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    asyncio.run(main())
