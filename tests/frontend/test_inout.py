"""`inout=`: operators that change what the caller owns get that very object, in the order of the body."""

from __future__ import annotations

import array
import asyncio
import csv
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dataflow as flow

Runner = Callable[[Coroutine[Any, Any, Any]], Any]


class Counter:
    """An object of one's own."""

    def __init__(self) -> None:
        self.count = 0


@flow.op(inout=("out",))
def fill(out: Any, x: Any) -> Any:
    out[...] = x
    return out


@flow.op(inout=("out",))
def add_to(x: Any, *, out: Any) -> None:
    out += x


@flow.op(inout=("items",))
def push(items: Any, x: Any) -> Any:
    items.append(x)
    return items


@flow.op(inout=("counter",))
def count(counter: Counter, by: int = 1) -> None:
    counter.count += by


@flow.op
def total(x: Any, *_: Any) -> float:
    return float(np.sum(x))


@flow.op
def seen(counter: Counter) -> int:
    return counter.count


@flow.op
def listed(items: Any) -> list[Any]:
    return list(items)


def every_way(
    run_async: Runner, p: Any, make: Callable[[], tuple[Any, ...]], check: Callable[[Any, Any], None]
) -> None:
    """Check (result, arguments) of each way to run a pipeline."""
    for run in (p.run, p.debug, lambda *args: run_async(p(*args))):
        args = make()
        check(run(*args), args)


# ------------------------------------------------------------------------------------------------ that very object


def kept(given: list[Any], **options: Any) -> Any:
    """An operator that notes what it was given."""

    def note(out: Any, x: Any = None) -> Any:
        given.append(out)
        return out

    return flow.op(inout=("out",), **options)(note)


def on_loop(given: list[Any]) -> Any:
    async def note(out: Any, x: Any = None) -> Any:
        given.append(out)
        return out

    return flow.op(inout="out")(note)


