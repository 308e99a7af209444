"""`Limit`: never more than n at once, in the order of asking, and no permit is ever lost or given twice."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.engine.runs import backoff
from tests.conftest import LOOPS
from tests.engine.clock import FakeClock, failure, until
from tests.release import let_go, settles

Runner = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeClock]:
    """No test takes time."""
    fake = FakeClock()
    monkeypatch.setattr(backoff, "process_clock", fake)
    yield fake
    assert fake.pending == 0
    asyncio.run(flow.quiet())


class Device:
    """Counts who uses it; stops its users until it is `free`, if that is asked for."""

    def __init__(self, *, held: bool = False) -> None:
        self.lock = threading.Lock()
        self.users = self.most = self.uses = 0
        self.order: list[Any] = []
        self.free = threading.Event()
        if not held:
            self.free.set()

    def enter(self, who: Any) -> None:
        with self.lock:
            self.users += 1
            self.uses += 1
            self.most = max(self.most, self.users)
            self.order.append(who)

    def leave(self) -> None:
        with self.lock:
            self.users -= 1

    def use(self, who: Any) -> Any:
        self.enter(who)
        assert self.free.wait(20)
        self.leave()
        return who

    async def use_on_loop(self, who: Any) -> Any:
        self.enter(who)
        try:
            await asyncio.sleep(0)
            await until(self.free.is_set)
        finally:
            self.leave()
        return who


def ops(device: Device, limit: flow.Limit) -> tuple[Any, Any]:
    """A kernel and an async operator that use it."""
    return (
        flow.op(device.use, name="use").options(limit=limit),
        flow.op(device.use_on_loop, name="use_on_loop").options(limit=limit),
    )


def all_back(limit: flow.Limit) -> bool:
    return limit.available == limit.n and limit.waiting == 0


# ---------------------------------------------------------------- what it promises


@pytest.mark.parametrize("n", [1, 2, 3])
def test_never_more_than_n_over_operators_and_runs(run_async: Runner, n: int) -> None:
    flow.set_num_interop_threads(4)
    device, limit = Device(), flow.Limit(n)
    kernel, on_loop = ops(device, limit)

    @flow.pipeline
    def p(x: int) -> Any:
        return [kernel(x), on_loop(x), kernel(x + 1), on_loop(x + 1), flow.map(kernel, [x, x])]

    async def main() -> None:
        runs = [asyncio.create_task(p(x)) for x in range(10)]
        starts = [kernel.start(x) for x in range(5)]
        for x, run in enumerate(runs):
            assert await run == [x, x, x + 1, x + 1, [x, x]]
        for x, start in enumerate(starts):
            assert await start == x
        await until(lambda: all_back(limit))

    run_async(main())
    assert device.most <= n
    assert device.uses == 10 * 6 + 5


def test_over_loops_in_several_threads() -> None:
    flow.set_num_interop_threads(3)
    device, limit = Device(), flow.Limit(2)
    kernel, on_loop = ops(device, limit)
    wrong: list[BaseException] = []

    @flow.pipeline
    def p(x: int) -> Any:
        return kernel(x), on_loop(x), kernel(on_loop(x))

    async def serve(seed: int) -> None:
        rng = random.Random(seed)
        for round_ in range(20):
            runs = [asyncio.create_task(p(round_)) for _ in range(4)]
            gone = rng.sample(runs, 2)
            for _ in range(rng.randrange(10)):
                await asyncio.sleep(0)
            for run in gone:
                run.cancel()
            for run in runs:
                try:
                    assert await run == (round_,) * 3
                except asyncio.CancelledError:
                    assert run in gone

    def in_thread(seed: int) -> None:
        try:
            factory = list(LOOPS.values())[seed % len(LOOPS)]
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(serve(seed))
        except BaseException as exc:
            wrong.append(exc)

    threads = [threading.Thread(target=in_thread, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    asyncio.run(flow.quiet())
    assert device.users == 0
    assert device.most <= 2
    asyncio.run(until(lambda: all_back(limit)))


def test_in_the_order_of_asking_and_no_thread_waits(run_async: Runner) -> None:
    flow.set_num_interop_threads(2)
    device, limit = Device(held=True), flow.Limit(1)
    kernel, on_loop = ops(device, limit)

    @flow.op
    def add(x: int) -> int:
        return x + 1

    async def main() -> None:
        started = []
        for x in range(10):
            started.append((kernel if x % 2 else on_loop).start(x))
            await until(lambda x=x: limit.waiting == x and not limit.available)
        assert repr(limit) == "<Limit 1: 0 available, 9 waiting>"
        await until(lambda: flow.parallel_info()["interop_threads"]["busy"] == 0)  # the first is an async op
        assert await add.start(1) == 2, "both threads are free"
        device.free.set()
        for x, task in enumerate(started):
            assert await task == x

    run_async(main())
    assert device.order == list(range(10))
    assert repr(limit) == "<Limit 1: 1 available, 0 waiting>"


@pytest.mark.parametrize("how", ["cancelled", "timed out", "another fails"])
def test_a_kernel_has_its_permit_until_it_returns(run_async: Runner, clock: FakeClock, how: str) -> None:
    flow.set_num_interop_threads(2)
    device, limit = Device(held=True), flow.Limit(1)
    kernel = ops(device, limit)[0].options(timeout=5)
    fails = asyncio.Event()

    @flow.op
    async def other() -> None:
        await fails.wait()
        raise KeyError

    @flow.pipeline
    def p() -> Any:
        return kernel(0), other()

    async def main() -> None:
        run = asyncio.create_task(p())
        await until(lambda: device.users)
        if how == "cancelled":
            run.cancel()
        elif how == "timed out":
            clock.advance(5)
        else:
            fails.set()
        await failure(run)
        second = kernel.start(1)
        for _ in range(20):
            await asyncio.sleep(0)
        assert (device.users, limit.available, limit.waiting) == (1, 0, 1), "the device is still in use"
        device.free.set()
        assert await second == 1
        await flow.quiet()

    run_async(main())
    assert device.most == 1
    assert all_back(limit)


def test_a_kernel_that_never_began_gives_its_permit_back_at_once(run_async: Runner) -> None:
    flow.set_num_interop_threads(1)
    blocker, device, limit = Device(held=True), Device(), flow.Limit(1)
    kernel, on_loop = ops(device, limit)

    async def main() -> None:
        first = flow.op(blocker.use, name="blocker").start(0)
        await until(lambda: blocker.users)
        queued = kernel.start(1)
        await until(lambda: not limit.available)
        queued.cancel()
        assert isinstance(await failure(queued), asyncio.CancelledError)
        assert all_back(limit)
        assert await on_loop.start(2) == 2
        blocker.free.set()
        await first

    run_async(main())
    assert device.order == [2]


def test_waiting_for_a_further_attempt_holds_nothing(run_async: Runner, clock: FakeClock) -> None:
    device, limit = Device(), flow.Limit(1)
    calls: list[int] = []

    @flow.op(limit=limit, retries=1)
    def fails_once(x: int) -> int:
        calls.append(x)
        if len(calls) == 1:
            raise OSError
        return x

    async def main() -> None:
        first = fails_once.start(1)
        await until(lambda: clock.asked)
        assert all_back(limit)
        assert await ops(device, limit)[1].start(2) == 2
        clock.advance(1)
        assert await first == 1

    run_async(main())
    assert all_back(limit)


def test_waiting_is_no_part_of_the_timeout(run_async: Runner, clock: FakeClock) -> None:
    device, limit = Device(held=True), flow.Limit(1)
    _, on_loop = ops(device, limit)

    async def main() -> None:
        first = on_loop.start(1)
        await until(lambda: device.users)
        second = on_loop.options(timeout=5).start(2)
        await until(lambda: limit.waiting)
        clock.advance(100)
        device.free.set()
        assert await first == 1
        assert await second == 2

    run_async(main())


@pytest.mark.parametrize("which", range(4))
def test_cancelled_while_it_waits_it_is_gone_at_once(run_async: Runner, which: int) -> None:
    device, limit = Device(held=True), flow.Limit(1)
    kernel, on_loop = ops(device, limit)

    async def main() -> None:
        started = [on_loop.start(0), kernel.start(1), on_loop.start(2), kernel.start(3)]
        await until(lambda: device.users and limit.waiting == 3)
        started[which].cancel()
        assert isinstance(await failure(started[which]), asyncio.CancelledError)
        await until(lambda: limit.waiting == 2)
        device.free.set()
        for x, task in enumerate(started):
            if x != which:
                assert await task == x
        assert len(asyncio.all_tasks()) == 1

    run_async(main())
    assert device.most == 1
    assert [x for x in device.order if x] == [x for x in (1, 2, 3) if x != which]
    assert all_back(limit)


@pytest.mark.parametrize("turns", range(4))
def test_an_async_operator_that_is_cancelled_before_it_begins_gives_its_permit_back(
    run_async: Runner, turns: int
) -> None:
    device, limit = Device(), flow.Limit(1)
    _, on_loop = ops(device, limit)

    async def main() -> None:
        task = on_loop.start(1)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await failure(task)
        await until(lambda: all_back(limit))

    run_async(main())


def test_a_chain_under_one_permit_takes_it_for_each_kernel(run_async: Runner) -> None:
    """Also where several runs, of which each has one worker, hand it to each other."""
    flow.set_num_interop_threads(3)
    device, limit = Device(), flow.Limit(1)
    kernel, on_loop = ops(device, limit)
    chain = flow.pipeline(lambda x: [kernel(kernel(kernel(x))) for _ in range(10)] + [on_loop(kernel(x))], name="chain")

    async def main() -> None:
        assert await asyncio.gather(*[chain(x) for x in range(5)]) == [[x] * 11 for x in range(5)]
        await until(lambda: all_back(limit))

    run_async(main())
    assert device.most == 1
    assert device.uses == 5 * 32


def test_permits_pass_from_a_thread_to_a_run_inside_a_kernel(run_async: Runner) -> None:
    """Whoever waits there in its kernel's thread hears of it."""
    flow.set_num_interop_threads(2)
    device, limit = Device(held=True), flow.Limit(1)
    kernel, on_loop = ops(device, limit)
    inner = flow.pipeline(lambda x: (kernel(x), on_loop(x)), name="inner")

    @flow.op
    def outer(x: int) -> Any:
        return inner.run(x)

    async def main() -> None:
        first = kernel.start(0)
        await until(lambda: device.users)
        second = outer.start(1)
        await until(lambda: limit.waiting == 2)
        device.free.set()
        assert await first == 0
        assert await second == (1, 1)
        await until(lambda: all_back(limit))

    run_async(main())


