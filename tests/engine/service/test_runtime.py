"""`flow.Runtime`: bounds on runs, runs inside runs, overload, and closing, through the faces that users have."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.engine.runs.driver import default_runtime
from dataflow.engine.service import runtime
from dataflow.engine.service.ticket import current_ticket
from tests.conftest import LOOPS
from tests.release import let_go, settles

Runner = Callable[[Any], Any]


@flow.op
def add(x: int, y: int = 1) -> int:
    return x + y


@flow.op
async def add_on_loop(x: int, y: int = 1) -> int:
    await asyncio.sleep(0)
    return x + y


@flow.pipeline
def small(x: int) -> int:
    return add(add_on_loop(x))


class Gates:
    """Async ops and kernels that stop at a gate, and a count of those inside."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside: list[int] = []
        self.most = 0
        lock = threading.Lock()

        def come(x: int) -> None:
            with lock:
                self.inside.append(x)
                self.most = max(self.most, len(self.inside))

        @flow.op
        async def wait(x: int) -> int:
            come(x)
            try:
                while not self.open.is_set():
                    await asyncio.sleep(0)
            finally:
                self.inside.remove(x)
            return x

        @flow.op
        def hold(x: int) -> int:
            come(x)
            assert self.open.wait(20)
            self.inside.remove(x)
            return x

        @flow.op
        async def ignore(x: int) -> int:
            come(x)
            while not self.open.is_set():
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
            self.inside.remove(x)
            return x

        @flow.pipeline
        def waits(x: int) -> int:
            return wait(x)

        @flow.pipeline
        def holds(x: int) -> int:
            return hold(x)

        @flow.pipeline
        def ignores(x: int) -> int:
            return ignore(x)

        self.waits, self.holds, self.ignores = waits, holds, ignores

    async def reached(self, *which: int) -> None:
        while sorted(self.inside) != sorted(which):
            await asyncio.sleep(0)


def counts(rt: flow.Runtime) -> tuple[int, ...]:
    """(running, waiting, done, failed, cancelled, refused), checked."""
    rt._admission.check()
    runs = rt.info()["runs"]
    return tuple(runs[key] for key in ("running", "waiting", "done", "failed", "cancelled", "refused"))


async def turns(n: int = 5) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def until_waiting(rt: flow.Runtime, n: int) -> None:
    while rt._admission.waiting != n:
        await asyncio.sleep(0)


# ---------------------------------------------------------------- bounds


def test_at_most_max_runs_are_in_progress_and_the_others_come_in_order(run_async: Runner) -> None:
    gates, order = Gates(), []

    async def one(rt: flow.Runtime, x: int) -> int:
        result = await gates.waits.on(rt)(x)
        order.append(x)
        return result

    async def main() -> None:
        rt = flow.Runtime(max_runs=2, name="api")
        tasks = [asyncio.create_task(one(rt, x)) for x in range(7)]
        await gates.reached(0, 1)
        assert counts(rt) == (2, 5, 0, 0, 0, 0)
        assert repr(rt) == "<Runtime 'api': open, 2 of 2 running, 5 waiting>"
        gates.open.set()
        assert await asyncio.gather(*tasks) == list(range(7))
        assert order == list(range(7))
        assert gates.most == 2
        assert counts(rt) == (0, 0, 7, 0, 0, 0)

    run_async(main())


def test_nobody_gets_in_before_those_who_wait(run_async: Runner) -> None:
    gates = Gates()

    async def main() -> None:
        rt = flow.Runtime(max_runs=1)
        first = asyncio.create_task(gates.waits.on(rt)(0))
        await gates.reached(0)
        second = asyncio.create_task(gates.waits.on(rt)(1))
        await until_waiting(rt, 1)
        gates.open.set()
        await first
        third = asyncio.create_task(gates.waits.on(rt)(2))  # the place is free, and the second has not come up yet
        gates.open.clear()
        await turns(20)
        assert gates.inside == [1]
        gates.open.set()
        assert await asyncio.gather(second, third) == [1, 2]

    run_async(main())


def test_overload_is_refused_at_once_and_counted_exactly(run_async: Runner) -> None:
    gates = Gates()

    async def main() -> None:
        rt = flow.Runtime(max_runs=2, max_waiting=3, name="api")
        tasks = [asyncio.create_task(gates.waits.on(rt)(x)) for x in range(20)]
        await gates.reached(0, 1)
        await turns()
        refused = [task for task in tasks if task.done()]
        assert refused == tasks[5:]
        for task in refused:
            error = task.exception()
            assert isinstance(error, flow.Overloaded)
            assert 0 < error.retry_after < 60
        assert "runtime 'api' is full" in str(tasks[5].exception())
        assert counts(rt) == (2, 3, 0, 0, 0, 15)
        gates.open.set()
        assert await asyncio.gather(*tasks[:5]) == list(range(5))
        assert await gates.waits.on(rt)(9) == 9
        assert counts(rt) == (0, 0, 6, 0, 0, 15)

    run_async(main())


def test_without_bounds_it_only_counts(run_async: Runner) -> None:
    gates = Gates()

    async def main() -> None:
        rt = flow.Runtime()
        tasks = [asyncio.create_task(gates.waits.on(rt)(x)) for x in range(50)]
        await gates.reached(*range(50))
        assert repr(rt) == "<Runtime 'runtime': open, 50 running, 0 waiting>"
        gates.open.set()
        await asyncio.gather(*tasks)
        assert counts(rt) == (0, 0, 50, 0, 0, 0)

    run_async(main())