MAKERS: dict[str, Callable[[list[Any]], Any]] = {
    "kernel": kept,
    "async": on_loop,
    "timeout": lambda given: kept(given, timeout=30),
    "limit": lambda given: kept(given, limit=flow.Limit(1)),
    "by options": lambda given: kept([]).options(inout=()).options(inout=("out",)),
}
VALUES: dict[str, Callable[[], Any]] = {
    "array": lambda: np.zeros(3),
    "view": lambda: np.zeros((3, 3))[1:],
    "read-only array": lambda: np.broadcast_to(np.zeros(3), (2, 3)),
    "masked array": lambda: np.ma.masked_equal(np.arange(3), 1),
    "recarray": lambda: np.rec.array([(1, 2.0), (3, 4.0)], names="a,b"),
    "structured": lambda: np.zeros(2, dtype=[("a", "f8"), ("b", "i4")]),
    "objects": lambda: np.array([[], {}], dtype=object),
    "list": lambda: [1, 2],
    "list of arrays": lambda: [np.zeros(2), [np.ones(1)]],
    "dict": lambda: {"a": np.zeros(2)},
    "set": lambda: {1, 2},
    "bytearray": lambda: bytearray(b"abc"),
    "array.array": lambda: array.array("d", [1, 2]),
    "memoryview": lambda: memoryview(bytearray(b"abc")),
    "its own": Counter,
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("how", MAKERS)
def test_it_is_that_very_object(run_async: Runner, how: str, kind: str) -> None:
    if how == "by options":
        given: list[Any] = []
        operator = kept(given).options(inout=()).options(inout=("out",))
    else:
        given = []
        operator = MAKERS[how](given)
    readers = flow.op(lambda x: 1)

    def body(x: Any) -> Any:
        readers(x)
        result = operator(x)
        operator(x, 1)
        operator(out=x)
        readers(result)
        return x, result

    def check(result: Any, args: Any) -> None:
        assert [each is args[0] for each in given] == [True] * 3
        assert result[0] is args[0]
        assert result[1] is args[0]
        given.clear()

    every_way(run_async, flow.pipeline(body), lambda: (VALUES[kind](),), check)

    async def main() -> None:
        value = VALUES[kind]()
        assert await operator.start(value) is value
        assert given.pop() is value

    run_async(main())


def test_what_is_writable_stays_writable_and_flags_stay(run_async: Runner) -> None:
    p = flow.pipeline(lambda out, x: (total(out), fill(out, x), total(out)))
    out = np.zeros(3)
    before, result, after = run_async(p(out, 2))
    assert (before, after) == (0, 6)
    assert result is out
    assert result.flags.writeable
    result[0] = 9
    locked = np.zeros(3)
    locked.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        run_async(p(locked, 1))
    assert not locked.flags.writeable


def test_a_memory_map_is_filled(run_async: Runner, tmp_path: Path) -> None:
    stored = np.memmap(tmp_path / "m", dtype="f8", mode="w+", shape=(4, 2))

    def body(m: Any, x: Any) -> Any:
        for row in range(4):
            fill(m[row], x + row)
        return total(m)

    for given in (stored, stored.view()):
        assert run_async(flow.pipeline(body)(given, 1.0)) == 20
    constant = flow.pipeline(lambda x: (fill(stored[0], x), total(stored))[1])
    assert run_async(constant(11.0)) == 40
    stored.flush()
    assert np.fromfile(tmp_path / "m").reshape(4, 2).tolist() == [[11.0] * 2, [2.0] * 2, [3.0] * 2, [4.0] * 2]


def test_a_frame_is_changed_and_readers_before_and_after_it_see_what_plain_ones_do(run_async: Runner) -> None:
    pd = pytest.importorskip("pandas")

    @flow.op(inout=("df",))
    def clip(df: Any) -> Any:
        df.loc[0, "v"] = 99
        df["w"] = 1
        return df

    columns = flow.op(lambda df: [*df.columns])
    total_of = flow.op(lambda df: int(df["v"].sum()))
    shape = flow.op(lambda shape: shape)

    def body(df: Any) -> Any:
        before = total_of(df), columns(df), shape(df.shape)
        result = clip(df)
        return before, total_of(df), columns(df), shape(df.shape), result

    def check(result: Any, args: Any) -> None:
        before, after, names, dimensions, same = result
        assert before == (15, ["v"], (3, 1))
        assert (after, names, dimensions) == (110, ["v", "w"], (3, 2))
        assert same is args[0]

    for _ in range(10):
        every_way(run_async, flow.pipeline(body), lambda: (pd.DataFrame({"v": [4, 5, 6]}),), check)


# ------------------------------------------------------------------------------------------------ the order


def slow(gate: threading.Event) -> Any:
    """A reader that lets others go first, if they may."""

    def read(x: Any) -> Any:
        gate.wait(0.02)
        return float(np.sum(x))

    return flow.op(read)


def test_readers_before_and_after(run_async: Runner) -> None:
    flow.set_num_interop_threads(4)
    gate = threading.Event()
    late = slow(gate)

    @flow.op(inout=("out",))
    def change(out: Any) -> None:
        gate.set()
        out += 1

    def body(out: Any) -> Any:
        sums = [late(out)]
        for _ in range(3):
            change(out)
            sums += [late(out), total(out)]
        return sums

    def check(result: Any, args: Any) -> None:
        assert result == [0, 2, 2, 4, 4, 6, 6]
        gate.clear()

    every_way(run_async, flow.pipeline(body), lambda: (np.zeros(2),), check)


PARTS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "item of a dict": (lambda: {"a": np.zeros(2)}, lambda x: x["a"], lambda x: x["a"]),
    "the dict": (lambda: {"a": np.zeros(2)}, lambda x: x["a"], lambda x: x),
    "row": (lambda: np.zeros((2, 2)), lambda x: x[0], lambda x: x),
    "transposed": (lambda: np.zeros((2, 2)), lambda x: x.T, lambda x: x),
    "whole, read by a row": (lambda: np.zeros((2, 2)), lambda x: x, lambda x: x[1]),
    "whole, read by a slice": (lambda: np.zeros((2, 2)), lambda x: x, lambda x: x[:, ::-1]),
    "item of a tuple": (lambda: (np.zeros(2), 1), lambda x: x[0], lambda x: x),
    "attribute": (lambda: Holder(), lambda x: x.array, lambda x: x.array),
    "item of an attribute": (lambda: Holder(), lambda x: x.parts["b"], lambda x: x.parts["b"]),
    "reshaped by a method": (lambda: np.zeros((2, 2)), lambda x: x, lambda x: x.reshape(-1)),
    "reshaped by numpy": (lambda: np.zeros((2, 2)), lambda x: x, lambda x: np.ravel(x)),
    "picked by a node": (lambda: np.zeros((2, 2)), lambda x: x, lambda x: x[zero(x)]),
    "a view of an operator's": (lambda: np.zeros((2, 2)), lambda x: x, lambda x: turned(x)),
    "in a list": (lambda: np.zeros(2), lambda x: x, lambda x: [x, {"k": x}]),
}


