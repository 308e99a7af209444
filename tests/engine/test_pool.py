"""The pool: as many kernels at once as there are slots, whoever waits for whom; turns; serial runs, and back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from time import perf_counter, sleep, thread_time
from typing import Any

import pytest

import dataflow as flow
from dataflow.engine.pool import Pool, process_pool
from dataflow.engine.worker import LARGEST_BATCH

Runner = Callable[[Any], Any]

KERNELS = 48
"""More than a worker needs to see that they are light."""


class Gate:
    """Kernels that count themselves and, while it is shut, wait until they are let go, one by one."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.shut = True
        self.allowed = 0
        self.inside = self.peak = self.started = 0

    def enter(self) -> None:
        with self.changed:
            self.inside += 1
            self.started += 1
            self.peak = max(self.peak, self.inside)
            self.changed.notify_all()
            if self.shut:
                assert self.changed.wait_for(lambda: self.allowed > 0, 20)
                self.allowed -= 1
            self.inside -= 1
            self.changed.notify_all()

    def let_go(self, count: int) -> None:
        with self.changed:
            self.allowed += count
            self.changed.notify_all()


async def until(condition: Callable[[], bool]) -> None:
    """Give the loop to others until that is so. A kernel that waits in vain for longer fails, and so does this."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0)


def spin(seconds: float) -> None:
    """Use the processor for so long."""
    end = thread_time() + seconds
    while thread_time() < end:
        pass


def plan_of(pipeline: Any, *args: Any) -> Any:
    plan, _ = pipeline.prepare(args, {})
    return plan


async def learn(pipeline: Any, *args: Any, light: bool = True) -> None:
    """Run it until its kernels are known to be so light that one worker is enough; or the other way round."""
    plan = plan_of(pipeline, *args)
    for _ in range(1000):
        await pipeline(*args)
        if plan.shown.light is light:
            return
    raise AssertionError(f"{plan} is not shown to be light={light}")


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture(autouse=True)
def pool() -> Iterator[Pool]:
    """The pool, which has nothing left of all of it in the end."""
    pool = process_pool()
    yield pool
    while pool.busy or pool._workers:  # a worker that has told of the end is yet to leave
        sleep(0)
    assert (pool.queued, list(pool._parallel), list(pool._serial)) == (0, [], [])
    with pool.lock:
        assert (pool._workers, pool._guests, pool._right, pool._coming) == (set(), set(), None, 0)
        assert (pool._slots, len(pool._returning), pool._dropped) == (pool.limit, 0, [])


# As many as there are slots.


@pytest.mark.parametrize("ready", [5, 12])
def test_as_many_kernels_at_once_as_slots_and_ready_ones(run_async: Runner, gate: Gate, pool: Pool, ready: int) -> None:
    flow.set_num_interop_threads(8)
    at_once = min(8, ready)

    @flow.op
    def kernel(i: int) -> int:
        gate.enter()
        return i

    @flow.pipeline
    def wide() -> Any:
        return [kernel(i) for i in range(ready)]

    async def main() -> None:
        for _ in range(50):
            gate.started = gate.peak = 0
            running = asyncio.create_task(wide())
            await until(lambda: gate.inside == at_once)
            assert pool.queued == ready - at_once
            for more in range(1, ready - at_once + 1):  # for each that ends, one begins
                gate.let_go(1)
                await until(lambda more=more: gate.started == at_once + more)
            gate.let_go(at_once)
            assert await running == list(range(ready))
            assert (gate.peak, gate.started, gate.inside) == (at_once, ready, 0)

    run_async(main())


def test_so_it_is_for_kernels_that_were_light_before(run_async: Runner, gate: Gate, pool: Pool) -> None:
    """One worker has them all, and is held up in the first one."""
    flow.set_num_interop_threads(8)
    gate.shut = False

    @flow.op
    def kernel(i: int) -> int:
        gate.enter()
        return i

    @flow.pipeline
    def wide() -> Any:
        return [kernel(i) for i in range(KERNELS)]

    async def main() -> None:
        for _ in range(10):
            gate.shut = False
            await learn(wide)
            gate.shut, gate.started, gate.peak = True, 0, 0
            running = asyncio.create_task(wide())
            await until(lambda: gate.inside == 8)
            gate.let_go(KERNELS)
            assert await running == list(range(KERNELS))
            assert (gate.peak, gate.started, gate.allowed) == (8, KERNELS, 0)

    run_async(main())


# Kernels that wait for each other.


class Meeting:
    """Two kernels that are quick until `barrier` is set, and then wait for each other."""

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

        @flow.op
        def light(x: int) -> int:
            return x + 1

        self.one, self.two, self.light = one, two, light

    def meet(self) -> None:
        if self.barrier is not None:
            self.barrier.wait(20)

    def many(self, x: Any) -> Any:
        """A chain of light kernels."""
        for _ in range(KERNELS):
            x = self.light(x)
        return x


def side_by_side(meeting: Meeting, x: Any) -> Any:
    """First of all, and nothing depends on them."""
    return meeting.one(x), meeting.two(x), meeting.many(x)


def at_the_end(meeting: Meeting, x: Any) -> Any:
    """The last two, which one worker has in one batch with others before them."""
    x = meeting.many(x)
    return meeting.one(x), meeting.two(x)


def far_from_each_other(meeting: Meeting, x: Any) -> Any:
    """Many others stand between them, also of other chains."""
    return meeting.many(meeting.one(x)), meeting.many(x), meeting.many(meeting.two(x))


@pytest.mark.parametrize("threads", [2, 8])
@pytest.mark.parametrize("build", [side_by_side, at_the_end, far_from_each_other])
def test_two_kernels_meet_though_they_were_light_before(run_async: Runner, build: Any, threads: int) -> None:
    flow.set_num_interop_threads(threads)
    meeting = Meeting()

    @flow.pipeline
    def both(x: Any) -> Any:
        return build(meeting, x)

    async def main() -> None:
        for _ in range(5):
            meeting.barrier = None
            await learn(both, 0)
            expected = await both(0)
            assert plan_of(both, 0).shown.light
            meeting.barrier = threading.Barrier(2)
            assert await both(0) == expected
            assert await both(0) == expected  # also when it is known that they are not

    run_async(main())


@pytest.mark.parametrize("where", ["before", "after"])
def test_two_kernels_of_two_runs_meet_though_they_were_light_before(run_async: Runner, where: str) -> None:
    """Under the interpreter's lock one worker has serial runs, and it is held up in one of the two."""
    flow.set_num_interop_threads(2)
    meeting = Meeting()

    @flow.pipeline
    def left(x: Any) -> Any:
        return meeting.many(meeting.one(x)) if where == "before" else meeting.one(meeting.many(x))

    @flow.pipeline
    def right(x: Any) -> Any:
        return meeting.many(meeting.two(x)) if where == "before" else meeting.two(meeting.many(x))

    async def main() -> None:
        for _ in range(5):
            meeting.barrier = None
            await learn(left, 0)
            await learn(right, 0)
            meeting.barrier = threading.Barrier(2)
            assert await asyncio.gather(left(0), right(0)) == [KERNELS + 1, KERNELS + 2]

    run_async(main())


