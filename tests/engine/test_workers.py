"""Workers: never more kernels at once than the setting allows, never fewer than it could, and everybody gets a turn."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.engine import executors, monitor
from dataflow.engine import pool as engine
from dataflow.engine import worker as worker_module
from dataflow.engine.executors import THREAD_NAME
from dataflow.engine.pool import process_pool
from dataflow.engine.turns import TURN
from dataflow.engine.worker import light
from tests.conftest import LOOPS
from tests.engine.light import taken_for_light
from tests.release import FREE_THREADED, let_go

Runner = Callable[[Any], Any]


class Crowd:
    """Kernels that count themselves, and wait until a whole wave of them is inside at the same time."""

    def __init__(self, wave: int) -> None:
        self.barrier = threading.Barrier(wave)
        self.lock = threading.Lock()
        self.inside = self.peak = self.total = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self.lock:
            self.inside += 1
            self.total += 1
            self.peak = max(self.peak, self.inside)
        yield
        with self.lock:
            self.inside -= 1

    def enter(self) -> None:
        with self.counted():
            self.barrier.wait(20)


@pytest.mark.parametrize(("threads", "ready"), [(1, 4), (2, 8), (3, 9), (8, 16), (2, 1), (3, 2), (8, 5)])
def test_as_many_kernels_at_once_as_allowed_and_no_more(run_async: Runner, threads: int, ready: int) -> None:
    flow.set_num_interop_threads(threads)
    crowd = Crowd(min(threads, ready))

    @flow.op
    def kernel(i: int) -> int:
        crowd.enter()
        return i

    @flow.pipeline
    def wide() -> Any:
        return [kernel(i) for i in range(ready)]

    assert run_async(wide()) == list(range(ready))
    assert (crowd.peak, crowd.total) == (min(threads, ready), ready)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_the_bound_is_over_all_runs_and_loops(threads: int) -> None:
    flow.set_num_interop_threads(threads)
    crowd = Crowd(threads)

    @flow.op
    def kernel(i: int) -> int:
        crowd.enter()
        return i

    @flow.pipeline
    def narrow() -> Any:
        return kernel(0), kernel(1), kernel(2), kernel(3)

    async def main() -> Any:
        return await asyncio.gather(narrow(), narrow(), narrow())

    def loop(make: Callable[[], asyncio.AbstractEventLoop]) -> Any:
        with asyncio.Runner(loop_factory=make) as runner:
            return runner.run(main())

    with ThreadPoolExecutor(6) as threads_with_loops:
        loops = [threads_with_loops.submit(loop, make) for make in LOOPS.values() for _ in range(3)]
        assert all(done.result(30) == [(0, 1, 2, 3)] * 3 for done in loops)
    assert (crowd.peak, crowd.total) == (threads, len(loops) * 12)


class Meeting:
    """Two kinds of kernels that are quick until `barrier` is set, and then wait for each other."""

    def __init__(self) -> None:
        self.barrier: threading.Barrier | None = None
        meet = self.meet

        @flow.op
        def one(x: int) -> int:
            meet()
            return x + 1

        @flow.op
        def two(x: int) -> int:
            meet()
            return x + 2

        self.one, self.two = one, two

    def meet(self) -> None:
        if self.barrier is not None:
            self.barrier.wait(20)


def test_two_kernels_that_are_taken_for_light_meet(run_async: Runner) -> None:
    flow.set_num_interop_threads(2)
    meeting = Meeting()

    @flow.pipeline
    def both(x: Any) -> Any:
        return meeting.one(x), meeting.two(x)

    async def main() -> None:
        meeting.barrier = threading.Barrier(2)
        for x in range(5):
            taken_for_light(both, x)
            assert await both(x) == (x + 1, x + 2)

    run_async(main())


def test_they_meet_across_runs_and_beside_light_kernels(run_async: Runner) -> None:
    """One worker is in the middle of many light kernels of another run."""
    flow.set_num_interop_threads(3)
    meeting = Meeting()
    stop = False

    @flow.op
    def tiny(x: int) -> int:
        return x + 1

    @flow.pipeline
    def chain(x: Any) -> Any:
        for _ in range(2_000):
            x = tiny(x)
        return x

    @flow.pipeline
    def left(x: Any) -> Any:
        return meeting.one(x)

    @flow.pipeline
    def right(x: Any) -> Any:
        return meeting.two(x)

    async def beside() -> None:
        while not stop:
            assert await chain(0) == 2_000

    async def main() -> None:
        nonlocal stop
        taken_for_light(chain, 0)
        others = asyncio.create_task(beside())
        meeting.barrier = threading.Barrier(2)
        for _ in range(20):
            taken_for_light(left, 0)
            taken_for_light(right, 0)
            assert await asyncio.gather(left(0), right(0)) == [1, 2]
        stop = True
        await others

    run_async(main())


def test_kernels_that_were_claimed_together_meet(run_async: Runner) -> None:
    """Two steps of one batch: while its worker is in the first, another takes the second."""
    flow.set_num_interop_threads(2)
    meeting = Meeting()

    @flow.pipeline
    def pairs(x: Any) -> Any:
        return [(meeting.one(x), meeting.two(x)) for _ in range(50)]

    async def main() -> None:
        meeting.barrier = threading.Barrier(2)
        for _ in range(5):
            taken_for_light(pairs, 0)
            assert await pairs(0) == [(1, 2)] * 50

    run_async(main())


def spin(seconds: float) -> None:
    """Use the processor for so long; what sleeps may be taken for light."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.mark.parametrize("seconds", [1.5 * TURN, 5 * light()])
