"""Calm: lanes go from one heavy kernel to the next without looking around, until something changes."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.engine import lanes
from dataflow.engine.run import Run
from dataflow.engine.scheduler import BATCH_SECONDS
from dataflow.engine.segment import END, Segment
from dataflow.events import OperatorEnded
from dataflow.graph.costs import Costs
from dataflow.graph.plan import Plan
from tests.release import FREE_THREADED, let_go, settles

Runner = Callable[[Any], Any]

HEAVY = 100e-6
"""What every kernel here is taken to cost, whatever it does."""


class Fixed(Costs):
    """Costs that learn nothing."""

    __slots__ = ()

    def first_measured(
        self, step: int, seconds: float, cpu_seconds: float, *, cold: bool = False, several: bool = False
    ) -> bool:
        return False

    def measured(self, step: int, seconds: float) -> None:
        pass

    def batch(self, *_: Any) -> bool:
        return False

    def beside_others(self, *_: Any, **__: Any) -> None:
        pass

    def shared(self, *_: Any) -> bool:
        return False


def fixed(pipeline: Any, *arguments: Any, seconds: Callable[[str], float] = lambda name: HEAVY) -> Plan:
    """Settle what the kernels of the pipeline's plan for these arguments cost, by the names of their operators."""
    plan: Plan = pipeline.prepare(arguments, {})[0]
    costs: Any = plan.costs
    costs.__class__ = Fixed
    costs.seconds[:] = [seconds(node.spec.name) for node in plan.nodes]
    costs._estimates[:] = costs.seconds
    costs._stale = True
    return plan


class Calm:
    """How often lanes went on in calm."""

    times = 0

    async def reaches(self, times: int) -> None:
        async with asyncio.timeout(20):
            while self.times < times:
                await asyncio.sleep(1e-3)


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calm]:
    """Two CPUs, whatever the machine has, and two inter-op threads."""
    calm, go_on = Calm(), Run.go_on

    def counted(self: Run, segment: Segment) -> int:
        following = go_on(self, segment)
        calm.times += following != END
        return following

    monkeypatch.setattr(Run, "go_on", counted)
    pool = lanes.process_pool()
    monkeypatch.setattr(pool._crowd, "cpus", 2)
    flow.set_num_interop_threads(3)
    flow.set_num_interop_threads(2)  # which counts anew
    yield calm
    flow.set_num_interop_threads(1)


@flow.op
def three(left: int, middle: int, right: int) -> int:
    time.sleep(20e-6)
    return (left + 3 * middle + 7 * right) % 1_000_003


def stenciled(row: list[Any], rows: int, three: Any) -> list[Any]:
    for _ in range(rows):
        row = [three(row[i - 1], row[i], row[(i + 1) % len(row)]) for i in range(len(row))]
    return row


@flow.pipeline
def stencil(first: Any) -> Any:
    return stenciled([first] * 8, 40, three)


def test_what_is_computed_in_calm_is_what_a_loop_computes(run_async: Runner, calm: Calm) -> None:
    expected = stenciled([5] * 8, 40, lambda a, b, c: (a + 3 * b + 7 * c) % 1_000_003)
    fixed(stencil, 5)
    for _ in range(20):
        assert run_async(stencil(5)) == expected
    assert calm.times > 20 * 100  # of 320 kernels each


def test_a_run_that_comes_has_its_turn_after_the_kernels_that_run(run_async: Runner, calm: Calm) -> None:
    started: list[float] = []

    @flow.op
    def one_of_many(i: int) -> int:
        started.append(time.perf_counter())
        time.sleep(100e-6)
        return i

    @flow.op
    def single(i: int) -> int:
        started.append(-1.0)
        return i

    @flow.pipeline
    def many() -> Any:
        return [one_of_many(i) for i in range(3000)]

    @flow.pipeline
    def small() -> Any:
        return single(1)

    fixed(many)

    async def main() -> None:
        big = asyncio.ensure_future(many())
        waits = []
        for _ in range(10):
            await calm.reaches(calm.times + 20)
            asked = time.perf_counter()
            await small()
            at = started.index(-1.0)
            waits.append(sum(when > asked for when in started[:at]))
            del started[: at + 1]
        big.cancel()
        # Those that two lanes were just starting; the machine may have been busy once.
        assert sorted(waits)[5] <= 4, waits

    run_async(main())


