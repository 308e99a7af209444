"""Nothing is kept alive: values, exceptions, runs. All without the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import dataflow as flow

Runner = Callable[[Any], Any]

BIG = 8 << 20  # float64: 64 MB


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Watched:
    """Counts the arrays that are alive."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.alive = self.peak = 0

    def __call__(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        with self.lock:
            self.alive += 1
            self.peak = max(self.peak, self.alive)
        weakref.finalize(array, self._gone)
        return array

    def _gone(self) -> None:
        with self.lock:
            self.alive -= 1


@pytest.mark.parametrize("shared", [False, True])
def test_a_failed_run_that_held_large_arrays_leaves_none(run_async: Runner, shared: bool) -> None:
    watched = Watched()

    @flow.op
    def make(n: int) -> Any:
        return watched(np.zeros(BIG))

    @flow.op
    def fail(x: Any, y: Any) -> Any:
        raise ValueError("holding two of them")

    @flow.pipeline
    def p() -> Any:
        a, b = make(1), make(2)
        return (fail(a, b), np.add(a, b)) if shared else fail(a, b)

    async def main() -> None:
        for _ in range(3):
            try:
                await p()
            except ValueError as exc:
                assert exc.__traceback__ is not None
            await flow.quiet()
            assert watched.alive == 0

    run_async(main())
    assert watched.alive == 0
    assert watched.peak == 2


def test_a_held_exception_keeps_only_the_failing_kernels_frame(run_async: Runner) -> None:
    watched = Watched()

    @flow.op
    def make(n: int) -> Any:
        return watched(np.zeros(1000))

    @flow.op
    def fail(x: Any) -> Any:
        raise ValueError

    @flow.pipeline
    def p() -> Any:
        return fail(make(1)), make(2), make(3)

    async def main() -> None:
        try:
            await p()
        except ValueError:
            await flow.quiet()
            assert watched.alive <= 1
        assert watched.alive == 0

    run_async(main())


@pytest.mark.parametrize("threads", [1, 2])
def test_finished_and_cancelled_runs_keep_nothing(run_async: Runner, threads: int) -> None:
    flow.set_num_interop_threads(threads)
    watched = Watched()
    gate, inside = threading.Event(), threading.Event()

    @flow.op
    def make(n: int) -> Any:
        return watched(np.zeros(1000))

    @flow.op
    def total(*xs: Any) -> float:
        inside.set()
        assert gate.wait(20)
        return float(sum(x.sum() for x in xs))

    @flow.op
    async def pause(x: Any) -> Any:
        await asyncio.sleep(0)
        return x

    @flow.pipeline
    def p(x: Any) -> Any:
        return total(make(1), pause(make(2)), x, make(3)[::2])

    async def main() -> None:
        gate.set()
        for _ in range(5):
            assert await p(watched(np.zeros(10))) == 0
            assert watched.alive == 0
        gate.clear()
        inside.clear()
        task = asyncio.create_task(p(watched(np.zeros(10))))
        await asyncio.to_thread(inside.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        await flow.quiet()
        del task
        assert watched.alive == 0

    run_async(main())


def test_an_intermediate_goes_right_after_its_last_use(run_async: Runner) -> None:
    watched = Watched()
    seen = []

    @flow.op
    def make(x: Any) -> Any:
        seen.append(watched.alive)
        return watched(np.zeros(100))

    @flow.pipeline
    def chain() -> Any:
        x = make(0)
        for _ in range(50):
            x = make(x)
        return x

    async def main() -> None:
        for _ in range(3):  # measured, learned, swept
            seen.clear()
            watched.peak = 0
            await chain()
            assert watched.alive == 0
            assert max(seen) <= 2, seen
            assert watched.peak <= 2

    run_async(main())


def test_the_callers_input_goes_after_its_last_use_too(run_async: Runner) -> None:
    watched = Watched()
    alive_later = []

    @flow.op
    def read(x: Any) -> float:
        return float(x.sum())

    @flow.op
    def later(x: float) -> float:
        alive_later.append(watched.alive)
        return x

    @flow.pipeline
    def p(x: Any) -> Any:
        return later(later(read(x)))

    async def main() -> None:
        for _ in range(3):
            await p(watched(np.ones(100)))

    run_async(main())
    assert not any(alive_later[1::2])


def test_a_result_that_nobody_reads_goes_at_once(run_async: Runner) -> None:
    watched = Watched()

    @flow.op
    def make(n: int) -> Any:
        return watched(np.zeros(100))

    @flow.pipeline
    def p() -> Any:
        for n in range(20):
            make(n)

    flow.set_num_interop_threads(1)
    for _ in range(3):
        watched.peak = 0
        run_async(p())
        assert watched.alive == 0
        assert watched.peak <= 2


def test_the_tuple_behind_unpacked_values_goes_when_they_are_taken(run_async: Runner) -> None:
    watched = Watched()

    @flow.op
    def pair() -> Any:
        return watched(np.zeros(10)), watched(np.ones(10))

    @flow.op
    def read(x: Any) -> int:
        return watched.alive

    @flow.pipeline
    def p() -> Any:
        both = pair()
        first = read(both[0])
        return first, read(np.multiply(both[1], first))

    flow.set_num_interop_threads(1)
    for _ in range(3):
        first, second = run_async(p())
        assert first == 2
        assert second <= 1
