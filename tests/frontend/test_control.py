"""`flow.map` and `flow.cond`: control at run time."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
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


class Model:
    def __init__(self, gain: int) -> None:
        self.gain = gain

    @flow.op
    def scaled(self, x: Any) -> Any:
        return self.gain * x

    @flow.op
    async def later(self, x: Any) -> Any:
        await asyncio.sleep(0)
        return self.gain + x

    def plain(self, x: Any) -> Any:
        return self.gain - x

    @flow.pipeline
    def inner(self, x: Any) -> Any:
        return self.scaled(x) + self.gain

    @flow.pipeline
    def all_of_them(self, xs: Any) -> Any:
        methods = (self.scaled, self.later, self.plain, self.inner)
        mapped = [flow.map(method, xs) for method in methods]
        return mapped, [flow.cond(xs[0] > 1, method, self.scaled, xs[1]) for method in methods]


def test_methods_are_called_and_their_instance_is_not_held(run_async: Runner) -> None:
    model = Model(3)
    for pick in (0, 2):
        mapped, chosen = run_async(model.all_of_them([pick, 5]))
        assert mapped == [[3 * pick, 15], [3 + pick, 8], [3 - pick, -2], [3 * pick + 3, 18]]
        assert chosen == ([15, 8, -2, 18] if pick else [15] * 4)
    assert flow.map(model.scaled, [1, 2]) == [3, 6]
    assert flow.map(model.later, [1, 2]) == [4, 5]
    assert flow.map(model.inner, [1, 2]) == [6, 9]
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


def test_a_function_that_uses_a_placeholder_from_outside_is_refused() -> None:
    def chooses(x: Any) -> Any:
        return flow.cond(x > 0, lambda: x + 1, lambda: x)

    def declares(x: Any) -> Any:
        @flow.op
        def shifted(y: Any) -> Any:
            return x + y

        return shifted(x)

    for body, name, line in ((chooses, "<lambda>", 1), (declares, "shifted", 1)):
        where = f"{__file__}:{body.__code__.co_firstlineno + line}"
        with pytest.raises(flow.TraceError, match=rf"operator '{name}' uses a placeholder .*{where}.*as an argument"):
            flow.pipeline(body).graph()


def test_a_pipeline_with_labels_is_called_on_each(run_async: Runner) -> None:
    @flow.op
    def checked(x: int) -> int:
        if x > 2:
            raise ValueError("too great")
        return x

    @flow.pipeline
    def labelled(x: Any) -> Any:
        return flow.label(checked(x), "checked")

    @flow.pipeline
    def outer(xs: Any) -> Any:
        return flow.map(labelled, xs)

    assert run_async(outer([1, 2])) == [1, 2]
    with pytest.raises(ValueError, match="too great") as caught:
        run_async(outer([1, 2, 3]))
    assert "'checked' in scope '2' of pipeline 'map of labelled'" in caught.value.__notes__[0]


def test_what_calls_a_function_is_traced_once() -> None:
    traces: list[int] = []

    @flow.pipeline
    def inner(x: Any) -> Any:
        traces.append(1)
        return x + 1

    @flow.pipeline
    def outer(xs: Any) -> Any:
        return flow.map(inner, xs)

    for _ in range(3):
        assert outer.run([1, 2]) == flow.map(inner, [1, 2]) == [2, 3]
    assert len(traces) == 2  # for each of the two items
    inner.retrace()
    assert outer.run([1, 2]) == [2, 3]
    assert len(traces) == 4