def test_two_kernels_of_two_runs_meet_when_one_run_is_serial_no_longer(run_async: Runner) -> None:
    """One worker had the right to serial runs, and gave it up on its own account: now there is work for a free slot."""
    flow.set_num_interop_threads(2)
    meeting = Meeting()

    @flow.op
    def growing(x: int) -> int:
        if meeting.barrier is not None:
            sleep(0)  # whoever is about to come to the other run has the interpreter
            spin(22e-6)
        return x + 1

    @flow.pipeline
    def left(x: Any) -> Any:
        for _ in range(8):  # a first batch, after which the run is serial no longer
            x = growing(x)
        return meeting.many(meeting.one(x))

    @flow.pipeline
    def right(x: Any) -> Any:
        return meeting.many(meeting.two(x))

    async def main() -> None:
        for _ in range(20):
            meeting.barrier = None
            await learn(right, 0)
            await learn(left, 0)
            meeting.barrier = threading.Barrier(2)
            assert await asyncio.gather(left(0), right(0)) == [8 + KERNELS + 1, KERNELS + 2]

    run_async(main())


def test_two_kernels_of_an_inner_run_meet_though_they_were_light_before(run_async: Runner) -> None:
    """A kernel's thread executes the run that it waits for; it is held up in it, and another worker comes."""
    flow.set_num_interop_threads(2)
    meeting = Meeting()

    @flow.pipeline
    def both(x: Any) -> Any:
        return meeting.one(x), meeting.two(x), meeting.many(x)

    @flow.op
    def inner(x: int) -> Any:
        return sum(both.run(x))

    @flow.pipeline
    def outer(x: Any) -> Any:
        return inner(x)

    async def main() -> None:
        await learn(both, 0)
        meeting.barrier = threading.Barrier(2)
        assert await outer(0) == 1 + 2 + KERNELS

    run_async(main())