def test_a_coroutine_takes_its_place_when_it_is_awaited(run_async: Runner) -> None:
    async def main() -> None:
        rt = flow.Runtime(max_runs=1, max_waiting=0)
        later = small.on(rt)(1)
        assert await small.on(rt)(2) == 4
        assert await later == 3
        never = small.on(rt)(1)
        never.close()
        assert counts(rt) == (0, 0, 2, 0, 0, 0)

    run_async(main())


def test_failures_leave_their_place_and_arrive_as_ever(run_async: Runner) -> None:
    @flow.op
    def bad(x: int) -> int:
        raise ValueError("this one")

    @flow.pipeline
    def p(x: int) -> int:
        return add(bad(x))

    async def main() -> None:
        rt = flow.Runtime(max_runs=1, max_waiting=0)
        for _ in range(3):
            with pytest.raises(ValueError, match="this one") as info:
                await p.on(rt)(1)
            assert len(info.value.__notes__) == 1
            assert "operator 'bad'" in info.value.__notes__[0]
        assert counts(rt) == (0, 0, 0, 3, 0, 0)

    run_async(main())


def test_one_runtime_in_several_loops_and_threads() -> None:
    gates = Gates()
    rt = flow.Runtime(max_runs=3)
    results: list[int] = []

    async def several(first: int) -> list[int]:
        return await asyncio.gather(*(gates.holds.on(rt)(first + n) for n in range(10)))

    def loop(first: int, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            results.extend(runner.run(several(first)))

    def script(first: int) -> None:
        results.extend([gates.holds.on(rt).run(first + n) for n in range(10)])

    flow.set_num_interop_threads(4)
    factories = list(LOOPS.values())
    threads = [threading.Thread(target=loop, args=(10 * n, factories[n % len(factories)])) for n in range(4)]
    threads += [threading.Thread(target=script, args=(10 * n,)) for n in range(4, 6)]
    for thread in threads:
        thread.start()
    while len(gates.inside) < 3 or rt._admission.waiting < 39:  # ten of four loops, one of each script
        time.sleep(0)
    assert counts(rt)[:2] == (3, 39)
    gates.open.set()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(60))
    assert gates.most == 3
    assert counts(rt) == (0, 0, 60, 0, 0, 0)


# ---------------------------------------------------------------- cancellation


def test_cancelled_while_it_waits(run_async: Runner) -> None:
    gates = Gates()

    async def main() -> None:
        rt = flow.Runtime(max_runs=1)
        tasks = [asyncio.create_task(gates.waits.on(rt)(x)) for x in range(4)]
        await gates.reached(0)
        await until_waiting(rt, 3)
        tasks[1].cancel()
        tasks[3].cancel()
        for task in (tasks[1], tasks[3]):
            with pytest.raises(asyncio.CancelledError):
                await task
        assert counts(rt) == (1, 1, 0, 0, 2, 0)
        gates.open.set()
        assert await tasks[2] == 2
        assert counts(rt) == (0, 0, 2, 0, 2, 0)

    run_async(main())


def test_cancelled_just_when_it_gets_its_place_it_passes_it_on(run_async: Runner) -> None:
    gates = Gates()

    async def main() -> None:
        rt = flow.Runtime(max_runs=1)
        tasks = [asyncio.create_task(gates.waits.on(rt)(x)) for x in range(3)]
        await gates.reached(0)
        await until_waiting(rt, 2)
        gates.open.set()
        await tasks[0]
        gates.open.clear()
        assert counts(rt) == (1, 1, 1, 0, 0, 0)  # the second holds it, and has not been there since
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        await gates.reached(2)
        gates.open.set()
        await tasks[2]
        assert counts(rt) == (0, 0, 2, 0, 1, 0)

    run_async(main())


def test_cancelled_while_it_runs(run_async: Runner) -> None:
    gates = Gates()

    async def main() -> None:
        rt = flow.Runtime(max_runs=1)
        for p in (gates.waits, gates.holds):
            running = asyncio.create_task(p.on(rt)(0))
            await gates.reached(0)
            waiting = asyncio.create_task(small.on(rt)(1))
            await until_waiting(rt, 1)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert await waiting == 3  # also while the kernel has not returned: the place is a run's
        gates.open.set()
        await flow.quiet()
        assert counts(rt) == (0, 0, 2, 0, 2, 0)

    run_async(main())


