"""Streams: order, exactly once, the bound on items in flight, back-pressure, overlap, dropping, copies."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest

import dataflow as flow

Runner = Callable[[Any], Any]


@flow.op
def increment(x: int) -> int:
    return x + 1


@flow.pipeline
def plus_one(x: int) -> int:
    return increment(x)


class Gates:
    """An operator that waits at a gate of its own for each item, and says when it is there."""

    def __init__(self) -> None:
        self.open: dict[Any, threading.Event] = {}
        self.at: set[Any] = set()
        self.lock = threading.Lock()

    def gate(self, x: Any) -> threading.Event:
        with self.lock:
            return self.open.setdefault(x, threading.Event())

    def pass_through(self, x: Any) -> None:
        self.at.add(x)
        assert self.gate(x).wait(20)

    async def reached(self, *items: Any) -> None:
        async with asyncio.timeout(20):
            while not set(items) <= self.at:
                await asyncio.sleep(0)

    def go(self, *items: Any) -> None:
        for item in items:
            self.gate(item).set()


async def turns(count: int = 50) -> None:
    """Let everything that can happen on the loop happen."""
    for _ in range(count):
        await asyncio.sleep(0)


async def endless() -> AsyncIterator[int]:
    for number in itertools.count():
        yield number


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("in_flight", [1, 2, 7])
def test_every_item_once_and_in_order_and_never_more_in_flight(
    run_async: Runner, ordered: bool, in_flight: int
) -> None:
    pulled = delivered = 0
    worst = 0

    def source() -> Iterator[int]:
        nonlocal pulled, worst
        for number in range(1500):
            pulled += 1
            worst = max(worst, pulled - delivered)
            yield number

    async def main() -> list[int]:
        nonlocal delivered
        found = []
        async with plus_one.stream(source(), in_flight=in_flight, ordered=ordered) as s:
            async for y in s:
                delivered += 1
                assert s.in_flight <= in_flight
                found.append(y)
        assert s.in_flight == 0
        return found

    found = run_async(main())
    assert (found if ordered else sorted(found)) == list(range(1, 1501))
    assert worst <= in_flight


def test_tens_of_thousands_through_kernels_and_async_operators(run_async: Runner) -> None:
    @flow.op
    async def pass_on(x: int) -> int:
        if x % 3 == 0:
            await asyncio.sleep(0)
        return x

    @flow.pipeline
    def p(x: int) -> tuple[int, int]:
        return increment(x), increment(pass_on(x))

    async def main() -> None:
        expected = 0
        async for a, b in p.stream(range(2000), in_flight=16):
            assert (a, b) == (expected + 1, expected + 1)
            expected += 1
        assert expected == 2000
        count = 0
        async for y in plus_one.stream(iter(range(20_000)), in_flight=64):
            count += 1
            assert y == count
        assert count == 20_000

    run_async(main())


def test_random_durations_come_in_order_of_the_source(run_async: Runner) -> None:
    rng = random.Random(0)
    naps = [rng.randrange(12) for _ in range(400)]

    @flow.op
    async def nap(x: int) -> int:
        for _ in range(naps[x]):
            await asyncio.sleep(0)
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return increment(nap(x))

    async def main() -> None:
        assert [y async for y in p.stream(range(400), in_flight=9)] == list(range(1, 401))
        loose = [y async for y in p.stream(range(400), in_flight=9, ordered=False)]
        assert sorted(loose) == list(range(1, 401))
        assert loose != sorted(loose)

    run_async(main())


def test_unordered_results_come_as_they_end(run_async: Runner) -> None:
    flow.set_num_interop_threads(3)
    gates = Gates()

    @flow.op
    def wait(x: int) -> int:
        gates.pass_through(x)
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return wait(x)

    async def main() -> None:
        async with p.stream(range(3), in_flight=3, ordered=False) as s:
            await gates.reached(0, 1, 2)
            for each in (2, 0, 1):
                gates.go(each)
                assert await anext(s) == each
            with pytest.raises(StopAsyncIteration):
                await anext(s)

    run_async(main())


def test_ordered_results_wait_for_those_before_them(run_async: Runner) -> None:
    flow.set_num_interop_threads(2)
    gates = Gates()

    @flow.op
    def wait(x: int) -> int:
        gates.pass_through(x)
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return wait(x)

    async def main() -> None:
        async with p.stream(range(2), in_flight=2) as s:
            await gates.reached(0, 1)
            gates.go(1)
            first = asyncio.create_task(s.__anext__())
            await turns()
            assert not first.done()
            gates.go(0)
            assert await first == 0
            assert await anext(s) == 1

    run_async(main())


@pytest.mark.parametrize("asynchronous", [True, False])
def test_the_source_waits_for_the_consumer(run_async: Runner, asynchronous: bool) -> None:
    pulled: list[int] = []

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            pulled.append(number)
            yield number

    async def numbers_async() -> AsyncIterator[int]:
        for number in numbers():
            yield number

    async def main() -> None:
        async with plus_one.stream(numbers_async() if asynchronous else numbers(), in_flight=3) as s:
            await turns()
            while s.in_flight != 3:
                await asyncio.sleep(0)
            await turns()
            assert pulled == [0, 1, 2], "finished, and not consumed, counts as in flight"
            assert await anext(s) == 1
            await turns()
            assert pulled == [0, 1, 2, 3]
            assert [await anext(s) for _ in range(5)] == [2, 3, 4, 5, 6]
            await turns()
            assert len(pulled) == 6 + 3

    run_async(main())


def test_an_item_enters_the_first_operator_while_another_is_in_the_last(run_async: Runner) -> None:
    flow.set_num_interop_threads(2)
    met = threading.Barrier(2)

    @flow.op
    def first(x: int) -> int:
        if x == 2:
            met.wait(20)
        return x

    @flow.op
    def last(x: int) -> int:
        if x == 1:
            met.wait(20)  # only passes while item 2 is in the first operator
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return last(increment(increment(first(x)) - 2))

    async def main() -> None:
        assert [y async for y in p.stream(range(4), in_flight=2)] == [0, 1, 2, 3]

    run_async(main())


def test_as_many_items_as_in_flight_are_worked_on_at_once(run_async: Runner) -> None:
    inside, most = 0, 0

    @flow.op
    async def hold(x: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await turns(20)
        inside -= 1
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return hold(x)

    async def main() -> None:
        assert [y async for y in p.stream(range(60), in_flight=10)] == list(range(60))

    run_async(main())
    assert most == 10


@pytest.mark.parametrize(("threads", "in_flight"), [(1, 2), (3, 6)])
def test_by_default_twice_the_inter_op_threads_are_in_flight(run_async: Runner, threads: int, in_flight: int) -> None:
    flow.set_num_interop_threads(threads)

    async def main() -> None:
        async with plus_one.stream(itertools.count()) as s:
            await turns()
            assert s.in_flight == in_flight

    run_async(main())


@pytest.mark.parametrize("on_full", ["wait", "drop_oldest"])
def test_an_endless_source_leaves_the_loop_its_turns(run_async: Runner, on_full: Any) -> None:
    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticker = asyncio.create_task(tick())
        async with plus_one.stream(itertools.count(), in_flight=1000, on_full=on_full) as s:
            before = ticks
            while s.in_flight < 1000:
                await asyncio.sleep(0)
            assert ticks - before >= 1000 // 8 - 1
        ticker.cancel()

    run_async(main())


def test_an_endless_asynchronous_source(run_async: Runner) -> None:
    async def main() -> None:
        found = []
        async for y in plus_one.stream(endless()):
            found.append(y)
            if y == 500:
                break
        assert found == list(range(1, 501))

    run_async(main())


def test_a_full_stream_drops_the_oldest(run_async: Runner) -> None:
    flow.set_num_interop_threads(1)
    gates = Gates()
    cancelled: list[int] = []
    ran: list[int] = []
    given: asyncio.Queue[int] = asyncio.Queue()

    @flow.op
    def wait(x: int) -> int:
        gates.pass_through(x)
        return x

    @flow.op
    async def linger(x: int) -> int:
        try:
            await asyncio.Event().wait() if x == 1 else None
        except asyncio.CancelledError:
            cancelled.append(x)
            raise
        return x

    @flow.op
    def last(x: int, y: int) -> int:
        ran.append(x)
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return last(wait(x), linger(x))

    async def source() -> AsyncIterator[int]:
        while True:
            yield await given.get()

    async def main() -> None:
        async with p.stream(source(), in_flight=2, on_full="drop_oldest") as s:
            for number in (0, 1):
                given.put_nowait(number)
            await gates.reached(0)  # in its kernel: it is left to finish
            given.put_nowait(2)  # in place of 0
            await turns()
            assert (s.dropped, s.in_flight) == (1, 2)
            given.put_nowait(3)  # in place of 1, whose async operator waits and whose kernel waits for a thread
            await turns()
            assert (s.dropped, s.in_flight) == (2, 2)
            assert cancelled == [1]
            gates.go(0, 2, 3)
            assert await anext(s) == 2
            given.put_nowait(4)
            gates.go(4)
            assert await anext(s) == 3
            assert await anext(s) == 4
            assert s.dropped == 2
        assert gates.at == {0, 2, 3, 4}, "the kernel of 1 never started"
        assert sorted(ran) == [2, 3, 4]

    run_async(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_finished_items_are_dropped_as_well(run_async: Runner, ordered: bool) -> None:
    async def main() -> None:
        async with plus_one.stream(endless(), in_flight=3, on_full="drop_oldest", ordered=ordered) as s:
            while s.dropped < 200:
                await asyncio.sleep(0)
            before = s.dropped
            first = await anext(s)
            assert before + 1 <= first
            assert first < await anext(s) or not ordered
            assert s.in_flight <= 3
            assert len(s._ended) <= 3

    run_async(main())


def test_a_failure_is_not_dropped(run_async: Runner) -> None:
    given: asyncio.Queue[int] = asyncio.Queue()

    @flow.op
    def fail(x: int) -> int:
        if x == 0:
            raise ValueError("the first")
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return fail(x)

    async def source() -> AsyncIterator[int]:
        while True:
            yield await given.get()

    async def main() -> None:
        async with p.stream(source(), in_flight=2, on_full="drop_oldest") as s:
            given.put_nowait(0)
            while not s._doomed:
                await asyncio.sleep(0)
            for number in range(1, 10):
                given.put_nowait(number)
                await turns(5)
            assert s.dropped == 0
            with pytest.raises(ValueError, match="the first"):
                await anext(s)

    run_async(main())


def test_an_item_that_does_not_end_when_dropped_counts(run_async: Runner) -> None:
    """Else a live source and an operator that ignores its cancellation would fill the memory."""
    release = asyncio.Event()

    @flow.op
    async def stubborn(x: int) -> int:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return stubborn(x)

    async def main() -> None:
        async with p.stream(endless(), in_flight=2, on_full="drop_oldest") as s:
            await turns(200)
            assert s.dropped == 2
            assert len(asyncio.all_tasks()) == 2 + 4
            release.set()
            while s.dropped < 5:
                await asyncio.sleep(0)

    run_async(main())


@pytest.mark.parametrize("copy", [True, False])
def test_a_source_may_fill_one_buffer_again_and_again(run_async: Runner, copy: bool) -> None:
    flow.set_num_interop_threads(1)
    gate = threading.Event()

    @flow.op
    def total(parts: Any) -> float:
        assert gate.wait(20)
        return float(parts["left"].sum() + parts["rest"][0].sum())

    @flow.pipeline
    def p(parts: Any) -> float:
        return total(parts)

    async def main() -> list[float]:
        buffer = np.zeros(4)

        async def source() -> AsyncIterator[Any]:
            for number in range(3):
                buffer[:] = number
                yield {"left": buffer, "rest": [buffer[:2], "name"]}
            gate.set()

        return [y async for y in p.stream(source(), copy=copy, in_flight=4)]

    assert run_async(main()) == ([0.0, 6.0, 12.0] if copy else [12.0, 12.0, 12.0])


def test_the_context_is_that_of_the_call(run_async: Runner) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    seen = []

    @flow.op
    def read(x: int) -> str:
        return variable.get()

    @flow.op
    async def read_async(x: int) -> str:
        return variable.get()

    @flow.pipeline
    def p(x: int) -> tuple[str, str]:
        return read(x), read_async(x)

    def source() -> Iterator[int]:
        seen.append(variable.get())
        variable.set("the source's own")
        yield 1
        seen.append(variable.get())

    async def main() -> None:
        variable.set("at the call")
        stream = p.stream(source())
        variable.set("later")
        assert [y async for y in stream] == [("at the call", "at the call")]
        assert variable.get() == "later"

    run_async(main())
    assert seen == ["at the call", "the source's own"]


def test_a_stream_as_the_source_of_another(run_async: Runner) -> None:
    async def main() -> None:
        assert [y async for y in plus_one.stream(plus_one.stream(plus_one.stream(range(100))))] == list(range(3, 103))
        async for y in plus_one.stream(plus_one.stream(endless())):
            if y == 50:
                break
        async with asyncio.timeout(20):  # kernels that run are on their way to the loop
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0)

    run_async(main())


def test_streams_side_by_side_share_the_threads(run_async: Runner) -> None:
    async def count(to: int) -> int:
        return sum([y async for y in plus_one.stream(range(to))])

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            sums = [group.create_task(count(300)) for _ in range(8)]
        assert {task.result() for task in sums} == {sum(range(1, 301))}

    run_async(main())


def test_a_pipeline_without_operators(run_async: Runner) -> None:
    @flow.pipeline
    def p(x: int) -> int:
        return x

    async def main() -> None:
        assert [y async for y in p.stream(range(100))] == list(range(100))
        assert [y async for y in p.stream([])] == []

    run_async(main())


def test_it_says_what_state_it_is_in(run_async: Runner) -> None:
    async def main() -> None:
        stream = plus_one.stream(range(5), in_flight=2)
        assert repr(stream) == "<stream of 'plus_one': not begun, 0 pulled, 0 in flight, 0 dropped>"
        async with stream as s:
            assert s is stream
            await anext(s)
            assert "entered" in repr(s)
        assert "ended" in repr(s)

    run_async(main())
