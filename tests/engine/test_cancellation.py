"""Cancelling at any moment: the run ends at once, nothing starts afterwards, and the next run works."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import dataflow as flow

Runner = Callable[[Any], Any]


class Diamond:
    """A diamond whose operators stop at gates: `step(name)` lets one go on."""

    #            ┌─▶ left  (kernel) ─┐
    #   top ─────┤                   ├─▶ bottom
    #  (async)   └─▶ right (async) ──┘

    def __init__(self) -> None:
        self.open = {name: threading.Event() for name in ("top", "left", "right", "bottom")}
        self.started: list[str] = []
        self.changed = threading.Condition()

        def arrive(name: str) -> None:
            with self.changed:
                self.started.append(name)
                self.changed.notify_all()

        @flow.op
        async def top(x: int) -> int:
            arrive("top")
            while not self.open["top"].is_set():
                await asyncio.sleep(0)
            return x + 1

        @flow.op
        def left(x: int) -> int:
            arrive("left")
            assert self.open["left"].wait(20)
            return x * 2

        @flow.op
        async def right(x: int) -> int:
            arrive("right")
            while not self.open["right"].is_set():
                await asyncio.sleep(0)
            return x * 3

        @flow.op
        def bottom(x: int, y: int) -> int:
            arrive("bottom")
            assert self.open["bottom"].wait(20)
            return x + y

        @flow.pipeline
        def diamond(x: int) -> int:
            first = top(x)
            return bottom(left(first), right(first))

        self.run = diamond

    async def reached(self, *names: str) -> None:
        while not set(names) <= set(self.started):
            await asyncio.sleep(0)

    def go(self, *names: str) -> None:
        for name in names:
            self.open[name].set()


STAGES = [
    ((), ()),
    ((), ("top",)),
    (("top",), ("left", "right")),
    (("top", "left"), ("right",)),
    (("top", "right"), ("left",)),
    (("top", "left", "right"), ("bottom",)),
    (("top", "left", "right", "bottom"), ("bottom",)),
]


@pytest.mark.parametrize(("opened", "reached"), STAGES)
@pytest.mark.parametrize("threads", [1, 2])
def test_cancelling_a_diamond_at_every_stage(
    run_async: Runner, opened: tuple[str, ...], reached: tuple[str, ...], threads: int
) -> None:
    flow.set_num_interop_threads(threads)

    async def main() -> None:
        diamond = Diamond()
        task = asyncio.create_task(diamond.run(1))
        diamond.go(*opened)
        await diamond.reached(*reached)
        task.cancel()
        try:
            assert await task == 10
        except asyncio.CancelledError:
            before = list(diamond.started)
            diamond.go("top", "left", "right", "bottom")
            await flow.quiet()
            assert diamond.started == before, "no operator starts after the cancellation"
        assert len(asyncio.all_tasks()) == 1
        diamond.go("top", "left", "right", "bottom")
        assert await diamond.run(1) == 10

    run_async(main())


def test_cancelling_after_any_number_of_loop_turns(run_async: Runner) -> None:
    @flow.op
    async def wait(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    @flow.op
    def add(x: int, y: int) -> int:
        ran.append((x, y))
        return x + y

    @flow.pipeline
    def diamond(x: int) -> int:
        first = wait(x)
        return add(add(first, 1), wait(first))

    async def main() -> None:
        for turns in range(40):
            for _ in range(10):
                task = asyncio.create_task(diamond(1))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    assert await task == 6
                except asyncio.CancelledError:
                    pass
                await flow.quiet()
                before = len(ran)
                await asyncio.sleep(0)
                assert len(ran) == before
        assert await diamond(1) == 6

    ran: list[Any] = []
    run_async(main())


def test_cancelling_drops_what_waits_for_a_thread(run_async: Runner) -> None:
    flow.set_num_interop_threads(2)
    gate, inside, ran = threading.Event(), threading.Semaphore(0), []

    @flow.op
    def kernel(n: int) -> int:
        ran.append(n)
        inside.release()
        assert gate.wait(20)
        return n

    @flow.pipeline
    def wide() -> Any:
        return [kernel(n) for n in range(100)]

    async def main() -> None:
        task = asyncio.create_task(wide())
        for _ in range(2):
            await asyncio.to_thread(inside.acquire)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task  # both kernels are still running
        assert len(ran) == 2
        gate.set()
        await flow.quiet()
        assert len(ran) == 2
        assert await wide() == list(range(100))

    run_async(main())


def test_checkpoint_raises_in_a_kernel_whose_run_is_over_and_nowhere_else(run_async: Runner) -> None:
    flow.checkpoint()
    inside, ended = threading.Event(), []

    @flow.op
    def long(x: int) -> int:
        inside.set()
        try:
            while True:
                flow.checkpoint()
                threading.Event().wait(0.0001)
        except asyncio.CancelledError:
            ended.append("saw it")
            raise

    @flow.op
    def short(x: int) -> int:
        flow.checkpoint()
        return x

    @flow.pipeline
    def p() -> Any:
        return long(short(1))

    async def main() -> None:
        task = asyncio.create_task(p())
        await asyncio.to_thread(inside.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await flow.quiet()
        assert ended == ["saw it"]

    run_async(main())


def test_a_second_cancellation_does_not_leave_async_ops_behind(run_async: Runner) -> None:
    steps: list[str] = []

    @flow.op
    async def stubborn(x: int) -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            steps.append("asked")
            for _ in range(20):
                await asyncio.sleep(0)
            steps.append("left")
            raise
        return x

    @flow.pipeline
    def p() -> Any:
        return stubborn(1)

    async def main() -> None:
        task = asyncio.create_task(p())
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert steps == ["asked", "left"]

    run_async(main())


def test_the_usual_ways_of_asyncio(run_async: Runner) -> None:
    forever = threading.Event()

    @flow.op
    async def wait(x: int) -> int:
        await asyncio.Event().wait()
        return x

    @flow.op
    def quick(x: int) -> int:
        return x

    @flow.pipeline
    def hangs(x: int) -> int:
        return quick(wait(x))

    @flow.pipeline
    def works(x: int) -> int:
        return quick(x) + 1

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await hangs(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hangs(1), 0.01)
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(hangs(1))
                group.create_task(works("x"))  # type: ignore[arg-type]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(works(n)) for n in range(5)]
        assert [task.result() for task in tasks] == [1, 2, 3, 4, 5]
        assert await asyncio.gather(*[works(n) for n in range(5)]) == [1, 2, 3, 4, 5]
        never_started = asyncio.create_task(hangs(1))
        never_started.cancel()
        with pytest.raises(asyncio.CancelledError):
            await never_started
        assert len(asyncio.all_tasks()) == 1

    run_async(main())
    forever.set()


def test_a_coroutine_that_is_closed_stops_its_run(run_async: Runner) -> None:
    left: list[str] = []

    @flow.op
    async def wait(x: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            left.append("left")
        return x

    @flow.pipeline
    def p() -> Any:
        return wait(1)

    async def main() -> None:
        coroutine = p()
        coroutine.send(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        coroutine.close()
        for _ in range(5):
            await asyncio.sleep(0)
        assert left == ["left"]

    run_async(main())


def test_a_loop_that_closes_under_a_kernel(run_async: Runner, caplog: pytest.LogCaptureFixture) -> None:
    gate, inside = threading.Event(), threading.Event()

    @flow.op
    def kernel(x: int) -> int:
        inside.set()
        assert gate.wait(20)
        return x

    @flow.pipeline
    def p() -> Any:
        return kernel(1)

    async def leave() -> None:
        task = asyncio.create_task(p())
        await asyncio.to_thread(inside.wait)
        del task  # the runner cancels it when the loop closes

    run_async(leave())
    gate.set()
    run_async(flow.quiet())
    gate.set()
    assert run_async(p()) == 1
    assert not caplog.records