class Holder:
    def __init__(self) -> None:
        self.array = np.zeros(2)
        self.parts = {"b": np.zeros(2)}


@flow.op
def zero(_: Any) -> int:
    return 0


@flow.op
def turned(x: Any) -> Any:
    return x[::-1]


def number(value: Any) -> float:
    if isinstance(value, dict):
        return sum(map(number, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(number, value))
    return float(np.sum(value))


@pytest.mark.parametrize("part", PARTS)
def test_parts_count_as_what_they_are_a_part_of(run_async: Runner, part: str) -> None:
    make, target, read = PARTS[part]
    flow.set_num_interop_threads(4)
    gate = threading.Event()

    @flow.op
    def look(x: Any) -> float:
        gate.wait(0.005)
        return number(x)

    @flow.op(inout=("out",))
    def change(out: Any) -> None:
        gate.set()
        out += 1

    def body(x: Any) -> Any:
        held = read(x)
        sums = [look(read(x)), look(held)]
        change(target(x))
        sums += [look(read(x)), look(held)]
        change(target(x))
        return [*sums, look(held), look(read(x))]

    def plainly(x: Any) -> Any:
        held = read(x)
        sums = [number(read(x)), number(held)]
        target(x).__iadd__(1)
        sums += [number(read(x)), number(held)]
        target(x).__iadd__(1)
        return [*sums, number(held), number(read(x))]

    expected = plainly(make())

    def check(result: Any, args: Any) -> None:
        assert result == expected
        gate.clear()

    for _ in range(3):
        every_way(run_async, flow.pipeline(body), lambda: (make(),), check)


def test_what_was_asked_for_before_a_change_is_as_it_was(run_async: Runner) -> None:
    @flow.op(inout=("counter",))
    def rename(counter: Counter, name: str) -> None:
        counter.name = name  # type: ignore[attr-defined]
        counter.count += 1

    same = flow.op(lambda x: x)

    def body(counter: Counter, items: list[int]) -> Any:
        before, size, first = counter.count, items.index, items[0]
        rename(counter, "one")
        push(items, 5)
        between, name, last = counter.count, counter.name, items[-1]  # type: ignore[attr-defined]
        rename(counter, "two")
        push(items, 6)
        shown = [same(each) for each in (before, first, between, name, last)]
        return shown, counter.count, counter.name, items[-1], size(6)  # type: ignore[attr-defined]

    def check(result: Any, args: Any) -> None:
        assert result == ([0, 4, 1, "one", 5], 2, "two", 6, 2)
        assert args[1] == [4, 5, 6]

    every_way(run_async, flow.pipeline(body), lambda: (Counter(), [4]), check)


def test_the_results_of_operators_are_changed_in_order_as_well(run_async: Runner) -> None:
    make = flow.op(lambda size: {"a": np.zeros(size), "n": 0})

    @flow.op(inout=("box",))
    def put(box: Any, x: Any) -> Any:
        box["a"] = box["a"] + x
        box["n"] += 1
        return box

    def body(x: Any) -> Any:
        box = make(2)
        before, size = box["a"], box["n"]
        same = put(box, x)
        between = total(box["a"])
        put(same, x)
        return before, total(size), between, box["a"], box["n"], box, same["n"]

    for run in (flow.pipeline(body).run, flow.pipeline(body).debug, lambda x: run_async(flow.pipeline(body)(x))):
        before, size, between, after, number_, box, again = run(1.5)
        assert before.tolist() == [0, 0]
        assert (size, between, number_, again) == (0, 3, 2, 2)
        assert after.tolist() == box["a"].tolist() == [3, 3]
        assert box["a"].flags.writeable


def test_a_chain_of_results_is_the_same_object(run_async: Runner) -> None:
    def body(out: Any, xs: Any) -> Any:
        sums = []
        for place in range(5):
            out = fill(out, xs[place])
            sums.append(total(out))
        return sums, out

    def check(result: Any, args: Any) -> None:
        assert result[0] == [0, 2, 4, 6, 8]
        assert result[1] is args[0]

    every_way(run_async, flow.pipeline(body), lambda: (np.zeros(2), range(5)), check)


def test_what_is_not_changed_runs_beside_it(run_async: Runner) -> None:
    flow.set_num_interop_threads(2)
    barrier = threading.Barrier(2)

    @flow.op(inout=("out",))
    def change(out: Any) -> None:
        barrier.wait(20)
        out += 1

    @flow.op
    def other(x: Any) -> float:
        barrier.wait(20)
        return float(x.sum())

    def body(one: Any, two: Any) -> Any:
        change(one)
        change(two)
        change(one)
        return other(two + 0.5), one, two

    result, one, two = run_async(flow.pipeline(body)(np.zeros(2), np.zeros(2)))
    assert (result, one.tolist(), two.tolist()) == (3, [2, 2], [1, 1])


def test_a_graph_shows_the_order() -> None:
    text = str(flow.pipeline(lambda out, x: (total(out), fill(out, x), total(out))).graph())
    assert "3  fill(0, 1) waits for 2" in text
    assert "4  total(0) after 3" in text


def test_many_changes_cost_few_edges() -> None:
    def body(out: Any, x: Any) -> Any:
        for _ in range(2000):
            for _ in range(3):
                total(out)
            add_to(x, out=out)
        return total(out)

    graph = flow.pipeline(body).graph()
    edges = [*graph.after.values(), *graph.waits.values()]
    assert sum(map(len, edges)) < 3 * len(graph)
    out = np.zeros(1)
    assert flow.pipeline(body).run(out, 1) == 2000


# ------------------------------------------------------------------------------------------------ one object twice


ALIASES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "the same": lambda: (a := np.zeros(2), a),
    "a view": lambda: (a := np.zeros(2), a[:]),
    "a part": lambda: (a := np.zeros(2), a[:1]),
    "a list of it": lambda: (a := np.zeros(2), [a]),
    "of one buffer": lambda: (np.frombuffer(b := bytearray(16)), np.frombuffer(b)),
    "apart": lambda: (np.zeros(2), np.zeros(2)),
}