def test_a_timeout_covers_the_waiting(run_async: Runner) -> None:
    gates = Gates()

    async def main() -> None:
        rt = flow.Runtime(max_runs=1)
        running = asyncio.create_task(gates.waits.on(rt)(0))
        await gates.reached(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await small.on(rt)(1)
        gates.open.set()
        await running
        assert counts(rt)[:2] == (0, 0)

    run_async(main())


# ---------------------------------------------------------------- runs inside runs


@pytest.mark.parametrize("threads", [1, 2])
def test_runs_inside_runs_need_no_place(run_async: Runner, threads: int) -> None:
    flow.set_num_interop_threads(threads)
    rt = flow.Runtime(max_runs=1, max_waiting=0)

    @flow.op
    def in_kernel(x: int, face: Any) -> int:
        return face.run(x)  # type: ignore[no-any-return]

    @flow.op
    async def in_async_op(x: int, face: Any) -> int:
        return await face(x)  # type: ignore[no-any-return]

    @flow.op
    async def in_task(x: int, face: Any) -> int:
        return await asyncio.create_task(face(x)) + await add.start(x)  # type: ignore[no-any-return]

    @flow.op
    async def in_thread(x: int, face: Any) -> int:
        return await asyncio.to_thread(face.run, x)

    @flow.op
    async def task_of_it(x: int) -> int:
        return await add.on(rt).start(add_on_loop.on(rt).start(x))

    @flow.pipeline(static=("face",))
    def p(x: int, face: Any) -> Any:
        inner = [op(x, face) for op in (in_kernel, in_async_op, in_task, in_thread)]
        mapped = flow.map(face, [x, x]), flow.map(in_kernel, []), flow.cond(True, face, face, x)
        return inner, mapped, task_of_it(x), in_kernel(in_kernel(x, face), face)

    async def main() -> None:
        for face in (small, small.on(rt)):
            got = await p.on(rt)(1, face)
            assert got == ([3, 3, 5, 3], ([3, 3], [], 3), 3, 5)
        assert counts(rt) == (0, 0, 2, 0, 0, 0)
        assert await asyncio.to_thread(p.on(rt).run, 1, small.on(rt)) == got

    run_async(main())
    assert p.on(rt).run(1, small.on(rt)) == ([3, 3, 5, 3], ([3, 3], [], 3), 3, 5)
    assert counts(rt) == (0, 0, 4, 0, 0, 0)


def test_an_explicit_other_runtime_takes_a_place_there(run_async: Runner) -> None:
    here, there = flow.Runtime(max_runs=1, name="here"), flow.Runtime(max_runs=1, max_waiting=0, name="there")

    @flow.op
    async def back(x: int) -> int:
        assert (here._admission.running, there._admission.running) == (1, 1)
        return await small.on(here)(x) + await small.on(there)(x) + await small(x)

    @flow.pipeline
    def inner(x: int) -> int:
        return back(x)

    @flow.op
    async def over_async(x: int) -> int:
        return await inner.on(there)(x)

    @flow.op
    def over_kernel(x: int) -> int:
        return inner.on(there).run(x)

    @flow.pipeline
    def p(x: int) -> Any:
        first = over_async(x)
        with flow.after(first):
            return first, over_kernel(x)

    assert run_async(p.on(here)(1)) == (9, 9)
    assert counts(here) == (0, 0, 1, 0, 0, 0)
    assert counts(there) == (0, 0, 2, 0, 0, 0)


def test_map_over_a_pipeline_of_another_runtime_takes_one_place(run_async: Runner) -> None:
    rt = flow.Runtime(max_runs=1, max_waiting=0)

    @flow.pipeline
    def p(xs: Any) -> Any:
        return flow.map(small.on(rt), xs)

    assert run_async(p([1, 2, 3])) == [3, 4, 5]
    assert flow.map(add.on(rt), [1, 2]) == [2, 3]
    assert flow.cond(False, small, small.on(rt), 1) == 3
    assert counts(rt) == (0, 0, 3, 0, 0, 0)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_kernel_that_waits_for_a_place_lends_its_slot(run_async: Runner, threads: int) -> None:
    """With one inter-op thread, whoever holds the place could not end without the slot of the kernel that waits."""
    flow.set_num_interop_threads(threads)
    rt, gates = flow.Runtime(max_runs=1), Gates()

    @flow.op
    def wants_a_place(x: int) -> int:
        return small.on(rt).run(x)

    @flow.pipeline
    def waits_inside(x: int) -> int:
        return wants_a_place(x)

    @flow.pipeline
    def holder(x: int) -> int:
        return add(gates.waits(x))

    events: list[Any] = []

    async def main() -> None:
        first = asyncio.create_task(holder.on(rt)(1))
        await gates.reached(1)
        end = flow.observe(events.append)
        second = asyncio.create_task(waits_inside(5))
        await until_waiting(rt, 1)
        assert await small(1) == 3
        gates.open.set()
        assert await asyncio.gather(first, second) == [2, 7]
        end()
        assert counts(rt) == (0, 0, 2, 0, 0, 0)
        assert {event.pipeline for event in events} == {"waits_inside", "holder", "small"}  # waiting is no run

    run_async(main())


@pytest.mark.parametrize("end", ["cancel", "close", "overload"])
def test_a_kernel_that_waits_for_a_place_in_vain(run_async: Runner, end: str) -> None:
    rt, gates = flow.Runtime(max_runs=1, max_waiting=0 if end == "overload" else None), Gates()
    seen: list[BaseException] = []

    @flow.op
    def wants_a_place(x: int) -> int:
        try:
            return small.on(rt).run(x)
        except BaseException as exc:
            seen.append(exc)
            raise

    @flow.pipeline
    def p(x: int) -> int:
        return wants_a_place(x)

    async def main() -> None:
        first = asyncio.create_task(gates.waits.on(rt)(1))
        await gates.reached(1)
        second = asyncio.create_task(p(5))
        if end != "overload":
            await until_waiting(rt, 1)
        if end == "cancel":
            second.cancel()
        elif end == "close":
            assert await rt.aclose(0) == []
        error = {"cancel": asyncio.CancelledError, "close": flow.RuntimeClosed, "overload": flow.Overloaded}[end]
        with pytest.raises(error):
            await second
        await flow.quiet()
        assert [type(each) for each in seen] == [error]
        gates.open.set()
        if end == "close":
            with pytest.raises(flow.RuntimeClosed):
                await first
        else:
            await first
        assert counts(rt)[:2] == (0, 0)

    run_async(main())
    seen.clear()


def test_a_task_that_outlives_its_run_takes_a_place_in_its_runtime(run_async: Runner) -> None:
    rt, gates = flow.Runtime(max_runs=1, max_waiting=0), Gates()
    left: list[asyncio.Task[Any]] = []
    go = asyncio.Event()

    async def afterwards() -> Any:
        await go.wait()
        return [await small(1), await small.on(rt)(1), await asyncio.to_thread(small.run, 1)]

    @flow.op
    async def leaves_a_task(x: int) -> int:
        left.append(asyncio.create_task(afterwards()))
        return x

    @flow.pipeline
    def p(x: int) -> int:
        return leaves_a_task(x)

    async def main() -> None:
        assert await p.on(rt)(1) == 1
        go.set()
        assert await left[0] == [3, 3, 3]
        assert counts(rt) == (0, 0, 4, 0, 0, 0)
        go.clear()
        await p.on(rt)(1)
        full = asyncio.create_task(gates.waits.on(rt)(0))
        await gates.reached(0)
        go.set()
        with pytest.raises(flow.Overloaded):
            await left[1]
        gates.open.set()
        await full

    run_async(main())


def test_a_task_that_outlives_an_inner_run_is_still_inside_the_outer_one(run_async: Runner) -> None:
    outer_rt, inner_rt = flow.Runtime(max_runs=1, max_waiting=0), flow.Runtime(max_runs=1, max_waiting=0)
    left: list[asyncio.Task[Any]] = []

    @flow.op
    async def leaves_a_task(x: int) -> int:
        async def afterwards() -> int:
            await asyncio.sleep(0)
            while inner_rt._admission.running:
                await asyncio.sleep(0)
            return await small(x)

        left.append(asyncio.create_task(afterwards()))
        return x

    @flow.pipeline
    def inner(x: int) -> int:
        return leaves_a_task(x)

    @flow.op
    async def outer_op(x: int) -> int:
        await inner.on(inner_rt)(x)
        return await left[0]

    @flow.pipeline
    def outer(x: int) -> int:
        return outer_op(x)

    assert run_async(outer.on(outer_rt)(1)) == 3
    assert counts(outer_rt)[2:] == counts(inner_rt)[2:] == (1, 0, 0, 0)


def test_contexts_of_runs_still_share_what_they_may(run_async: Runner) -> None:
    """The place in a context must not make the workers copy it for each kernel: it compares by identity."""
    variable = contextvars.ContextVar("variable", default="unset")
    seen: list[Any] = []

    @flow.op
    def look(x: int) -> int:
        place = current_ticket.get()
        seen.append((variable.get(), type(place).__eq__ is object.__eq__))
        variable.set("changed by a kernel")
        return x

    @flow.pipeline
    def p(x: int) -> Any:
        return look(x), look(x)

    async def main() -> None:
        variable.set("the caller's")
        await p.on(flow.Runtime(max_runs=1))(1)
        assert current_ticket.get() is None
        assert variable.get() == "the caller's"

    run_async(main())
    assert seen == [("the caller's", True)] * 2


# ---------------------------------------------------------------- the faces


class Model:
    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.traced = 0

    @flow.op
    def layer(self, x: int) -> int:
        return x * self.weight

    @flow.pipeline
    def forward(self, x: int) -> int:
        self.traced += 1
        return self.layer(x)


def test_graphs_are_shared_and_retraced_together(run_async: Runner) -> None:
    traced = []

    @flow.pipeline(static=("n",))
    def p(x: int, n: int = 1) -> int:
        traced.append(n)
        return add(x, n)

    rt, model = flow.Runtime(max_runs=1), Model(3)
    hosted, method = p.on(rt), model.forward.on(rt)
    assert run_async(hosted(1)) == p.run(1) == 2
    assert traced == [1]
    assert hosted.graph() is p.graph()
    p.retrace()
    assert hosted.run(1, 2) == p.run(1, 2) == 3
    assert hosted.run(1) == 2
    assert traced == [1, 2, 1]
    hosted.retrace()
    p.run(1)
    assert traced == [1, 2, 1, 1]
    assert method.run(2) == model.forward.run(2) == Model.forward.on(rt).run(model, 2) == 6
    assert model.traced == 1
    model.forward.retrace()
    method.run(2)
    assert model.traced == 2
    Model.forward.retrace()
    method.run(2)
    assert model.traced == 3


def test_what_is_traced_while_all_is_forgotten_is_not_kept() -> None:
    traced = []

    @flow.pipeline
    def p(x: int) -> int:
        traced.append(1)
        if len(traced) == 1:
            p.retrace()
        return add(x)

    assert [p.run(1), p.run(1), p.run(1)] == [2, 2, 2]
    assert len(traced) == 2


def test_derived_pipelines_and_options_stay_in_the_runtime(run_async: Runner) -> None:
    rt = flow.Runtime(max_runs=1)

    @flow.pipeline
    def p(x: int, y: int) -> int:
        return flow.label(add(x, y), "sum") + 1

    async def main() -> None:
        hosted = p.on(rt)
        assert await hosted.bind(y=2)(1) == 4
        assert await hosted.select("sum")(1, 2) == 3
        assert await hosted.replace({add.on(rt): lambda x, y: x * y})(3, 4) == 13
        assert await add.on(rt).options(name="other").start(1) == 2
        assert await Model(3).layer.on(rt).start(2) == 6
        assert await Model(3).layer.on(rt).options(name="other").start(2) == 6
        assert counts(rt) == (0, 0, 6, 0, 0, 0)
        assert repr(hosted) == repr(p)

    run_async(main())


def test_an_operator_on_a_runtime_is_the_plain_function_and_a_node_all_the_same(run_async: Runner) -> None:
    rt = flow.Runtime(max_runs=1)
    hosted = add.on(rt)
    assert hosted(1, 2) == 3
    assert hosted.name == "add"

    @flow.pipeline
    def p(x: int) -> int:
        return hosted(small.on(rt)(x))

    assert [node.spec.name for node in p.graph().nodes] == ["add_on_loop", "add", "add"]
    assert run_async(p(1)) == 4
    assert counts(rt) == (0, 0, 0, 0, 0, 0)


def test_tasks_wait_for_their_arguments_before_they_take_a_place(run_async: Runner) -> None:
    async def main() -> None:
        rt = flow.Runtime(max_runs=1, max_waiting=0)
        hosted, on_loop = add.on(rt), add_on_loop.on(rt)
        assert await hosted.start(on_loop.start(hosted.start(1)), 5) == 8
        assert counts(rt) == (0, 0, 3, 0, 0, 0)
        tasks = [on_loop.start(1), on_loop.start(2)]
        assert await tasks[0] == 2
        with pytest.raises(flow.Overloaded):
            await tasks[1]
        await rt.aclose()
        with pytest.raises(flow.RuntimeClosed, match="'add'"):
            await hosted.start(1)

    run_async(main())


def test_debug_needs_no_place_but_an_open_runtime(run_async: Runner) -> None:
    rt, gates = flow.Runtime(max_runs=1, max_waiting=0), Gates()

    @flow.pipeline
    def kernels(x: int) -> int:
        return add(add(x))

    async def main() -> None:
        full = asyncio.create_task(gates.waits.on(rt)(0))
        await gates.reached(0)
        assert kernels.on(rt).debug(1) == 3
        gates.open.set()
        await full
        await rt.aclose()

    run_async(main())
    with pytest.raises(flow.RuntimeClosed, match="starts no run of 'kernels'"):
        kernels.on(rt).debug(1)
    with pytest.raises(flow.RuntimeClosed, match="starts no run of 'small'"):
        small.on(rt).run(1)


def test_wrong_values() -> None:
    for given in (True, 2.0, "2", np.bool_(True)):
        with pytest.raises(TypeError, match=r"Runtime\(max_runs=\) takes an int or None, not "):
            flow.Runtime(max_runs=given)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"Runtime\(max_waiting=\) takes an int or None, not "):
            flow.Runtime(max_runs=1, max_waiting=given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Runtime\(max_runs=0\): pass 1 or more"):
        flow.Runtime(max_runs=0)
    with pytest.raises(ValueError, match=r"Runtime\(max_waiting=-1\): pass 0 or more"):
        flow.Runtime(max_runs=1, max_waiting=-1)
    with pytest.raises(ValueError, match="give max_runs as well"):
        flow.Runtime(max_waiting=1)
    with pytest.raises(TypeError, match=r"Runtime\(name=\) takes a str"):
        flow.Runtime(name=3)  # type: ignore[arg-type]
    assert flow.Runtime(np.int64(2), np.int64(0)).info()["runtime"]["max_runs"] == 2
    for face in (small, add, Model(1).forward, Model(1).layer):
        for given in (None, flow.Runtime, default_runtime()):
            with pytest.raises(TypeError, match=r"\.on\(\) takes a flow\.Runtime, not "):
                face.on(given)  # type: ignore[attr-defined]


def test_wrong_timeouts(run_async: Runner) -> None:
    async def main() -> None:
        rt = flow.Runtime()
        for given in (True, "1", [1]):
            with pytest.raises(TypeError, match="takes a number of seconds or None"):
                await rt.aclose(given)  # type: ignore[arg-type]
        for given in (-1, float("nan"), float("-inf")):
            with pytest.raises(ValueError, match="pass 0 or more seconds"):
                await rt.aclose(given)
        assert rt.info()["runtime"]["state"] == "open"
        assert await rt.aclose(np.float32(1.5)) == []
        assert await rt.aclose(float("inf")) == []

    run_async(main())


def test_info_is_json_safe_and_reads_well(run_async: Runner) -> None:
    rt = flow.Runtime(max_runs=2, name="api")
    info = rt.info()
    assert json.loads(json.dumps(info)) == info
    assert info["runs"]["mean_seconds"] is None
    run_async(small.on(rt)(1))
    assert rt.info()["runs"]["mean_seconds"] > 0
    lines = str(rt.info()).splitlines()
    assert lines[:3] == ["runtime", "  name             api", "  state            open"]
    assert "  done             1" in lines
    assert "  max_waiting      none" in lines


# ---------------------------------------------------------------- closing


def test_closed_when_idle(run_async: Runner) -> None:
    async def main() -> None:
        async with flow.Runtime(max_runs=1, name="api") as rt:
            p = small.on(rt)
            assert await p(1) == 3
        assert rt.info()["runtime"]["state"] == "closed"
        with pytest.raises(flow.RuntimeClosed, match="runtime 'api' is closed: it starts no run of 'small'"):
            await p(1)
        with pytest.raises(flow.RuntimeClosed, match="cannot be entered"):
            async with rt:
                pass
        assert await rt.aclose() == await rt.aclose(0) == []
        assert await small(1) == 3
        assert counts(rt) == (0, 0, 1, 0, 0, 1)

    run_async(main())


def test_what_runs_and_waits_is_drained(run_async: Runner) -> None:
    gates = Gates()

    async def main() -> None:
        rt = flow.Runtime(max_runs=1, name="api")
        tasks = [asyncio.create_task(gates.waits.on(rt)(x)) for x in range(3)]
        await gates.reached(0)
        await until_waiting(rt, 2)
        closing = [asyncio.create_task(rt.aclose(None)), asyncio.create_task(rt.aclose(float("inf")))]
        await turns()
        assert rt.info()["runtime"]["state"] == "closing"
        with pytest.raises(flow.RuntimeClosed, match="runtime 'api' is closing"):
            await small.on(rt)(1)
        gates.open.set()
        assert await asyncio.gather(*closing) == [[], []]
        assert [task.result() for task in tasks] == [0, 1, 2]
        assert counts(rt) == (0, 0, 3, 0, 0, 1)

    run_async(main())


def test_runs_inside_runs_begin_also_while_it_closes(run_async: Runner) -> None:
    go = asyncio.Event()

    async def main() -> None:
        rt = flow.Runtime(max_runs=1)

        @flow.op
        async def later(x: int) -> int:
            await go.wait()
            return await small(x) + await small.on(rt)(x) + await asyncio.to_thread(small.on(rt).run, x)

        @flow.op
        def in_kernel(x: int) -> int:
            return small.on(rt).run(x) + small.on(rt).debug(x)

        @flow.pipeline
        def p(x: int) -> int:
            return add(in_kernel(later(x)))

        task = asyncio.create_task(p.on(rt)(1))
        await turns()
        closing = asyncio.create_task(rt.aclose())
        await turns()
        go.set()
        assert await closing == []
        assert await task == 2 * (9 + 2) + 1

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runtime, "GRACE", 20.0)
        run_async(main())