# Turns.


def test_a_small_run_passes_a_big_one(run_async: Runner, pool: Pool) -> None:
    """One slot. The kernel of the big run that is executing when the small one comes is the last for that moment."""
    flow.set_num_interop_threads(1)
    gate = threading.Event()
    inside = threading.Event()
    started = 0
    started_before: list[int] = []

    @flow.op
    def of_many(x: int) -> int:
        nonlocal started
        started += 1
        begun = perf_counter()
        if x == 10:
            inside.set()
            assert gate.wait(20)
        while perf_counter() < begun + 1e-3:  # for which its run rises
            pass
        return x

    @flow.op
    def lone(x: int) -> int:
        started_before.append(started)
        return x

    @flow.pipeline
    def big() -> Any:
        return [of_many(i) for i in range(50)]

    @flow.pipeline
    def small(x: Any) -> Any:
        return lone(x)

    async def main() -> None:
        running = asyncio.create_task(big())
        await until(inside.is_set)
        queued = pool.queued
        smalls = [asyncio.create_task(small(i)) for i in range(3)]
        await until(lambda: pool.queued == queued + 3)
        gate.set()
        assert await asyncio.gather(*smalls) == [0, 1, 2]
        assert await running == list(range(50))

    run_async(main())
    assert started_before == [11] * 3
    assert started == 50


def test_a_small_run_passes_a_big_one_of_light_kernels(run_async: Runner, pool: Pool) -> None:
    """One slot. A batch of the big run is ended first, and no further one begins."""
    flow.set_num_interop_threads(1)
    gate = threading.Event()
    size, gated, started = 30_000, False, 0
    started_before: list[int] = []

    @flow.op
    def tiny(x: int) -> int:
        nonlocal started
        started += 1
        if gated and started == 5_000:
            assert gate.wait(20)
        return x + 1

    @flow.op
    def lone(x: int) -> int:
        started_before.append(started)
        return x

    @flow.pipeline
    def big(x: Any) -> Any:
        for _ in range(size):
            x = tiny(x)
        return x

    @flow.pipeline
    def small(x: Any) -> Any:
        return lone(x)

    async def main() -> None:
        nonlocal gated, started
        await learn(big, 0)
        gated, started = True, 0
        running = asyncio.create_task(big(0))
        await until(lambda: started == 5_000)
        queued = pool.queued
        small_one = asyncio.create_task(small(7))
        await until(lambda: pool.queued == queued + 1)
        gate.set()
        assert await small_one == 7
        assert await running == size

    run_async(main())
    assert 5_000 <= started_before[0] < 5_000 + LARGEST_BATCH
    assert started == size


@pytest.mark.parametrize("threads", [1, 2])
def test_a_small_serial_run_passes_a_big_one_that_is_serial_no_longer(run_async: Runner, threads: int) -> None:
    """Its worker had the right to serial runs, and has no use for it any more."""
    flow.set_num_interop_threads(threads)
    pool = process_pool()
    gate, small_is_over = threading.Event(), threading.Event()
    size, grown, started = 3_000, False, 0
    started_before: list[int] = []

    @flow.op
    def growing(x: int) -> int:
        nonlocal started
        started += 1
        if grown:
            spin(50e-6)
            if started == 1_000:
                assert gate.wait(20)
            if started == size - 1:
                assert small_is_over.wait(20)
        return x + 1

    @flow.op
    def look(x: int) -> int:
        started_before.append(started)
        return x + 1

    @flow.pipeline
    def big(x: Any) -> Any:
        for _ in range(size):
            x = growing(x)
        return x

    @flow.pipeline
    def small(x: Any) -> Any:
        for _ in range(KERNELS):
            x = look(x)
        return x

    async def main() -> None:
        nonlocal grown, started
        await learn(small, 0)
        await learn(big, 0)
        grown, started = True, 0
        started_before.clear()
        running = asyncio.create_task(big(0))
        await until(lambda: started == 1_000)
        small_one = asyncio.create_task(small(0))
        await until(lambda: pool.queued > 0 or small_one.done())
        gate.set()
        assert await small_one == KERNELS
        small_is_over.set()
        assert started_before[0] == 1_000 or threads > 1
        assert started_before[-1] < size
        assert await running == size

    run_async(main())


# Resizing.


