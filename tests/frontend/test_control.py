"""`flow.map` and `flow.cond`: control at run time."""

from __future__ import annotations

import asyncio
import functools
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
        assert outer.run(range(9)) == list(range(1, 10))
    assert len(traces) == 1  # however many items there are
    inner.retrace()
    assert outer.run([1, 2]) == [2, 3]
    assert len(traces) == 2


def test_map_over_several_sequences_with_what_all_calls_share(run_async: Runner) -> None:
    @flow.op
    def combined(x: Any, y: Any, by: Any = 1, *, more: Any = 0) -> Any:
        return x * by + y + more

    @flow.pipeline
    def inner(x: Any, y: Any, by: Any = 1) -> Any:
        return combined(x, y, by)

    @flow.pipeline
    def outer(xs: Any, ys: Any, z: Any) -> Any:
        return (
            flow.map(combined, xs, ys, by=z),
            flow.map(combined, xs, ys, by=3, more=z),
            flow.map(inner, xs, [z, z, 0], by=combined(z, 0)),
            flow.map(inner, xs, ys),
        )

    xs, ys, z = [10, 20, 30], [1, 2, 3], 10
    expected = (
        [x * z + y for x, y in zip(xs, ys, strict=True)],
        [x * 3 + y + z for x, y in zip(xs, ys, strict=True)],
        [x * z + y for x, y in zip(xs, [z, z, 0], strict=True)],
        [x + y for x, y in zip(xs, ys, strict=True)],
    )
    assert run_async(outer(xs, ys, z)) == outer.debug(xs, ys, z) == expected
    assert flow.map(combined, xs, ys, by=z) == expected[0]


def test_what_all_calls_share_is_protected_and_looked_through_once(run_async: Runner) -> None:
    @flow.op
    def writes(x: int, table: dict[str, Any]) -> None:
        table["a"][x] = 1

    @flow.op
    def looks(x: int, table: dict[str, Any]) -> tuple[int, bool]:
        return table["a"].ctypes.data, table["a"].flags.writeable

    table = {"a": np.zeros(4)}
    with pytest.raises(ValueError, match="read-only"):
        run_async(flow.pipeline(lambda xs, t: flow.map(writes, xs, table=t))([0, 1], table))
    seen = run_async(flow.pipeline(lambda xs, t: flow.map(looks, xs, table=t))([0, 1, 2], table))
    assert len({place for place, _ in seen}) == 1
    assert not any(writeable for _, writeable in seen)
    assert table["a"].flags.writeable


def test_static_arguments_and_none_are_python_values_for_each_item(run_async: Runner) -> None:
    @flow.pipeline(static=("depth",))
    def inner(x: Any, depth: int = 1) -> Any:
        if x is None:
            return "nothing"
        for _ in range(depth):
            x = triple(x)
        return x

    outer = flow.pipeline(lambda xs: flow.map(inner, xs, depth=2))
    assert run_async(outer([1, None, 2])) == [9, "nothing", 18]
    assert flow.map(inner, [1, 1], [1, 3]) == [3, 27]


def test_literals_are_new_for_each_item(run_async: Runner) -> None:
    @flow.op
    def put(x: Any, into: list[Any]) -> int:
        into.append(x)
        return len(into)

    @flow.pipeline
    def inner(x: Any) -> Any:
        mine: list[Any] = []
        return put(x, mine), put(x, []), mine

    assert run_async(flow.pipeline(lambda xs: flow.map(inner, xs))(range(4))) == [(1, 1, [x]) for x in range(4)]


def test_effects_order_and_labels_hold_within_each_item(run_async: Runner) -> None:
    order: dict[int, list[str]] = {}

    @flow.op
    def noted(x: int, what: str) -> int:
        order.setdefault(x, []).append(what)
        return x

    @flow.pipeline
    def inner(x: Any) -> Any:
        with flow.scope("first"):
            before = flow.label(noted(x, "before"), "b")
        with flow.after(before):
            noted(x, "after")
        return before.real

    assert run_async(flow.pipeline(lambda xs: flow.map(inner, xs))(range(20))) == list(range(20))
    assert order == {x: ["before", "after"] for x in range(20)}


def test_wrong_arguments_of_map_are_told(run_async: Runner) -> None:
    outer = flow.pipeline(lambda xs, ys: flow.map(triple, xs, ys))
    with pytest.raises(TypeError, match=r"triple\(\) too many positional arguments"):
        run_async(outer([1], [2]))
    with pytest.raises(ValueError, match="map of triple: the sequences have 1, 2 items"):
        run_async(outer([1], [2, 3]))
    with pytest.raises(TypeError, match=r"triple\(\) .*'by'"):
        flow.map(triple, [1], by=2)
    with pytest.raises(TypeError, match=r"both\(\) .*'by'"):
        flow.map(both, [1], by=2)
    assert flow.map(triple, []) == flow.map(triple, [], []) == []


def test_memory_does_not_grow_with_the_numbers_of_items() -> None:
    outer = flow.pipeline(lambda xs: flow.map(both, xs))
    for count in range(1, 600, 7):
        assert outer.run(range(count))[-1] == 3 * count - 2
    maps = both._plans._maps
    assert maps is not None
    assert sum(len(plan.graph) for plan, _ in maps._plans.values()) == maps._nodes <= 20_000
    both.retrace()
    assert both._plans._maps is None