def test_when_time_is_up_those_who_wait_are_sent_away_and_what_runs_is_stopped(run_async: Runner) -> None:
    gates = Gates()

    async def main() -> None:
        rt = flow.Runtime(max_runs=1, name="api")
        tasks = [asyncio.create_task(gates.waits.on(rt)(x)) for x in range(3)]
        await gates.reached(0)
        await until_waiting(rt, 2)
        assert await rt.aclose(0) == []
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends] == [flow.RuntimeClosed] * 3
        assert str(ends[0]) == "runtime 'api' was closed while 'waits' was in progress"
        assert str(ends[1]) == "runtime 'api' is closed: it starts no run of 'waits'"
        assert gates.inside == []
        assert counts(rt) == (0, 0, 0, 0, 1, 2)
        assert len(asyncio.all_tasks()) == 1

    run_async(main())


def test_a_kernel_that_does_not_return_is_reported_and_those_that_queue_never_start(run_async: Runner) -> None:
    flow.set_num_interop_threads(1)
    gates, ran = Gates(), []

    @flow.op
    def queued(x: int) -> int:
        ran.append(x)
        return x

    @flow.pipeline
    def many(x: int) -> Any:
        return [queued(x) for _ in range(5)]

    async def main() -> None:
        rt = flow.Runtime(name="api")
        stuck = asyncio.create_task(gates.holds.on(rt)(0))
        await gates.reached(0)
        behind = asyncio.create_task(many.on(rt)(1))
        await turns()
        began = time.monotonic()
        assert await rt.aclose(0) != []
        assert time.monotonic() - began < 5  # as good as at once: the machine may be busy
        for task in (stuck, behind):
            with pytest.raises(flow.RuntimeClosed, match="was closed while"):
                await task
        (left,) = await rt.aclose()
        assert (left.pipeline, left.operators) == ("holds", ("hold",))
        assert 0 <= left.seconds < 60
        gates.open.set()
        await flow.quiet()
        assert ran == []
        assert await rt.aclose() == []
        assert counts(rt) == (0, 0, 0, 0, 2, 0)

    run_async(main())