def test_runs_at_once_take_turns_of_a_few_kernels(run_async: Runner, calm: Calm) -> None:
    done = {1: 0, 2: 0, 3: 0}
    others: list[int] = []
    lock = threading.Lock()

    @flow.op
    def kernel(which: int, i: int) -> int:
        time.sleep(50e-6)
        with lock:
            done[which] += 1
            if done[which] == 1000 and not others:
                others.extend(done[other] for other in done if other != which)
        return i

    @flow.pipeline
    def many(which: int) -> Any:
        return [kernel(which, i) for i in range(2000)]

    plan = fixed(many, 1, seconds=lambda name: lanes.TURN / 4)
    assert fixed(many, 2, seconds=lambda name: lanes.TURN / 4) is plan  # of the same inputs but for their values

    async def main() -> None:
        await asyncio.gather(*[many(which) for which in done])

    run_async(main())
    assert set(done.values()) == {2000}
    assert calm.times > 3000  # most kernels came in calm
    # Three runs on two lanes: when one is half way through, so are the others, more or less. Without the interpreter's
    # lock, lanes are well into the first while the loop still begins the others.
    assert min(others) > (100 if FREE_THREADED else 500)


def test_what_is_done_is_counted_whatever_it_weighs_and_whoever_listens(run_async: Runner, calm: Calm) -> None:
    @flow.op
    def kernel(i: int) -> int:
        return sum(range(2000))

    @flow.pipeline
    def many() -> Any:
        return [kernel(i) for i in range(200)]

    for seconds, listening in (HEAVY, False), (HEAVY, True), (1e-6, False), (1e-6, True), (float("inf"), False):
        plan = fixed(many, seconds=lambda name, seconds=seconds: seconds)  # type: ignore[misc]
        before = plan.costs.worked
        unsubscribe = flow.observe(lambda event: None, kinds=[OperatorEnded]) if listening else lambda: None
        run_async(many())
        unsubscribe()
        worked = plan.costs.worked - before
        if seconds == HEAVY:
            # Lanes add to it without a lock; without the interpreter's, what two add at once is counted once.
            assert worked == pytest.approx(200 * HEAVY, rel=0.5 if FREE_THREADED else 1e-6)
        else:
            assert 200 * 2e-6 < worked < 60.0


def test_a_lonely_lane_goes_on_in_calm(run_async: Runner, calm: Calm) -> None:
    @flow.op
    def kernel(i: int) -> int:
        time.sleep(50e-6)
        return i + 1

    @flow.pipeline
    def chain() -> Any:
        i: Any = 0
        for _ in range(100):
            i = kernel(i)
        return i

    fixed(chain, seconds=lambda name: BATCH_SECONDS)
    most = 0
    for _ in range(50):  # now and then the other lane comes to look whether there is anything for it
        before = calm.times
        assert run_async(chain()) == 100
        most = max(most, calm.times - before)
        if most > 80:
            break
    assert most > 20


def test_a_smaller_limit_holds_from_the_next_kernel_on(run_async: Runner, calm: Calm) -> None:
    inside, most = 0, 0
    lock = threading.Lock()

    @flow.op
    def kernel(i: int) -> int:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(100e-6)
        with lock:
            inside -= 1
        return i

    @flow.pipeline
    def many() -> Any:
        return [kernel(i) for i in range(2000)]

    fixed(many)

    async def main() -> None:
        nonlocal most
        run = asyncio.ensure_future(many())
        await calm.reaches(50)
        async with asyncio.timeout(20):  # for the second lane, which the first need not wait for
            while most < 2:
                await asyncio.sleep(0)
        flow.set_num_interop_threads(1)
        await asyncio.sleep(20e-3)  # for two kernels to end
        with lock:
            most = inside
        await asyncio.sleep(20e-3)
        assert most == 1
        flow.set_num_interop_threads(2)
        await run

    run_async(main())


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_after_a_stop_no_kernel_starts_and_nothing_is_held(run_async: Runner, calm: Calm, end: str) -> None:
    values: list[weakref.ref[Any]] = []
    broken = threading.Event()
    stopped, late = threading.Event(), []

    @flow.op
    def source(i: int) -> np.ndarray:
        return kept(np.full(10, i))

    @flow.op
    def grown(value: np.ndarray) -> np.ndarray:
        if stopped.is_set():
            late.append(value)
        time.sleep(100e-6)
        if broken.is_set():
            broken.clear()
            raise ValueError("broken on purpose")
        return kept(value + 1)

    def kept(value: np.ndarray) -> np.ndarray:
        values.append(weakref.ref(value))
        return value

    @flow.pipeline
    def long() -> Any:
        rows = [source(i) for i in range(6)]
        for _ in range(400):
            rows = [grown(row) for row in rows]
        return rows

    fixed(long)

    async def main() -> None:
        run = asyncio.ensure_future(long())
        await calm.reaches(50)
        if end == "failed":
            broken.set()
            with pytest.raises(ValueError, match="broken on purpose") as info:
                await run
            assert "operator 'grown'" in info.value.__notes__[0]
            info.value.__traceback__ = None
            del info
        else:
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
        await flow.quiet()
        del run
        stopped.set()
        await asyncio.sleep(5e-3)
        assert not late
        async with asyncio.timeout(20):  # the thread of the last kernel may be about to leave its frames
            while any(ref() is not None for ref in values):
                let_go()
                await asyncio.sleep(1e-3)

    run_async(main())