@pytest.mark.parametrize("alias", ALIASES)
def test_two_arguments_that_are_one_object_are_ordered_as_one(run_async: Runner, alias: str) -> None:
    gate = threading.Event()
    late = slow(gate)

    @flow.op(inout=("out",))
    def change(out: Any) -> None:
        gate.set()
        out += 1

    def body(one: Any, two: Any) -> Any:
        sums = [late(two)]
        change(one)
        sums.append(late(two))
        change(one)
        return sums, late(one)

    expected = (
        [0.0, 0.0] if alias == "apart" else [0.0, number(ALIASES["the same"]()[0]) + len(np.ravel(ALIASES[alias]()[1]))]
    )

    def check(result: Any, args: Any) -> None:
        assert result == (expected, 4)
        gate.clear()

    for _ in range(3):
        every_way(run_async, flow.pipeline(body), ALIASES[alias], check)


def test_a_very_long_list_is_taken_to_be_one_with_all_others(run_async: Runner) -> None:
    def body(out: Any, many: Any) -> Any:
        sums = [total(many[0])]
        add_to(1, out=out)
        sums.append(total(many[-1]))
        add_to(1, out=out)
        return sums, total(out)

    def make() -> Any:
        out = np.zeros(2)
        return out, [out, *([np.zeros(1)] * 300_000), out]

    every_way(run_async, flow.pipeline(body), make, lambda result, _: assert_equal(result, ([0, 2], 4)))


