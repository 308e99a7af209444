"""Pipelines run inside kernels and awaited inside async ops."""

from __future__ import annotations

import asyncio
import contextvars
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import dataflow as flow
from dataflow.engine import pool as engine
from dataflow.engine.pool import process_pool
from tests.engine.light import taken_for_light

Runner = Callable[[Any], Any]


@flow.op
def add(x: int, y: int) -> int:
    return x + y


@flow.op
async def add_on_loop(x: int, y: int) -> int:
    await asyncio.sleep(0)
    assert threading.current_thread() is threading.main_thread()
    return x + y


@flow.pipeline
def inner(x: int) -> int:
    return add(add_on_loop(add(x, 1), 1), add(x, 2))


@flow.op
def calls_inner(x: int) -> int:
    return inner.run(x)


@flow.pipeline
def middle(x: int) -> int:
    return add(calls_inner(x), calls_inner(x))


@flow.op
def calls_middle(x: int) -> int:
    return middle.run(x)


@flow.pipeline
def outer(x: int) -> Any:
    return [calls_middle(x) for _ in range(6)]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_three_deep_with_async_ops_at_any_number_of_threads(run_async: Runner, threads: int) -> None:
    flow.set_num_interop_threads(threads)
    want = [2 * ((1 + 1 + 1) + (1 + 2))] * 6

    async def main() -> None:
        for _ in range(20):
            assert await outer(1) == want

    run_async(main())
    assert outer.run(1) == want


def test_awaited_in_an_async_op(run_async: Runner) -> None:
    @flow.op
    async def awaits(x: int) -> int:
        return await inner(x) + await inner(x)

    @flow.pipeline
    def p(x: int) -> int:
        return add(awaits(x), 1)

    flow.set_num_interop_threads(1)
    assert run_async(p(1)) == 13


def test_a_pipeline_called_in_a_body_is_part_of_it(run_async: Runner) -> None:
    @flow.pipeline
    def p(x: int) -> int:
        return inner(x) + inner(x)

    assert len(p.graph()) == 9
    assert run_async(p(1)) == 12


def test_inner_failures_arrive_in_the_kernel_and_keep_their_note(run_async: Runner) -> None:
    @flow.op
    def bad(x: int) -> int:
        raise ValueError("inside")

    @flow.pipeline
    def fails(x: int) -> int:
        return add(bad(x), 1)

    @flow.op
    def survives(x: int) -> str:
        with pytest.raises(ValueError, match="inside") as info:
            fails.run(x)
        return info.value.__notes__[0]  # type: ignore[no-any-return]

    @flow.op
    def passes_on(x: int) -> int:
        return fails.run(x)

    @flow.pipeline
    def p(x: int) -> Any:
        return survives(x)

    @flow.pipeline
    def q(x: int) -> Any:
        return passes_on(x)

    assert "operator 'bad'" in run_async(p(1))
    with pytest.raises(ValueError, match="inside") as info:
        run_async(q(1))
    assert len(info.value.__notes__) == 1
    assert "operator 'bad'" in info.value.__notes__[0]


def test_cancelling_the_outer_run_ends_the_inner_one(run_async: Runner) -> None:
    flow.set_num_interop_threads(1)
    gate, inside, ran, seen = threading.Event(), threading.Event(), [], []

    @flow.op
    def gated(n: int) -> int:
        ran.append(n)
        inside.set()
        assert gate.wait(20)
        return n

    @flow.pipeline
    def many() -> Any:
        return [gated(n) for n in range(10)]

    @flow.op
    def waits(x: int) -> Any:
        try:
            return many.run()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    @flow.pipeline
    def p() -> Any:
        return waits(1)

    async def main() -> None:
        task = asyncio.create_task(p())
        await asyncio.to_thread(inside.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        await flow.quiet()
        assert ran == [0]
        assert seen == ["cancelled"]
        assert await many() == list(range(10))

    run_async(main())


def test_kernels_of_an_inner_run_meet(run_async: Runner) -> None:
    flow.set_num_interop_threads(2)
    barrier: list[threading.Barrier | None] = [None]

    @flow.op
    def meet(x: int) -> int:
        if barrier[0] is not None:
            barrier[0].wait(20)
        return x

    @flow.pipeline
    def pair(x: int) -> Any:
        return meet(x), meet(x)

    @flow.op
    def nested(x: int) -> Any:
        return pair.run(x)

    @flow.pipeline
    def p(x: int) -> Any:
        return nested(x)

    async def main() -> None:
        assert await p(1) == (1, 1)
        for _ in range(10):
            taken_for_light(pair, 1)
            barrier[0] = threading.Barrier(2)
            assert await p(1) == (1, 1)

    run_async(main())


def test_run_on_a_thread_with_a_running_loop_is_refused(run_async: Runner) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"use `await inner\(\.\.\.\)`"):
            inner.run(1)
        assert await asyncio.to_thread(middle.graph)

    run_async(main())