# ---------------------------------------------------------------- permits by hand


def test_one_that_is_handed_over_to_somebody_who_is_cancelled_goes_on(run_async: Runner) -> None:
    limit = flow.Limit(1)

    async def main() -> None:
        permit = await limit._permit()
        first, second = (asyncio.create_task(limit._permit()) for _ in range(2))
        await until(lambda: limit.waiting == 2)
        permit.give_back()  # to the first, whose loop has not told it yet
        assert limit.waiting == 1
        first.cancel()
        (await second).give_back()
        assert isinstance(await failure(first), asyncio.CancelledError)
        assert all_back(limit)

    run_async(main())


@pytest.mark.parametrize("factory", LOOPS.values(), ids=LOOPS)
def test_waiters_of_loops_that_are_closed_are_passed_over(factory: Any) -> None:
    limit = flow.Limit(1)
    loop = factory()

    async def wait() -> None:
        await limit._permit()

    async def take() -> Any:
        return await limit._permit()

    permit = asyncio.run(take())
    forgotten = loop.create_task(wait())
    loop.run_until_complete(asyncio.sleep(0))
    assert limit.waiting == 1
    forgotten._log_destroy_pending = False
    loop.close()
    assert limit.waiting == 0
    permit.give_back()
    assert all_back(limit)
    del forgotten
    gc.collect()
    assert all_back(limit), "what is collected gives nothing back that it did not have"