SHARED = np.zeros(2)


def test_an_argument_that_is_a_constant_is_ordered_as_one(run_async: Runner) -> None:
    def body(out: Any) -> Any:
        sums = [total(SHARED)]
        add_to(1, out=out)
        sums.append(total(SHARED))
        add_to(1, out=SHARED)
        return sums, total(out)

    p = flow.pipeline(body)
    for run in (p.run, p.debug, lambda x: run_async(p(x))):
        for given, expected in ((SHARED, ([0, 2], 4)), (SHARED[:1], ([0, 1], 2)), (np.zeros(2), ([0, 0], 2))):
            SHARED[...] = 0
            assert run(given) == expected


# ------------------------------------------------------------------------------------------------ constants


TABLE: dict[str, Any] = {}
ROWS = np.zeros((2, 2))
COUNTER = Counter()


def test_what_the_module_owns_is_changed_in_every_run(run_async: Runner) -> None:
    @flow.op(inout=("table",))
    def store(table: Any, key: Any, value: Any) -> int:
        table[key] = value
        return len(table)

    def body(key: Any) -> Any:
        size = flow.op(len)(TABLE)
        stored = store(TABLE, key, 1)
        fill(ROWS[0], 7)
        count(COUNTER)
        return size, stored, total(ROWS), seen(COUNTER), TABLE, ROWS

    p = flow.pipeline(body)
    for run in (p.run, p.debug, lambda key: run_async(p(key))):
        TABLE.clear()
        ROWS[...] = 0
        COUNTER.count = 0
        assert run("a")[:4] == (0, 1, 14, 1)
        result = run("b")
        assert result[:4] == (1, 2, 14, 2)
        assert result[4] is TABLE
        assert result[5] is ROWS


OWN: dict[str, Callable[[], Any]] = {
    "array": lambda: np.zeros(3),
    "view of an array": lambda: np.zeros(6)[::2],
    "reshaped": lambda: np.arange(4.0).reshape(2, 2),
    "list": lambda: [0, 0],
    "dict": lambda: {"a": 1},
    "its own": Counter,
    "tuple of an array": lambda: (np.zeros(2), 1),
    "masked array": lambda: np.ma.zeros(3),
}


@pytest.mark.parametrize("kind", OWN)
def test_what_the_body_made_is_refused(kind: str) -> None:
    change = flow.op(inout=("out",))(lambda out, x: None)
    make = OWN[kind]

    def body(x: Any) -> Any:
        own = make()
        change(own, x)
        return own

    with pytest.raises(flow.TraceError, match=r"that the body made.*test_inout\.py.*let an operator make it"):
        flow.pipeline(body).graph()

    def in_two_steps(x: Any) -> Any:
        own = make()
        total(own)
        for _ in range(2):
            change(own, x)

    with pytest.raises(flow.TraceError, match="that the body made"):
        flow.pipeline(in_two_steps).graph()
    held = make()
    flow.pipeline(lambda x: change(held, x)).graph()  # somebody else's


def test_a_part_of_what_the_body_made_is_refused_and_one_of_the_modules_is_not() -> None:
    def own(x: Any) -> Any:
        rows = np.zeros((2, 2))
        fill(rows[0], x)
        fill(rows[1], x)
        return rows

    with pytest.raises(flow.TraceError, match="that the body made"):
        flow.pipeline(own).graph()
    rows = np.arange(4.0).reshape(2, 2)
    p = flow.pipeline(lambda x: (fill(rows[0], x), fill(rows.T[1], x), total(rows))[2])
    assert p.run(5) == 17