def test_a_node_fixed_in_the_function_is_refused_at_once_and_the_remedy_works() -> None:
    @flow.op
    def times(x: Any, by: Any) -> Any:
        return x * by

    @flow.pipeline
    def scaled(x: Any, by: Any) -> Any:
        return times(x, by)

    def maps(xs: Any, by: Any) -> Any:
        return flow.map(scaled.bind(by=by), xs)

    def chooses(xs: Any, by: Any) -> Any:
        return flow.cond(xs[0] > 0, functools.partial(times, by=by), negate, xs)

    for refused, remedy in ((maps, r"flow\.map\(function, items, name=node\)"), (chooses, "flow.cond")):
        where = rf"{refused.__code__.co_firstlineno + 1}: .*{remedy}"
        with pytest.raises(flow.TraceError, match=rf"has a node fixed in it, at .*test_control.py:{where}"):
            flow.pipeline(refused).graph()
    followed = flow.pipeline(
        lambda xs, by: (flow.map(scaled, xs, by=by), flow.cond(xs[0] > 0, times, lambda xs, by: -xs, xs[0], by))
    )
    assert followed.run([1, 2], 3) == ([3, 6], 3)
    assert flow.pipeline(lambda xs: flow.map(scaled.bind(by=2), xs)).run([1, 2]) == [2, 4]


@flow.op
def combine(a: Any, b: Any, c: Any = 0) -> Any:
    return a, b, c


@flow.pipeline
def combined(a: Any, b: Any, c: Any = 0) -> Any:
    return combine(a, b, c)


class Combines:
    @flow.op
    def op(self, a: Any, b: Any, c: Any = 0) -> Any:
        return a, b, c

    @flow.pipeline
    def pipeline(self, a: Any, b: Any, c: Any = 0) -> Any:
        return combine(a, b, c)

    def plain(self, a: Any, b: Any, c: Any = 0) -> Any:
        return a, b, c


combines = Combines()
COMBINED = [combine, combined, combines.op, combines.pipeline, combines.plain, lambda a, b, c=0: (a, b, c)]


@pytest.mark.parametrize("function", COMBINED)
def test_what_a_partial_fixes_is_the_same_for_all_calls(function: Any) -> None:
    def plain(x: Any, xs: Any) -> Any:
        return [
            [(x, each, 0) for each in xs],
            [(x, each, 5) for each in xs],
            [(each, x, 0) for each in xs],
            [(each, x, [x]) for each in xs],
            [(x, one, other) for one, other in zip(xs, xs, strict=True)],
            [(each, 2, 1) for each in xs],
        ]

    def body(x: Any, xs: Any) -> Any:
        return [
            flow.map(functools.partial(function, x), xs),
            flow.map(functools.partial(functools.partial(function, x), c=5), xs),
            flow.map(functools.partial(function, b=x), xs),
            flow.map(functools.partial(function, b=x, c=0), xs, c=[x]),
            flow.map(functools.partial(function, x), xs, xs),
            flow.map(functools.partial(function, b=2, c=1), xs),
        ]

    assert flow.pipeline(body).run(7, [1, 2]) == plain(7, [1, 2])
    assert body(7, [1, 2]) == plain(7, [1, 2])
    with pytest.raises(TypeError, match=r"multiple values|takes"):
        flow.pipeline(lambda x, xs: flow.map(functools.partial(function, a=x), xs)).run(7, [1, 2])


def test_a_partial_keeps_what_its_operator_is_declared_with() -> None:
    tries: list[int] = []

    @flow.op(retries=2, backoff=0)
    def flaky(x: Any, by: Any) -> Any:
        tries.append(x)
        if len(tries) % 2:
            raise OSError
        return x * by

    @flow.op(writes=("total",))
    def added(total: Any, x: Any) -> Any:
        total += x
        return total

    @flow.op(inout=("total",))
    def adds(total: Any, x: Any) -> None:
        total += x

    many = functools.partial(flaky, by=2)
    assert flow.pipeline(lambda xs: flow.map(many, xs)).run([1, 2]) == [2, 4]
    assert flow.pipeline(lambda x: flow.cond(x > 0, many, negate, x)).run(3) == 6
    assert len(tries) == 6
    total = np.zeros(2)
    one, two = flow.pipeline(lambda total, xs: flow.map(functools.partial(added, total), xs)).run(total, [1, 2])
    assert (one.tolist(), two.tolist(), total.tolist()) == ([1, 1], [2, 2], [0, 0])
    flow.pipeline(lambda total, xs: flow.map(functools.partial(adds, total), xs)).run(total, [1, 2])
    assert total.tolist() == [3, 3]


def test_an_array_that_a_partial_fixes_is_protected() -> None:
    @flow.op
    def writes(total: Any, x: Any) -> None:
        total += x

    total = np.zeros(2)
    for body in (lambda xs: flow.map(functools.partial(writes, total), xs), lambda xs: writes(total, xs)):
        with pytest.raises(ValueError, match="read-only"):
            flow.pipeline(body).run([1, 2])


def test_cond_of_an_operator_that_writes() -> None:
    @flow.op(writes="values")
    def add(values: Any, x: float) -> Any:
        values += x
        return values

    @flow.pipeline
    def p(values: Any, x: float) -> Any:
        return flow.cond(True, add, add, values, x), values

    given = np.zeros(3)
    changed, same = p.run(given, 1.0)
    assert changed.tolist() == [1.0] * 3
    assert same.tolist() == given.tolist() == [0.0] * 3