def test_a_stop_while_values_are_let_go_of_is_in_time(run_async: Runner, calm: Calm) -> None:
    freeing, freed = threading.Event(), threading.Event()
    started: list[int] = []
    armed = False

    class Value:
        def __init__(self, at: int) -> None:
            self.at = at

        def __del__(self) -> None:
            if armed and self.at == 50 and not freeing.is_set():
                freeing.set()
                freed.wait(20)

    @flow.op
    def kernel(one: Any, other: Any, at: int) -> Value:  # of two readers, so that no lane lets go of it by itself
        if freeing.is_set():
            started.append(at)
        time.sleep(50e-6)
        return Value(at)

    @flow.pipeline
    def long() -> Any:
        row: list[Any] = [0] * 6
        for at in range(100):
            row = [kernel(row[i], row[i - 1], at) for i in range(6)]
        return row

    fixed(long)
    run_async(long())

    async def main() -> None:
        nonlocal armed
        armed = True
        run = asyncio.ensure_future(long())
        assert await asyncio.to_thread(freeing.wait, 20)
        await asyncio.sleep(20e-3)  # for the other lane to come to the end of its kernel, and on
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        begun = len(started)
        freed.set()
        await flow.quiet()
        armed = False
        assert len(started) == begun

    run_async(main())


@pytest.mark.parametrize("interval", [5e-3, 1e-5])
def test_two_that_wait_for_each_other_meet_whoever_is_just_leaving(
    run_async: Runner, calm: Calm, interval: float
) -> None:
    meeting: list[threading.Barrier] = []

    @flow.op
    def meet(layer: int, one: Any, other: Any) -> int:
        np.add.reduce(np.broadcast_to(1.0, 20_000))
        meeting[layer].wait(20)
        return layer

    @flow.pipeline
    def layers() -> Any:
        one = other = 0
        for layer in range(60):
            one, other = meet(layer, one, other), meet(layer, one, other)
        return one, other

    async def main() -> None:
        for _ in range(20):
            meeting[:] = [threading.Barrier(2) for _ in range(60)]
            assert await layers() == (59, 59)

    before = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    try:
        run_async(main())
    finally:
        sys.setswitchinterval(before)


def test_values_go_at_their_last_use(run_async: Runner, calm: Calm) -> None:
    alive, most = 0, 0
    lock = threading.RLock()  # a collection may free one in the middle of this

    class Counted(np.ndarray):
        pass

    def counted(value: np.ndarray) -> Counted:
        nonlocal alive, most
        result = value.view(Counted)
        with lock:
            alive += 1
            most = max(most, alive)
        weakref.finalize(result, gone)
        return result

    def gone() -> None:
        nonlocal alive
        with lock:
            alive -= 1

    @flow.op
    def source(i: int) -> Counted:
        return counted(np.full(10, 1.0 + i))

    @flow.op
    def of_three(a: Counted, b: Counted, c: Counted) -> Counted:
        time.sleep(50e-6)
        return counted((np.asarray(a) + np.asarray(b) + np.asarray(c)) / 3)

    @flow.op
    def total(*values: Counted) -> float:
        return float(sum(value.sum() for value in values))

    @flow.pipeline
    def rows() -> Any:
        return total(*stenciled([source(i) for i in range(8)], 50, of_three))

    plan = fixed(rows)
    assert run_async(rows()) > 0
    assert calm.times > 100
    assert settles(lambda: let_go() or alive == 0)
    # A row, and what one lane may do while the other is not on a CPU. Without the interpreter's lock a value may wait
    # for the thread that made it, and nobody collects here in between.
    assert most <= (len(plan.nodes) if FREE_THREADED else 24)