@pytest.mark.parametrize("inside", ["async op", "kernel"])
def test_a_kernel_of_a_run_inside_is_reported_too(run_async: Runner, inside: str) -> None:
    flow.set_num_interop_threads(1)
    gates = Gates()

    @flow.op
    async def awaits(x: int) -> int:
        return await gates.holds(x)

    @flow.op
    def runs(x: int) -> int:
        return gates.holds.run(x)

    @flow.pipeline
    def p(x: int) -> int:
        return awaits(x) if inside == "async op" else runs(x)

    async def main() -> None:
        rt = flow.Runtime()
        task = asyncio.create_task(p.on(rt)(0))
        await gates.reached(0)
        assert await rt.aclose(0) != []
        with pytest.raises(flow.RuntimeClosed):
            await task
        left = [(each.pipeline, each.operators) for each in await rt.aclose()]
        assert sorted(left) == [("holds", ("hold",))] + [("p", ("runs",))] * (inside == "kernel")
        gates.open.set()
        await flow.quiet()
        assert await rt.aclose() == []

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runtime, "GRACE", 0.01)
        run_async(main())


def test_it_waits_for_the_kernel_of_a_run_that_was_cancelled_before(run_async: Runner) -> None:
    gates = Gates()

    async def main() -> None:
        rt = flow.Runtime()
        task = asyncio.create_task(gates.holds.on(rt)(0))
        await gates.reached(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        closing = asyncio.create_task(rt.aclose(None))
        await turns(20)
        assert not closing.done()
        gates.open.set()
        assert await closing == []

    run_async(main())


def test_an_async_op_that_ignores_cancellation_holds_up_its_awaiter_but_not_the_closing(run_async: Runner) -> None:
    gates = Gates()

    async def main() -> None:
        rt = flow.Runtime(max_runs=1)
        tasks = [asyncio.create_task(gates.ignores.on(rt)(x)) for x in range(2)]
        await gates.reached(0)
        await until_waiting(rt, 1)
        began = time.monotonic()
        left = await rt.aclose(0)
        assert time.monotonic() - began < 5  # as good as at once: the machine may be busy
        assert [(each.pipeline, each.operators) for each in left] == [("ignores", ("ignore",))]
        with pytest.raises(flow.RuntimeClosed, match="starts no run"):
            await tasks[1]
        assert not tasks[0].done()
        assert rt.info()["runtime"]["state"] == "closed"
        gates.open.set()
        with pytest.raises(flow.RuntimeClosed, match="was closed while"):
            await tasks[0]
        assert await rt.aclose() == []

    run_async(main())


def test_the_shortest_patience_counts_for_all(run_async: Runner) -> None:
    gates = Gates()

    async def main() -> None:
        rt = flow.Runtime()
        task = asyncio.create_task(gates.ignores.on(rt)(0))
        await gates.reached(0)
        patient = asyncio.create_task(rt.aclose(None))
        await turns()
        answers = await asyncio.gather(rt.aclose(0), rt.aclose(100), patient)
        assert [[each.pipeline for each in answer] for answer in answers] == [["ignores"]] * 3
        gates.open.set()
        with pytest.raises(flow.RuntimeClosed):
            await task

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runtime, "GRACE", 0.01)
        run_async(main())


