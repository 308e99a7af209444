"""A run and its segments: what a lane has claimed may be taken from it at any moment."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import pytest

import dataflow as flow
from dataflow.engine.execute import execute
from dataflow.engine.run import Run
from dataflow.engine.segment import END, Segment, Weight
from dataflow.engine.steps import State
from dataflow.graph.costs import LIGHT, UNKNOWN


@flow.op
def successor(x: int) -> int:
    return x + 1


@flow.pipeline
def chain(x: Any) -> Any:
    for _ in range(10):
        x = successor(x)
    return x


class Silent(Run):
    """Nobody waits for it."""

    __slots__ = ()

    def _changed(self) -> None:
        pass


class Racing(list[int]):
    """A `todo` from which its lane pops in between, when whoever reaps it has popped `after` times."""

    def __init__(self, steps: list[int], after: int) -> None:
        super().__init__(steps)
        self.after = after
        self.started: list[int] = []

    def pop(self, *where: Any) -> int:
        if self.after == 0:
            self.started.append(super().pop())
        self.after -= 1
        return super().pop(*where)


@pytest.mark.parametrize("after", range(10))
@pytest.mark.parametrize("stop", [False, True])
def test_a_lane_never_starts_a_step_behind_one_that_was_taken_from_it(after: int, stop: bool) -> None:
    """The steps of a sweep depend on each other: one that is started has all those before it behind it."""
    plan, inputs = chain.prepare((0,), {})
    for step in range(len(plan)):
        plan.costs.seconds[step] = 1e-6
    plan.costs._stale = True
    run = Silent(plan, inputs, copy_context())
    run.begin()
    segment = run.claim(light=True, lanes=1)
    assert segment is not None
    assert segment.sweep
    racing = segment.todo = Racing(segment.todo, after)
    if stop:
        run.stop()
    else:
        run.relieve(segment)
    assert racing.started == [0]
    assert racing == [END]
    states = [run.core.state(step) for step in range(len(plan))]
    taken = State.CANCELLED if stop else State.WAITING
    assert states == [State.RUNNING] + [taken] * 9
    run.core.check()
    run.proceed(segment, light=True, lanes=1, again=False)  # its lane comes back
    run.depart(segment)
    assert run.core.state(0) is State.DONE
    assert not run._segments


@pytest.mark.parametrize("popped", [0, 1, 2])
def test_a_lane_that_is_to_come_back_soon_keeps_the_step_that_it_is_about_to_start(popped: int) -> None:
    plan, inputs = chain.prepare((0,), {})
    plan.costs.seconds[:] = [20e-6] * len(plan)
    run = Silent(plan, inputs, copy_context())
    run.begin()
    segment = run.claim(light=True, lanes=1)
    assert segment is not None
    assert segment.claimed == list(range(10))
    for step in range(popped):
        assert segment.todo.pop() == step
    run.relieve(segment, but_first=True)
    assert segment.claimed == [max(0, popped - 1)]
    assert segment.todo == [END, 0] if popped == 0 else [END]
    running = max(0, popped - 1)
    states = [State.DONE] * running + [State.RUNNING] + [State.WAITING] * (9 - running)
    assert [run.core.state(step) for step in range(10)] == states
    run.core.check()
    assert run.proceed(segment, light=True, lanes=1, again=True)  # it reports that one
    assert segment.claimed == list(range(running + 1, 10))


def test_a_sweep_goes_on_as_one_when_the_border_is_put_back() -> None:
    plan, inputs = chain.prepare((0,), {})
    costs = plan.costs
    for step in range(len(plan)):
        costs.measured(step, 100e-6)
    costs._move(150e-6)
    run = Silent(plan, inputs, copy_context())
    run.begin()
    segment = run.claim(light=True, lanes=1)
    assert segment is not None
    costs._move(LIGHT)
    execute(run, segment)
    assert (segment.sweep, segment.weight) == (True, Weight.LIGHT)
    run.proceed(segment, light=True, lanes=1, again=False)
    other = Silent(plan, inputs, copy_context())  # a run that did not move it
    costs._move(150e-6)
    other.core.light_below = LIGHT
    other.begin()
    found = other.claim(light=True, lanes=1)
    assert found is not None
    assert other.core.light_below == costs.border
    assert found.weight is Weight.LIGHT


class Late(Segment):
    """One whose steps are taken just before its lane starts the first; `claimed` is shortened a moment later."""

    __slots__ = ("asked",)

    @property
    def claimed(self) -> Any:
        self.asked = getattr(self, "asked", 0) + 1
        return [0] if self.asked <= 1 else []

    @claimed.setter
    def claimed(self, value: Any) -> None:
        pass


def test_a_lane_that_comes_to_its_end_while_all_is_taken_from_it_goes_on() -> None:
    plan, inputs = chain.prepare((0,), {})
    plan.costs.seconds[0] = plan.costs._estimates[0] = UNKNOWN
    run = Silent(plan, inputs, copy_context())
    run.begin()
    execute(run, Late())
    assert run.core.state(0) is State.READY


@flow.op
def broken(x: int) -> int:
    raise ZeroDivisionError


@flow.pipeline
def pair(x: Any) -> Any:
    return successor(x), successor(x)


@flow.pipeline
def broken_pair(x: Any) -> Any:
    return broken(x), successor(x)


class Telling(Run):
    """Notes whenever whoever waits for it would be told, and whether it was settled then."""

    __slots__ = ("told",)

    def _changed(self) -> None:
        self.told.append(self.settled)


def begun(pipeline: Any) -> tuple[Telling, list[Segment]]:
    """A run of two steps, each of which has a lane of its own."""
    plan, inputs = pipeline.prepare((0,), {})
    plan.costs.seconds[:] = plan.costs._estimates[:] = [1e-3] * len(plan)
    run = Telling(plan, inputs, copy_context())
    run.told = []
    run.begin()
    segments = [run.claim(light=True, lanes=2) for _ in range(2)]
    return run, [segment for segment in segments if segment is not None]


@pytest.mark.parametrize("first", [0, 1])
def test_the_end_is_told_by_the_lane_that_is_last_to_leave(first: int) -> None:
    run, segments = begun(pair)
    for segment in segments:
        execute(run, segment)
        assert not run.proceed(segment, light=True, lanes=2, again=True)
    assert run.core.over
    assert not run.settled  # lanes may have BLAS threads to give back
    run.depart(segments[first])
    assert run.told == []
    run.depart(segments[1 - first])
    assert run.told == [True]
    assert run.outcome() == (1, 1)


def test_a_failure_is_told_when_its_lane_leaves_whatever_the_others_do() -> None:
    run, (failing, other) = begun(broken_pair)
    execute(run, failing)
    assert run.told == []
    assert not run.proceed(failing, light=True, lanes=2, again=True)
    assert run.told == []
    run.depart(failing)
    assert run.told == [True]
    assert run.astray
    execute(run, other)
    assert not run.proceed(other, light=True, lanes=2, again=True)
    run.depart(other)
    assert not run.astray
    with pytest.raises(ZeroDivisionError):
        run.outcome()


def test_before_the_lane_of_a_failed_kernel_leaves_nobody_else_settles_the_run() -> None:
    run, (failing, other) = begun(broken_pair)
    execute(run, failing)
    execute(run, other)
    assert not run.proceed(other, light=True, lanes=2, again=True)
    run.depart(other)
    assert True not in run.told
    assert not run.settled
    assert not run.proceed(failing, light=True, lanes=2, again=True)
    run.depart(failing)
    assert run.told[-1]


def test_a_run_that_was_cancelled_stays_settled_while_its_kernels_return() -> None:
    run, segments = begun(pair)
    for segment in segments:
        assert segment.todo.pop() in (0, 1)  # they run
    run.stop()
    for segment in segments:
        segment.todo.pop()
        assert not run.proceed(segment, light=True, lanes=2, again=True)
        assert run.settled
        run.depart(segment)
    assert all(run.told)


def test_a_stop_is_told_at_once() -> None:
    run, segments = begun(pair)
    run.stop()
    assert run.told == [True]
    for segment in segments:
        run.proceed(segment, light=True, lanes=2, again=False)
        run.depart(segment)
    assert not run.astray


class Clinging:
    """A value that takes its time to be let go of."""

    dying = threading.Event()
    gate = threading.Event()
    gone = threading.Event()

    def __del__(self) -> None:
        self.dying.set()
        assert self.gate.wait(20)
        self.gone.set()

    @classmethod
    async def let_go(cls) -> None:
        cls.gate.set()
        assert await asyncio.to_thread(cls.gone.wait, 20)
        for event in cls.dying, cls.gate, cls.gone:
            event.clear()
        await flow.quiet()


@pytest.fixture
def clinging() -> Iterator[type[Clinging]]:
    for event in Clinging.dying, Clinging.gate, Clinging.gone:
        event.clear()
    yield Clinging
    Clinging.gate.set()


@flow.op
def make() -> Clinging:
    return Clinging()


@flow.op
def use(x: Any, seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@flow.pipeline
def clinging_first() -> Any:
    x = make()
    ends = [use(x, 4e-3), use(x, 6e-3)]
    for _ in range(5):
        ends = [use(end, 3e-3) for end in ends]
    return ends


@flow.pipeline
def clinging_last() -> Any:
    x = make()
    return use(x, 1e-3), use(x, 2e-3)


@pytest.mark.parametrize(("pipeline", "threads"), [(clinging_first, 2), (clinging_last, 1)])
def test_who_is_cancelled_does_not_wait_for_values_to_be_let_go_of(
    pipeline: Any, threads: int, run_async: Callable[[Any], Any], clinging: type[Clinging]
) -> None:
    """Whether all is done by then or not, and whether lanes go on in calm or, as at first, nothing is known."""
    flow.set_num_interop_threads(threads)

    async def main() -> None:
        for pause in (0.0, 0.05) * 2:
            task = asyncio.create_task(pipeline())
            assert await asyncio.to_thread(clinging.dying.wait, 20)
            await asyncio.sleep(pause)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=10)
            assert done
            assert not clinging.gone.is_set()
            await clinging.let_go()

    run_async(main())


@pytest.mark.parametrize("gained", [1.0, 8.0, math.inf])
def test_what_takes_less_with_several_blas_threads_does_not_cost_less(gained: float) -> None:
    run, (segment, _) = begun(pair)
    costs = run.plan.costs
    costs.measured(0, 1e-3)
    assert costs.seconds[0] == 1e-3
    segment.gained = gained
    execute(run, segment)  # in microseconds
    step = segment.claimed[0]
    if gained == math.inf:
        assert costs.seconds[step] == 1e-3
    else:
        assert costs.seconds[step] < 1e-3
        assert costs.seconds[step] >= gained * 1e-8


class Freed:
    """A value that says, when it goes, whether it went under its run's lock."""

    seen: list[bool]

    def __init__(self, run: Run) -> None:
        self.run = run

    def __del__(self) -> None:
        self.seen.append(self.run.lock.locked())


