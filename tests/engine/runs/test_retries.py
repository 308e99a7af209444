"""Operators with timeouts and retries: what each does, alone and beside failures, cancellations and each other."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.engine.pool import process_pool
from dataflow.engine.runs import backoff
from dataflow.engine.runs.orphans import orphans
from dataflow.events import Event, LateFailure, OperatorEnded, Retrying, RunEnded, RunStarted
from tests.engine.clock import FakeClock, failure, until
from tests.release import let_go, settles

Runner = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeClock]:
    """No test takes time: what waits, waits until the test lets it go on."""
    fake = FakeClock()
    monkeypatch.setattr(backoff, "process_clock", fake)
    yield fake
    assert fake.pending == 0, "no timer is left"
    asyncio.run(flow.quiet())  # a kernel that has failed may be on its way out
    assert process_pool().queued == 0


class Gate:
    """A kernel stops in `__call__` until the test opens it; so does an async op in `passed`."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = 0
        self.left = 0

    def __call__(self) -> None:
        self.entered += 1
        assert self.opened.wait(20)
        self.left += 1

    async def passed(self) -> None:
        self.entered += 1
        try:
            await until(self.opened.is_set)
        finally:
            self.left += 1

    async def reached(self, times: int = 1) -> None:
        await until(lambda: self.entered >= times)


class Flaky:
    """Fails so many times, and then gives its argument, plus one."""

    def __init__(self, *errors: BaseException | type[BaseException]) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, x: int = 0) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return x + 1


def single(op: Any) -> Any:
    """The pipeline of one call."""
    return flow.pipeline(lambda *args: op(*args), name="single")


def as_kernel(function: Callable[..., Any], **options: Any) -> Any:
    @flow.op(name="flaky", **options)
    def kernel(*args: Any) -> Any:
        return function(*args)

    return kernel


def as_async(function: Callable[..., Any], **options: Any) -> Any:
    @flow.op(name="flaky", **options)
    async def on_loop(*args: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args)

    return on_loop


BOTH = pytest.mark.parametrize("declare", [as_kernel, as_async])


@flow.op(timeout=10)
def add(x: Any, y: Any) -> Any:
    return x + y


@flow.op
def plain_add(x: Any, y: Any) -> Any:
    return x + y


@flow.op(timeout=10)
async def add_on_loop(x: Any, y: Any) -> Any:
    await asyncio.sleep(0)
    return x + y


@flow.pipeline
def mixed(x: int) -> Any:
    a, b = add(x, 1), plain_add(x, 2)
    return plain_add(add(a, b), add_on_loop(a, b)), add(a, a)


# ---------------------------------------------------------------- managed steps are steps like others


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_they_compute_what_others_do_in_every_way_of_running(run_async: Runner, threads: int) -> None:
    flow.set_num_interop_threads(threads)
    want = (2 + 3) * 2, 4

    @flow.op
    def in_kernel(x: int) -> Any:
        return mixed.run(x)

    @flow.op(timeout=10)
    def in_managed_kernel(x: int) -> Any:
        return mixed.run(x)

    @flow.pipeline
    def nested(x: int) -> Any:
        return in_kernel(x), in_managed_kernel(x), flow.map(add.options(name="inc"), [1])

    nested_twice = flow.pipeline(lambda x: [in_kernel(x), in_managed_kernel(x)] * 2, name="nested_twice")

    async def main() -> None:
        for _ in range(3):
            assert await mixed(1) == want
            assert await nested_twice(1) == [want] * 4
        assert await add.start(add.start(1, 2), add_on_loop.start(3, 4)) == 10

    run_async(main())
    assert mixed.run(1) == want
    assert nested_twice.run(1) == [want] * 4
    assert mixed.debug(1) == want


def test_in_map_and_cond_and_on_methods(run_async: Runner) -> None:
    ran: list[Any] = []

    class Model:
        @flow.op(retries=1, backoff=0)
        def step(self, x: int) -> int:
            ran.append(x)
            if ran.count(x) == 1:
                raise ValueError("the first time")
            return x + 1

        @flow.pipeline
        def forward(self, x: int) -> Any:
            return self.step(x), flow.map(self.step, [10, 20]), flow.cond(True, self.step, plain_add, 30)

    async def main(clock: FakeClock) -> None:
        task = asyncio.create_task(Model().forward(1))
        while not task.done():
            clock.advance(0)
            await asyncio.sleep(0)
        assert await task == (2, [11, 21], 31)

    run_async(main(backoff.process_clock))
    assert sorted(ran) == [1, 1, 10, 10, 20, 20, 30, 30]


