"""`p.debug`: every operator in the calling thread, in the order of the body."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import dataflow as flow

Runner = Callable[[Coroutine[Any, Any, Any]], Any]


class Log:
    """What ran, in order, and in which threads."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.threads: set[int] = set()

    def op(self, name: str, **options: Any) -> Any:
        """An operator that adds one and writes its name down."""

        def add(x: Any, *_: Any) -> Any:
            self.names.append(name)
            self.threads.add(threading.get_ident())
            return x + 1

        return flow.op(add) if not options else flow.op(name=name, **options)(add)

    def on_loop(self, name: str) -> Any:
        """The same on the event loop."""

        async def add(x: Any, *_: Any) -> Any:
            await asyncio.sleep(0)
            self.names.append(name)
            return x + 1

        return flow.op(add)


def longest_path_last(log: Log) -> tuple[flow.Pipeline[Any, Any], str]:
    a, b, c = map(log.op, "abc")

    def body(x: Any) -> Any:
        a(x)
        y = b(b(x))
        return c(y)

    return flow.pipeline(body), "abbc"


def with_async_ops(log: Log) -> tuple[flow.Pipeline[Any, Any], str]:
    a, b, c, d = log.op("a"), log.on_loop("b"), log.op("c"), log.on_loop("d")

    def body(x: Any) -> Any:
        d(x)
        a(x)
        y = c(b(c(x)))
        d(x)
        return b(y)

    return flow.pipeline(body), "dacbcdb"


def managed(log: Log) -> tuple[flow.Pipeline[Any, Any], str]:
    a, b, c = log.op("a"), log.op("b", retries=1), log.op("c", timeout=10, limit=flow.Limit(1))

    def body(x: Any) -> Any:
        c(x)
        a(x)
        return b(c(b(x)))

    return flow.pipeline(body), "cabcb"


def selected(log: Log) -> tuple[flow.Pipeline[Any, Any], str]:
    a, b, c = map(log.op, "abc")

    def body(x: Any) -> Any:
        c(x)  # nobody asks for it
        one = a(x)
        return flow.label(c(one, b(b(b(x)))), "end")

    return flow.pipeline(body).select("end"), "abbbc"


def replaced(log: Log) -> tuple[flow.Pipeline[Any, Any], str]:
    a, b, c = map(log.op, "abc")

    def body(x: Any) -> Any:
        a(x)
        return b(b(b(x)))

    return flow.pipeline(body).replace({b: c}), "accc"


def inlined(log: Log) -> tuple[flow.Pipeline[Any, Any], str]:
    a, b, c = map(log.op, "abc")
    part = flow.pipeline(lambda x: (c(x), b(b(x)))[1])

    def body(x: Any) -> Any:
        a(x)
        y = part(x)
        a(x)
        return b(y)

    return flow.pipeline(body), "acbbab"


def after(log: Log) -> tuple[flow.Pipeline[Any, Any], str]:
    a, b, c = map(log.op, "abc")

    def body(x: Any) -> Any:
        first = a(x)
        with flow.after(first):
            b(x)
        return c(c(c(x)))

    return flow.pipeline(body), "abccc"


@pytest.mark.parametrize("make", [longest_path_last, with_async_ops, managed, selected, replaced, inlined, after])
def test_operators_run_in_the_order_of_the_body(make: Callable[[Log], tuple[flow.Pipeline[Any, Any], str]]) -> None:
    log = Log()
    pipeline, expected = make(log)
    value = pipeline.debug(0)
    assert "".join(log.names) == expected
    assert log.threads == {threading.get_ident()}
    assert pipeline.run(0) == value
    assert sorted(log.names) == sorted(2 * expected)


def test_what_its_operators_wait_for_is_debugged_as_well(run_async: Runner) -> None:
    log = Log()
    a, b, c, last = log.op("a"), log.op("b"), log.on_loop("c"), log.op("last")
    part = flow.pipeline(lambda x: (a(x), b(c(x)))[1])
    in_kernel = flow.op(lambda x: part.run(x))

    def body(xs: Any) -> Any:
        mapped = flow.map(part, xs)
        chosen = flow.cond(xs[0], part, a, xs[1])
        return last(in_kernel(xs[0])), mapped, chosen

    pipeline = flow.pipeline(body)
    expected = pipeline.debug([1, 2])
    assert log.names == [*"acbacb", *"acb", *"acb", "last"]
    assert log.threads == {threading.get_ident()}
    assert run_async(pipeline([1, 2])) == expected


def test_an_async_operator_under_it_runs_pipelines_as_ever() -> None:
    log = Log()
    chain = flow.pipeline(lambda x: log.op("a")(x))

    @flow.op
    async def awaits(x: int) -> Any:
        return await chain(x), await asyncio.to_thread(chain.run, x)

    assert flow.pipeline(lambda x: awaits(x)).debug(1) == (2, 2)
    assert threading.get_ident() not in log.threads


def test_values_are_let_go_of_after_their_last_reader_in_this_order() -> None:
    made: list[weakref.ref[Any]] = []
    alive: list[list[bool]] = []

    class Value:
        pass

    @flow.op
    def make(x: int) -> Any:
        value = Value()
        made.append(weakref.ref(value))
        return value

    @flow.op
    def look(x: Any, *_: Any) -> int:
        gc.collect()
        alive.append([ref() is not None for ref in made])
        return 1

    def body(x: Any) -> Any:
        one = make(x)
        first = look(one)
        second = look(x)
        two = make(x)
        return look(two) + first + look(two) + second

    assert flow.pipeline(body).debug(1) == 4
    assert alive == [[True], [False], [False, True], [False, True]]


def test_a_failure_leaves_the_rest_of_the_body_undone() -> None:
    log = Log()
    a, b = map(log.op, "ab")

    @flow.op
    def fails(x: Any) -> Any:
        raise ValueError(x)

    def body(x: Any) -> Any:
        a(x)
        fails(x)
        return b(b(b(x)))

    with pytest.raises(ValueError, match="0") as caught:
        flow.pipeline(body, name="body").debug(0)
    assert log.names == ["a"]
    assert "in operator 'fails'" in caught.value.__notes__[0]
