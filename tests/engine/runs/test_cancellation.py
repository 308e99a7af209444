"""Cancelling at any moment: the run ends at once, nothing starts afterwards, and the next run works."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.engine.runs.run import here
from dataflow.events import LateFailure

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
    (("top", "left"), ("left", "right")),  # what is open is reached, too: else it may be about to begin
    (("top", "right"), ("left", "right")),
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


# Every moment of every diamond: which operators are kernels, which have ended, which are at their gates.

NAMES = ("top", "left", "right", "bottom")
BEFORE = {"top": (), "left": ("top",), "right": ("top",), "bottom": ("left", "right")}
MOMENTS = [
    ended
    for size in range(5)
    for ended in product(NAMES, repeat=size)
    if list(ended) == sorted(set(ended), key=NAMES.index) and all(set(BEFORE[name]) <= set(ended) for name in ended)
]


class AnyDiamond:
    """A diamond of kernels (k) and async ops (a), each at a gate of its own; to be made on a running loop."""

    def __init__(self, kinds: str) -> None:
        self.kinds = dict(zip(NAMES, kinds))
        self.started: list[str] = []
        self.ended: list[str] = []
        self.gates: dict[str, Any] = {}
        loop = asyncio.get_running_loop()
        self.news = asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is gone
                loop.call_soon_threadsafe(self.news.set)

        def make(name: str) -> Any:
            if self.kinds[name] == "k":
                gate = self.gates[name] = threading.Event()

                def kernel(*values: int) -> int:
                    self.started.append(name)
                    tell()
                    assert gate.wait(20)
                    self.ended.append(name)
                    tell()
                    return sum(values) + 1

                return flow.op(name=name)(kernel)

            opened = self.gates[name] = asyncio.Event()

            async def on_loop(*values: int) -> int:
                self.started.append(name)
                tell()
                try:
                    await opened.wait()
                finally:
                    self.ended.append(name)
                    tell()
                return sum(values) + 1

            return flow.op(name=name)(on_loop)

        top, left, right, bottom = map(make, NAMES)

        @flow.pipeline
        def diamond(x: int) -> int:
            first = top(x)
            return bottom(left(first), right(first))

        self.pipeline = diamond

    def picture(self, threads: int) -> tuple[set[str], set[str]]:
        """Who (has started, has ended) once everything that can has, with the gates as they are."""
        started: set[str] = set()
        ended: set[str] = set()
        before = None
        while before != (before := (len(started), len(ended))):
            for name in NAMES:
                if name not in started and set(BEFORE[name]) <= ended:
                    busy = sum(self.kinds[other] == "k" for other in started - ended)
                    if self.kinds[name] == "a" or busy < threads:
                        started.add(name)
            ended |= {name for name in started if self.gates[name].is_set()}
        return started, ended

    async def settle(self, threads: int) -> None:
        """Wait until everything that can happen has happened."""
        want = self.picture(threads)
        while True:
            self.news.clear()
            if (set(self.started), set(self.ended)) == want:
                return
            await self.news.wait()

    async def reset(self) -> None:
        """Open all gates, and wait until nothing runs."""
        for gate in self.gates.values():
            gate.set()
        await flow.quiet()


async def cancel_at(diamond: AnyDiamond, ended: tuple[str, ...], threads: int) -> None:
    task = asyncio.create_task(diamond.pipeline(1))
    for name in ended:
        diamond.gates[name].set()
        await diamond.settle(threads)
    await diamond.settle(threads)
    started = list(diamond.started)
    in_kernels = {name for name in started if diamond.kinds[name] == "k" and name not in diamond.ended}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(started) - set(diamond.ended) == in_kernels, "async ops have ended, kernels have not"
    if in_kernels:  # else a kernel may have ended whose worker has still to report it
        assert flow.parallel_info()["interop_threads"]["overrunning"] == 1
    await diamond.reset()
    assert diamond.started == started, "nothing starts afterwards"
    assert set(diamond.ended) == set(started)
    assert len(asyncio.all_tasks()) == 1
    assert await diamond.pipeline(1) == 7


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("ended", MOMENTS[:-1])
def test_cancelling_any_diamond_at_any_moment(run_async: Runner, ended: tuple[str, ...], threads: int) -> None:
    flow.set_num_interop_threads(threads)

    async def main() -> None:
        for kinds in product("ka", repeat=4):
            await cancel_at(AnyDiamond("".join(kinds)), ended, threads)

    run_async(main())


@pytest.mark.parametrize("threads", [1, 2])
def test_cancelling_diamonds_at_random(run_async: Runner, threads: int) -> None:
    flow.set_num_interop_threads(threads)
    chance = random.Random(threads)

    async def main() -> None:
        for _ in range(200):
            diamond = AnyDiamond("".join(chance.choice("ka") for _ in NAMES))
            task = asyncio.create_task(diamond.pipeline(1))
            moves = [*chance.sample(NAMES, 4), "cancel"]
            chance.shuffle(moves)
            for move in moves:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                if move == "cancel":
                    task.cancel()
                    break
                diamond.gates[move].set()
            try:
                assert await task == 7
            except asyncio.CancelledError:
                pass
            # A kernel that had been started may come to its first line only now; what it would enable must not start.
            known = set(diamond.started)
            await diamond.reset()
            for name in set(diamond.started) - known:
                assert diamond.kinds[name] == "k"
                assert set(BEFORE[name]) <= known
            assert sorted(set(diamond.started)) == sorted(diamond.started)
            assert set(diamond.ended) == set(diamond.started)
            assert len(asyncio.all_tasks()) == 1
            assert await diamond.pipeline(1) == 7

    run_async(main())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_kernel_that_has_its_own_run_cancelled(run_async: Runner, threads: int) -> None:
    flow.set_num_interop_threads(threads)
    ran: list[int] = []
    cancel_in = -1
    task: asyncio.Task[Any] | None = None
    cancelled = threading.Event()

    @flow.op
    def kernel(n: int, x: int) -> int:
        ran.append(n)
        if n == cancel_in:

            def cancel() -> None:
                assert task is not None
                task.cancel()
                cancelled.set()

            task.get_loop().call_soon_threadsafe(cancel)  # type: ignore[union-attr]
            assert cancelled.wait(20)
            with pytest.raises(asyncio.CancelledError):
                while True:
                    flow.checkpoint()
        return x + 1

    @flow.pipeline
    def chain(x: int) -> int:
        for n in range(8):
            x = kernel(n, x)
        return x

    async def main() -> None:
        nonlocal cancel_in, task
        for rounds in range(24):
            cancel_in = rounds % 8
            ran.clear()
            cancelled.clear()
            task = asyncio.create_task(chain(0))
            with pytest.raises(asyncio.CancelledError):
                await task
            await flow.quiet()
            assert ran == list(range(cancel_in + 1))
            cancel_in = -1
            assert await chain(0) == 8

    run_async(main())


def test_before_the_first_step_nothing_has_happened(run_async: Runner) -> None:
    ran: list[int] = []

    @flow.op
    def kernel(x: int) -> int:
        ran.append(x)
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return kernel(x)

    async def main() -> None:
        for _ in range(100):
            task = asyncio.create_task(p(1))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await flow.quiet()
        assert ran == []
        assert await p(1) == 1

    run_async(main())


# What async ops may do when they are cancelled.


class Lingering:
    """An async op that does as told when it is cancelled, after a gate."""

    def __init__(self, *, end: Callable[[], Any], beside: Any = None) -> None:
        self.inside, self.asked, self.leave = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.after: list[int] = []

        @flow.op
        async def lingers(x: int) -> int:
            self.inside.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.asked.set()
                await self.leave.wait()
                return end()  # type: ignore[no-any-return]
            return x

        @flow.op
        def later(x: int) -> int:
            self.after.append(x)
            return x

        @flow.op
        async def fails(x: int) -> int:
            await self.inside.wait()
            raise ValueError("beside it")

        @flow.pipeline
        def p(x: int) -> Any:
            return later(lingers(x))

        @flow.pipeline
        def failing(x: int) -> Any:
            return later(lingers(x)), fails(x)

        self.pipeline, self.failing = p, failing


def give_up() -> None:
    raise asyncio.CancelledError


def give_trouble() -> None:
    raise OSError("on the way out")


@pytest.mark.parametrize("end", [give_up, give_trouble, lambda: 5])
@pytest.mark.parametrize("failing", [False, True])
def test_the_awaiter_waits_for_an_async_op_that_takes_its_time(
    run_async: Runner, caplog: pytest.LogCaptureFixture, end: Callable[[], Any], failing: bool
) -> None:
    late: list[Any] = []

    async def main() -> None:
        run = Lingering(end=end)
        task = asyncio.create_task((run.failing if failing else run.pipeline)(1))
        await run.inside.wait()
        if not failing:
            task.cancel()
        await run.asked.wait()
        for _ in range(20):
            await asyncio.sleep(0)
            assert not task.done()
        run.leave.set()
        with pytest.raises(ValueError if failing else asyncio.CancelledError) as info:
            await task
        notes = [note for note in getattr(info.value, "__notes__", []) if "also failed" in note]
        if failing:
            assert len(notes) == (end is give_trouble)
        assert run.after == []
        assert len(asyncio.all_tasks()) == 1

    unsubscribe = flow.observe(lambda event: late.append(event) if isinstance(event, LateFailure) else None)
    with caplog.at_level(logging.ERROR, logger="dataflow"):
        run_async(main())
    unsubscribe()
    expected = int(end is give_trouble and not failing)
    assert len(late) == len(caplog.records) == expected


def test_cancelled_once_however_often_the_awaiter_is(run_async: Runner) -> None:
    asked: list[int] = []

    @flow.op
    async def counts(x: int) -> int:
        while len(asked) < 2:
            try:
                await asyncio.sleep(0 if asked else 3600)
            except asyncio.CancelledError:
                asked.append(1)
                for _ in range(30):
                    await asyncio.sleep(0)
                raise
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return counts(x)

    async def main() -> None:
        task = asyncio.create_task(p(1))
        for _ in range(5):
            await asyncio.sleep(0)
        for _ in range(10):
            task.cancel()
            await asyncio.sleep(0)
            assert not task.done()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asked == [1]

    run_async(main())


def test_timeouts_within_timeouts(run_async: Runner) -> None:
    """Both expire: the outer while the run, whose timeout was the inner, waits for its async op."""

    async def main() -> None:
        run = Lingering(end=give_up)
        reached: list[str] = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as outer:
                loop = asyncio.get_running_loop()

                async def expire_outer() -> None:
                    await run.asked.wait()
                    outer.reschedule(loop.time())
                    await asyncio.sleep(0.001)
                    run.leave.set()

                helper = asyncio.create_task(expire_outer())
                try:
                    async with asyncio.timeout(0):
                        await run.pipeline(1)
                except TimeoutError:
                    reached.append("inner")
                reached.append("after")
        await helper
        assert reached == [], "the outer timeout is not taken for the inner one"
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    run_async(main())


def test_a_run_in_a_task_group_leaves_with_the_group(run_async: Runner) -> None:
    async def main() -> None:
        run = Lingering(end=give_up)
        run.leave.set()

        async def fails() -> None:
            await run.inside.wait()
            raise ValueError("the group's other task")

        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(run.pipeline(1))
                group.create_task(fails())
        except* ValueError as group_error:
            assert len(group_error.exceptions) == 1
        assert task.cancelled()
        assert len(asyncio.all_tasks()) == 1

    run_async(main())


def test_shield_lets_a_run_go_on(run_async: Runner) -> None:
    async def main() -> None:
        diamond = AnyDiamond("kaka")
        run = asyncio.ensure_future(diamond.pipeline(1))
        task = asyncio.create_task(asyncio.wait_for(asyncio.shield(run), None))
        await diamond.settle(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await diamond.reset()
        assert await run == 7

    run_async(main())


# Kernels that nobody waits for any more.


def test_an_abandoned_kernel_keeps_its_slot_until_it_returns(run_async: Runner) -> None:
    flow.set_num_interop_threads(1)

    async def main() -> None:
        first, second = AnyDiamond("kkkk"), AnyDiamond("kkkk")
        task = asyncio.create_task(first.pipeline(1))
        await first.settle(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for gate in second.gates.values():
            gate.set()
        task = asyncio.create_task(second.pipeline(1))
        while flow.parallel_info()["interop_threads"]["queued"] != 1:
            await asyncio.sleep(0)
        info = flow.parallel_info()["interop_threads"]
        assert (info["busy"], info["overrunning"]) == (1, 1)
        assert second.started == []
        first.gates["top"].set()
        assert await task == 7

    run_async(main())


def test_what_checkpoint_raises_is_no_late_failure(run_async: Runner, caplog: pytest.LogCaptureFixture) -> None:
    """Nor is a CancelledError that the kernel makes something of its own of."""
    ended: list[str] = []

    @flow.op
    def asks(x: int) -> int:
        inside.release()
        try:
            while True:
                flow.checkpoint()
                over.wait(0.0001)
        except asyncio.CancelledError:
            ended.append("asked")
            raise

    @flow.op
    async def fails(x: int) -> int:
        await asyncio.to_thread(inside.acquire)
        raise ValueError("stops the run")

    @flow.pipeline
    def p(x: int) -> Any:
        return asks(x), fails(x)

    inside, over = threading.Semaphore(0), threading.Event()

    async def main() -> None:
        for _ in range(5):
            with pytest.raises(ValueError, match="stops the run"):
                await p(1)
            await flow.quiet()
        assert ended == ["asked"] * 5

    with caplog.at_level(logging.ERROR, logger="dataflow"):
        run_async(main())
    assert not caplog.records


def test_checkpoint_does_nothing_where_there_is_no_run_to_ask_about(run_async: Runner) -> None:
    @flow.op
    async def on_loop(x: int) -> int:
        flow.checkpoint()
        await asyncio.to_thread(flow.checkpoint)
        return x

    @flow.op
    def in_kernel(x: int) -> int:
        flow.checkpoint()
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return in_kernel(on_loop(in_kernel(x)))

    flow.checkpoint()
    assert run_async(p(1)) == 1
    assert p.debug(1) == 1
    assert in_kernel(1) == 1
    flow.checkpoint()


def test_quiet_is_for_any_number_of_waiters_on_any_loop(run_async: Runner) -> None:
    async def main() -> None:
        await flow.quiet()
        diamond = AnyDiamond("kaaa")
        task = asyncio.create_task(diamond.pipeline(1))
        await diamond.settle(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        waiters = [asyncio.create_task(flow.quiet()) for _ in range(3)]
        elsewhere = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(flow.quiet())))
        impatient = asyncio.create_task(flow.quiet())
        for _ in range(20):
            await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        assert not any(waiter.done() for waiter in (*waiters, elsewhere))
        diamond.gates["top"].set()
        await asyncio.gather(*waiters, elsewhere)

    run_async(main())


# Coroutines that are not awaited to their end, and loops that are gone.


class Counted(np.ndarray[Any, Any]):
    """An array that can be watched."""


def test_a_coroutine_that_is_never_awaited_leaves_nothing(run_async: Runner) -> None:
    ran: list[int] = []

    @flow.op
    def kernel(x: Any) -> Any:
        ran.append(1)
        return x

    @flow.pipeline
    def p(x: Any) -> Any:
        return kernel(x)

    async def main() -> None:
        array = np.zeros(3).view(Counted)
        alive = weakref.ref(array)
        coroutine = p(array)
        del array
        assert alive() is not None
        coroutine.close()  # as said by hand: no warning
        del coroutine
        assert alive() is None

        array = np.zeros(3).view(Counted)
        alive = weakref.ref(array)
        with warnings.catch_warnings(action="ignore"):  # a recorded warning would keep the coroutine
            p(array)
        del array
        assert alive() is None
        with pytest.warns(RuntimeWarning, match="never awaited") as warned:
            p(1)
        assert len(warned) == 1

    gc.collect()
    gc.disable()
    try:
        run_async(main())
    finally:
        gc.enable()
    assert ran == []


@pytest.mark.parametrize("kinds", ["kkkk", "akka", "kaak", "aaaa"])
def test_closing_a_coroutine_at_any_moment_stops_its_run(run_async: Runner, kinds: str) -> None:
    async def main() -> None:
        for ended in MOMENTS[:-1]:
            diamond = AnyDiamond(kinds)
            coroutine = diamond.pipeline(1)
            coroutine.send(None)
            for name in ended:
                diamond.gates[name].set()
            await diamond.settle(2)
            started = list(diamond.started)
            coroutine.close()
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0)
            await diamond.reset()
            assert diamond.started == started
            assert set(diamond.ended) == set(started)
            assert await diamond.pipeline(1) == 7

    flow.set_num_interop_threads(2)
    run_async(main())


@pytest.mark.parametrize("op_first", [False, True])
def test_all_tasks_of_a_loop_are_cancelled_in_whatever_order(
    run_async: Runner, caplog: pytest.LogCaptureFixture, op_first: bool
) -> None:
    """As a loop that shuts down does: the task of an async operator may be the first to end."""

    @flow.op
    async def lingers(x: int) -> int:
        await asyncio.Event().wait()
        return x

    p = flow.pipeline(lambda x: lingers(x), name="p")

    async def main() -> None:
        before = asyncio.all_tasks()
        run = asyncio.create_task(p(1))
        while len(new := asyncio.all_tasks() - before) < 2:
            await asyncio.sleep(0)
        for task in sorted(new, key=lambda task: (task is run) == op_first):
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert asyncio.all_tasks() == before
        async with p.stream([1]):  # whose end comes some turns later
            while not (operators := [task for task in asyncio.all_tasks() if "p.lingers" in task.get_name()]):
                await asyncio.sleep(0)
            operators[0].cancel()
            while not operators[0].done():
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        alone = asyncio.create_task(p(1))
        while len(new := asyncio.all_tasks() - before) < 2:
            await asyncio.sleep(0)
        (new - {alone}).pop().cancel()  # its awaiter is not: it is told
        with pytest.raises(flow.OperatorError, match="'lingers' raised CancelledError"):
            await alone

    with caplog.at_level(logging.WARNING):
        run_async(main())
    assert caplog.records == []


def test_a_loop_that_is_torn_down_with_a_run_on_it(caplog: pytest.LogCaptureFixture) -> None:
    """No runner, no cancellation: just closed. Kernels that run finish, and the pool goes on."""
    flow.set_num_interop_threads(1)
    gate, inside, ran = threading.Event(), threading.Event(), []

    @flow.op
    def kernel(n: int) -> int:
        ran.append(n)
        inside.set()
        assert gate.wait(20)
        return n

    @flow.op
    async def on_loop(n: int) -> int:
        ran.append(n)
        return n

    @flow.pipeline
    def p(x: int) -> Any:
        return on_loop(kernel(x))

    loop = asyncio.new_event_loop()
    coroutine = p(0)
    loop.call_soon(coroutine.send, None)
    loop.run_until_complete(loop.run_in_executor(None, inside.wait))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    gate.set()
    while flow.parallel_info()["interop_threads"]["busy"]:
        threading.Event().wait(0.0001)
    assert ran == [0]
    with suppress(RuntimeError):  # its loop is closed
        coroutine.close()
    asyncio.run(flow.quiet())
    assert p.run(5) == 5


def test_no_kernel_sees_its_arguments_emptied(run_async: Runner, caplog: pytest.LogCaptureFixture) -> None:
    """A stop lets go of all values but those of the kernels that have started, and of the parts they are read by."""

    @flow.op
    def pair(x: int) -> tuple[int, int]:
        return x, x + 1

    @flow.op
    def add(x: int, y: int) -> int:
        return x + y

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        for _ in range(40):
            left, right = pair(x)[0], pair(x)[1]
            x = add(left, right)
        return x

    async def main() -> None:
        rng = random.Random(1)
        for _ in range(300):
            task = asyncio.create_task(pipeline(1))
            for _ in range(rng.randrange(6)):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await flow.quiet()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with caplog.at_level(logging.ERROR, "dataflow"):
            run_async(main())
    finally:
        sys.setswitchinterval(before)
    assert not caplog.records


def test_a_run_that_outlives_its_loop_is_not_waited_for_ever(run_async: Runner) -> None:
    """Its awaiter was never told, and its loop is closed when its kernel returns."""
    inside, go_on = threading.Event(), threading.Event()

    @flow.op
    def stay() -> None:
        inside.set()
        assert go_on.wait(20)

    pipeline = flow.pipeline(lambda: stay())
    loop = asyncio.new_event_loop()
    task = loop.create_task(pipeline())
    while not inside.is_set():
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()  # with the task on it, which is dropped
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        del task
        gc.collect()
    go_on.set()
    run_async(flow.quiet())
    assert flow.parallel_info()["interop_threads"]["overrunning"] == 0
    assert run_async(flow.pipeline(lambda x: x + 1)(1)) == 2


def test_a_coroutine_that_the_collector_closes_in_the_thread_that_has_the_runs_lock(run_async: Runner) -> None:
    """Collection may begin in the middle of anything; a coroutine that is driven by hand is nobody's but ours."""
    flow.set_num_interop_threads(1)
    begun, go_on = threading.Event(), threading.Event()
    runs: list[Any] = []
    started: list[int] = []

    @flow.op
    def first() -> int:
        runs.append(here.run)
        begun.set()
        assert go_on.wait(20)
        return 1

    @flow.op
    def second(x: int) -> int:
        started.append(x)
        return x

    p = flow.pipeline(lambda: second(first()))

    async def main() -> None:
        before = flow.parallel_info()["runs"]["in_progress"]
        coroutine = p()
        coroutine.send(None)
        assert await asyncio.to_thread(begun.wait, 20)
        run = runs.pop()
        with run.lock:
            coroutine.close()  # must not wait for itself
            assert not run.core.stopped
        while not run.core.stopped:
            await asyncio.sleep(0)
        del run
        go_on.set()
        await flow.quiet()
        assert started == []
        assert flow.parallel_info()["runs"]["in_progress"] == before

    run_async(main())