def test_closed_from_another_loop(run_async: Runner) -> None:
    gates = Gates()

    async def main() -> None:
        rt = flow.Runtime(max_runs=1)
        tasks = [asyncio.create_task(gates.waits.on(rt)(x)) for x in range(2)]
        await gates.reached(0)
        await until_waiting(rt, 1)
        answers = await asyncio.gather(*(asyncio.to_thread(asyncio.run, rt.aclose(0)) for _ in range(2)))
        assert answers == [[], []]
        for task in tasks:
            with pytest.raises(flow.RuntimeClosed):
                await task

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runtime, "GRACE", 20.0)  # as long as this loop needs to stop its run
        run_async(main())


def test_closing_that_is_cancelled_leaves_it_closing(run_async: Runner) -> None:
    gates = Gates()

    async def main() -> None:
        rt = flow.Runtime()
        task = asyncio.create_task(gates.waits.on(rt)(0))
        await gates.reached(0)
        closing = asyncio.create_task(rt.aclose())
        await turns()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert rt.info()["runtime"]["state"] == "closing"
        assert not rt._admission._watchers
        gates.open.set()
        assert await task == 0
        assert rt.info()["runtime"]["state"] == "closed"

    run_async(main())


def test_a_body_that_fails_still_drains(run_async: Runner) -> None:
    gates, tasks = Gates(), []

    async def main() -> None:
        with pytest.raises(KeyError):
            async with flow.Runtime() as rt:
                tasks.append(asyncio.create_task(gates.waits.on(rt)(0)))
                await gates.reached(0)
                asyncio.get_running_loop().call_later(0.01, gates.open.set)
                raise KeyError("body")
        assert tasks[0].result() == 0

    run_async(main())


