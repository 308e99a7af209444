"""Changing the number of inter-op threads while runs are under way: at once, and nothing is lost or repeated."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import dataflow as flow
from dataflow.engine.executors import THREAD_NAME
from dataflow.engine.pool import process_pool
from tests.engine.light import taken_for_light

Runner = Callable[[Any], Any]


class Gate:
    """Kernels that count themselves and wait until they are let go, one by one."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.allowed = 0
        self.inside = self.peak = self.started = 0

    def enter(self) -> None:
        with self.changed:
            self.inside += 1
            self.started += 1
            self.peak = max(self.peak, self.inside)
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.allowed > 0, 20)
            self.allowed -= 1
            self.inside -= 1
            self.changed.notify_all()

    def let_go(self, count: int) -> None:
        with self.changed:
            self.allowed += count
            self.changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def wide(gate: Gate) -> Any:
    @flow.op
    def kernel(i: int) -> int:
        gate.enter()
        return i

    @flow.pipeline
    def pipeline() -> Any:
        return [kernel(i) for i in range(12)]

    return pipeline


@pytest.mark.parametrize("more", [2, 4, 8])
def test_growing_acts_at_once_on_a_backlog(run_async: Runner, gate: Gate, wide: Any, more: int) -> None:
    """None of the kernels ends before all the new threads have one."""
    flow.set_num_interop_threads(1)

    async def main() -> None:
        running = asyncio.create_task(wide())
        await gate.until(lambda: gate.started == 1)
        flow.set_num_interop_threads(more)
        await gate.until(lambda: gate.started == more)
        gate.let_go(12)
        assert await running == list(range(12))

    run_async(main())
    assert (gate.peak, gate.started) == (more, 12)


def test_growing_from_within_a_kernel(run_async: Runner) -> None:
    """A kernel raises the limit and waits for another, which so gets a thread."""
    flow.set_num_interop_threads(1)
    barrier = threading.Barrier(3)

    @flow.op
    def meet(i: int) -> int:
        flow.set_num_interop_threads(3)
        barrier.wait(20)
        return i

    @flow.pipeline
    def pipeline() -> Any:
        return [meet(i) for i in range(3)]

    assert run_async(pipeline()) == [0, 1, 2]


def test_growing_frees_what_is_claimed_behind_a_kernel_that_waits_for_it(run_async: Runner) -> None:
    """One worker has both kernels, found to be light, in one batch; the first waits for the second."""
    flow.set_num_interop_threads(1)
    second_ran = threading.Event()
    inside = threading.Event()
    waits = False

    @flow.op
    def first(x: int) -> int:
        if waits:
            inside.set()
            assert second_ran.wait(20)
        return x

    @flow.op
    def second(x: int) -> int:
        if waits:
            second_ran.set()
        return x

    @flow.pipeline
    def both(x: Any) -> Any:
        return first(x), second(x)

    async def main() -> None:
        nonlocal waits
        await both(1)
        taken_for_light(both, 1)
        waits = True
        running = asyncio.create_task(both(1))
        await asyncio.to_thread(inside.wait, 20)
        flow.set_num_interop_threads(2)
        assert await running == (1, 1)

    run_async(main())


def test_growing_is_for_all_runs_that_wait(run_async: Runner, gate: Gate) -> None:
    flow.set_num_interop_threads(1)

    @flow.op
    def kernel(i: int) -> int:
        gate.enter()
        return i

    @flow.pipeline
    def lone(i: Any) -> Any:
        return kernel(i)

    async def main() -> None:
        runs = [asyncio.create_task(lone(i)) for i in range(6)]
        await gate.until(lambda: gate.started == 1)
        await gate.until(lambda: process_pool().queued == 5)
        flow.set_num_interop_threads(4)
        await gate.until(lambda: gate.started == 4)
        gate.let_go(6)
        assert await asyncio.gather(*runs) == list(range(6))

    run_async(main())
    assert gate.peak == 4