def test_the_remedies_for_what_the_body_made_are_some(run_async: Runner) -> None:
    def by_operator(x: Any) -> Any:
        own = flow.op(np.zeros)(3)
        before = total(own)
        fill(own, x)
        return before, total(own), own + 1, own

    p = flow.pipeline(by_operator)
    first, second = run_async(p(1.0)), run_async(p(2.0))
    assert (first[:2], second[:2]) == ((0, 3), (0, 6))
    assert (first[2].tolist(), first[3].tolist()) == ([2] * 3, [1] * 3)
    assert second[3].tolist() == [2] * 3
    q = flow.pipeline(lambda own, x: (fill(own, x), own + 1)[1])
    assert run_async(q(np.zeros(3), 1.0)).tolist() == [2] * 3


def test_a_list_of_nodes_is_refused_and_a_tuple_is_not(run_async: Runner) -> None:
    @flow.op(inout=("outs",))
    def fill_all(outs: Any, x: Any) -> None:
        for out in outs:
            out += x

    with pytest.raises(flow.TraceError, match=r"put nodes into the list that fill_all is to change.*: pass a tuple"):
        flow.pipeline(lambda a, b, x: fill_all([a, b], x)).graph()
    with pytest.raises(flow.TraceError, match=r"put nodes into the dict that .*: a change of it would be lost"):
        flow.pipeline(lambda a, b, x: fill_all(({"k": a}, b), x)).graph()
    p = flow.pipeline(
        lambda a, b, x: (total(a), fill_all((a, b), x), total(b), fill_all((a, SHARED), x), total(a))[::2]
    )
    SHARED[...] = 0
    a, b = np.zeros(2), np.zeros(2)
    assert run_async(p(a, b, 1)) == (0, 2, 4)
    assert (a.tolist(), b.tolist(), SHARED.tolist()) == ([2, 2], [1, 1], [1, 1])


# ------------------------------------------------------------------------------------------------ with everything else


def test_methods(run_async: Runner) -> None:
    class Model:
        def __init__(self) -> None:
            self.rows = np.zeros(2)
            self.calls = 0

        @flow.op(inout=("self", "out"))
        def learn(self, out: Any, x: Any) -> None:
            self.calls += 1
            self.rows += x
            out += x

        @flow.op
        def state(self) -> Any:
            return self.calls, float(self.rows.sum())

        @flow.pipeline
        def train(self, out: Any, x: Any) -> Any:
            states = [self.state()]
            for _ in range(3):
                self.learn(out, x)
                states.append(self.state())
            return states, total(out)

    for how in range(3):
        model, out = Model(), np.zeros(2)
        run = (model.train.run, model.train.debug, lambda *args, m=model: run_async(m.train(*args)))[how]
        assert run(out, 1) == ([(0, 0), (1, 2), (2, 4), (3, 6)], 6)


def test_pipelines_in_pipelines(run_async: Runner) -> None:
    part = flow.pipeline(lambda out, x: (add_to(x, out=out), total(out))[1], name="part")
    chosen = flow.pipeline(lambda out, x: flow.label(part(out, x), "sum"), name="chosen").select("sum")

    def body(out: Any) -> Any:
        return total(out), part(out, 1), total(out), chosen(out, 2), total(out)

    every_way(
        run_async, flow.pipeline(body), lambda: (np.zeros(2),), lambda result, _: assert_equal(result, (0, 2, 2, 6, 6))
    )


def assert_equal(one: Any, other: Any) -> None:
    assert one == other