def test_awaiting_on_a_loop_of_the_kernels_own_is_refused(run_async: Runner) -> None:
    @flow.op
    def kernel(x: int) -> int:
        async def main() -> int:
            return await inner(x)

        return asyncio.run(main())

    @flow.pipeline
    def p(x: int) -> int:
        return kernel(x)

    with pytest.raises(RuntimeError, match=r"call its \.run\(\.\.\.\) there"):
        run_async(p(1))


# Stops go down into what kernels wait for.


class Waiting:
    """An outer run whose kernel waits, three deep, for an inner run: of a kernel, or of an async op, at a gate."""

    def __init__(self, kind: str) -> None:
        self.gate, self.inside, self.over = threading.Event(), threading.Event(), threading.Event()
        self.seen: list[str] = []
        self.ran: list[str] = []

        @flow.op
        def kernel(x: int) -> int:
            self.ran.append("innermost")
            self.inside.set()
            assert self.gate.wait(20)
            return x

        @flow.op
        async def on_loop(x: int) -> int:
            self.ran.append("innermost")
            self.inside.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.seen.append("async op")
            return x

        @flow.op
        def later(x: int) -> int:
            self.ran.append("later")
            return x

        @flow.pipeline
        def inner(x: int) -> Any:
            first = (kernel if kind == "kernel" else on_loop)(x)
            return [later(first) for _ in range(5)]

        def waits(name: str, pipeline: Any) -> Any:
            def kernel(x: int) -> Any:
                try:
                    return pipeline.run(x)
                except asyncio.CancelledError:
                    self.seen.append(name)
                    raise

            return flow.op(name=name)(kernel)

        middle_op = waits("middle", inner)

        @flow.pipeline
        def middle(x: int) -> Any:
            return later(middle_op(x))

        outer_op = waits("outer", middle)

        @flow.op
        async def fails(x: int) -> int:
            await asyncio.to_thread(self.inside.wait)
            raise ValueError("beside it")

        @flow.pipeline
        def outer(x: int) -> Any:
            return later(outer_op(x))

        @flow.pipeline
        def failing(x: int) -> Any:
            return later(outer_op(x)), fails(x)

        self.outer, self.failing = outer, failing