def test_after_shrinking_nothing_starts_until_fewer_than_that_run(run_async: Runner, gate: Gate, wide: Any) -> None:
    flow.set_num_interop_threads(4)
    pool = process_pool()

    async def main() -> None:
        running = asyncio.create_task(wide())
        await gate.until(lambda: gate.started == 4)
        flow.set_num_interop_threads(1)
        for left in (3, 2, 1):
            gate.let_go(1)
            await gate.until(lambda left=left: pool.busy == left)  # its worker came to the end, and took nothing
            assert gate.started == 4
        gate.peak = 0
        gate.let_go(9)
        assert await running == list(range(12))

    run_async(main())
    assert (gate.peak, gate.started) == (1, 12)


def test_after_shrinking_no_worker_goes_on_with_its_batch(run_async: Runner, gate: Gate) -> None:
    """Kernels found to be light, of which a worker has claimed many at once when the limit falls to one."""
    flow.set_num_interop_threads(2)
    pool = process_pool()
    gated = False

    @flow.op
    def kernel(i: int) -> int:
        if gated:
            gate.enter()
        return i

    @flow.pipeline
    def pipeline(i: Any) -> Any:
        return [kernel(i) for _ in range(100)]

    async def main() -> None:
        nonlocal gated
        await pipeline(1)
        taken_for_light(pipeline, 1)
        gated = True
        running = asyncio.create_task(pipeline(1))
        await gate.until(lambda: gate.started == 2)
        flow.set_num_interop_threads(1)
        gate.let_go(1)
        await gate.until(lambda: pool.busy == 1)
        assert gate.started == 2
        gate.peak = 0
        gate.let_go(99)
        assert await running == [1] * 100

    run_async(main())
    assert (gate.peak, gate.started) == (1, 100)


def test_back_and_forth_while_one_kernel_runs(run_async: Runner, gate: Gate, wide: Any) -> None:
    """Threads of retired executors end; the kernel on one of them is counted all the time."""
    flow.set_num_interop_threads(1)

    async def main() -> None:
        running = asyncio.create_task(wide())
        await gate.until(lambda: gate.started == 1)
        for _ in range(50):
            flow.set_num_interop_threads(3)
            flow.set_num_interop_threads(1)
        flow.set_num_interop_threads(3)
        await gate.until(lambda: gate.inside == 3)
        gate.let_go(12)
        assert await running == list(range(12))

    run_async(main())
    assert gate.peak == 3


def test_a_thousand_random_resizes_lose_and_repeat_nothing(run_async: Runner) -> None:
    started: Counter[int] = Counter()
    lock = threading.Lock()

    @flow.op
    def kernel(i: int, *_: int) -> int:
        with lock:
            started[i] += 1
        return i

    @flow.op
    async def on_loop(i: int, *_: int) -> int:
        await asyncio.sleep(0)
        with lock:
            started[i] += 1
        return i

    @flow.pipeline
    def pipeline() -> Any:
        #   a stencil of 20 by 100, of which every seventeenth node is on the loop
        row: list[Any] = []
        for level in range(100):
            above = row
            row = []
            for column in range(20):
                number = level * 20 + column
                op = on_loop if number % 17 == 3 else kernel
                row.append(op(number, *above[max(0, column - 1) : column + 2]))
        return row

    def resize(seed: int) -> None:
        rng = random.Random(seed)
        for turn in range(125):
            while started.copy().total() < 16 * turn:  # all along the first run
                time.sleep(0)
            flow.set_num_interop_threads(rng.randint(1, 8))

    runs = 0

    async def main() -> None:
        nonlocal runs
        threads = [threading.Thread(target=resize, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        while runs < 3 or any(thread.is_alive() for thread in threads):
            assert await pipeline() == list(range(1_980, 2_000))
            runs += 1
        for thread in threads:
            thread.join()

    run_async(main())
    assert set(started) == set(range(2_000))
    assert set(started.values()) == {runs}
    assert process_pool().limit == flow.get_num_interop_threads()


def test_threads_of_retired_executors_end(run_async: Runner) -> None:
    @flow.op
    def kernel(i: int) -> int:
        return i

    @flow.pipeline
    def pipeline() -> Any:
        return [kernel(i) for i in range(20)]

    async def main() -> None:
        for n in [1, 5, 2, 7, 3] * 4:
            flow.set_num_interop_threads(n)
            await pipeline()
        while sum(thread.name.startswith(THREAD_NAME) for thread in threading.enumerate()) > 3:
            await asyncio.sleep(0)

    run_async(main())