def test_a_small_run_does_not_wait_for_a_big_one(run_async: Runner, seconds: float) -> None:
    """One thread, and a run of many kernels: each longer than a turn, or not."""
    flow.set_num_interop_threads(1)
    pool = process_pool()
    started = asked = started_small = 0
    small_waits = threading.Event()

    @flow.op
    def of_many(x: int) -> int:
        nonlocal started, asked
        started += 1
        spin(seconds)
        if started == 20:
            before = pool.queued
            loop.call_soon_threadsafe(small_waits.set)
            while pool.queued == before:
                time.sleep(0)
            asked = started
        return x

    @flow.op
    def lone(x: int) -> int:
        nonlocal started_small
        started_small = started
        return x

    @flow.pipeline
    def big() -> Any:
        return [of_many(i) for i in range(1_000)]

    @flow.pipeline
    def small() -> Any:
        return lone(7)

    async def main() -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        running = asyncio.create_task(big())
        while not small_waits.is_set():
            await asyncio.sleep(0)
        assert await small() == 7
        assert not running.done()
        assert await running == list(range(1_000))

    loop: Any = None
    run_async(main())
    assert asked == 20
    assert started_small <= asked + 2 + TURN / seconds


def test_the_only_run_is_served_to_its_end(run_async: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its level rises as it is served, and nobody waits at a lower one: its worker has nowhere else to go."""
    flow.set_num_interop_threads(1)
    came: list[Any] = []
    original = engine.Pool._next

    def counted(self: Any, worker: Any) -> Any:
        run = original(self, worker)
        if run is not None:
            came.append(worker)
        return run

    @flow.pipeline
    def p(x: int) -> int:
        for _ in range(20):
            x = flow.op(lambda v: spin(50 * TURN / 20) or v)(x)
        return x

    p.graph(1)
    monkeypatch.setattr(engine.Pool, "_next", counted)
    assert run_async(p(1)) == 1
    assert len(came) == 1


@pytest.mark.parametrize("alone", [1e-5, 3e-4])
def test_one_worker_goes_on_if_it_is_quicker_than_several_were(
    run_async: Runner, monkeypatch: pytest.MonkeyPatch, alone: float
) -> None:
    """Where threads are in each other's way, processor time is spent on waiting: that kernels are light, only trying
    tells. Kernels here take 30 microseconds beside another, by either clock, and alone as long as is said."""
    flow.set_num_interop_threads(2)
    serial: list[bool] = []
    original = worker_module._in_order

    def noted(worker: Any, run: Any, *more: Any) -> bool:
        serial.append(True)
        return original(worker, run, *more)

    @flow.op
    def kernel(x: int) -> int:
        spin(3e-5 if len(process_pool()._workers) > 1 else alone)
        return x

    @flow.pipeline
    def p(x: int) -> Any:
        return [kernel(x) for _ in range(600)]

    p.graph(1)
    monkeypatch.setattr(worker_module, "_in_order", noted)
    for _ in range(3):
        run_async(p(1))
    plan, _ = p.prepare((1,), {})
    assert serial, "one worker was tried"
    assert alone < 3e-5 or not plan.shown.light


@pytest.mark.parametrize("awake", [True, False])
def test_light_kernels_give_way_to_threads_that_are_awake(
    run_async: Runner, monkeypatch: pytest.MonkeyPatch, awake: bool
) -> None:
    flow.set_num_interop_threads(1)
    slept: list[float] = []
    others = [0.0]

    def process_time() -> float:
        others[0] += 1.0 if awake else 0.0
        return others[0] + time.thread_time()

    @flow.op
    def increment(x: int) -> int:
        return x + 1

    @flow.pipeline
    def p(x: int) -> int:
        for _ in range(30_000):
            x = increment(x)
        return x

    p.graph(1)
    assert run_async(p(1)) == 30_001
    monkeypatch.setattr(worker_module, "process_time", process_time)
    monkeypatch.setattr(worker_module, "sleep", slept.append)
    monkeypatch.setattr(worker_module, "LOCKED", lambda: True)
    monkeypatch.setattr(worker_module, "AWAKE", 1e-3)
    assert run_async(p(1)) == 30_001
    assert bool(slept) is awake
    assert set(slept) <= {0}


def test_a_small_run_takes_its_turn_among_light_kernels(run_async: Runner) -> None:
    """As above, where the big run's kernels are light and are taken in batches."""
    flow.set_num_interop_threads(1)
    count = 0
    at: list[int] = []

    @flow.op
    def tiny(x: int) -> int:
        nonlocal count
        count += 1
        return x

    @flow.op
    def look(x: int) -> int:
        at.append(count)
        return x

    @flow.pipeline
    def big(x: Any) -> Any:
        return [tiny(x) for _ in range(20_000)]

    @flow.pipeline
    def small(x: Any) -> Any:
        return look(x)

    async def main() -> None:
        nonlocal count
        await big(1)
        taken_for_light(big, 1)
        waited = 0
        for _ in range(10):
            count = 0
            running = asyncio.create_task(big(1))
            while not count:
                await asyncio.sleep(0)
            first = count
            await small(1)
            waited += at.pop() == 20_000 and first < 10_000
            await running
        assert waited < 5, "it waited for the big run to end"  # where CPUs are scarce, the loop may be late itself

    run_async(main())


def test_a_kernel_that_works_off_an_inner_run_leaves_light_kernels_of_others_to_others(run_async: Runner) -> None:
    """It executes light kernels all the time, so the monitor never finds it held up."""
    flow.set_num_interop_threads(2)
    many = 60_000
    count = 0
    beside: list[int] = []

    @flow.op
    def tiny(x: int) -> int:
        nonlocal count
        count += 1
        if FREE_THREADED:  # so that all together take longer than another worker does to come
            sum(range(200))
        return x + 1

    @flow.op
    def look(x: int) -> int:
        beside.append(count)
        return x

    @flow.pipeline
    def inner(x: Any) -> Any:
        for _ in range(many):
            x = tiny(x)
        return x

    @flow.op
    def waits(x: int) -> int:
        return inner.run(x)

    @flow.pipeline
    def outer(x: Any) -> Any:
        return waits(x)

    @flow.pipeline
    def small(x: Any) -> Any:
        return look(x)

    async def main() -> None:
        nonlocal count
        taken_for_light(inner, 0)
        taken_for_light(small, 0)
        waited = 0
        for _ in range(7):
            count = 0
            running = asyncio.create_task(outer(0))
            while not count:
                await asyncio.sleep(0)
            first = count
            await small(0)
            waited += beside[-1] == many and first < many // 2
            assert await running == many
        assert waited < 4, "it waited for the inner run to end"

    run_async(main())


variable = contextvars.ContextVar("variable", default="unset")


@pytest.mark.parametrize(("outside", "inside"), [([], []), (1, True), ({}, {}), ((), ()), ("a", "b"), (0.0, -0.0)])
def test_no_kernel_sees_what_another_has_set_be_it_equal(run_async: Runner, outside: Any, inside: Any) -> None:
    flow.set_num_interop_threads(1)
    box: contextvars.ContextVar[Any] = contextvars.ContextVar("box")
    seen: list[bool] = []

    @flow.op
    def change(x: int) -> int:
        seen.append(box.get() is outside)
        box.set(type(inside)(inside))
        return x + 1

    @flow.pipeline
    def chain(x: Any) -> Any:
        for _ in range(30):
            x = change(x)
        return x

    async def main() -> None:
        box.set(outside)
        for _ in range(4):
            assert await chain(0) == 30

    run_async(main())
    assert all(seen)
    assert len(seen) == 120


def test_each_kernel_runs_in_a_copy_of_the_callers_context(run_async: Runner) -> None:
    @flow.op
    def change(i: int) -> str:
        before = variable.get()
        variable.set(f"kernel {i}")
        return before

    @flow.op
    async def change_on_loop(i: int) -> str:
        before = variable.get()
        variable.set(f"async {i}")
        return before

    @flow.pipeline
    def all_of_them() -> Any:
        return [change(i) for i in range(8)] + [change_on_loop(i) for i in range(8)]

    async def main() -> None:
        variable.set("caller")
        call = all_of_them()  # captured here
        variable.set("later")
        assert await call == ["caller"] * 16
        assert await all_of_them() == ["later"] * 16
        assert variable.get() == "later"

    run_async(main())


def test_errstate_of_the_caller_holds_in_kernels(run_async: Runner) -> None:
    @flow.op
    def divide(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return x / 0

    @flow.op
    def ignore(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        np.seterr(all="ignore")
        return x / 0

    @flow.pipeline
    def division(x: Any) -> Any:
        return divide(x)

    @flow.pipeline
    def ignored(x: Any) -> Any:
        return ignore(x)

    async def main() -> None:
        ones = np.ones(3)
        with np.errstate(divide="raise"):
            with pytest.raises(FloatingPointError):
                await division(ones)
            assert np.isinf(await ignored(ones)).all()
            with pytest.raises(FloatingPointError):
                await division(ones)
        with np.errstate(divide="ignore"):
            assert np.isinf(await division(ones)).all()

    run_async(main())


def test_the_loop_thread_executes_no_kernel_and_async_ops_hold_no_thread(run_async: Runner) -> None:
    """A hundred async ops wait at once beside the kernel on the only thread."""
    flow.set_num_interop_threads(1)
    waiting = 0

    @flow.op
    async def wait(done: asyncio.Event) -> str:
        nonlocal waiting
        waiting += 1
        if waiting == 100:
            done.set()
        await done.wait()
        return threading.current_thread().name

    @flow.op
    def compute() -> str:
        return threading.current_thread().name

    @flow.pipeline
    def mixed(done: Any) -> Any:
        return [wait(done) for _ in range(100)], compute()

    async def main() -> None:
        on_loop, on_worker = await mixed(asyncio.Event())
        assert set(on_loop) == {threading.current_thread().name}
        assert on_worker.startswith(THREAD_NAME)

    run_async(main())


def script(text: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_thread_before_the_first_run() -> None:
    assert (
        script("""
        import threading
        import dataflow as flow
        flow.set_num_interop_threads(64)
        flow.get_num_interop_threads()
        str(flow.parallel_info())
        @flow.op
        def f(x): return x
        @flow.pipeline
        def p(x): return f(x)
        p.graph()
        p.debug(1)
        print(threading.active_count())
        """)
        == "1"
    )


def test_no_more_threads_than_the_run_needs_and_the_process_ends() -> None:
    assert (
        script("""
        import asyncio, threading
        import dataflow as flow
        flow.set_num_interop_threads(16)
        @flow.op
        def f(x): return x
        @flow.pipeline
        def p(x): return f(x)
        async def main():
            await p(1)
            print(sum(t.name.startswith("dataflow-interop") for t in threading.enumerate()))
        asyncio.run(main())
        """)
        == "1"
    )


def test_what_a_run_held_is_let_go_of_without_a_lock_of_ours(run_async: Runner) -> None:
    """The last reference to a cancelled run may be the queue's: a destructor may ask and set."""
    flow.set_num_interop_threads(1)
    freed = threading.Event()
    inside, go_on = threading.Event(), threading.Event()

    class Curious:
        def __del__(self) -> None:
            flow.parallel_info()
            flow.set_num_interop_threads(flow.get_num_interop_threads())
            freed.set()

    held: contextvars.ContextVar[Any] = contextvars.ContextVar("held")

    @flow.op
    def stay() -> None:
        inside.set()
        assert go_on.wait(20)

    @flow.op
    def never() -> None:
        raise AssertionError

    stays, waits = flow.pipeline(lambda: stay()), flow.pipeline(lambda: never())

    async def main() -> None:
        first = asyncio.create_task(stays())
        await asyncio.to_thread(inside.wait, 20)
        context = contextvars.copy_context()
        context.run(held.set, Curious())
        second = context.run(lambda: asyncio.get_running_loop().create_task(waits()))
        del context
        while not process_pool().queued:
            await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        del second
        go_on.set()
        await first
        while not freed.is_set():
            let_go()
            await asyncio.sleep(0)

    run_async(main())


def test_an_idle_pool_holds_no_run(run_async: Runner) -> None:
    @flow.op
    def kernel(x: int) -> int:
        return x

    @flow.pipeline
    def some() -> Any:
        return [kernel(i) for i in range(10)]

    run_async(some())
    pool = process_pool()
    while pool.busy:
        pass
    assert (pool.queued, repr(pool)) == (0, f"<Pool limit={pool.limit} workers=0 parked={pool.parked}>")


# What should not happen, but does on a machine that is full, or with a bug of ours: no run hangs.


class Refusing(ThreadPoolExecutor):
    """An executor that takes `after` jobs and can start no thread for more."""

    after = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.taken = 0

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        self.taken += 1
        if self.taken > self.after:
            raise RuntimeError("can't start new thread")
        return super().submit(*args, **kwargs)


@flow.op
def square(x: int) -> int:
    return x * x


@flow.pipeline
def squares() -> Any:
    return [square(i) for i in range(64)]


@pytest.fixture
def fresh_pool() -> Iterator[None]:
    """The pool makes a new executor for the test, and another one after it."""
    before = flow.get_num_interop_threads()
    while process_pool().busy:  # a worker that is about to end would take the work
        pass
    flow.set_num_interop_threads(before + 5)
    flow.set_num_interop_threads(before + 4)
    yield
    flow.set_num_interop_threads(before + 5)


@pytest.mark.usefixtures("fresh_pool")
def test_a_second_thread_that_cannot_be_started_is_done_without(
    run_async: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(executors, "ThreadPoolExecutor", Refusing)
    monkeypatch.setattr(Refusing, "after", 1)

    @flow.op
    def fresh(x: int) -> int:
        return x

    @flow.pipeline
    def wide() -> Any:
        return [fresh(i) for i in range(500)]

    with caplog.at_level(logging.WARNING, "dataflow"):
        assert run_async(wide()) == list(range(500))
    assert any("no further inter-op thread" in record.message for record in caplog.records)


@pytest.mark.usefixtures("fresh_pool")
def test_without_any_thread_the_awaiter_is_told(run_async: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "ThreadPoolExecutor", Refusing)
    monkeypatch.setattr(Refusing, "after", 0)
    with pytest.raises(RuntimeError, match="no inter-op thread could be started to run 'squares': can't start"):
        run_async(squares())
    monkeypatch.setattr(executors, "ThreadPoolExecutor", ThreadPoolExecutor)
    flow.set_num_interop_threads(flow.get_num_interop_threads() + 1)  # a new executor
    assert run_async(squares()) == [i * i for i in range(64)]


@pytest.mark.usefixtures("fresh_pool")
def test_the_last_worker_to_be_refused_takes_all_runs_that_wait_with_it(
    run_async: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first worker's thread is refused after the second one's, whose run relied on the first."""
    asked, answer = threading.Event(), threading.Event()

    class Slow(ThreadPoolExecutor):
        def submit(self, *_: Any, **__: Any) -> Any:
            if not asked.is_set():
                asked.set()
                assert answer.wait(20)
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(executors, "ThreadPoolExecutor", Slow)

    async def main() -> None:
        first = asyncio.create_task(asyncio.to_thread(squares.run))
        await asyncio.to_thread(asked.wait, 20)
        second = asyncio.create_task(squares())
        while process_pool().queued < 128:
            await asyncio.sleep(0)
        assert not second.done()
        answer.set()
        for run in (first, second):
            with pytest.raises(RuntimeError, match="no inter-op thread could be started"):
                await run

    run_async(main())
    assert process_pool().queued == 0


@pytest.mark.usefixtures("fresh_pool")
def test_an_interrupt_while_a_thread_is_started_arrives(run_async: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(ThreadPoolExecutor):
        def submit(self, *_: Any, **__: Any) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setattr(executors, "ThreadPoolExecutor", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_async(squares())
    assert process_pool().queued == 0


def test_a_bug_in_the_monitor_is_not_the_end_of_it(run_async: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next time it is needed it looks again, or another in its place."""
    flow.set_num_interop_threads(2)
    pool = engine.Pool(2)
    monkeypatch.setattr(engine, "_process_pool", pool)
    looked = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    meeting = Meeting()

    @flow.pipeline
    def both(x: Any) -> Any:
        return meeting.one(x), meeting.two(x)

    def broken() -> int:
        looked.set()
        raise ZeroDivisionError("a bug of ours")

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(pool._monitor, "_look", broken)
            while not looked.is_set():
                taken_for_light(both, 0)
                await both(0)
        taken_for_light(both, 0)
        meeting.barrier = threading.Barrier(2)
        assert await both(0) == (1, 2)

    run_async(main())
    pool.resize(3)  # its threads end


@pytest.mark.usefixtures("fresh_pool")
def test_without_a_monitor_all_runs_end(run_async: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = 0

    class Refused(threading.Thread):
        def start(self) -> None:
            nonlocal refused
            refused += 1
            raise RuntimeError("can't start new thread")

    pool = engine.Pool(2)
    monkeypatch.setattr(engine, "_process_pool", pool)
    monkeypatch.setattr(monitor, "Thread", Refused)
    for _ in range(5):
        taken_for_light(squares)
        assert run_async(squares()) == [i * i for i in range(64)]
    assert refused
    assert not pool._monitor.awake
    pool.resize(3)  # its threads end


def test_a_bug_in_a_worker_is_an_error_and_no_hang(run_async: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    real = engine.serve
    broken = True

    def serve(pool: Any, worker: Any, run: Any) -> None:
        if broken:
            raise ZeroDivisionError("a bug of ours")
        real(pool, worker, run)

    monkeypatch.setattr(engine, "serve", serve)
    for _ in range(10):
        with pytest.raises(ZeroDivisionError, match="a bug of ours"):
            run_async(squares())
    broken = False
    assert run_async(squares()) == [i * i for i in range(64)]


@pytest.mark.parametrize("made_ready_by", ["an async operator", "a permit"])
def test_a_worker_that_is_held_up_alone_is_found_when_another_kernel_becomes_ready(
    run_async: Runner, made_ready_by: str
) -> None:
    flow.set_num_interop_threads(2)
    begun, met, limit = threading.Event(), threading.Event(), flow.Limit(1)
    by_permit = made_ready_by == "a permit"

    @flow.op
    def waits(x: int) -> bool:
        begun.set()
        return met.wait(20)

    @flow.op
    async def later(x: int) -> int:
        while not by_permit and not begun.is_set():
            await asyncio.sleep(0)
        await asyncio.sleep(0.1 * (not by_permit))  # until the monitor sleeps
        return x

    @flow.op
    async def holds() -> None:
        while not begun.is_set():
            await asyncio.sleep(0)

    @flow.op
    def meets(x: int) -> None:
        met.set()

    meets = meets.options(limit=limit) if by_permit else meets
    holding = flow.pipeline(lambda: holds.options(limit=limit)())
    p = flow.pipeline(lambda x: (waits(x), meets(x if by_permit else later(x))))

    async def main() -> None:
        taken_for_light(p, 0)
        holder = asyncio.create_task(holding()) if by_permit else None
        while by_permit and limit.available:
            await asyncio.sleep(0)
        assert (await p(0))[0]
        if holder is not None:
            await holder

    run_async(main())