def test_no_kernel_sees_what_the_one_before_has_set(run_async: Runner, calm: Calm) -> None:
    variable = contextvars.ContextVar("variable", default="nothing")
    seen = []

    @flow.op
    def setting(i: int) -> int:
        seen.append(variable.get())
        variable.set(f"set by {i}")
        time.sleep(50e-6)
        return i

    @flow.pipeline
    def many() -> Any:
        return [setting(i) for i in range(100)]

    fixed(many)
    assert run_async(many()) == list(range(100))
    assert calm.times > 50
    assert set(seen) == {"nothing"}


def test_async_operators_begin_when_what_they_wait_for_is_done(run_async: Runner, calm: Calm) -> None:
    @flow.op
    def kernel(i: int) -> int:
        time.sleep(50e-6)
        return i + 1

    @flow.op
    async def asked(i: int) -> int:
        await asyncio.sleep(0)
        return i + 1

    @flow.pipeline
    def mixed() -> Any:
        rows = [0] * 6
        for number in range(60):
            operator = asked if number % 5 == 4 else kernel
            rows = [operator(row) for row in rows]
        return rows

    fixed(mixed, seconds=lambda name: float("inf") if name == "asked" else HEAVY)
    for _ in range(5):
        assert run_async(mixed()) == [60] * 6
    assert calm.times > 100


def test_light_kernels_behind_heavy_ones_are_executed_by_their_lane(run_async: Runner, calm: Calm) -> None:
    threads: dict[str, set[int]] = {}

    @flow.op
    def heavy(name: str) -> str:
        time.sleep(50e-6)
        threads.setdefault(name, set()).add(threading.get_ident())
        return name

    @flow.op
    def light(name: str) -> str:
        threads[name].add(threading.get_ident())
        return name

    @flow.pipeline
    def pairs() -> Any:
        return [light(heavy(str(i))) for i in range(200)]

    fixed(pairs, seconds=lambda name: 1e-6 if name == "light" else HEAVY)
    run_async(pairs())
    assert calm.times > 200
    assert [len(idents) for idents in threads.values()].count(1) > 190  # but where a lane looked around


def test_beyond_the_cpus_kernels_that_wait_for_each_other_meet(run_async: Runner, calm: Calm) -> None:
    flow.set_num_interop_threads(4)
    meeting = threading.Barrier(4)

    @flow.op
    def usual(i: int) -> int:
        time.sleep(50e-6)
        return i

    @flow.op
    def meets(*before: int) -> int:
        meeting.wait(20)
        return len(before)

    @flow.pipeline
    def party() -> Any:
        return [meets(*[usual(i) for i in range(60)]) for _ in range(4)]

    fixed(party)
    for _ in range(5):
        assert run_async(party()) == [60] * 4
    assert calm.times


def test_an_observer_that_comes_is_told_soon(run_async: Runner, calm: Calm) -> None:
    @flow.op
    def kernel(i: int) -> int:
        time.sleep(100e-6)
        return i

    @flow.pipeline
    def many() -> Any:
        return [kernel(i) for i in range(2000)]

    fixed(many)
    told = []

    async def main() -> None:
        run = asyncio.ensure_future(many())
        await calm.reaches(50)
        stop = flow.observe(told.append, kinds=[flow.events.OperatorEnded])
        try:
            reached = calm.times
            await run
        finally:
            stop()
        assert calm.times <= reached + 4
        assert len(told) >= 2000 - reached - 100

    run_async(main())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # so many threads are too many, or more than there may be
def test_long_kernels_are_calm_unless_each_may_have_other_blas_threads(run_async: Runner, calm: Calm) -> None:
    @flow.op
    def long(i: int) -> int:
        time.sleep(300e-6)
        return i

    @flow.pipeline
    def many() -> Any:
        return [long(i) for i in range(100)]

    plan = fixed(many, seconds=lambda name: 300e-6)
    assert run_async(many()) == list(range(100))
    assert calm.times > 30
    with flow.threads(intraop=2):
        reached = calm.times
        run_async(many())
        assert calm.times == reached
    if flow.parallel_info()["blas"][0]["at most"] == 1:
        return  # they never have
    plan.costs.seconds[:] = [10e-3] * 100  # in whose midst it may change
    run_async(many())
    assert calm.times == reached
