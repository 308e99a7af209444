"""Containers that operators change though they are not theirs: seen by all, or an error with a remedy; never lost."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest

import dataflow as flow


@dataclass
class Record:
    mean: Any
    count: int = 0
    _cache: Any = None
    history: list[Any] = field(default_factory=list)

    @functools.cached_property
    def doubled(self) -> Any:
        return self.mean * 2


class Pair(NamedTuple):
    first: Any
    notes: list[Any]


def a() -> np.ndarray[Any, Any]:
    return np.zeros(3)


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "dict new": (lambda: {"w": a()}, lambda d: d.update(x=1)),
    "dict replaced": (lambda: {"w": a(), "n": 1}, lambda d: d.update(n=2)),
    "dict popped": (lambda: {"w": a(), "n": 1}, lambda d: d.pop("n")),
    "dict renamed": (lambda: {"w": a(), "n": 1}, lambda d: d.update(m=d.pop("n"))),
    "dict inner": (lambda: {"w": a(), "in": {"b": a()}}, lambda d: d["in"].update(n=2)),
    "list append": (lambda: [a()], lambda v: v.append(1)),
    "list sort": (lambda: [a(), 2, 1], lambda v: v.reverse()),
    "list item": (lambda: [a(), 2], lambda v: v.__setitem__(0, a())),
    "deque": (lambda: deque([a()], maxlen=1), lambda v: v.append(1)),
    "namedtuple": (lambda: Pair(a(), [a()]), lambda v: v.notes.clear()),
    "tuple": (lambda: (1, [a()]), lambda v: v[1].clear()),
    "record": (lambda: Record(a()), lambda r: setattr(r, "count", 1)),
    "record inner": (lambda: Record(a(), history=[a()]), lambda r: r.history.append(1)),
}


@pytest.fixture(params=CHANGES, ids=lambda name: name.replace(" ", "-"))
def case(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return CHANGES[request.param]


def changing(change: Callable[[Any], Any], **options: Any) -> Any:
    @flow.op(**options)
    def spoil(value: Any, x: Any) -> Any:
        change(value)
        return x

    return spoil


REFUSED = r"'spoil' changed a \w+ that others read as well"


def test_of_the_caller(case: Any) -> None:
    make, change = case
    spoil = changing(change)

    @flow.pipeline
    def p(value: Any, x: Any) -> Any:
        return spoil(value, x)

    for _ in range(2):
        given = make()
        before = str(given)
        with pytest.raises(ValueError, match=REFUSED) as error:
            p.run(given, 1)
        assert "spoil" in error.value.__notes__[0]
        assert str(given) == before


def test_a_constant_from_outside(case: Any) -> None:
    make, change = case
    constant = make()
    spoil = changing(change)

    @flow.pipeline
    def p(x: Any) -> Any:
        return spoil(constant, x=x)

    with pytest.raises(ValueError, match=REFUSED):
        p.run(1)


def test_a_result_that_others_read(case: Any) -> None:
    make, change = case
    spoil, make_one, read = changing(change), flow.op(make), flow.op(lambda value: len(str(value)))

    @flow.pipeline
    def p(x: Any) -> Any:
        made = make_one()
        return spoil(made, x), read(made)

    with pytest.raises(ValueError, match=REFUSED):
        p.run(1)

    @flow.pipeline
    def alone(x: Any) -> Any:
        return spoil(make_one(), x)

    assert alone.run(1) == 1, "what it alone reads is its own"


def test_the_remedies(case: Any) -> None:
    make, change = case
    expected, given = make(), make()
    change(expected)

    @flow.pipeline
    def p(value: Any, x: Any) -> Any:
        return spoil(value, x)

    spoil = changing(change, inout="value")
    p.run(given, 1)
    assert str(given) == str(expected)

    spoil = changing(change, writes="value")
    given = make()
    p.run(given, 1)
    assert str(given) == str(make())


def test_in_an_async_operator_and_on_the_second_run(case: Any) -> None:
    make, change = case
    wanted = False

    @flow.op
    async def spoil(value: Any, x: Any) -> Any:
        await asyncio.sleep(0)
        if wanted:
            change(value)
        return x

    @flow.pipeline
    def p(value: Any, x: Any) -> Any:
        return spoil(value, x)

    assert p.run(1.0, 1) == 1
    assert p.run(make(), 1) == 1
    wanted = True
    with pytest.raises(ValueError, match=REFUSED):
        p.run(make(), 1)


def test_with_retries_and_in_debug(case: Any) -> None:
    make, change = case
    spoil = changing(change)

    @flow.pipeline
    def p(value: Any, x: Any) -> Any:
        return spoil(value, x)

    with pytest.raises(ValueError, match=REFUSED):
        p.debug(make(), 1)


def test_what_is_no_change() -> None:
    @flow.op
    def look(record: Record, parts: Any) -> float:
        record._cache = 1
        for name in list(parts):
            parts[name] = parts[name]
        return float(record.doubled.sum()) + sum(map(len, parts.values()))

    @flow.pipeline
    def p(record: Any, parts: Any) -> Any:
        return look(record, parts), look(record, parts)

    assert p.run(Record(np.ones(2)), {"a": a(), "b": a()}) == (10.0, 10.0)


def test_without_arrays_it_is_the_object_itself() -> None:
    seen: list[Any] = []

    @flow.op
    def remember(into: Any, x: Any) -> Any:
        into.append(x)
        return x

    @flow.pipeline
    def p(x: Any) -> Any:
        return remember(seen, x)

    p.run(1)
    p.run(2)
    assert seen == [1, 2]


def test_what_is_changed_and_read_in_one_call() -> None:
    """The caller's own is changed, as was declared; what is read beside it is a copy of the moment of the call."""

    @flow.op(inout="out")
    def move(out: Any, source: Any) -> Any:
        out["n"] = out.get("n", 0) + 1
        return len(source)

    @flow.pipeline
    def p(d: Any) -> Any:
        return move(d, d), move(d, source=[d][0])

    given = {"w": a()}
    p.run(given)
    assert given["n"] == 2


def test_a_write_into_an_array_of_a_nested_container_is_an_error_with_retries_too() -> None:
    @flow.op(retries=1, retry_on=(OSError,))
    def spoil(parts: Any) -> float:
        parts[0]["a"] += 1
        return 0.0

    @flow.pipeline
    def p(d: Any) -> Any:
        return spoil([d])

    given = {"a": a()}
    with pytest.raises(ValueError, match="read-only"):
        p.run(given)
    assert not given["a"].any()


@dataclass
class Image:
    _pixels: Any
    pixels: Any = None


def pixels(self: Image) -> Any:
    return self._pixels.view()


Image.pixels = property(pixels, lambda self, value: None)  # type: ignore[assignment]


def test_a_property_that_gives_something_new_each_time_is_no_change() -> None:
    @flow.op
    def total(image: Image) -> float:
        return float(image.pixels.sum())

    @flow.pipeline
    def p(image: Any) -> Any:
        return total(image), total(image)

    assert p.run(Image(np.ones(2))) == (2.0, 2.0)


def test_a_very_large_one_is_not_compared() -> None:
    @flow.op
    def add(value: Any) -> int:
        value["n"].append(1)
        return len(value["n"])

    @flow.pipeline
    def p(value: Any) -> Any:
        return add(value)

    assert p.run({"w": a(), "n": [1.0] * 20_000}) == 20_001
