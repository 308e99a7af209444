"""Kernels and BLAS threads, with numpy's own BLAS read back: how many there are while kernels run, and afterwards."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.engine import worker
from dataflow.threads import controller
from dataflow.threads.blas import Blas, Library, Reach
from dataflow.threads.controller import process_intraop
from dataflow.threads.settings import process_settings
from tests.release import settles

Runner = Callable[[Any], Any]


@pytest.fixture(scope="module")
def blas() -> Library:
    found = Blas({})
    found.refresh()
    return next(library for library in found.libraries if library.reach is Reach.PROCESS)


@pytest.fixture(autouse=True)
def two_cpus(blas: Library, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever the machine has: a fresh policy of two CPUs, and BLAS found with three threads."""
    process_settings._change(2, None)
    if process_intraop._policy is None:
        process_intraop._begin()
    monkeypatch.setattr(process_intraop._policy, "cpus", 2)
    monkeypatch.setattr(process_intraop._policy, "_hot_until", 0.0)
    before = blas.count()
    blas.put(3)
    yield
    assert blas.count() == 3
    assert process_intraop.threads is None
    blas.put(before)


def pipeline_of(*kernels: Callable[[], Any]) -> Any:
    ops = [flow.op(kernel) for kernel in kernels]

    @flow.pipeline
    def pipeline() -> Any:
        return [op() for op in ops]

    return pipeline


def test_a_kernel_alone_has_all_cpus(blas: Library) -> None:
    assert pipeline_of(lambda: blas.count()).run() == [2]


def test_two_at_once_have_one_each(blas: Library) -> None:
    meet = threading.Barrier(2)

    def kernel() -> int:
        meet.wait(20)
        count = blas.count()
        meet.wait(20)
        return count

    assert pipeline_of(kernel, kernel).run() == [1, 1]


def test_of_two_that_are_ready_the_first_has_one_before_the_second_begins(
    blas: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "workers_awake", lambda: False)  # else both might have two in turn

    def kernel() -> int:
        count = blas.count()
        time.sleep(2e-3)
        return count

    pipeline = pipeline_of(kernel, kernel)
    assert [1, 1] in [pipeline.run() for _ in range(20)]


def test_with_one_inter_op_thread_each_has_all_cpus(blas: Library) -> None:
    process_settings._change(1, None)
    assert pipeline_of(*[lambda: blas.count()] * 4).run() == [2] * 4


@pytest.mark.filterwarnings("ignore:.*are more than the")
def test_set_num_threads_inside_a_kernel_is_in_force_there_and_elsewhere(blas: Library) -> None:
    """PyTorch refuses or ignores a set after work began; threadpoolctl's setter is ignored off its thread."""

    def kernel() -> list[int]:
        counts = []
        for n in (1, 4, 2):
            flow.set_num_threads(n)
            counts.append(blas.count())
        with flow.threads(intraop=3):
            counts.append(blas.count())
        return [*counts, blas.count()]

    assert pipeline_of(kernel).run() == [[1, 4, 2, 3, 2]]


@pytest.mark.parametrize("n", [0, -1])
def test_zero_and_negatives_never_become_64(blas: Library, n: int) -> None:
    def kernel() -> int:
        with pytest.raises(ValueError, match="at least one thread"):
            flow.set_num_threads(n)
        return blas.count()

    assert pipeline_of(kernel).run() == [2]


def test_when_a_chain_is_over_it_is_as_it_was(blas: Library, run_async: Runner) -> None:
    @flow.op
    def product(a: Any, b: Any) -> Any:
        return a @ b

    @flow.pipeline
    def chain(a: Any) -> Any:
        x = a
        for _ in range(6):
            x = product(x, a)
        return x

    a = np.full((256, 256), 1 / 256, np.float32)

    async def main() -> None:
        for _ in range(50):
            await chain(a)
            assert blas.count() == 3

    run_async(main())