def test_a_run_that_closes_its_own_runtime_is_told(run_async: Runner) -> None:
    rt = flow.Runtime(name="api")

    @flow.op
    async def closes(x: int) -> Any:
        return await rt.aclose()

    @flow.pipeline
    def p(x: int) -> Any:
        return closes(x)

    with pytest.raises(RuntimeError, match="'api' was called inside one of its runs"):
        run_async(p.on(rt)(1))
    assert rt.info()["runtime"]["state"] == "open"


def test_the_default_runtime_cannot_be_closed(run_async: Runner) -> None:
    with pytest.raises(RuntimeError, match=r"cannot be closed: make a flow\.Runtime"):
        run_async(default_runtime().aclose())


def test_a_run_that_was_admitted_and_not_begun_when_it_was_closed(run_async: Runner) -> None:
    gates = Gates()

    async def main() -> None:
        rt = flow.Runtime(max_runs=1)
        tasks = [asyncio.create_task(gates.waits.on(rt)(x)) for x in range(2)]
        await gates.reached(0)
        await until_waiting(rt, 1)
        gates.open.set()
        await tasks[0]
        gates.open.clear()
        rt._admission.close()
        rt._stop()  # the second holds its place, and has not been there since
        with pytest.raises(flow.RuntimeClosed, match="was closed while"):
            await tasks[1]
        assert gates.inside == []
        assert await rt.aclose() == []
        assert counts(rt) == (0, 0, 1, 0, 1, 0)

    run_async(main())


# ---------------------------------------------------------------- loops that are gone, and what is left behind


@pytest.mark.parametrize("how", list(LOOPS))
def test_a_loop_that_is_closed_over_its_runs_gives_their_places_back(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="asyncio")  # "Task was destroyed but it is pending"
    gates, rt = Gates(), flow.Runtime(max_runs=1)
    loop = LOOPS[how]()

    async def begin() -> list[asyncio.Task[int]]:
        tasks = [asyncio.create_task(gates.waits.on(rt)(x)) for x in range(3)]
        await gates.reached(0)
        await until_waiting(rt, 2)
        return tasks

    tasks = loop.run_until_complete(begin())
    loop.close()
    assert counts(rt)[:2] == (1, 2)
    assert small.on(rt).run(1) == 3
    assert counts(rt)[:2] == (0, 0)
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    del tasks, task
    gc.collect()