def test_values_are_protected_copied_and_released_as_ever(run_async: Runner) -> None:
    given = np.zeros(3)

    @flow.op(timeout=10)
    def writes(x: Any) -> Any:
        x += 1
        return x

    @flow.op(timeout=10, writes=("x",))
    def may_write(x: Any) -> Any:
        x += 1
        return x

    @flow.op(timeout=10)
    def passes(x: Any) -> Any:
        return x[1:]

    @flow.op(timeout=10)
    def make() -> Any:
        return np.ones(4)

    chain = flow.pipeline(lambda x: may_write(may_write(x)), name="chain")
    views = flow.pipeline(lambda x: (passes(x), passes(passes(make())), passes(x).sum()), name="views")
    parts = flow.pipeline(lambda: (make()[0], make().shape, make()[2:]), name="parts")

    async def main() -> None:
        error = await failure(single(writes)(given))
        assert "read-only" in str(error)
        assert "x.copy()" in error.__notes__[0]
        assert (await chain(given)).tolist() == [2, 2, 2]
        view, deeper, total = await views(given)
        view[0] = deeper[0] = 7  # ours to write to
        assert total == 0
        first, shape, tail = await parts()
        assert (first, shape, tail.tolist()) == (1, (4,), [1, 1])
        assert given.tolist() == [0, 0, 0]

    run_async(main())
    assert chain.debug(given).tolist() == [2, 2, 2]


def test_wrong_results_are_refused(run_async: Runner) -> None:
    @flow.op(timeout=10)
    def generates() -> Any:
        yield 1

    @flow.op(timeout=10)
    def forgets() -> Any:
        return asyncio.sleep(0)

    async def main() -> None:
        assert "returned a generator" in str(await failure(single(generates)()))
        assert "returned an awaitable" in str(await failure(single(forgets)()))

    run_async(main())
    with pytest.raises(TypeError, match="returned a generator"):
        single(generates).debug()


@BOTH
def test_each_attempt_has_the_callers_context_to_itself(run_async: Runner, declare: Any, clock: FakeClock) -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var")
    seen: list[str] = []

    def sets(x: int) -> int:
        seen.append(var.get())
        var.set("changed")
        if len(seen) < 3:
            raise ValueError
        return x

    async def main() -> None:
        var.set("of the caller")
        run = asyncio.create_task(single(declare(sets, retries=2))(1))
        await pass_time(clock, run)
        assert await run == 1
        assert var.get() == "of the caller"

    run_async(main())
    assert seen == ["of the caller"] * 3


async def pass_time(clock: FakeClock, run: asyncio.Task[Any]) -> None:
    """Until the run is over, every wait that anybody asks for is over at once; no kernel takes any time."""
    while not run.done():
        clock.end_sleeps()
        await asyncio.sleep(0)


def test_a_failure_is_noted_as_that_of_the_pipelines_node(run_async: Runner) -> None:
    @flow.op(timeout=10)
    def fail(x: Any) -> Any:
        raise KeyError("from here")

    @flow.pipeline
    def p(x: Any) -> Any:
        return flow.label(fail(plain_add(x, x)), "culprit")

    async def main() -> None:
        error = await failure(p(np.zeros(3)))
        assert isinstance(error, KeyError)
        (note,) = error.__notes__
        assert "in operator 'fail', node 2 'culprit' of pipeline 'p'" in note
        assert "float64[3]" in note
        entry: Any = error.__traceback__
        while entry.tb_next is not None:
            entry = entry.tb_next
        assert entry.tb_frame.f_code.co_name == "fail"

    run_async(main())


