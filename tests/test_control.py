"""`flow.map` and `flow.cond`: control at run time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dataflow as flow

Runner = Callable[[Any], Any]


@flow.op
def triple(x: Any) -> Any:
    return 3 * x


@flow.op
async def later(x: Any) -> Any:
    await asyncio.sleep(0)
    return x + 1


@flow.pipeline
def both(x: Any) -> Any:
    return later(triple(x))


def negate(x: Any) -> Any:
    return -x


class Model:
    @flow.pipeline
    def forward(self, x: Any) -> Any:
        return triple(x)


@pytest.mark.parametrize(
    ("function", "expected"),
    [(triple, [0, 3, 6]), (later, [1, 2, 3]), (both, [1, 4, 7]), (negate, [0, -1, -2]), (Model().forward, [0, 3, 6])],
)
def test_map_over_a_sequence_of_unknown_length(run_async: Runner, function: Any, expected: list[int]) -> None:
    @flow.pipeline
    def pipeline(xs: Any) -> Any:
        return flow.map(function, xs)

    for count in (3, 1, 0, 3):
        assert run_async(pipeline(list(range(count)))) == expected[:count]
    assert run_async(pipeline(np.arange(3))) == expected
    assert pipeline.run(range(3)) == pipeline.debug((0, 1, 2)) == expected
    assert flow.map(function, range(3)) == expected


def test_map_over_nodes_and_inside_a_kernel(run_async: Runner) -> None:
    @flow.op
    def upto(n: int) -> list[int]:
        return list(range(n))

    @flow.op
    def in_kernel(n: int) -> int:
        return sum(flow.map(both, range(n)))

    @flow.pipeline
    def pipeline(n: Any) -> Any:
        return flow.map(triple, upto(n)), flow.map(triple, [n, n + 1]), in_kernel(n)

    assert run_async(pipeline(4)) == ([0, 3, 6, 9], [12, 15], 22)


def test_the_items_run_side_by_side(run_async: Runner) -> None:
    flow.set_num_interop_threads(3)
    barrier = threading.Barrier(3)

    @flow.op
    def meet(x: int) -> int:
        barrier.wait(20)
        return x

    assert run_async(flow.pipeline(lambda xs: flow.map(meet, xs))([1, 2, 3])) == [1, 2, 3]


def test_failures_and_cancellation_are_the_runs(run_async: Runner) -> None:
    @flow.op
    def fails(x: int) -> int:
        raise KeyError(x)

    @flow.op
    async def waits(x: int) -> int:
        await asyncio.Event().wait()
        return x

    with pytest.raises(KeyError) as caught:
        run_async(flow.pipeline(lambda xs: flow.map(fails, xs))([7]))
    assert "operator 'fails'" in caught.value.__notes__[0]

    async def main() -> None:
        task = asyncio.create_task(flow.pipeline(lambda xs: flow.map(waits, xs))([1, 2]))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await flow.quiet()

    run_async(main())


@pytest.mark.parametrize(("then", "otherwise"), [(triple, later), (both, negate), (later, Model().forward)])
def test_cond_calls_one(run_async: Runner, then: Any, otherwise: Any) -> None:
    def plain(function: Any, x: int) -> Any:
        return {triple: 3 * x, later: x + 1, both: 3 * x + 1, negate: -x}.get(function, 3 * x)

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return flow.cond(x > 3, then, otherwise, x)

    for x in (2, 5):
        expected = plain(then if x > 3 else otherwise, x)
        assert run_async(pipeline(x)) == pipeline.run(x) == expected
        assert flow.cond(x > 3, then, otherwise, x) == expected


def test_the_other_branch_is_not_touched(run_async: Runner) -> None:
    @flow.op
    def fails(x: Any) -> Any:
        raise AssertionError

    assert run_async(flow.pipeline(lambda x: flow.cond(x, triple, fails, x))(1)) == 3
    assert run_async(flow.pipeline(lambda x: flow.cond(np.False_, fails, negate, x))(1)) == -1


@pytest.mark.parametrize("inside", [True, False])
def test_misuse_is_refused(inside: bool) -> None:
    calls: list[tuple[Callable[[Any], Any], str]] = [
        (lambda x: flow.map(3, [1]), "flow.map: expected an operator, a pipeline or a function, got int"),  # type: ignore[arg-type]
        (lambda x: flow.cond(True, 3, negate), "flow.cond: expected an operator"),  # type: ignore[arg-type]
        (lambda x: flow.cond(True, negate, None), "flow.cond: expected .*, got NoneType"),  # type: ignore[arg-type]
    ]
    for call, message in calls:
        with pytest.raises(TypeError, match=message):
            flow.pipeline(call).graph() if inside else call(1)