def test_closing_does_not_wait_for_loops_that_are_gone(run_async: Runner, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    gates, rt = Gates(), flow.Runtime(max_runs=1)
    loop = asyncio.new_event_loop()

    async def begin() -> list[asyncio.Task[int]]:
        tasks = [asyncio.create_task(gates.waits.on(rt)(x)) for x in range(2)]
        await gates.reached(0)
        await until_waiting(rt, 1)
        return tasks

    tasks = loop.run_until_complete(begin())
    loop.close()
    assert run_async(rt.aclose(None)) == []
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    del tasks, task
    gc.collect()


def test_nothing_is_kept_by_runs_refusals_and_waiting(run_async: Runner) -> None:
    class Big:
        pass

    gates = Gates()
    alive: list[weakref.ref[Any]] = []

    def big() -> Big:
        new = Big()
        alive.append(weakref.ref(new))
        return new

    @flow.op
    def fails(x: Any) -> Any:
        raise ValueError("no")

    @flow.pipeline
    def good(x: Any) -> int:
        return flow.cond(True, add, add, 1)

    @flow.pipeline
    def bad(x: Any) -> Any:
        return fails(x)

    async def main() -> None:
        rt = flow.Runtime(max_runs=1, max_waiting=1)
        await good.on(rt)(big())
        with suppress(ValueError):
            await bad.on(rt)(big())
        full = asyncio.create_task(gates.waits.on(rt)(0))
        await gates.reached(0)
        waiting = asyncio.create_task(good.on(rt)(big()))
        await until_waiting(rt, 1)
        with suppress(flow.Overloaded):
            await good.on(rt)(big())
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        waiting = asyncio.create_task(good.on(rt)(big()))
        await until_waiting(rt, 1)
        await rt.aclose(0)
        for task in (waiting, full):
            with suppress(flow.RuntimeClosed):
                await task
        del waiting, full, task
        await flow.quiet()
        await turns()
        assert settles(lambda: let_go() or [ref() for ref in alive] == [None] * 5)

    gc.collect()
    gc.disable()
    try:
        run_async(main())
    finally:
        gc.enable()


def test_a_runtime_that_nobody_uses_any_more_is_gone(run_async: Runner) -> None:
    rt = flow.Runtime(max_runs=1)
    hosted = small.on(rt)
    run_async(hosted(1))
    gone = weakref.ref(rt)
    del rt, hosted
    deadline = time.monotonic() + 20
    while gone() is not None and time.monotonic() < deadline:  # the worker that ended its run may still be at it
        gc.collect()
    assert gone() is None


def test_stopping_is_no_late_failure(run_async: Runner, caplog: pytest.LogCaptureFixture) -> None:
    """The awaiter may be cancelled just when the runtime stops its run: there is nothing to report then."""
    gates = Gates()

    async def main() -> None:
        rt = flow.Runtime()
        task = asyncio.create_task(gates.waits.on(rt)(0))
        await gates.reached(0)
        rt._stop()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert counts(rt)[:2] == (0, 0)

    run_async(main())
    assert not caplog.records


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_child_of_a_fork_has_all_places_free() -> None:
    rt = flow.Runtime(max_runs=1, max_waiting=0)
    gates = Gates()
    runner = threading.Thread(target=lambda: gates.waits.on(rt).run(0))
    runner.start()
    while not gates.inside:
        time.sleep(0)
    child = os.fork()
    if not child:
        try:
            assert counts(rt) == (0, 0, 0, 0, 0, 0)
            assert small.on(rt).run(1) == 3
            runs = flow.parallel_info()["runs"]
            assert runs == {"started": 1, "in_progress": 0, "done": 1, "failed": 0, "cancelled": 0}
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert counts(rt)[:2] == (1, 0)
    gates.open.set()
    runner.join()


def test_runs_of_the_process_are_counted(run_async: Runner) -> None:
    @flow.op
    def fails(x: int) -> int:
        raise ValueError

    @flow.pipeline
    def bad(x: int) -> int:
        return fails(x)

    gates = Gates()
    rt = flow.Runtime()

    def since() -> dict[str, int]:
        return {key: value - before[key] for key, value in flow.parallel_info()["runs"].items()}

    async def main() -> None:
        await small(1)
        await small.on(rt)(1)
        with pytest.raises(ValueError):
            await bad(1)
        task = asyncio.create_task(gates.waits(0))
        await gates.reached(0)
        assert since() == {"started": 4, "in_progress": 1, "done": 2, "failed": 1, "cancelled": 0}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = flow.parallel_info()["runs"]
    run_async(main())
    with pytest.raises(ValueError):
        bad.debug(1)
    assert since() == {"started": 5, "in_progress": 0, "done": 2, "failed": 2, "cancelled": 1}


@pytest.mark.parametrize("option", ["timeout", "retries", "limit"])
def test_closing_tells_of_a_kernel_with_options_that_has_not_returned(run_async: Runner, option: str) -> None:
    options: dict[str, Any] = {"timeout": 60.0, "retries": 1, "limit": flow.Limit(1)}
    inside, gate = threading.Event(), threading.Event()

    def stay(x: int) -> int:
        inside.set()
        assert gate.wait(20)
        return x

    kernel = flow.op(stay).options(**{option: options[option]})

    @flow.pipeline
    def p(x: int) -> int:
        return kernel(x)

    async def main() -> None:
        rt = flow.Runtime(max_runs=1)
        task = asyncio.create_task(p.on(rt)(1))
        await asyncio.to_thread(inside.wait, 20)
        left = await rt.aclose(0)
        assert [(record.pipeline, record.operators) for record in left] == [("p", ("stay",))]
        with pytest.raises(flow.RuntimeClosed):
            await task
        gate.set()
        await flow.quiet()
        assert await rt.aclose(0) == []

    run_async(main())