@pytest.mark.parametrize("kind", [StopIteration, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
@BOTH
def test_what_cannot_be_passed_on_arrives_as_operator_error(
    run_async: Runner, declare: Any, kind: type[BaseException]
) -> None:
    if declare is as_async and kind is StopIteration:
        return  # Python makes it a RuntimeError
    flaky = Flaky(kind)

    async def main() -> None:
        error = await failure(single(declare(flaky, timeout=10))(1))
        assert isinstance(error, flow.OperatorError)
        assert isinstance(error.__cause__, kind)

    run_async(main())


def test_observers_see_one_run(run_async: Runner) -> None:
    events: list[Event] = []
    end = flow.observe(events.append)
    run_async(mixed(1))
    end()
    started, *operators, ended = events
    assert isinstance(started, RunStarted)
    assert isinstance(ended, RunEnded)
    assert (ended.run, ended.pipeline, ended.outcome, ended.error) == (started.run, "mixed", "done", None)
    assert {event.run for event in operators} == {started.run}
    names = sorted(event.operator for event in operators if isinstance(event, OperatorEnded))
    assert names == ["add", "add", "add", "add_on_loop", "plain_add", "plain_add"]
    assert len(names) == len(operators)


def test_a_run_with_many_of_them_leaves_others_their_turn(run_async: Runner) -> None:
    """Attempts wait outside of the pool, where runs take turns."""
    flow.set_num_interop_threads(1)
    gate = Gate()
    order: list[str] = []

    @flow.op(timeout=10)
    def big(x: int) -> int:
        gate()
        order.append("big")
        return x

    @flow.op
    def small() -> None:
        order.append("small")

    async def main() -> None:
        many = asyncio.create_task(flow.pipeline(lambda: [big(n) for n in range(40)])())
        await gate.reached()
        few = asyncio.create_task(single(small)())
        await asyncio.sleep(0)
        gate.opened.set()
        await few
        assert order.index("small") < 10
        assert await many == list(range(40))

    run_async(main())


def test_two_that_wait_for_each_other_meet_behind_many_that_lend_their_slot(run_async: Runner) -> None:
    """However many of one run have begun and wait: those that have not are offered."""
    flow.set_num_interop_threads(2)
    started = threading.Semaphore(0)
    last = threading.Event()

    @flow.op
    async def for_the_last() -> None:
        started.release()
        await until(last.is_set)

    inner = single(for_the_last)

    @flow.op(timeout=10)
    def lends() -> None:
        inner.run()

    @flow.op(timeout=10)
    def opens() -> None:
        last.set()

    @flow.pipeline
    def p() -> Any:
        return [lends() for _ in range(12)], opens()

    run_async(p())


# ---------------------------------------------------------------- timeout


def test_a_kernel_that_takes_too_long_fails_the_run_at_once(run_async: Runner, clock: FakeClock) -> None:
    gate, stopped = Gate(), []

    @flow.op(timeout=5)
    def slow(x: Any) -> int:
        gate()
        try:
            flow.checkpoint()
        except asyncio.CancelledError:
            stopped.append(True)
        return 1

    @flow.pipeline
    def p(x: Any) -> Any:
        return plain_add(slow(x), 1)

    async def main() -> None:
        run = asyncio.create_task(p(np.zeros(3)))
        await gate.reached()
        clock.advance(4.9)
        await asyncio.sleep(0)
        assert not run.done()
        clock.advance(0.2)
        error = await failure(run)
        assert type(error) is flow.OperatorTimeout
        assert isinstance(error, TimeoutError)
        assert isinstance(error, flow.OperatorError)
        for part in ("'slow'", "node 1", "'p'", "5 s", "flow.checkpoint()", "longer timeout"):
            assert part in str(error)
        assert "float64[3]" in error.__notes__[0]
        await until(lambda: process_pool().busy == 1)  # other workers have found nothing to do
        info = flow.parallel_info()["interop_threads"]
        assert (info["overrunning"], info["busy"], gate.left) == (1, 1, 0), "it keeps its slot"
        gate.opened.set()
        await flow.quiet()
        assert stopped == [True]
        assert len(asyncio.all_tasks()) == 1

    run_async(main())


def test_time_counts_from_the_kernels_start(run_async: Runner, clock: FakeClock) -> None:
    flow.set_num_interop_threads(1)
    blocker, gate = Gate(), Gate()

    @flow.op(timeout=5)
    def slow() -> None:
        gate()

    async def main() -> None:
        first = asyncio.create_task(single(flow.op(blocker))())
        await blocker.reached()
        second = asyncio.create_task(single(slow)())
        await until(lambda: clock.pending)
        clock.advance(100)  # in the pool's queue
        blocker.opened.set()
        await first
        await gate.reached()
        clock.advance(4.9)
        await asyncio.sleep(0)
        assert not second.done()
        gate.opened.set()
        assert await second is None

    run_async(main())


def test_what_a_kernel_raises_too_late_goes_to_the_log(
    run_async: Runner, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()

    @flow.op(timeout=5)
    def slow() -> None:
        gate()
        raise ValueError("too late")

    events: list[Event] = []
    end = flow.observe(events.append)

    async def main() -> None:
        run = asyncio.create_task(single(slow)())
        await gate.reached()
        clock.advance(5)
        assert isinstance(await failure(run), flow.OperatorTimeout)
        gate.opened.set()
        await flow.quiet()

    with caplog.at_level(logging.ERROR, "dataflow"):
        run_async(main())
    end()
    (record,) = caplog.records
    assert "late failure" in record.message
    started, _, returned, late = events
    assert isinstance(started, RunStarted)
    assert isinstance(returned, OperatorEnded)
    assert isinstance(late, LateFailure)
    assert (returned.run, returned.outcome, returned.error) == (started.run, "failed", late.error)
    assert (late.run, late.pipeline, late.operator) == (started.run, "single", "slow")
    assert isinstance(late.error, ValueError)


@pytest.mark.parametrize("reaction", ["returns", "heeds"])
def test_observers_are_told_of_a_kernel_that_took_too_long_when_it_returns(
    run_async: Runner, clock: FakeClock, reaction: str
) -> None:
    gate = Gate()
    events: list[Event] = []

    @flow.op(timeout=5)
    def slow() -> None:
        gate()
        if reaction == "heeds":
            flow.checkpoint()

    async def main() -> None:
        run = asyncio.create_task(single(slow)())
        await gate.reached()
        clock.advance(5)
        assert isinstance(await failure(run), flow.OperatorTimeout)
        assert [type(event) for event in events] == [RunStarted, RunEnded]
        gate.opened.set()
        await flow.quiet()

    end = flow.observe(events.append)
    run_async(main())
    end()
    started, ended, returned = events
    assert isinstance(ended, RunEnded)
    assert isinstance(ended.error, flow.OperatorTimeout)
    assert isinstance(returned, OperatorEnded)
    assert (returned.run, returned.outcome) == (started.run, "failed")
    assert isinstance(returned.error, flow.OperatorTimeout)


@pytest.mark.parametrize("reaction", ["ends", "raises", "returns"])
def test_observers_are_told_of_an_async_op_that_took_too_long(
    run_async: Runner, clock: FakeClock, reaction: str
) -> None:
    gate = Gate()
    events: list[Event] = []

    @flow.op(timeout=5)
    async def slow() -> str:
        try:
            await gate.passed()
        except asyncio.CancelledError:
            if reaction == "ends":
                raise
            if reaction == "raises":
                raise LookupError("while it ended") from None
        return "late"

    async def main() -> None:
        run = asyncio.create_task(single(slow)())
        await gate.reached()
        clock.advance(5)
        error = await failure(run)
        assert isinstance(error, flow.OperatorTimeout)
        _, ended, _ = events
        assert isinstance(ended, OperatorEnded)
        assert (ended.outcome, ended.error) == ("failed", error)

    end = flow.observe(events.append)
    run_async(main())
    end()


@BOTH
def test_observers_are_told_of_attempts_that_were_cancelled_if_they_had_begun(
    run_async: Runner, clock: FakeClock, declare: Any
) -> None:
    gate = Gate()
    events: list[Event] = []
    if declare is as_kernel:

        @flow.op(limit=flow.Limit(1))
        def first() -> None:
            gate()
            flow.checkpoint()
    else:

        @flow.op(limit=flow.Limit(1))
        async def first() -> None:
            await gate.passed()

    async def main() -> None:
        run = asyncio.create_task(flow.pipeline(lambda: (first(), first()))())
        await gate.reached()
        run.cancel()
        assert isinstance(await failure(run), asyncio.CancelledError)
        gate.opened.set()
        await flow.quiet()

    end = flow.observe(events.append, kinds=[OperatorEnded])
    run_async(main())
    end()
    (ended,) = events
    assert isinstance(ended, OperatorEnded)
    assert (ended.operator, ended.outcome, ended.error) == ("first", "cancelled", None)


def test_inner_runs_of_a_kernel_that_timed_out_are_stopped(run_async: Runner, clock: FakeClock) -> None:
    gate = Gate()

    @flow.op
    async def waits() -> None:
        await gate.passed()

    inner = single(waits)
    raised: list[type[BaseException]] = []

    @flow.op(timeout=5)
    def slow() -> None:
        try:
            inner.run()
        except BaseException as exc:
            raised.append(type(exc))
            raise

    async def main() -> None:
        run = asyncio.create_task(single(slow)())
        await gate.reached()
        clock.advance(5)
        assert isinstance(await failure(run), flow.OperatorTimeout)
        await flow.quiet()
        assert gate.left == 1
        assert raised == [asyncio.CancelledError]

    run_async(main())


def test_an_async_op_that_takes_too_long_is_cancelled_and_awaited(run_async: Runner, clock: FakeClock) -> None:
    gate, cleaned = Gate(), []

    @flow.op(timeout=5)
    async def slow() -> None:
        try:
            await gate.passed()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    async def main() -> None:
        run = asyncio.create_task(single(slow)())
        await gate.reached()
        clock.advance(4.9)
        await asyncio.sleep(0)
        assert not run.done()
        clock.advance(0.2)
        error = await failure(run)
        assert type(error) is flow.OperatorTimeout
        assert "awaits" in str(error)
        assert cleaned == [True]
        assert len(asyncio.all_tasks()) == 1

    run_async(main())


@pytest.mark.parametrize("reaction", ["raises", "returns"])
def test_an_async_op_is_out_of_time_whatever_it_makes_of_it(run_async: Runner, clock: FakeClock, reaction: str) -> None:
    gate = Gate()

    @flow.op(timeout=5)
    async def slow() -> str:
        try:
            await gate.passed()
        except asyncio.CancelledError:
            if reaction == "raises":
                raise LookupError("while it ended") from None
        return "late"

    async def main() -> None:
        run = asyncio.create_task(single(slow)())
        await gate.reached()
        clock.advance(5)
        error = await failure(run)
        assert type(error) is flow.OperatorTimeout
        assert isinstance(error.__cause__, LookupError) == (reaction == "raises")

    run_async(main())


@BOTH
def test_time_to_spare_is_no_matter(run_async: Runner, declare: Any, clock: FakeClock) -> None:
    run_async(single(declare(Flaky(), timeout=5))(1))
    assert clock.pending == 0


# ---------------------------------------------------------------- retries


@BOTH
def test_attempts_until_one_succeeds(
    run_async: Runner, declare: Any, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    flaky = Flaky(OSError("first\nand more"), ValueError("second"))
    op = declare(flaky, retries=3, backoff=0.5)
    events: list[Event] = []
    end = flow.observe(events.append)

    async def main() -> None:
        run = asyncio.create_task(single(op)(1))
        await pass_time(clock, run)
        assert await run == 2

    with caplog.at_level(logging.WARNING, "dataflow"):
        run_async(main())
    end()
    assert flaky.calls == 3
    assert clock.asked == [0.25, 0.5], "half of what it may be, since that is how chance has it"
    first, second = (record.message for record in caplog.records)
    assert first == (
        "attempt 1 of 4 at operator 'flaky' in a run of 'single' failed, the next one is in 0.25 s: OSError: first"
    )
    assert "attempt 2 of 4" in second
    started, first_failed, one, second_failed, two, succeeded, _ = events
    assert isinstance(started, RunStarted)
    for attempt, outcome in ((first_failed, "failed"), (second_failed, "failed"), (succeeded, "done")):
        assert isinstance(attempt, OperatorEnded)
        assert (attempt.run, attempt.operator, attempt.outcome) == (started.run, "flaky", outcome)
    assert isinstance(first_failed, OperatorEnded)
    assert isinstance(one, Retrying)
    assert isinstance(two, Retrying)
    assert (one.run, one.pipeline, one.operator, one.attempt, one.delay) == (started.run, "single", "flaky", 1, 0.25)
    assert isinstance(one.error, OSError)
    assert first_failed.error is one.error
    assert (two.attempt, two.delay) == (2, 0.5)


@BOTH
def test_the_last_failure_is_raised_and_says_how_many_attempts_there_were(
    run_async: Runner, declare: Any, clock: FakeClock
) -> None:
    last = KeyError("the last")
    op = declare(Flaky(OSError(), ValueError(), last, last), retries=2)

    async def main() -> None:
        run = asyncio.create_task(single(op)(1))
        await pass_time(clock, run)
        error = await failure(run)
        assert error is last
        assert error.__context__ is None
        where, how_many = error.__notes__
        assert "in operator 'flaky'" in where
        assert "3 attempts were made" in how_many
        again = await failure(asyncio.ensure_future(single(op.options(retries=0))(1)))
        assert again is last
        assert len(again.__notes__) == 1, "what was said of an earlier delivery is gone"

    run_async(main())


def test_the_note_of_a_wrapped_failure_is_on_the_wrapper(run_async: Runner, clock: FakeClock) -> None:
    op = as_kernel(Flaky(StopIteration, StopIteration), retries=1)

    async def main() -> None:
        run = asyncio.create_task(single(op)(1))
        await pass_time(clock, run)
        error = await failure(run)
        assert isinstance(error, flow.OperatorError)
        assert "2 attempts were made" in error.__notes__[1]

    run_async(main())


@BOTH
@pytest.mark.parametrize(
    ("retry_on", "error"),
    [(OSError, ValueError), ((OSError, KeyError), ValueError), (None, SystemExit), (None, asyncio.CancelledError)],
)
def test_other_failures_end_the_run_at_once(
    run_async: Runner, declare: Any, clock: FakeClock, retry_on: Any, error: type[BaseException]
) -> None:
    flaky = Flaky(error)

    async def main() -> None:
        raised = await failure(single(declare(flaky, retries=3, retry_on=retry_on))(1))
        assert isinstance(raised if isinstance(raised, error) else raised.__cause__, error)
        assert len(raised.__notes__) == 1

    run_async(main())
    assert flaky.calls == 1
    assert clock.asked == []


def test_the_wait_doubles_up_to_a_bound(run_async: Runner, clock: FakeClock) -> None:
    clock.chance = 1.0
    long, longer = Flaky(*[OSError] * 12), Flaky(*[OSError] * 3)

    async def main() -> None:
        for flaky, first in ((long, None), (longer, 100)):
            run = asyncio.create_task(single(as_async(flaky, retries=12, backoff=first))(1))
            while not run.done():
                clock.advance(100)
                await asyncio.sleep(0)
            assert await run == 2

    run_async(main())
    doubled = [0.1 * 2**n for n in range(10)]
    assert clock.asked[:12] == pytest.approx([*doubled, 60, 60])
    assert clock.asked[12:] == [100, 100, 100]


@pytest.mark.parametrize("owned", [True, False])
@BOTH
def test_what_a_failed_attempt_has_written_does_not_reach_the_next(
    run_async: Runner, clock: FakeClock, declare: Any, owned: bool
) -> None:
    seen: list[list[float]] = []
    mine = np.zeros(2)

    def half_way(acc: Any) -> Any:
        seen.append(acc.tolist())
        acc[0] += 1
        if len(seen) < 3:
            raise ValueError
        acc[1] += 1
        return acc

    if declare is as_kernel:

        @flow.op(writes=("acc",), retries=2)
        def step(acc: Any) -> Any:
            return half_way(acc)
    else:

        @flow.op(writes=("acc",), retries=2)
        async def step(acc: Any) -> Any:
            return half_way(acc)

    @flow.op
    def make() -> Any:
        return np.zeros(2)

    p = flow.pipeline(lambda x: step(make() if owned else x), name="p")

    async def main() -> None:
        run = asyncio.create_task(p(mine))
        await pass_time(clock, run)
        assert (await run).tolist() == [1, 1]

    run_async(main())
    assert seen == [[0, 0]] * 3
    assert mine.tolist() == [0, 0]


def test_a_kernel_that_timed_out_is_tried_again_when_it_has_returned(run_async: Runner, clock: FakeClock) -> None:
    gate = Gate()
    ran: list[int] = []

    @flow.op(timeout=5, retries=1)
    def slow() -> str:
        ran.append(gate.left)
        if len(ran) == 1:
            gate()
        return "in time"

    async def main() -> None:
        run = asyncio.create_task(single(slow)())
        await gate.reached()
        clock.advance(5)
        for _ in range(20):
            clock.advance(100)
            await asyncio.sleep(0)
        assert ran == [0]
        assert clock.asked == [], "the wait has not begun"
        gate.opened.set()
        await pass_time(clock, run)
        assert await run == "in time"
        assert ran == [0, 1]

    run_async(main())


@pytest.mark.parametrize("waits", ["itself", "for a run"])
def test_a_kernel_that_is_to_be_tried_again_hears_that_its_time_is_up(
    run_async: Runner, clock: FakeClock, waits: str
) -> None:
    gate, raised = Gate(), list[type[BaseException]]()

    @flow.op
    async def waits_inside() -> None:
        await gate.passed()

    inner = single(waits_inside)

    @flow.op(timeout=5, retries=1)
    def slow() -> str:
        if raised:
            return "in time"
        try:
            if waits == "itself":
                gate()
                flow.checkpoint()
            else:
                inner.run()
        except asyncio.CancelledError as exc:
            raised.append(type(exc))
            raise
        return "out of time"

    async def main() -> None:
        run = asyncio.create_task(single(slow)())
        await gate.reached()
        clock.advance(5)
        if waits == "itself":
            assert flow.parallel_info()["interop_threads"]["overrunning"] == 1
            gate.opened.set()
        await pass_time(clock, run)
        assert await run == "in time"
        await flow.quiet()

    run_async(main())
    assert raised == [asyncio.CancelledError]


def test_a_run_that_rests_and_whoever_awaits_it_are_nobodys_garbage(run_async: Runner, clock: FakeClock) -> None:
    """A task that waits is held by what it waits for, and that by the timer alone."""
    inner = single(as_kernel(Flaky(OSError), retries=1))

    @flow.op
    async def awaits(x: int) -> int:
        return int(await inner(x))

    async def main() -> None:
        run = asyncio.create_task(single(awaits)(1))
        await until(lambda: clock.asked)
        for _ in range(20):
            await asyncio.sleep(0)
        gc.collect()
        clock.end_sleeps()
        assert await run == 2

    run_async(main())


def test_there_is_a_timer_only_while_an_attempt_may_be_over(run_async: Runner, clock: FakeClock) -> None:
    blocker, gate = Gate(), Gate()
    p = flow.pipeline(lambda: flow.op(timeout=5, name="late")(lambda x: gate())(flow.op(blocker)()), name="p")

    async def main() -> None:
        run = asyncio.create_task(p())
        await blocker.reached()
        assert clock.pending == 1
        clock.advance(6)
        assert clock.pending == 0
        blocker.opened.set()
        await gate.reached()
        await until(lambda: clock.pending == 1)
        clock.advance(4.9)
        assert not run.done()
        clock.advance(0.2)
        assert isinstance(await failure(run), flow.OperatorTimeout)
        gate.opened.set()
        await flow.quiet()

    run_async(main())


def test_a_kernel_that_timed_out_fails_at_once_if_that_is_nothing_to_retry_on(
    run_async: Runner, clock: FakeClock
) -> None:
    gate = Gate()

    @flow.op(timeout=5, retries=3, retry_on=ValueError)
    def slow() -> None:
        gate()

    async def main() -> None:
        run = asyncio.create_task(single(slow)())
        await gate.reached()
        clock.advance(5)
        assert isinstance(await failure(run), flow.OperatorTimeout)
        assert gate.left == 0
        gate.opened.set()
        await flow.quiet()

    run_async(main())


@BOTH
def test_each_attempt_has_its_own_time(run_async: Runner, clock: FakeClock, declare: Any) -> None:
    flaky = Flaky(ValueError)

    def slowly(x: int) -> int:
        clock.time += 4  # as if it took so long
        return flaky(x)

    async def main() -> None:
        run = asyncio.create_task(single(declare(slowly, timeout=5, retries=1, backoff=0))(1))
        while not run.done():
            clock.advance(0)
            await asyncio.sleep(0)
        assert await run == 2

    run_async(main())


# ---------------------------------------------------------------- other nodes, and cancellation


STAGES = ["attempt", "overrunning", "backoff"]


def stage(name: str, declare: Any, gate: Gate) -> Any:
    """An operator that stops at this stage of its life."""
    if declare is as_kernel:

        @flow.op(name="held", timeout=5, retries=5)
        def held() -> None:
            if name == "backoff":
                gate.entered += 1
                raise ValueError("to be tried again")
            gate()

        return held

    @flow.op(name="held", timeout=5, retries=5)
    async def held_on_loop() -> None:
        if name == "backoff":
            gate.entered += 1
            raise ValueError("to be tried again")
        await gate.passed()

    return held_on_loop


async def reach(name: str, gate: Gate, clock: FakeClock) -> None:
    await gate.reached()
    if name == "overrunning":
        clock.advance(5)
        for _ in range(10):
            await asyncio.sleep(0)
    elif name == "backoff":
        await until(lambda: clock.asked)


@pytest.mark.parametrize("name", STAGES)
@BOTH
@pytest.mark.parametrize("how", ["cancelled", "another fails"])
def test_ending_the_run_at_every_stage(run_async: Runner, clock: FakeClock, declare: Any, name: str, how: str) -> None:
    gate, fails = Gate(), asyncio.Event()
    op = stage(name, declare, gate)

    @flow.op
    async def other() -> None:
        await fails.wait()
        raise KeyError("the other")

    p = flow.pipeline(lambda: (op(), other()), name="p")

    async def main() -> None:
        run = asyncio.create_task(p())
        await reach(name, gate, clock)
        entered = gate.entered
        if how == "cancelled":
            run.cancel()
        else:
            fails.set()
        error = await failure(run)
        assert isinstance(error, asyncio.CancelledError if how == "cancelled" else KeyError)
        if declare is as_kernel and name != "backoff":
            assert gate.left == 0, "the run does not wait for it"
        elif name == "attempt":
            assert gate.left == 1, "the run waits until it has ended"
        assert len(asyncio.all_tasks()) == 1
        assert clock.pending == 0
        gate.opened.set()
        await flow.quiet()
        clock.advance(1000)
        await asyncio.sleep(0)
        assert gate.entered == entered, "nothing is tried again"

    run_async(main())


def test_a_failing_managed_op_stops_the_others(run_async: Runner, clock: FakeClock) -> None:
    gate = Gate()
    started: list[str] = []

    @flow.op(timeout=10)
    def fail() -> None:
        assert gate.opened.wait(20)
        raise ValueError("one for all")

    @flow.op(timeout=10)
    async def waits() -> None:
        gate.entered += 1
        await asyncio.Event().wait()

    @flow.op(timeout=10)
    def after_both(*args: Any) -> None:
        started.append("after")

    p = flow.pipeline(lambda: after_both(fail(), waits()), name="p")

    async def main() -> None:
        run = asyncio.create_task(p())
        await gate.reached()
        gate.opened.set()
        assert isinstance(await failure(run), ValueError)
        assert len(asyncio.all_tasks()) == 1
        assert started == []

    run_async(main())


def test_other_kernels_of_their_run_fail_as_ever(run_async: Runner) -> None:
    @flow.op
    def fails(x: int) -> None:
        raise LookupError(x)

    p = flow.pipeline(lambda x: fails(add(plain_add(x, 1), 1)), name="p")

    async def main() -> None:
        for x in range(3):
            error = await failure(p(x))
            assert isinstance(error, LookupError)
            assert error.args == (x + 2,)

    run_async(main())


def test_cancelling_after_any_number_of_loop_turns(run_async: Runner, clock: FakeClock) -> None:
    limit = flow.Limit(1)
    flaky = flow.op(lambda x, y: x + y, name="flaky").options(timeout=10, limit=limit)
    on_loop = add_on_loop.options(limit=limit)
    p = flow.pipeline(lambda x: flaky(on_loop(flaky(x, 1), 1), flaky(x, 2)), name="p")

    async def main() -> None:
        for turns in range(30):
            for _ in range(5):
                task = asyncio.create_task(p(1))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    assert await task == 6
                except asyncio.CancelledError:
                    pass
                assert len(asyncio.all_tasks()) == 1
        await flow.quiet()
        assert await p(1) == 6
        await until(lambda: limit.available == 1)
        assert limit.waiting == 0

    run_async(main())
    assert clock.pending == 0


def test_a_queued_attempt_of_a_run_that_is_over_never_begins(run_async: Runner) -> None:
    flow.set_num_interop_threads(1)
    blocker = Gate()
    ran: list[int] = []

    @flow.op(timeout=10)
    def never(x: int) -> None:
        ran.append(x)

    async def main() -> None:
        first = asyncio.create_task(single(flow.op(blocker))())
        await blocker.reached()
        many = asyncio.create_task(flow.pipeline(lambda: [never(n) for n in range(10)])())
        for _ in range(5):
            await asyncio.sleep(0)
        before = len(orphans)
        many.cancel()
        assert isinstance(await failure(many), asyncio.CancelledError)
        assert len(orphans) == before == 0
        blocker.opened.set()
        await first
        await single(plain_add)(1, 2)

    run_async(main())
    assert ran == []


def test_a_task_factory_that_fails_fails_the_run() -> None:
    def refuses(loop: Any, coroutine: Any, **kwargs: Any) -> Any:
        if "awaited" in coroutine.__qualname__:
            raise LookupError("no more tasks")
        return asyncio.Task(coroutine, loop=loop, **kwargs)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(refuses)
        assert isinstance(await failure(single(add_on_loop)(1, 2)), LookupError)

    asyncio.run(main())


def test_a_pool_that_cannot_start_a_thread_ends_the_run_without_trying_again(
    run_async: Runner, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow.set_num_interop_threads(7)  # a fresh executor, and no worker that is parked

    class Refusing:
        def __init__(self, *args: Any, **kwargs: Any) -> None: ...

        def submit(self, *args: Any) -> None:
            raise RuntimeError("can't start new thread")

        def shutdown(self, **kwargs: Any) -> None: ...

    limit = flow.Limit(1)

    async def main() -> None:
        error = await failure(single(add.options(retries=3, limit=limit))(1, 2))
        assert "no inter-op thread could be started" in str(error)
        assert limit.available == 1
        assert clock.asked == []

    monkeypatch.setattr("dataflow.engine.executors.ThreadPoolExecutor", Refusing)
    try:
        run_async(main())
    finally:
        monkeypatch.undo()
        flow.set_num_interop_threads(6)


def test_nothing_is_kept_alive(run_async: Runner, clock: FakeClock) -> None:
    made: list[weakref.ref[Any]] = []
    gate = Gate()

    def alive() -> int:
        let_go()
        return sum(ref() is not None for ref in made)

    @flow.op(timeout=5)
    def make() -> Any:
        array = np.zeros(10)
        made.append(weakref.ref(array))
        return array

    @flow.op(timeout=5, retries=1)
    def use(x: Any, how: str) -> Any:
        if how == "fails":
            raise ValueError
        if how == "too long":
            gate()
        return 0.0

    p = flow.pipeline(lambda how: use(make(), how), name="p")

    async def main() -> None:
        assert await p("well") == 0.0
        assert settles(lambda: not alive())
        done = asyncio.Event()
        passing = asyncio.create_task(pass_time(clock, asyncio.create_task(done.wait())))
        try:
            await p("fails")  # not as a task, which would keep it
        except ValueError:
            pass
        await flow.quiet()  # its worker lets go of it
        assert settles(lambda: not alive())
        done.set()
        await passing
        run = asyncio.create_task(p("too long"))
        await gate.reached()
        clock.advance(5)
        run.cancel()
        await failure(run)
        del run
        gate.opened.set()
        await flow.quiet()
        await single(plain_add)(1, 2)
        await until(lambda: not alive())
        assert len(made) == 3

    run_async(main())


# ---------------------------------------------------------------- without a run, and with another operator


def test_outside_of_runs_and_in_debug_it_is_the_plain_function(clock: FakeClock) -> None:
    limit = flow.Limit(1)
    flaky = Flaky(ValueError, ValueError)
    op = as_kernel(flaky, timeout=5, retries=5, limit=limit)
    with pytest.raises(ValueError):
        op(1)
    with pytest.raises(ValueError) as caught:
        single(op).debug(1)
    assert len(caught.value.__notes__) == 1
    assert flaky.calls == 2
    assert single(op).debug(1) == 2
    assert limit.available == 1
    assert clock.asked == []


def test_debug_of_managed_kernels_needs_no_loop() -> None:
    async def main() -> None:
        assert flow.pipeline(lambda x: add(x, 1))._fn is not None
        assert single(add).debug(1, 2) == 3
        with pytest.raises(RuntimeError, match="async operators"):
            single(add_on_loop).debug(1, 2)

    asyncio.run(main())


@pytest.mark.parametrize("inlined", [False, True])
def test_a_function_that_replaces_an_operator_takes_over_its_options(
    run_async: Runner, clock: FakeClock, inlined: bool
) -> None:
    def tried(*args: Any) -> int:
        calls.append(args)
        if len(calls) < 3:
            raise OSError
        return 7

    calls: list[Any] = []
    retried = add.options(retries=2)
    p = flow.pipeline(lambda x: (retried(x, 1), flow.map(retried, [])), name="p")
    faked = p.replace({add: tried})
    if inlined:
        inner = faked
        faked = flow.pipeline(lambda x: inner(x), name="outer")

    async def main() -> None:
        run = asyncio.create_task(faked(1))
        await pass_time(clock, run)
        assert await run == (7, [])
        calls.clear()
        with_op = p.replace({add: flow.op(tried)})
        assert isinstance(await failure(with_op(1)), OSError)

    run_async(main())


def test_replacing_what_map_calls_keeps_its_options(run_async: Runner, clock: FakeClock) -> None:
    fake = Flaky(OSError)
    one = flow.op(lambda x: x, name="one").options(retries=1)
    p = flow.pipeline(lambda: flow.map(one, [1]), name="p").replace({one: lambda x: fake(x)})

    async def main() -> None:
        run = asyncio.create_task(p())
        await pass_time(clock, run)
        assert await run == [2]

    run_async(main())
    assert fake.calls == 2