def test_what_is_selected_keeps_the_order(run_async: Runner) -> None:
    ran: list[str] = []

    def noted(name: str) -> Any:
        return flow.op(name=name)(lambda x: (ran.append(name), float(np.sum(x)))[1])

    before, between, after = map(noted, ("before", "between", "after"))

    def body(out: Any) -> Any:
        flow.label(before(out), "before")
        add_to(1, out=out)
        flow.label(between(out), "between")
        add_to(1, out=out)
        flow.label(after(out), "after")

    p = flow.pipeline(body)
    for names, values, expected in (
        (("before",), 0, ["before"]),
        (("between",), 2, ["between"]),
        (("after",), 4, ["after"]),
        (("after", "before"), (4, 0), ["before", "after"]),
        (("before", "between", "after"), (0, 2, 4), ["before", "between", "after"]),
    ):
        for _ in range(5):
            ran.clear()
            assert run_async(p.select(*names)(np.zeros(2))) == values
            assert ran == expected


def test_fakes_take_its_place(run_async: Runner) -> None:
    p = flow.pipeline(lambda out, x: (total(out), fill(out, x), total(out))[::2])
    doubled = flow.op(inout=("there",))(lambda there, x: np.add(there, 2 * x, out=there))
    given: list[Any] = []

    def fake(out: Any, x: Any) -> None:
        given.append(out)
        out += 3 * x

    for new, expected in ((doubled, (0, 4)), (fake, (0, 6))):
        for _ in range(5):
            out = np.zeros(2)
            assert run_async(p.replace({fill: new})(out, 1)) == expected
    assert given[-1] is out
    reads = flow.pipeline(lambda out: (total(out), turned(out), total(out)))
    changes = flow.op(inout=("x",))(lambda x: np.add(x, 1, out=x))
    for _ in range(5):
        assert run_async(reads.replace({turned: changes})(np.zeros(2)))[::2] == (0, 2)


def test_maps_and_conditions(run_async: Runner) -> None:
    @flow.op(inout=("out",))
    def store(x: Any, place: int, out: Any) -> int:
        out[place] = x + out.sum()
        return place

    def mapped(out: Any, xs: Any) -> Any:
        return total(out), flow.map(store, xs, range(3), out=out), total(out)

    every_way(
        run_async,
        flow.pipeline(mapped),
        lambda: (np.zeros(3), [1.0, 2.0, 3.0]),
        lambda result, args: assert_equal((result, args[0].tolist()), ((0, [0, 1, 2], 11), [1, 3, 7])),
    )
    out = np.zeros(3)
    assert flow.map(store, [1.0, 2.0, 3.0], range(3), out=out) == [0, 1, 2]
    assert out.tolist() == [1, 3, 7]
    double = flow.op(inout=("out",))(lambda out: np.multiply(out, 2, out=out))

    def each(a: Any, b: Any) -> Any:
        first = total(a)
        flow.map(double, [a, b, a])
        flow.cond(first, double, total, a)
        return first, total(a), total(b)

    every_way(
        run_async,
        flow.pipeline(each),
        lambda: (np.ones(1), np.ones(1)),
        lambda result, args: assert_equal((result, args[0][0], args[1][0]), ((1, 8, 2), 8, 2)),
    )
    part = flow.pipeline(lambda x: (add_to(x, out=SHARED), total(SHARED))[1])
    for _ in range(5):
        SHARED[...] = 0
        assert run_async(flow.pipeline(lambda xs: flow.map(part, xs))([1, 2, 3])) == [2, 6, 12]


def test_streams(run_async: Runner) -> None:
    one_at_a_time = add_to.options(limit=flow.Limit(1))
    total_out = np.zeros(1)
    p = flow.pipeline(lambda x: (fill(x, 7), total(x), one_at_a_time(1, out=total_out))[1])

    async def main() -> None:
        items = [np.zeros(2) for _ in range(20)]
        assert [y async for y in p.stream(items)] == [14] * 20
        assert all(item.tolist() == [7, 7] for item in items)
        items = [np.zeros(2) for _ in range(20)]
        assert [y async for y in p.stream(items, copy=True)] == [14] * 20
        assert not any(item.any() for item in items)

    run_async(main())
    assert total_out.tolist() == [40]


