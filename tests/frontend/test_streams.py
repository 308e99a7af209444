"""`p.stream(...)`: what it takes, what it refuses, and that an item is bound as the argument of a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

import dataflow as flow

Runner = Callable[[Any], Any]


@flow.op
def scale(x: Any, by: Any = 1) -> Any:
    return x * by


@flow.pipeline
def scaled(x: Any, by: Any = 1) -> Any:
    return scale(x, by)


@flow.pipeline
def both(x: Any, by: Any) -> Any:
    return scale(x, by)


@flow.pipeline
def stateful(x: Any, total: Any) -> Any:
    new = scale(x, 1) + total
    return new, {"total": new}


class Amplifier:
    def __init__(self, gain: int) -> None:
        self.gain = gain

    @flow.pipeline
    def amplify(self, x: Any, offset: Any = 0) -> Any:
        return scale(x, self.gain) + offset


async def all_of(stream: Any) -> list[Any]:
    return [y async for y in stream]


def test_other_arguments_are_bound(run_async: Runner) -> None:
    async def main() -> None:
        assert await all_of(scaled.stream([1, 2])) == [1, 2]
        assert await all_of(both.bind(by=3).stream([1, 2])) == [3, 6]
        assert await all_of(both.bind(x=3).stream([1, 2])) == [3, 6]
        assert await all_of(scaled.stream(np.arange(6).reshape(3, 2), in_flight=np.int64(2)))
        assert await all_of(scaled.stream({"key": 1})) == ["key"]

    run_async(main())


def test_on_an_instance(run_async: Runner) -> None:
    async def main() -> None:
        amplifier = Amplifier(10)
        assert await all_of(amplifier.amplify.stream([1, 2])) == [10, 20]
        assert await all_of(amplifier.amplify.bind(offset=1).stream([1, 2])) == [11, 21]
        assert await all_of(Amplifier.amplify.bind(self=amplifier).stream([1])) == [10]

    run_async(main())


def test_items_of_every_kind(run_async: Runner) -> None:
    @flow.pipeline
    def describe(x: Any) -> Any:
        return "nothing" if x is None else scale(x, 2)

    @flow.pipeline(tree=("parts",))
    def total(parts: Any) -> Any:
        return sum(parts.values())

    @flow.pipeline(static=("count",))
    def repeat(count: int) -> list[int]:
        return [scale(1, 1) for _ in range(count)]

    @flow.pipeline
    def variadic(*parts: Any) -> int:
        return len(parts)

    async def main() -> None:
        assert await all_of(describe.stream([1, None, "a", (1, 2)])) == [2, "nothing", "aa", (1, 2, 1, 2)]
        assert await all_of(total.stream([{"a": 1}, {"a": 1, "b": 2}])) == [1, 3]
        assert await all_of(repeat.stream([0, 2, 1])) == [[], [1, 1], [1]]
        assert await all_of(variadic.stream([5])) == [1]

    run_async(main())


def test_derived_pipelines(run_async: Runner) -> None:
    @flow.pipeline
    def p(x: Any) -> Any:
        return flow.label(scale(x, 2), "doubled") + 1

    async def main() -> None:
        assert await all_of(p.select("doubled").stream([1, 2])) == [2, 4]
        assert await all_of(p.replace({scale: lambda x, by: -x}).stream([1, 2])) == [0, -1]

    run_async(main())


def test_retracing_holds_for_later_items(run_async: Runner) -> None:
    offset, offsets = 1, {"offset": 10}

    @flow.pipeline
    def p(x: Any) -> Any:
        return scale(x, 1) + offset + offsets["offset"]

    async def main() -> None:
        nonlocal offset
        async with p.stream([0] * 6, in_flight=1) as s:
            assert await anext(s) == 11
            offset = 7  # what the body names, and that is seen
            assert [await anext(s) for _ in range(2)][-1] == 17
            offsets["offset"] = 20  # what is inside of what it names, is not
            assert await anext(s) == 17
            p.retrace()
            assert [y async for y in s][-1] == 27

    run_async(main())


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"in_flight": 0}, ValueError, r"scaled\.stream\(\): in_flight must be at least 1, not 0"),
    ({"in_flight": -3}, ValueError, "in_flight must be at least 1, not -3"),
    ({"in_flight": True}, TypeError, "in_flight must be an int, not bool"),
    ({"in_flight": 2.0}, TypeError, "in_flight must be an int, not float"),
    ({"in_flight": "2"}, TypeError, "in_flight must be an int, not str"),
    ({"ordered": 1}, TypeError, r"ordered must be True or False, not 1 \(int\)"),
    ({"ordered": None}, TypeError, r"ordered must be True or False, not None \(NoneType\)"),
    ({"copy": "deep"}, TypeError, r"copy must be True or False, not 'deep' \(str\)"),
    ({"on_error": "ignore"}, ValueError, "on_error must be 'raise' or 'yield', not 'ignore'"),
    ({"on_error": ValueError}, TypeError, "on_error must be 'raise' or 'yield', not <class 'ValueError'>"),
    ({"on_full": "drop"}, ValueError, "on_full must be 'wait' or 'drop_oldest', not 'drop'"),
    ({"on_full": None}, TypeError, r"on_full must be 'wait' or 'drop_oldest', not None \(NoneType\)"),
    ({"carry": ["by"]}, TypeError, r"carry must be a dict .*, \{name: value\}, not list"),
    ({"carry": {}}, ValueError, "carry must name at least one parameter"),
    ({"carry": {1: 2}}, ValueError, r"carry must name at least one parameter of the body, by a str, not \[1\]"),
    ({"carry": {"bye": 1}}, TypeError, r"carry names 'bye', no parameter that scaled\(x.* takes by name"),
    ({"carry": {"by": None}}, TypeError, "'by' is carried from item to item and cannot hold NoneType"),
    ({"carry": {"by": [1, {"a": object()}]}}, TypeError, "'by' .* cannot hold object: arrays and scalars can be"),
    ({"carry": {"by": 1}, "on_full": "drop_oldest"}, ValueError, "carry needs every item.*leave one of them out"),
    ({"carry": {"x": 1, "by": 1}}, TypeError, "scaled takes nothing: give the body one"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scaled.stream([1], **options)


async def generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (5, "source must be an iterable or an async iterable, not int"),
        (None, "not NoneType"),
        (generator, "not function; call it, and pass what that gives"),
        (object(), "not object"),
    ],
)
def test_wrong_sources(source: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        scaled.stream(source)


def test_pipelines_that_need_other_than_one_argument() -> None:
    with pytest.raises(TypeError, match=r"both takes x, by: fix the others first, both\.bind\(name=value\)\.stream"):
        both.stream([1])
    with pytest.raises(TypeError, match="scaled takes nothing: give the body one"):
        scaled.bind(x=1, by=2).stream([1])
    with pytest.raises(TypeError, match="stateful takes x, total"):
        stateful.stream([1])
    with pytest.raises(TypeError, match="amplify takes nothing"):
        Amplifier(1).amplify.bind(x=1, offset=1).stream([1])

    @flow.pipeline
    def by_name(*, x: int) -> int:
        return x

    with pytest.raises(TypeError, match="by_name takes x"):
        by_name.stream([1])

    @flow.pipeline(static=("depth",))
    def deep(x: Any, depth: int) -> Any:
        return x

    with pytest.raises(TypeError, match="carry names 'depth', which is static and cannot change"):
        deep.stream([1], carry={"depth": 1})


def test_in_the_body_of_a_pipeline_it_is_refused() -> None:
    @flow.pipeline
    def p(x: Any) -> Any:
        return scaled.stream([x])

    with pytest.raises(flow.TraceError, match=r"scaled\.stream\(\) was called while a pipeline is traced"):
        p.run(1)

    @flow.pipeline
    def q(x: Any) -> Any:
        return Amplifier(1).amplify.stream([x])

    with pytest.raises(flow.TraceError, match=r"amplify\.stream\(\) was called while a pipeline is traced"):
        q.run(1)


def test_making_one_needs_no_loop_and_starts_nothing() -> None:
    def source() -> Any:
        raise AssertionError
        yield

    stream = scaled.stream(source())
    assert isinstance(stream, flow.Stream)
    with pytest.raises(RuntimeError, match="no running event loop"):
        stream.__aenter__().send(None)
    assert (stream.in_flight, stream.dropped, stream.carry) == (0, 0, None)


def test_a_body_that_cannot_be_traced_is_told_once(run_async: Runner, caplog: pytest.LogCaptureFixture) -> None:
    @flow.pipeline
    def p(x: Any) -> Any:
        if x:
            return x

    async def main() -> None:
        with pytest.raises(flow.TraceError, match="test_streams"):
            async for _ in p.stream([1, 2, 3, 4]):
                pass
        assert len(asyncio.all_tasks()) == 1

    run_async(main())
    assert caplog.records == []