def test_growing_wakes_what_is_queued_at_once_and_shrinking_holds_it(run_async: Runner, gate: Gate, pool: Pool) -> None:
    flow.set_num_interop_threads(1)

    @flow.op
    def kernel(i: int) -> int:
        gate.enter()
        return i

    @flow.pipeline
    def wide() -> Any:
        return [kernel(i) for i in range(20)]

    async def main() -> None:
        running = asyncio.create_task(wide())
        await until(lambda: gate.inside == 1)
        for threads in 2, 3, 8:
            assert (pool.busy, pool.queued) == (gate.inside, 20 - gate.inside)
            flow.set_num_interop_threads(threads)
            await until(lambda threads=threads: gate.inside == threads)  # none has ended
        assert (gate.started, pool.busy, pool.queued) == (8, 8, 12)
        flow.set_num_interop_threads(3)
        assert gate.inside == 8
        for left in 7, 6, 5, 4, 3:
            gate.let_go(1)
            await until(lambda left=left: pool.busy == left)
            assert (gate.started, pool.queued) == (8, 12)
        for started in 9, 10, 11:
            gate.let_go(1)
            await until(lambda started=started: gate.started == started)
            assert pool.busy == 3
        flow.set_num_interop_threads(5)
        await until(lambda: gate.inside == 5)
        gate.let_go(20)
        assert await running == list(range(20))

    run_async(main())
    assert (gate.peak, gate.started) == (8, 20)


def test_shrinking_holds_what_a_worker_alone_would_go_on_with(run_async: Runner, gate: Gate, pool: Pool) -> None:
    """Kernels that were light: one worker is in the first of a batch when the limit falls, and grows again."""
    flow.set_num_interop_threads(4)
    gate.shut = False

    @flow.op
    def kernel(i: int) -> int:
        gate.enter()
        return i

    @flow.pipeline
    def wide() -> Any:
        return [kernel(i) for i in range(KERNELS)]

    async def main() -> None:
        await learn(wide)
        gate.shut, gate.started, gate.peak = True, 0, 0
        running = asyncio.create_task(wide())
        await until(lambda: gate.inside == 4)
        flow.set_num_interop_threads(1)
        for left in 3, 2, 1:
            gate.let_go(1)
            await until(lambda left=left: pool.busy == left)
            assert gate.started == 4
        flow.set_num_interop_threads(6)
        await until(lambda: gate.inside == 6)
        gate.let_go(KERNELS)
        assert await running == list(range(KERNELS))

    run_async(main())
    assert (gate.peak, gate.started) == (6, KERNELS)


# Serial, parallel, and serial again.


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_a_run_is_serial_as_long_as_its_kernels_are_light(run_async: Runner, threads: int) -> None:
    flow.set_num_interop_threads(threads)
    seconds = 0.0

    @flow.op
    def add(x: int, y: int) -> int:
        if seconds:
            spin(seconds)
        return x + y

    @flow.pipeline
    def stencil(x: Any) -> Any:
        row: list[Any] = [x] * 8
        for _ in range(16):
            row = [add(left, right) for left, right in zip(row, [*row[1:], row[0]], strict=True)]
        return row

    async def main() -> None:
        nonlocal seconds
        for _ in range(3):
            seconds = 0.0
            await learn(stencil, 1)
            assert await stencil(1) == [2**16] * 8
            seconds = 100e-6
            await learn(stencil, 1, light=False)
            assert await stencil(1) == [2**16] * 8

    run_async(main())


@pytest.mark.parametrize("threads", [2, 8])
def test_a_run_becomes_parallel_in_its_middle_and_serial_at_its_end(run_async: Runner, threads: int) -> None:
    """Light kernels, then such that wait until there is one for each slot, then light ones again."""
    flow.set_num_interop_threads(threads)
    waves = threading.Barrier(threads)
    gated = False
    per_wave = 2 * threads

    @flow.op
    def light(x: int) -> int:
        return x + 1

    @flow.op
    def heavy(x: int, i: int) -> int:
        if gated:
            waves.wait(20)
        return x + i

    @flow.op
    def add(*each: int) -> int:
        return sum(each)

    @flow.pipeline
    def three_parts(x: Any) -> Any:
        for _ in range(100):
            x = light(x)
        x = add(*[heavy(x, i) for i in range(per_wave)])
        for _ in range(2_000):
            x = light(x)
        return x

    expected = sum(100 + i for i in range(per_wave)) + 2_000

    async def main() -> None:
        nonlocal gated
        await learn(three_parts, 0)
        gated = True
        for _ in range(5):
            assert await three_parts(0) == expected
        await learn(three_parts, 0)  # it ends serial, whatever was in between
        gated = False
        assert await three_parts(0) == expected

    run_async(main())