def test_files_are_read_on_in_the_order_of_the_body(run_async: Runner) -> None:
    take = flow.op(inout=("rows",))(lambda rows: next(rows))
    p = flow.pipeline(lambda rows: (take(rows), take(rows), listed(rows)))
    for _ in range(20):
        assert run_async(p(csv.reader(["a,b", "1,2", "3,4"]))) == (["a", "b"], ["1", "2"], [["3", "4"]])


def test_a_failure_ends_the_run_and_names_it(run_async: Runner) -> None:
    @flow.op(inout=("out",))
    def fails(out: Any) -> None:
        out += 1
        raise KeyError("half-way")

    ran: list[int] = []
    after = flow.op(lambda x: ran.append(1))
    out = np.zeros(2)
    with pytest.raises(KeyError) as caught:
        run_async(flow.pipeline(lambda out: (fails(out), after(out)))(out))
    assert "in operator 'fails'" in caught.value.__notes__[0]
    assert (out.tolist(), ran) == ([1, 1], [])


# ------------------------------------------------------------------------------------------------ options


def test_options_that_make_no_sense_are_refused() -> None:
    def f(a: Any, *rest: Any, b: Any = None, **more: Any) -> None: ...

    for name in ("c", "rest", "more"):
        with pytest.raises(TypeError, match=f"inout names '{name}', which is no single parameter of f"):
            flow.op(inout=(name,))(f)
    with pytest.raises(ValueError, match=r"'a' is in writes and in inout: .*; name it in one of them"):
        flow.op(inout=("a",), writes=("a", "b"))(f)
    with pytest.raises(ValueError, match=r"inout cannot be together with retries, .*: leave one of them out"):
        flow.op(inout=("a",), retries=1)(f)
    both = flow.op(inout=("a",), writes=("b",))(f)
    with pytest.raises(ValueError, match="together with retries"):
        both.options(retries=1)
    with pytest.raises(ValueError, match="'b' is in writes and in inout"):
        both.options(inout="b")
    assert both.options(inout=(), retries=1).name == "f"
    assert both.options(writes=(), inout=("a", "b"), timeout=3).name == "f"


def test_the_note_about_what_is_read_only_names_it_and_that_helps(run_async: Runner) -> None:
    def change(out: Any) -> None:
        out += 1

    out = np.zeros(2)
    with pytest.raises(ValueError, match="read-only") as caught:
        run_async(flow.pipeline(lambda out: flow.op(change)(out))(out))
    assert "inout=" in caught.value.__notes__[0]
    run_async(flow.pipeline(lambda out: flow.op(inout=("out",))(change)(out))(out))
    assert out.tolist() == [1, 1]


def test_called_outside_of_a_body_it_is_the_plain_function() -> None:
    out = np.zeros(2)
    assert fill(out, 3) is out
    assert out.tolist() == [3, 3]


def test_an_operator_that_writes_into_one_and_changes_another(run_async: Runner) -> None:
    @flow.op(writes=("scratch",), inout=("out",))
    def both(scratch: Any, out: Any) -> Any:
        scratch += 1
        out += scratch
        return scratch

    p = flow.pipeline(lambda scratch, out: (both(scratch, out), total(scratch), total(out)))
    scratch, out = np.zeros(2), np.zeros(2)
    written, before, after = run_async(p(scratch, out))
    assert (written.tolist(), before, after) == ([1, 1], 0, 2)
    assert (scratch.tolist(), out.tolist()) == ([0, 0], [1, 1])


def test_an_async_operator_may_change_what_others_read(run_async: Runner) -> None:
    @flow.op(inout=("items",))
    async def fetch(items: Any, x: int) -> None:
        await asyncio.sleep(0)
        items.append(x)

    def body(items: Any) -> Any:
        lengths = [flow.op(len)(items)]
        for x in range(3):
            fetch(items, x)
            lengths.append(flow.op(len)(items))
        return lengths, items

    def check(result: Any, args: Any) -> None:
        assert result[0] == [0, 1, 2, 3]
        assert result[1] is args[0]
        assert args[0] == [0, 1, 2]

    every_way(run_async, flow.pipeline(body), lambda: ([],), check)