@pytest.mark.parametrize("kind", ["kernel", "async op"])
@pytest.mark.parametrize("how", ["cancel", "fail", "close"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_stop_frees_every_kernel_that_waits(run_async: Runner, kind: str, how: str, threads: int) -> None:
    flow.set_num_interop_threads(threads)

    async def main() -> None:
        run = Waiting(kind)
        if how == "fail":
            with pytest.raises(ValueError, match="beside it"):
                await run.failing(1)
        elif how == "cancel":
            task = asyncio.create_task(run.outer(1))
            await asyncio.to_thread(run.inside.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            coroutine = run.outer(1)
            coroutine.send(None)
            await asyncio.to_thread(run.inside.wait)
            coroutine.close()
        run.gate.set()
        await flow.quiet()
        for _ in range(200_000):  # what belongs to the inner run may leave after the outer one's awaiter
            if len(asyncio.all_tasks()) == 1 and not flow.parallel_info()["interop_threads"]["busy"]:
                break
            await asyncio.sleep(0)
        assert run.ran == ["innermost"]
        assert sorted(run.seen) == ["async op"] * (kind == "async op") + ["middle", "outer"]
        info = flow.parallel_info()["interop_threads"]
        assert (info["busy"], info["queued"], info["overrunning"]) == (0, 0, 0)
        assert len(asyncio.all_tasks()) == 1
        assert await middle(1) == 12

    run_async(main())


def test_a_run_asked_for_after_the_stop_does_not_begin(run_async: Runner) -> None:
    """A kernel whose run is over still asks for another one."""
    flow.set_num_interop_threads(1)
    inside, gate, told = threading.Event(), threading.Event(), []

    @flow.op
    def stubborn(x: int) -> int:
        inside.set()
        assert gate.wait(20)
        for _ in range(3):
            try:
                told.append(inner.run(x))
            except asyncio.CancelledError as exc:
                told.append(str(exc))
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return stubborn(x)

    async def main() -> None:
        task = asyncio.create_task(p(1))
        await asyncio.to_thread(inside.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        await flow.quiet()
        assert told == ["the run of 'inner' was cancelled"] * 3

    run_async(main())


def test_checkpoint_asks_about_the_run_it_is_called_in(run_async: Runner) -> None:
    """In the inner run's kernel about the inner run, then again about the outer one."""
    flow.set_num_interop_threads(1)
    inside, go, seen = threading.Event(), threading.Event(), []

    @flow.op
    def asks(x: int) -> int:
        flow.checkpoint()
        inside.set()
        assert go.wait(20)
        try:
            flow.checkpoint()
        except asyncio.CancelledError:
            seen.append("inner kernel")
            raise
        return x

    @flow.pipeline
    def within(x: int) -> int:
        return asks(x)

    @flow.op
    def waits(x: int) -> int:
        with suppress(asyncio.CancelledError):
            within.run(x)
        try:
            flow.checkpoint()
        except asyncio.CancelledError:
            seen.append("outer kernel")
            raise
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return waits(x)

    async def main() -> None:
        go.set()
        assert await p(1) == 1
        go.clear()
        inside.clear()
        task = asyncio.create_task(p(1))
        await asyncio.to_thread(inside.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        await flow.quiet()
        assert seen == ["inner kernel", "outer kernel"]

    run_async(main())


def test_an_inner_run_that_fails_ends_its_kernels_and_not_the_outer_ones(run_async: Runner) -> None:
    flow.set_num_interop_threads(1)
    inside, seen = threading.Event(), []

    @flow.op
    def asks(x: int) -> int:
        inside.set()
        for _ in range(50_000):
            try:
                flow.checkpoint()
            except asyncio.CancelledError:
                seen.append("inner kernel")
                raise
            threading.Event().wait(0.0001)
        return x

    @flow.op
    async def fails(x: int) -> int:
        await asyncio.to_thread(inside.wait)
        raise ValueError("beside it")

    @flow.pipeline
    def within(x: int) -> Any:
        return asks(x), fails(x)

    @flow.op
    def waits(x: int) -> int:
        with pytest.raises(ValueError, match="beside it"):
            within.run(x)
        flow.checkpoint()
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return waits(x)

    assert run_async(p(1)) == 1
    assert seen == ["inner kernel"]


# Where else a kernel may ask for a run.


def test_a_pipeline_that_runs_itself(run_async: Runner) -> None:
    flow.set_num_interop_threads(1)

    @flow.op
    def recurse(n: int) -> int:
        return n + int(triangle.run(n - 1)) if n else 0

    @flow.pipeline
    def triangle(n: int) -> int:
        return add_on_loop(recurse(n), 0)  # type: ignore[return-value]

    assert run_async(triangle(30)) == 30 * 31 // 2


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_many_kernels_that_all_wait_for_inner_runs(run_async: Runner, threads: int) -> None:
    flow.set_num_interop_threads(threads)
    running = [0]
    most = [0]
    lock = threading.Lock()

    @flow.op
    def counted(x: int) -> int:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        x = sum(range(2000)) * 0 + x
        with lock:
            running[0] -= 1
        return x

    @flow.pipeline
    def within(x: int) -> Any:
        return [add_on_loop(counted(x), n) for n in range(4)]

    @flow.op
    def waits(x: int) -> int:
        return sum(within.run(x))

    @flow.pipeline
    def p(x: int) -> Any:
        return [waits(x) for _ in range(12)]

    async def main() -> None:
        for _ in range(5):
            assert await asyncio.gather(p(1), p(2)) == [[10] * 12, [14] * 12]

    run_async(main())
    assert most[0] <= threads


def test_in_a_thread_that_an_async_op_uses(run_async: Runner) -> None:
    """That thread holds no slot and has no loop: a run there is like one in a script."""
    flow.set_num_interop_threads(1)

    @flow.op
    async def uses_thread(x: int) -> Any:
        return await asyncio.to_thread(plain.run, x)

    @flow.pipeline
    def plain(x: int) -> int:
        return add(x, 1)

    @flow.pipeline
    def p(x: int) -> int:
        return add(uses_thread(x), 1)

    assert run_async(p(1)) == 3


def test_run_under_a_loop_of_the_kernels_own_is_refused(run_async: Runner) -> None:
    @flow.op
    def kernel(x: int) -> int:
        async def main() -> int:
            return inner.run(x)

        return asyncio.run(main())

    @flow.pipeline
    def p(x: int) -> int:
        return kernel(x)

    with pytest.raises(RuntimeError, match=r"inner\.run\(\) would block the event loop"):
        run_async(p(1))


def test_debug_inside_and_outside(run_async: Runner) -> None:
    @flow.op
    def debugs(x: int) -> int:
        return inner.debug(x)

    @flow.op
    async def awaits(x: int) -> int:
        return await plain(x)

    @flow.pipeline
    def plain(x: int) -> int:
        return add(x, 1)

    @flow.pipeline
    def p(x: int) -> Any:
        return plain(x), awaits(x)

    @flow.op
    def debugs_plain(x: int) -> int:
        return plain.debug(x)

    @flow.pipeline
    def q(x: int) -> int:
        return debugs_plain(x)

    assert p.debug(1) == (2, 2)
    assert outer.debug(1) == outer.run(1)
    assert run_async(q(1)) == 2


def test_the_context_goes_down_and_does_not_come_up(run_async: Runner) -> None:
    depth: contextvars.ContextVar[int] = contextvars.ContextVar("depth", default=0)
    seen: list[int] = []

    @flow.op
    def innermost(x: int) -> int:
        seen.append(depth.get())
        depth.set(100)
        return x

    @flow.op
    async def innermost_on_loop(x: int) -> int:
        seen.append(depth.get())
        depth.set(200)
        return x

    @flow.pipeline
    def within(x: int) -> Any:
        return innermost(innermost_on_loop(innermost(x)))

    @flow.op
    def waits(x: int) -> int:
        depth.set(depth.get() + 1)
        within.run(x)
        return depth.get()

    @flow.pipeline
    def p(x: int) -> int:
        return waits(x)

    async def main() -> None:
        depth.set(1)
        assert await p(1) == 2
        assert seen == [2, 2, 2]
        assert depth.get() == 1

    run_async(main())


@pytest.mark.parametrize("kind", [StopIteration, asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_no_kernel_may_get_raw(run_async: Runner, kind: type[BaseException]) -> None:
    """An inner run's kernel raises one of the five: the kernel that waits gets an OperatorError, which may pass on."""
    flow.set_num_interop_threads(1)

    @flow.op
    def nasty(x: int) -> int:
        raise kind("x")

    @flow.pipeline
    def within(x: int) -> int:
        return add(nasty(x), 1)

    @flow.op
    def survives(x: int) -> str:
        try:
            within.run(x)
        except flow.OperatorError as exc:
            return type(exc.__cause__).__name__
        return "nothing was raised"

    @flow.op
    def passes_on(x: int) -> int:
        return within.run(x)

    @flow.pipeline
    def p(x: int) -> str:
        return survives(x)

    @flow.pipeline
    def q(x: int) -> int:
        return passes_on(x)

    async def main() -> None:
        for _ in range(3):
            assert await p(1) == kind.__name__
            with pytest.raises(flow.OperatorError, match="operator 'nasty' raised") as info:
                await q(1)
            assert type(info.value.__cause__) is kind
            assert len(info.value.__notes__) == 1

    run_async(main())


def test_an_inner_failure_that_is_caught_leaves_the_outer_run_alone(run_async: Runner) -> None:
    flow.set_num_interop_threads(2)

    @flow.op
    def bad(x: int) -> int:
        raise ValueError("inside")

    @flow.op
    async def hangs(x: int) -> int:
        await asyncio.Event().wait()
        return x

    @flow.pipeline
    def fails(x: int) -> Any:
        return hangs(x), bad(x)

    @flow.op
    def falls_back(x: int) -> int:
        try:
            fails.run(x)
        except ValueError:
            return inner.run(x)
        return -1

    @flow.pipeline
    def p(x: int) -> Any:
        return [falls_back(n) for n in range(10)]

    async def main() -> None:
        assert await p(1) == [2 * n + 4 for n in range(10)]
        assert len(asyncio.all_tasks()) == 1

    run_async(main())


@pytest.mark.parametrize("closed", [True, False])
def test_a_loop_that_is_gone_frees_the_kernel_that_waits(closed: bool) -> None:
    """In a process of its own: a thread that nobody frees would keep this one from ending."""
    program = f"""
        import asyncio, threading
        import dataflow as flow

        inside = threading.Event()

        @flow.op
        async def on_loop(x):
            inside.set()
            await asyncio.Event().wait()

        @flow.pipeline
        def inner(x):
            return on_loop(x)

        @flow.op
        def waits(x):
            try:
                return inner.run(x)
            except BaseException as exc:
                print(type(exc).__name__, flush=True)
                raise

        @flow.pipeline
        def outer(x):
            return waits(x)

        flow.set_num_interop_threads(1)
        loop = asyncio.new_event_loop()
        coroutine = outer(1)
        loop.call_soon(coroutine.send, None)
        loop.run_until_complete(loop.run_in_executor(None, inside.wait))
        loop.close()
        if {closed}:
            try:
                coroutine.close()
            except RuntimeError:
                pass
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout.split() in (["CancelledError"], ["RuntimeClosed"])


class Layers:
    """A kernel runs a pipeline, whose async op awaits a pipeline, whose kernel …; each layer counts what executes."""

    def __init__(self, threads: int) -> None:
        flow.set_num_interop_threads(threads)
        self.lock = threading.Lock()
        self.inside = self.peak = 0
        work = self.work

        @flow.op
        def leaf(x: int) -> int:
            work()
            return x + 1

        @flow.pipeline
        def leaves(x: Any) -> Any:
            return leaf(x)

        @flow.op
        async def asks(x: int) -> int:
            return await leaves(x)

        @flow.pipeline
        def inner(x: Any) -> Any:
            return leaf(asks(leaf(x))), asks(x)

        @flow.op
        def runs(x: int) -> int:
            work()
            deep, _ = inner.run(x)
            work()
            return deep

        @flow.pipeline
        def middle(x: Any) -> Any:
            return add(runs(x), leaf(x))

        @flow.op
        def runs_again(x: int) -> int:
            return middle.run(x)

        @flow.pipeline
        def outer(x: Any) -> Any:
            return [runs_again(x) for _ in range(4)], [runs(x) for _ in range(4)], [leaf(x) for _ in range(8)]

        self.pipeline, self.expected = outer, lambda x: ([2 * x + 4] * 4, [x + 3] * 4, [x + 1] * 8)

    def work(self) -> None:
        with self.lock:
            self.inside += 1
            self.peak = max(self.peak, self.inside)
        time.sleep(0)
        with self.lock:
            self.inside -= 1


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_kernels_that_wait_for_async_ops_that_wait_for_kernels(run_async: Runner, threads: int) -> None:
    """A kernel that only waits lends its slot, so there is no deadlock; and never do more execute than may."""
    layers = Layers(threads)

    async def main() -> None:
        for _ in range(10):
            results = await asyncio.wait_for(asyncio.gather(layers.pipeline(1), layers.pipeline(2)), 20)
            assert results == [layers.expected(1), layers.expected(2)]

    run_async(main())
    assert layers.peak <= threads
    pool = process_pool()
    while pool.busy:
        pass
    assert (pool._slots, len(pool._returning)) == (threads, 0)


def test_lending_while_the_limit_changes_and_runs_are_cancelled(run_async: Runner) -> None:
    layers = Layers(2)

    async def main() -> None:
        rng = random.Random(3)
        for _ in range(60):
            tasks = [asyncio.create_task(layers.pipeline(1)) for _ in range(3)]
            for _ in range(rng.randrange(30)):
                flow.set_num_interop_threads(rng.randint(1, 4))
                await asyncio.sleep(0)
            rng.choice(tasks).cancel()
            done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
            for result in done:
                assert isinstance(result, asyncio.CancelledError) or result == layers.expected(1)
        await flow.quiet()

    run_async(main())
    pool = process_pool()
    while pool.busy:
        pass
    assert (pool._slots, len(pool._returning)) == (pool.limit, 0)


def test_a_run_elsewhere_goes_on_while_a_kernel_waits_for_an_async_op(run_async: Runner) -> None:
    """With one thread: the kernel's async op ends only after the other run."""
    flow.set_num_interop_threads(1)
    other_done: asyncio.Event | None = None

    @flow.op
    async def waits(x: int) -> int:
        assert other_done is not None
        await other_done.wait()
        return x

    inner = flow.pipeline(lambda x: waits(x))

    @flow.op
    def runs(x: int) -> int:
        return inner.run(x)

    outer, other = flow.pipeline(lambda x: runs(x)), flow.pipeline(lambda x: add(x, 1))

    async def main() -> None:
        nonlocal other_done
        other_done = asyncio.Event()
        running = asyncio.create_task(outer(1))
        await asyncio.sleep(0)
        assert await asyncio.wait_for(other(1), 20) == 2
        other_done.set()
        assert await running == 1

    run_async(main())


def test_a_bug_while_an_inner_run_is_worked_off(run_async: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    real, broken = engine.serve, True

    def serve(pool: Any, worker: Any, run: Any) -> None:
        if broken and run.plan.graph.name == "inner":
            raise ZeroDivisionError("a bug of ours")
        real(pool, worker, run)

    monkeypatch.setattr(engine, "serve", serve)
    flow.set_num_interop_threads(1)
    with pytest.raises(ZeroDivisionError, match="a bug of ours"):
        run_async(middle(1))
    run_async(flow.quiet())
    broken = False
    assert run_async(middle(1)) == 12


@pytest.mark.parametrize("options", [{}, {"timeout": 50}, {"limit": flow.Limit(1)}])
@pytest.mark.parametrize("moment", ["as it begins", "before it begins"])
def test_async_operators_inside_never_begin_when_the_run_around_is_over(
    run_async: Callable[[Any], Any], options: dict[str, Any], moment: str
) -> None:
    over = False
    late: list[bool] = []
    outer: asyncio.Task[None] | None = None
    is_over = threading.Event()

    @flow.op(**options)
    async def inside(x: int) -> int:
        if over:
            late.append(over)
        return x

    inner = flow.pipeline(lambda x: (inside(x), inside(x)))

    @flow.op
    def kernel(x: int, loop: Any) -> Any:
        assert outer is not None
        if moment == "before it begins":
            loop.call_soon_threadsafe(outer.cancel)
            assert is_over.wait(20)
        else:
            loop.call_soon_threadsafe(time.sleep, 0.02)  # both of what follows wait for the loop meanwhile
            loop.call_soon_threadsafe(outer.cancel)
        return inner.run(x)

    p = flow.pipeline(lambda x, loop: kernel(x, loop))

    async def awaited() -> None:
        nonlocal over
        try:
            await p(1, asyncio.get_running_loop())
        except asyncio.CancelledError:
            over = True
            is_over.set()

    async def main() -> None:
        nonlocal outer, over
        for _ in range(5):
            over = False
            is_over.clear()
            outer = asyncio.create_task(awaited())
            await outer
            await flow.quiet()
            assert over
        assert not late

    run_async(main())