@pytest.mark.parametrize("width", [1, 3])
def test_whoever_awaits_small_kernels_finds_it_as_it_was(
    width: int, blas: Library, run_async: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another worker than the one that did the last of them has had some."""
    monkeypatch.setattr(worker, "LONG", 10.0)
    counts = []

    @flow.op
    def kernel(x: int) -> int:
        counts.append(blas.count())
        time.sleep(1e-4)
        return x

    @flow.pipeline
    def branches(x: int) -> list[int]:
        ends = [x] * width
        for _ in range(3):
            ends = [kernel(end) for end in ends]
        return ends

    async def main() -> None:
        for _ in range(200):
            await branches(1)
            assert blas.count() == 3

    run_async(main())
    assert counts[-1] == 1


@pytest.mark.parametrize("big", [0.0, 10.0])
def test_whoever_awaits_a_kernel_that_fails_finds_it_as_it_was(
    big: float, blas: Library, run_async: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LONG", big)
    counts = []

    @flow.op
    def kernel(x: int) -> float:
        counts.append(blas.count())
        time.sleep(1e-4)
        return 1 / x

    @flow.pipeline
    def failing(x: int) -> float:
        return kernel(x)

    async def main() -> None:
        for _ in range(3):
            await failing(1)
        for _ in range(200):
            with pytest.raises(ZeroDivisionError):
                await failing(0)
            assert settles(lambda: blas.count() == 3)  # another worker may just be about to leave

    run_async(main())
    assert set(counts) <= {1, 2}


def test_what_goes_wrong_before_the_first_kernel_ends_the_run(
    run_async: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = pipeline_of(lambda: 1, lambda: 2)

    def come() -> None:
        raise OSError("no device today")

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(process_intraop, "come", come)
            with pytest.raises(OSError, match="no device today"):
                await asyncio.wait_for(pipeline(), 20)
            await flow.quiet()
        assert await pipeline() == [1, 2]

    run_async(main())


def test_after_a_failure_it_is_as_it_was(blas: Library) -> None:
    with pytest.raises(ZeroDivisionError):
        pipeline_of(lambda: 1 / 0, lambda: blas.count()).run()
    # The other kernel may still run: `two_cpus` looks afterwards.
    asyncio.run(flow.quiet())


def test_after_a_cancellation_it_is_as_it_was_when_the_kernel_returns(blas: Library, run_async: Runner) -> None:
    inside, leave = threading.Event(), threading.Event()

    def kernel() -> None:
        inside.set()
        assert leave.wait(20)

    async def main() -> None:
        task = asyncio.create_task(pipeline_of(kernel)())
        await asyncio.to_thread(inside.wait, 20)
        assert blas.count() == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert blas.count() == 2  # the kernel still runs
        leave.set()
        await flow.quiet()
        while process_intraop.threads is not None:
            await asyncio.sleep(0)

    run_async(main())


def test_kernels_of_an_inner_run_are_alone_while_the_outer_kernel_waits(blas: Library) -> None:
    inner = pipeline_of(lambda: blas.count())

    def outer() -> list[int]:
        return [blas.count(), *inner.run(), blas.count()]

    assert pipeline_of(outer).run() == [[2, 2, 2]]


def test_unmanaged_nothing_is_touched(blas: Library) -> None:
    flow.manage_blas(False)
    try:
        assert pipeline_of(lambda: blas.count(), lambda: blas.count()).run() == [3, 3]
    finally:
        flow.manage_blas(True)


def test_light_kernels_do_not_wake_blas_threads(blas: Library) -> None:
    @flow.op
    def light(x: Any) -> Any:
        return blas.count()

    @flow.pipeline
    def chain() -> Any:
        x = light(0)
        for _ in range(50):
            x = light(x)
        return x

    assert [chain.run() for _ in range(5)][-1] in (1, 2)  # 2 where the machine was slow, so that it is not light
    assert flow.parallel_info()["intraop_threads"]["now"] is None


def test_tall_products_are_right_bit_for_bit_while_others_run() -> None:
    """`A @ B` and `A @ B.T` at once, under the default settings: OpenBLAS 5836 gives wrong blocks to such callers."""
    rng = np.random.default_rng(0)
    a, b = rng.random((20_000, 4)), rng.random((4, 2))
    c = np.ascontiguousarray(b.T)

    @flow.op
    def plain(x: Any) -> Any:
        return x @ b

    @flow.op
    def transposed(x: Any) -> Any:
        return x @ c.T

    @flow.pipeline
    def products(x: Any) -> Any:
        return [plain(x) for _ in range(50)], [transposed(x) for _ in range(50)]

    expected = products.debug(a)
    for _ in range(30):  # three thousand products
        got = products.run(a)
        for ours, theirs in zip(got, expected, strict=True):
            assert all(np.array_equal(mine, its) for mine, its in zip(ours, theirs, strict=True))


def test_import_set_get_and_info_start_no_thread_and_change_no_blas() -> None:
    program = """
        import os, threading
        import numpy as np
        from threadpoolctl import threadpool_info
        before = [info["num_threads"] for info in threadpool_info()]
        tasks = len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 0
        import dataflow as flow
        flow.set_num_interop_threads(64)
        flow.set_num_threads(1)
        flow.set_num_interop_threads(1)
        flow.set_num_threads(64) if os.cpu_count() >= 64 else None
        flow.get_num_threads(), flow.get_num_interop_threads()
        info = flow.parallel_info()
        str(info)
        assert [library["threads"] for library in info["blas"]] == before
        assert [info["num_threads"] for info in threadpool_info()] == before
        assert threading.active_count() == 1
        assert not tasks or len(os.listdir("/proc/self/task")) == tasks
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_with_affinity_to_one_cpu_the_defaults_are_one() -> None:
    program = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import dataflow as flow
        @flow.op
        def count(): return flow.parallel_info()["blas"][0]["threads"]
        @flow.pipeline
        def pipeline(): return [count() for _ in range(3)]
        print(flow.get_num_interop_threads(), flow.get_num_threads(), pipeline.run())
        """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("1 1 [1, 1, 1]\n", "")
