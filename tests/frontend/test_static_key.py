"""Static arguments: a graph for each value that a body can tell from another, also when it was changed meanwhile."""

from __future__ import annotations

import functools
import gc
import inspect
import logging
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from fractions import Fraction
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

import dataflow as flow


def counted(read: Callable[[Any], Any]) -> tuple[Any, list[Any]]:
    """A pipeline that shows what its body reads of a static argument, and a list of what its traces have read."""
    traces: list[Any] = []

    @flow.pipeline(static=("of",))
    def pipeline(x: Any, of: Any) -> Any:
        traces.append(repr(read(of)))
        return x + 1, traces[-1]

    return pipeline, traces


class Plain:
    def __init__(self, value: Any) -> None:
        self.value = value


class Slotted:
    __slots__ = ("__private", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.__private = value

    @property
    def private(self) -> Any:
        return self.__private

    @private.setter
    def private(self, value: Any) -> None:
        self.__private = value


class Child(Slotted):
    pass


class Equal:
    """Compares by value, and may be changed."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal) and bool(self.value == other.value)

    def __hash__(self) -> int:
        return 1


@dataclass(frozen=True)
class Frozen:
    value: Any
    name: str = field(default="", compare=False)


@dataclass(eq=False)
class Record:
    value: Any


class Pair(NamedTuple):
    value: Any
    other: Any = 0


def set_value(of: Any, value: Any) -> None:
    of.value = value


CHANGED: list[tuple[Any, Callable[[Any], Any], list[Callable[[Any], Any]]]] = [
    (Plain(1), lambda o: o.value, [lambda o: set_value(o, 2), lambda o: set_value(o, 1.0)]),
    (Slotted(1), lambda o: (o.value, o.private), [lambda o: set_value(o, 2), lambda o: setattr(o, "private", 3)]),
    (Child(1), lambda o: o.private, [lambda o: setattr(o, "private", 3), lambda o: setattr(o, "private", True)]),
    (Record(1), lambda o: o.value, [lambda o: set_value(o, 2), lambda o: set_value(o, None)]),
    (Equal(1), lambda o: o.value, [lambda o: set_value(o, 2), lambda o: set_value(o, True)]),
    (Plain([1]), lambda o: o.value, [lambda o: o.value.append(2), lambda o: set_value(o, (1, 2))]),
    (Plain({"a": 1}), lambda o: o.value, [lambda o: o.value.update(b=2), lambda o: o.value.update(a=True)]),
    (Plain({"b", "a"}), lambda o: sorted(o.value), [lambda o: o.value.add("c"), lambda o: o.value.discard("a")]),
    (Plain(deque([1])), lambda o: o.value, [lambda o: o.value.append(2)]),
    (Plain(Plain(Plain(1))), lambda o: o.value.value.value, [lambda o: set_value(o.value.value, 2)]),
    (Plain(SimpleNamespace(a=1)), lambda o: o.value.a, [lambda o: setattr(o.value, "a", 2)]),
    (Plain([Equal(1)]), lambda o: o.value[0].value, [lambda o: set_value(o.value[0], 2)]),
    (Frozen(Plain(1)), lambda o: o.value.value, [lambda o: set_value(o.value, 2)]),
    ((Plain(1), "a"), lambda o: o[0].value, [lambda o: set_value(o[0], 2)]),
    (Plain(1).__init__, lambda o: o.__self__.value, [lambda o: o(2)]),  # type: ignore[misc]
    (Plain(1), lambda o: vars(o), [lambda o: setattr(o, "new", 1), lambda o: delattr(o, "new")]),
]


@pytest.mark.parametrize(("of", "read", "changes"), CHANGED, ids=lambda part: repr(type(part).__name__))
def test_what_was_changed_is_traced_anew(of: Any, read: Any, changes: Any) -> None:
    pipeline, traces = counted(read)
    assert pipeline.run(1, of) == pipeline.run(1, of) == (2, repr(read(of)))
    assert len(traces) == 1
    for change in changes:
        change(of)
        assert pipeline.run(1, of) == pipeline.run(1, of) == (2, repr(read(of)))
    assert len(traces) <= 1 + len(changes)


def test_what_is_as_it_was_has_its_graph_still() -> None:
    of = Plain(1)
    pipeline, traces = counted(lambda o: o.value)
    for value in (1, 2, 1, 2, 1):
        of.value = value
        assert pipeline.run(1, of) == (2, str(value))
    assert len(traces) == 2


def test_what_the_body_itself_changes_is_no_reason_to_trace_again() -> None:
    class Caches:
        def __init__(self) -> None:
            self.known: dict[Any, Any] = {}

        @functools.cached_property
        def table(self) -> Any:
            return (1, 2)

    pipeline, traces = counted(lambda o: o.known.setdefault("a", o.table))
    of = Caches()
    for _ in range(3):
        pipeline.run(1, of)
    assert len(traces) == 1


class Color(Enum):
    RED = 1


class Number(IntEnum):
    ONE = 1


def attrs_settings() -> Any:
    attr = pytest.importorskip("attr")
    return attr.make_class("Settings", {"value": attr.ib(), "note": attr.ib(default="", eq=False)}, frozen=True)


def pydantic_settings() -> Any:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Settings", value=(Any, ...), __config__={"frozen": True})
    return lambda value: model(value=value)


def slotted_and_equal() -> Any:
    class Settings:
        __slots__ = ("value",)

        def __init__(self, value: Any) -> None:
            self.value = value

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Settings) and bool(self.value == other.value)

        def __hash__(self) -> int:
            return hash(self.value)

    return Settings


@pytest.mark.parametrize("make", [attrs_settings, pydantic_settings, slotted_and_equal, lambda: Equal, lambda: Frozen])
def test_equal_objects_with_other_values_inside_have_graphs_of_their_own(make: Callable[[], Any]) -> None:
    settings = make()
    pipeline, traces = counted(lambda o: o.value)
    values: list[Any] = [1, 1.0, True, (1,), (True,), ((1.0,),), Pair(1), Pair(1.0), 0.0, -0.0, Frozen(1), Frozen(True)]
    for _ in range(2):
        for value in values:
            assert pipeline.run(1, settings(value)) == (2, repr(value))
            assert pipeline.run(1, (settings(value), "a")[0]) == (2, repr(value))
    assert len(traces) == len(values)


@pytest.mark.parametrize(
    "value",
    [
        Color.RED,
        PurePosixPath("/a"),
        Fraction(1, 3),
        np.dtype("f8"),
        np.float32,
        len,
        test_what_is_as_it_was_has_its_graph_still,
        functools.partial(pow, 2),
        flow.op(lambda x: x),
        Frozen((1, frozenset({2}))),
        Plain("a").__init__,  # type: ignore[misc]
        logging.getLogger("tests.static"),
        Plain(np.ones(3)),
        Plain(OrderedDict(a=[1])),
    ],
    ids=repr,
)
def test_the_same_value_again_has_the_same_graph(value: Any) -> None:
    pipeline, traces = counted(lambda o: type(o))
    for _ in range(3):
        logging.getLogger("tests.static").isEnabledFor(logging.DEBUG)  # it keeps a cache
        assert pipeline.run(1, value) == (2, repr(type(value)))
    assert len(traces) == 1


def test_what_does_not_take_part_in_comparing_makes_no_graph() -> None:
    pipeline, traces = counted(lambda o: o.value)
    for name in ("a", "b"):
        assert pipeline.run(1, Frozen(1, name)) == (2, "1")
    assert len(traces) == 1


def test_equal_values_of_other_kinds_are_not_the_same() -> None:
    values = [1, Number.ONE, np.dtype("f8"), np.dtype("f8", metadata={"a": 1}), np.dtype("f8", metadata={"a": True})]
    pipeline, traces = counted(lambda o: (o, getattr(o, "metadata", None)))
    for value in values * 2:
        assert pipeline.run(1, value) == (2, repr((value, getattr(value, "metadata", None))))
    assert len(traces) == len(values)


def test_objects_that_refer_to_each_other_end() -> None:
    one, other = Plain(None), Plain([])
    one.value, other.value = other, [one, {"one": one}]
    deep: Any = Plain(None)
    for _ in range(5_000):
        deep = Plain(deep)
    wide = Plain(list(range(50_000)))
    pipeline, traces = counted(lambda o: type(o))
    for of in (one, other, deep, wide) * 2:
        assert pipeline.run(1, of)[0] == 2
    assert len(traces) == 4
    other.value[1]["new"] = 1
    pipeline.run(1, one)
    assert len(traces) == 5


def test_an_object_is_kept_while_its_graph_is() -> None:
    """No other may get its identity meanwhile."""
    pipeline, traces = counted(lambda o: o.value)
    of = Plain(1)
    pipeline.run(1, of)
    alive = weakref.ref(of)
    del of
    gc.collect()
    assert alive() is not None
    assert pipeline.run(1, Plain(1)) == (2, "1")
    assert len(traces) == 2
    pipeline.retrace()
    gc.collect()
    assert alive() is None


def test_a_placeholder_is_no_static_value() -> None:
    pipeline, _ = counted(lambda o: o)
    inner = pipeline.select("nothing")
    for make in (lambda x: x, lambda x: (x,), lambda x: Plain(x), lambda x: Plain([{"a": x}])):
        with pytest.raises(flow.TraceError, match=rf"hash\(\) of <placeholder 0: x>.*{__file__}"):
            flow.pipeline(lambda x, make=make: inner(1, make(x))).graph()


def test_no_code_of_an_object_is_run() -> None:
    class Guarded:
        def __init__(self) -> None:
            self.value = 1

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

        @property
        def secret(self) -> Any:
            raise AssertionError

    pipeline, traces = counted(lambda o: o.value)
    of = Guarded()
    for _ in range(2):
        assert pipeline.run(1, of) == (2, "1")
    assert len(traces) == 1
    assert inspect.signature(pipeline).parameters.keys() == {"x", "of"}