def test_runs_of_all_kinds_at_once_have_right_results(run_async: Runner) -> None:
    """Serial ones and others, with steps on the loop, and kernels that grow and shrink meanwhile."""
    flow.set_num_interop_threads(3)
    seconds = 0.0

    @flow.op
    def tiny(x: int) -> int:
        return x + 1

    @flow.op
    def changing(x: int) -> int:
        if seconds:
            spin(seconds)
        return x + 1

    @flow.op
    async def on_loop(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    @flow.pipeline
    def chain(x: Any) -> Any:
        for _ in range(500):
            x = tiny(x)
        return x

    @flow.pipeline
    def wide(x: Any) -> Any:
        return [changing(tiny(x)) for _ in range(100)]

    @flow.pipeline
    def mixed(x: Any) -> Any:
        for i in range(100):
            x = on_loop(x) if i % 10 == 9 else tiny(x)
        return x

    async def main() -> None:
        nonlocal seconds
        for turn in range(20):
            seconds = (0.0, 50e-6)[turn % 2]
            runs = [(chain(i), wide(i), mixed(i)) for i in range(4)]
            found = await asyncio.gather(*[run for each in runs for run in each])
            expected = [(i + 500, [i + 2] * 100, i + 100) for i in range(4)]
            assert found == [value for each in expected for value in each]

    run_async(main())


@pytest.mark.parametrize("at", [0, 1, 300, 599])
def test_a_failure_ends_a_serial_run_where_it_is(run_async: Runner, at: int) -> None:
    flow.set_num_interop_threads(2)
    started: list[int] = []
    fails = False

    @flow.op
    def kernel(x: int, i: int) -> int:
        started.append(i)
        if fails and i == at:
            raise ZeroDivisionError("as told")
        return x

    @flow.pipeline
    def chain(x: Any) -> Any:
        for i in range(600):
            x = kernel(x, i)
        return x

    async def main() -> None:
        nonlocal fails
        await learn(chain, 0)
        fails = True
        for _ in range(5):
            started.clear()
            with pytest.raises(ZeroDivisionError, match="as told"):
                await chain(0)
            assert started == list(range(at + 1))
        fails = False
        assert await chain(7) == 7

    run_async(main())


def test_a_serial_run_that_is_cancelled_starts_nothing_more(run_async: Runner, gate: Gate, pool: Pool) -> None:
    flow.set_num_interop_threads(2)
    gate.shut = False

    @flow.op
    def kernel(x: int) -> int:
        gate.enter()
        return x

    @flow.pipeline
    def chain(x: Any) -> Any:
        for _ in range(100):
            x = kernel(x)
        return x

    async def main() -> None:
        await learn(chain, 0)
        for _ in range(10):
            gate.shut, gate.started = True, 0
            running = asyncio.create_task(chain(0))
            await until(lambda: gate.inside == 1)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            gate.let_go(1)
            await until(lambda: not pool.busy)
            assert (gate.started, gate.inside, gate.allowed) == (1, 0, 0)
            gate.shut = False
            assert await chain(3) == 3

    run_async(main())


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_run_that_is_over_is_not_held_by_those_that_wait(run_async: Runner, pool: Pool, cancelled: bool) -> None:
    """It stood at a level of its own, to which nobody may look for long while others come at lower ones."""
    flow.set_num_interop_threads(1)
    waiting: list[int] = []
    inside, opened = threading.Event(), threading.Event()

    @flow.op
    def work(x: int) -> int:
        spin(4e-4)
        waiting.append(len(pool._parallel) + len(pool._serial))
        return x

    @flow.op
    def stay(x: int) -> int:
        inside.set()
        assert opened.wait(20)
        return x

    @flow.pipeline
    def p(x: int) -> int:
        for _ in range(4):  # it rises twice
            x = work(x)
        return work(stay(x)) if cancelled else x

    async def main() -> None:
        for _ in range(12):
            run = asyncio.ensure_future(p(1))
            if cancelled:
                await until(inside.is_set)
                run.cancel()
                await asyncio.wait([run])
                opened.set()
                await flow.quiet()
                inside.clear()
                opened.clear()
            else:
                assert await run == 1

    run_async(main())
    assert max(waiting) <= 2