@pytest.mark.parametrize("end", ["proceed", "go_on", "completed", "relieve", "failed", "stop"])
def test_what_is_let_go_of_goes_without_the_lock_and_does_not_come_back(end: str) -> None:
    """The list of it is replaced, not emptied: another thread that holds the lock may be extending it."""
    Freed.seen = []
    plan, inputs = chain.prepare((0,), {})
    plan.costs.seconds[:] = [20e-6] * len(plan)
    run = Silent(plan, inputs, copy_context())
    run.begin()
    segment = run.claim(light=True, lanes=1)
    assert segment is not None
    while segment.todo.pop() != END:
        pass
    moves: dict[str, Callable[[], object]] = {
        "proceed": lambda: run.proceed(segment, light=True, lanes=1, again=True) or run.depart(segment),
        "go_on": lambda: (run.go_on(segment), run.depart(segment)),
        "completed": lambda: run.completed(0),
        "relieve": lambda: run.relieve(segment),
        "failed": lambda: run.failed(segment.claimed[-1], ValueError("x"), segment),
        "stop": run.stop,
    }
    if end == "completed":
        run.core.give_back(segment.claimed[1:])
        segment.claimed, run.loop_steps = [], 1
    with run.lock:
        run._trash.append(Freed(run))
        taken = id(run._trash)
    moves[end]()
    assert Freed.seen, "it is still held"
    assert not any(Freed.seen), "it went under the lock"
    assert id(run._trash) != taken or not run._trash
    run.stop()
    if segment in run._segments:
        run.depart(segment)
    assert not run.astray  # else whoever waits for `flow.quiet` would do so for ever