def test_one_that_was_handed_over_to_a_loop_which_ended_before_it_knew_comes_back() -> None:
    limit = flow.Limit(1)
    loop = asyncio.new_event_loop()

    async def take() -> Any:
        return await limit._permit()

    permit = asyncio.run(take())
    forgotten = loop.create_task(take())
    loop.run_until_complete(asyncio.sleep(0))
    permit.give_back()
    assert (limit.available, limit.waiting) == (0, 0)
    forgotten._log_destroy_pending = False
    loop.close()
    del forgotten
    gc.collect()
    assert all_back(limit)


def test_giving_back_while_the_collector_does_so_too_in_the_same_thread() -> None:
    """What is collected may give a permit back in the middle of anything, also under the limit's lock."""
    limit = flow.Limit(2)

    async def main() -> None:
        first, second = await limit._permit(), await limit._permit()
        third = asyncio.create_task(limit._permit())
        await until(lambda: limit.waiting)
        with limit._lock:
            first.give_back()
        (await third).give_back()
        second.give_back()

    asyncio.run(main())
    assert all_back(limit)


def test_taking_and_giving_back_from_many_threads() -> None:
    limit = flow.Limit(3)
    inside = 0
    most = 0
    lock = threading.Lock()

    async def churn(seed: int) -> None:
        nonlocal inside, most
        rng = random.Random(seed)
        for _ in range(100):
            waiting = asyncio.create_task(limit._permit())
            if rng.random() < 0.3:
                for _ in range(rng.randrange(3)):
                    await asyncio.sleep(0)
                waiting.cancel()
            try:
                permit = await waiting
            except asyncio.CancelledError:
                continue
            with lock:
                inside += 1
                most = max(most, inside)
            await asyncio.sleep(0)
            with lock:
                inside -= 1
            permit.give_back()

    threads = [threading.Thread(target=asyncio.run, args=(churn(seed),)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all_back(limit)
    assert most <= 3


# ---------------------------------------------------------------- fork, wrong values


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork_all_is_free_in_the_child_and_as_it_was_in_the_parent() -> None:
    script = """
        import asyncio, os, sys, threading, warnings
        import dataflow as flow
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # since 3.12: "this process is multi-threaded"
        limit, gate, inside = flow.Limit(1), threading.Event(), threading.Event()

        @flow.op(limit=limit)
        def use(wait):
            inside.set()
            return wait and gate.wait(20)

        @flow.pipeline
        def p(wait): return use(wait)

        runs = [threading.Thread(target=p.run, args=(True,)) for _ in range(2)]
        for run in runs: run.start()
        inside.wait(20)
        while not limit.waiting: os.sched_yield()
        child = os.fork()
        if not child:
            assert (limit.available, limit.waiting) == (1, 0)
            assert p.run(False) is False
            assert (limit.available, limit.waiting) == (1, 0)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (limit.available, limit.waiting) == (0, 1)
        gate.set()
        for run in runs: run.join()
        assert p.run(False) is False
        assert (limit.available, limit.waiting) == (1, 0)

        @flow.op(limit=limit)
        def forks():
            # Here the child has this thread alone, so it ends with the kernel.
            return os.fork() or os._exit(limit.available != 1)

        @flow.pipeline
        def forking(): return forks()

        child = forking.run()
        if child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_a_permit_of_before_the_fork_is_worth_nothing_after_it() -> None:
    limit = flow.Limit(1)

    async def main() -> None:
        permit = await limit._permit()
        limit._reset()  # what the child does
        permit.give_back()
        assert all_back(limit)

    asyncio.run(main())


@pytest.mark.parametrize("n", [True, 1.0, "1", None])
def test_what_is_no_number_is_refused(n: Any) -> None:
    with pytest.raises(TypeError, match="Limit: n must be an int"):
        flow.Limit(n)


@pytest.mark.parametrize("n", [0, -1, np.int64(0)])
def test_less_than_one_is_refused(n: Any) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        flow.Limit(n)


def test_a_numpy_integer_is_one() -> None:
    assert flow.Limit(np.int64(3)).n == 3


def test_a_permit_comes_back_from_a_loop_that_was_closed() -> None:
    """Also where somebody else waited on the same loop, and so held whoever had it."""
    limit = flow.Limit(1)
    begun = threading.Event()

    @flow.op(limit=limit)
    async def hold(x: int) -> int:
        begun.set()
        await asyncio.Event().wait()
        return x

    @flow.op(limit=limit)
    async def also(x: int) -> int:
        return x

    @flow.pipeline
    def p(x: int) -> Any:
        return hold(x), also(x)

    @flow.pipeline
    def q(x: int) -> int:
        return also(x)

    loop = asyncio.new_event_loop()
    under_way: list[Any] = []

    async def main() -> None:
        under_way.append(loop.create_task(_awaits(p(1))))
        while not begun.is_set():
            await asyncio.sleep(0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loop.run_until_complete(main())
        loop.close()
        under_way.clear()

        async def later() -> int:
            return await q(2)

        assert limit._take() is None  # whoever asks finds out that nobody is there any more
        gc.collect()
        assert settles(lambda: let_go() or limit.available == 1)
        assert asyncio.run(asyncio.wait_for(later(), 10)) == 2
    assert limit.available == 1


async def _awaits(awaitable: Any) -> Any:
    return await awaitable
