"""Pipelines run inside kernels and awaited inside async ops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import dataflow as flow

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
        for _ in range(30):  # learned as light
            assert await p(1) == (1, 1)
        for _ in range(10):
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
