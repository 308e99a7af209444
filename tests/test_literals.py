"""Which object an operator gets: what the body made is new in every run, what is from outside is that very object."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest

import dataflow as flow
from dataflow.engine.runs import driver

Runner = Callable[[Coroutine[Any, Any, Any]], Any]


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass
class Bag:
    items: list[Any] = field(default_factory=list)


@flow.op
def put(x: Any, into: Any) -> int:
    """Puts an item into a container, and says how many it had put in."""
    if isinstance(into, dict):
        into[len(into)] = x
        return len(into)
    if isinstance(into, set):
        into.add(object())
        return len(into)
    into = into.items if isinstance(into, Bag) else into[0] if isinstance(into, (Pair, tuple)) else into
    into.append(x)
    return len(into)


MAKERS: list[Callable[[], Any]] = [
    list,
    dict,
    set,
    bytearray,
    deque,
    Bag,
    lambda: Pair([], 1),
    lambda: ([], "a"),
]


@pytest.mark.parametrize("make", MAKERS)
def test_requests_do_not_see_what_others_put_into_a_literal(run_async: Runner, make: Callable[[], Any]) -> None:
    pipeline = flow.pipeline(lambda x: (put(x, make()), put(x, into=make()), put(x, [make(), 0][0])))

    async def main() -> list[Any]:
        return await asyncio.gather(*(pipeline(number) for number in range(5)))

    assert run_async(main()) == [(1, 1, 1)] * 5
    assert pipeline.run(1) == pipeline.debug(1) == (1, 1, 1)


def test_nested_literals_are_new_as_well() -> None:
    @flow.op
    def deepest(config: Any) -> int:
        config["a"][0]["b"].append(1)
        return len(config["a"][0]["b"])

    pipeline = flow.pipeline(lambda x: (deepest({"a": [{"b": []}]}), x))
    assert [pipeline.run(0) for _ in range(3)] == [(1, 0)] * 3


def test_a_literal_beside_a_node_is_new_as_well() -> None:
    pipeline = flow.pipeline(lambda x: flow.op(lambda given: put(given[0], given[1]))([x, []]))
    assert [pipeline.run(0) for _ in range(3)] == [1] * 3


def test_within_one_run_it_is_one_object() -> None:
    @flow.pipeline
    def pipeline(x: Any) -> Any:
        shared: list[Any] = []
        first = put(x, shared)
        with flow.after(first):
            second = put(x, shared)
        with flow.after(second):
            return first, second, flow.op(len)(shared)

    assert [pipeline.run(7) for _ in range(3)] == [(1, 2, 2)] * 3


def test_each_attempt_gets_its_own() -> None:
    attempts = []

    @flow.op(retries=2, backoff=0)
    def fails_twice(x: Any, into: list[Any]) -> int:
        into.append(x)
        attempts.append(len(into))
        if len(attempts) % 3:
            raise ValueError("again")
        return len(into)

    pipeline = flow.pipeline(lambda x: fails_twice(x, []))
    assert [pipeline.run(0), pipeline.run(0)] == [1, 1]
    assert attempts == [1] * 6


def test_an_operator_that_writes_into_a_literal_gets_its_own_too() -> None:
    @flow.op(writes=("into",))
    def writes(x: Any, into: list[Any]) -> int:
        into.append(x)
        return len(into)

    pipeline = flow.pipeline(lambda x: (writes(x, []), writes(x, [1])))
    assert [pipeline.run(0) for _ in range(2)] == [(1, 2)] * 2


CACHE: dict[Any, Any] = {}
ROWS: list[Any] = []


class Model:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    @flow.pipeline
    def forward(self, x: Any) -> Any:
        return put(x, self.seen)


@pytest.mark.parametrize("outside", ["global", "closure", "default", "attribute", "argument", "inside a tuple"])
def test_what_is_from_outside_is_that_very_object(outside: str) -> None:
    CACHE.clear()
    table: dict[Any, Any] = {}
    model = Model()
    if outside == "global":
        table, pipeline = CACHE, flow.pipeline(lambda x: put(x, CACHE))
    elif outside == "closure":
        pipeline = flow.pipeline(lambda x: put(x, table))
    elif outside == "default":
        pipeline = flow.pipeline(lambda x: default(x))

        def default(x: Any, into: Any = table) -> Any:
            return put(x, into)

    elif outside == "attribute":
        model.seen = table = {}  # type: ignore[assignment]
        pipeline = flow.pipeline(lambda x: put(x, model.seen))
    elif outside == "argument":
        pipeline = flow.pipeline(lambda x, into: put(x, into)).bind(into=table)
    else:
        held = (table, 1)
        pipeline = flow.pipeline(lambda x: put(x, held[0]))
    assert [pipeline.run(x) for x in "abc"] == [1, 2, 3]
    assert table == {0: "a", 1: "b", 2: "c"}


def test_on_a_method_the_attribute_is_that_very_object() -> None:
    model = Model()
    assert [model.forward.run(x) for x in (5, 6)] == [1, 2]
    assert model.seen == [5, 6]


def test_what_is_from_outside_stays_so_inside_of_a_literal() -> None:
    ROWS.clear()

    @flow.op
    def both(given: list[Any]) -> tuple[int, int, bool]:
        given.append(1)
        given[0].append(2)
        return len(given), len(ROWS), given[0] is ROWS

    pipeline = flow.pipeline(lambda x: both([ROWS, x]))
    assert [pipeline.run(0) for _ in range(2)] == [(3, 1, True), (3, 2, True)]
    constant = flow.pipeline(lambda x: (both([ROWS, "constant"]), x))
    assert constant.run(0)[0] == (3, 3, True)


def test_each_node_sees_the_state_of_its_call() -> None:
    @flow.op
    def shown(x: Any, *given: Any) -> str:
        return repr(given)

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        numbers: set[int] = set()
        data, rows, table, queue, bag = bytearray(), [], {}, deque(maxlen=2), Bag()
        found = []
        for number in range(3):
            numbers.add(number)
            data.append(number)
            rows.append([number])
            table[number] = rows[-1]
            queue.append(number)
            bag.items.append(number)
            found.append(shown(x, numbers, data, rows, table, queue, bag))
            rows[-1].append("changed")
        return found

    assert pipeline.run(0) == pipeline.run(0) == pipeline_plain()


def pipeline_plain() -> list[str]:
    numbers: set[int] = set()
    data, rows, table, queue, bag = bytearray(), [], {}, deque(maxlen=2), Bag()
    found = []
    for number in range(3):
        numbers.add(number)
        data.append(number)
        rows.append([number])
        table[number] = rows[-1]
        queue.append(number)
        bag.items.append(number)
        found.append(repr((numbers, data, rows, table, queue, bag)))
        rows[-1].append("changed")
    return found


def test_what_is_from_outside_may_not_be_changed_by_the_body_after_a_call() -> None:
    outside: list[Any] = []

    def body(x: Any) -> Any:
        y = put(x, outside)
        outside.append(1)
        return y

    with pytest.raises(flow.TraceError, match=rf"{body.__code__.co_firstlineno + 1}: .*give it a copy \(list\(items\)"):
        flow.pipeline(body).run(0)

    def follows(x: Any) -> Any:
        y = put(x, list(outside))
        outside.append(1)
        return y

    assert flow.pipeline(follows).run(0) == 2


def test_a_returned_literal_is_new_and_holds_what_was_put_into_it() -> None:
    @flow.pipeline
    def pipeline(x: Any) -> Any:
        rows: list[Any] = []
        return put(x, rows), rows

    one, two = pipeline.run(5), pipeline.run(6)
    assert one == (1, [5])
    assert two == (1, [6])


# ------------------------------------------------------------------------------------------------ size and shape


def test_values_that_contain_themselves_and_deep_ones_are_arguments_like_others(run_async: Runner) -> None:
    loop: list[Any] = [np.ones(2)]
    loop.append(loop)
    deep: list[Any] = [1.0]
    for _ in range(20_000):
        deep = [deep]
    table = {"a": np.ones(2)}

    @flow.op
    def is_itself(given: Any) -> bool:
        return given[1] is given and not given[0].flags.writeable

    @flow.op
    def same(given: Any) -> bool:
        return given[0] is given[1]

    @flow.pipeline
    def pipeline(loop: Any, deep: Any, twice: Any) -> Any:
        return is_itself(loop), flow.op(len)(deep), same(twice), loop

    given = loop, deep, [table, table]
    result = run_async(pipeline(*given))
    assert result[:3] == (True, 1, True)
    assert result[3] is loop
    assert pipeline.debug(*given)[:3] == (True, 1, True)

    async def started() -> Any:
        return await is_itself.start(loop), await flow.op(len).start(deep), await same.start([table, table])

    assert run_async(started()) == (True, 1, True)


def test_a_large_argument_is_looked_through_by_a_worker(run_async: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bool] = []
    of = driver.Held.looked_through

    def noted(value: Any) -> Any:
        looked.append(threading.current_thread() is not threading.main_thread())
        return of(value)

    monkeypatch.setattr(driver.Held, "looked_through", noted)
    array = np.zeros(2)
    many = [1.0] * 100_000 + [array]

    @flow.op
    def last(given: list[Any]) -> tuple[int, bool]:
        return len(given), given[-1].flags.writeable

    pipeline = flow.pipeline(lambda given: (last(given), given))

    async def main() -> None:
        (length, writeable), same = await pipeline(many)
        assert (length, writeable) == (100_001, False)
        assert same is many
        assert array.flags.writeable
        assert await last.start(many) == (100_001, False)
        inner = flow.op(lambda: 5).start()
        assert (await flow.op(list).start([*many, inner]))[-1] == 5
        assert await flow.op(len).start([1.0, 2.0]) == 2

    run_async(main())
    assert looked == [True] * 3


def test_cancelled_while_a_worker_looks_through_it_the_call_does_nothing(run_async: Runner) -> None:
    called: list[Any] = []
    busy, go = threading.Event(), threading.Event()

    @flow.op
    def holds() -> None:
        busy.set()
        assert go.wait(10)

    async def main() -> None:
        with flow.threads(interop=1):
            other = holds.start()
            while not busy.is_set():
                await asyncio.sleep(0.001)
            task = asyncio.create_task(flow.pipeline(lambda x: flow.op(called.append)(x))([1] * 100_000))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go.set()
            await other
            await flow.quiet()

    run_async(main())
    assert called == []


# ---------------------------------------------------------------------------- literals with parts in common


told = flow.op(repr)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("weights", [False, True])
def test_literals_that_have_a_part_in_common(make: Callable[[], Any], weights: bool) -> None:
    """What an operator puts into the part, whoever is given the whole finds there, and only in this run."""
    w = {"w": np.zeros(2)} if weights else {}

    @flow.pipeline
    def p(x: Any) -> Any:
        part = make()
        whole = {"part": part, "n": 1, **w}
        more = [whole, part]
        with flow.after(put(x, part)):
            return told(whole), told(more), told((part, x)), told({"again": whole, "x": x})

    @flow.pipeline
    def returns(x: Any) -> Any:
        part = make()
        whole = {"part": part}
        return put(x, part), part, whole

    expected = make()
    put.__wrapped__(1, expected)
    if type(expected) is set:
        return  # each shows another object
    whole = {"part": expected, "n": 1, **w}
    shown = tuple(map(repr, (whole, [whole, expected], (expected, 1), {"again": whole, "x": 1})))
    assert [p.run(1), p.run(1), p.debug(1)] == [shown] * 3
    assert flow.pipeline(lambda xs: flow.map(p, xs)).run([1, 1]) == [shown] * 2
    for _ in range(2):
        _, part, whole = returns.run(1)
        assert part is whole["part"]
        assert repr(part) == repr(expected)


def test_one_argument_that_is_a_part_of_another() -> None:
    @flow.op
    def puts(part: list[Any], whole: Any, x: Any) -> str:
        part.append(x)
        return repr(whole)

    @flow.pipeline
    def p(x: Any) -> Any:
        part: list[Any] = []
        whole = {"part": part, "itself": [part]}
        return puts(part, whole, x), puts(part, x=x, whole=(whole,))

    first, second = p.run(1)
    assert {first, second} in (
        {"{'part': [1], 'itself': [[1]]}", "({'part': [1, 1], 'itself': [[1, 1]]},)"},
        {"{'part': [1, 1], 'itself': [[1, 1]]}", "({'part': [1], 'itself': [[1]]},)"},
    )


def test_literals_with_a_part_in_common_that_contain_themselves() -> None:
    @flow.pipeline
    def p(x: Any) -> Any:
        ring: list[Any] = []
        ring.append(ring)
        whole = [ring]
        with flow.after(put(x, ring)):
            return told(whole)

    assert p.run(1) == "[[[...], 1]]"


def test_a_derived_pipeline_that_is_called_twice_in_a_body() -> None:
    """What its body made is new in each."""
    fill = flow.op(lambda items, x: (items.append(x), list(items))[1])

    @flow.pipeline
    def base(x: Any) -> Any:
        items: list[Any] = []
        whole = {"items": items}
        filled = fill(items, x)
        with flow.after(filled):
            return flow.label(filled, "filled"), flow.label(told(whole), "told")

    derived = base.select("filled", "told")

    @flow.pipeline
    def p(x: Any) -> Any:
        with flow.scope("first"):
            first = derived(x)
        with flow.scope("second"):
            second = derived(x)
        return first, second

    for _ in range(2):
        assert p.run(1) == (([1], "{'items': [1]}"),) * 2


def test_many_literals_with_a_part_in_common_and_many_states_of_one() -> None:
    """In linear time: this would take an hour in that of the third power."""
    size = flow.op(len)

    @flow.pipeline
    def p(x: Any) -> Any:
        shared = {"a": 1}
        return [size({"shared": shared, "n": n}) for n in range(3_000)], x

    @flow.pipeline
    def q(x: Any) -> Any:
        names: list[int] = []
        sizes = []
        for n in range(1_000):
            names.append(n)
            sizes.append(size(names))
        return sizes, x

    assert p.run(1) == ([2] * 3_000, 1)
    assert q.run(1) == (list(range(1, 1_001)), 1)
