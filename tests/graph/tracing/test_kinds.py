"""Kinds of list and dict, and array.array, that a body makes: new in every run, like plain containers."""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import numpy as np
import pytest

import dataflow as flow


class Named(dict[str, Any]):
    """A kind of dict that only adds methods."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Stack(list[Any]):
    def push(self, value: Any) -> None:
        self.append(value)


class Bag(set[Any]):
    pass


class Line(deque[Any]):
    pass


class Minded(dict[str, Any]):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path


@flow.op
def count(into: Any, x: int) -> Any:
    if isinstance(into, dict):
        into["n"] = into.get("n", 0) + x
    elif isinstance(into, set):
        into.add(x)
    else:
        into.append(x)
    return into


@flow.op
def size(value: Any, after: Any) -> int:
    return len(value)


MADE = [
    lambda: Counter({"n": 1}),
    lambda: defaultdict(int, n=1),
    lambda: OrderedDict(n=1),
    lambda: Named(n=1),
    lambda: Stack([1]),
    lambda: array("d", [1.0, float("nan")]),
    lambda: deque([1], maxlen=9),
    lambda: Bag([1]),
    lambda: Line([1], 9),
]


@pytest.mark.parametrize("make", MADE)
@pytest.mark.parametrize("inside", [False, True])
def test_what_the_body_made_is_new_in_every_run(make: Any, inside: bool) -> None:
    @flow.op
    def first(held: Any, x: int) -> Any:
        return count(held[0], x)

    @flow.pipeline
    def p(x: int) -> Any:
        made = make()
        return first([made], x) if inside else count(made, x)

    plain = count(make(), 2)
    for _ in range(3):
        got = p.run(2)
        assert type(got) is type(plain)
        assert str(list(got.items() if isinstance(got, dict) else got)) == str(
            list(plain.items() if isinstance(plain, dict) else plain)
        )


def test_two_operators_see_one_object() -> None:
    @flow.pipeline
    def p(x: int) -> Any:
        seen = defaultdict(list)
        return size(seen, count(seen, x))

    assert p.run(1) == p.run(2) == 1


def test_each_node_sees_it_as_it_was() -> None:
    @flow.op
    def copied(value: Any) -> Any:
        return dict(value), list(value.get("parts", ()))

    @flow.pipeline
    def p(x: int) -> Any:
        seen: Any = defaultdict(list)
        before = copied(seen)
        seen["parts"].append(1)
        middle = copied(seen)
        seen["parts"].append(2)
        return before, middle, copied(seen)

    assert p.run(1) == (({}, []), ({"parts": [1]}, [1]), ({"parts": [1, 2]}, [1, 2]))


OUTSIDE: Any = Counter()


def test_one_from_outside_is_that_very_object() -> None:
    OUTSIDE.clear()

    @flow.pipeline
    def p(x: int) -> Any:
        return count(OUTSIDE, x)

    assert p.run(2) is OUTSIDE or p.run(0) == OUTSIDE
    p.run(3)
    assert OUTSIDE["n"] >= 5


def test_one_from_outside_that_the_body_changes_is_refused() -> None:
    held: Any = OrderedDict()

    @flow.pipeline
    def p(x: int) -> Any:
        first = count(held, x)
        held["late"] = 1
        return first

    with pytest.raises(flow.TraceError, match="was changed"):
        p.run(1)


def test_one_with_a_mind_of_its_own_is_passed_on() -> None:
    made: list[Minded] = []

    @flow.pipeline
    def p(x: int) -> Any:
        made.append(Minded("a"))
        return count(made[-1], x)

    assert p.run(1)["n"] == 1
    assert made[0].path == "a"


def test_its_arrays_are_protected_or_its_own() -> None:
    weights = np.ones(3)

    @flow.op
    def add(held: Any, x: Any) -> Any:
        return held["w"] + x

    @flow.pipeline
    def p(x: Any) -> Any:
        return add(defaultdict(None, w=weights), x)

    assert p.run(np.ones(3)).tolist() == [2.0] * 3
    assert weights.flags.writeable


def test_an_ordered_dict_keeps_its_order() -> None:
    @flow.op
    def items(held: Any, x: int) -> Any:
        return list(held.items())

    shared: Any = OrderedDict(a=1, b=2, c=3)
    shared.move_to_end("a")

    @flow.pipeline
    def p(x: int) -> Any:
        made: Any = OrderedDict(a=1, b=2, c=3)
        before = items(made, x)
        made.move_to_end("a")
        return before, items(made, x), items(shared, x), made

    moved = [("b", 2), ("c", 3), ("a", 1)]
    before, after, outside, made = p.run(1)
    assert before == [("a", 1), ("b", 2), ("c", 3)]
    assert after == outside == list(made.items()) == moved


def test_states_that_are_equal_and_not_the_same() -> None:
    @flow.op
    def listed(held: Any, x: int) -> str:
        return repr(sorted(held))

    @flow.pipeline
    def p(x: int) -> Any:
        line, bag = Line([1]), Bag([0.0])
        first = listed(line, x), listed(bag, x)
        line[0] = 1.0
        bag.discard(0.0)
        bag.add(-0.0)
        second = listed(line, x), listed(bag, x)
        line[0] = np.ones(1)
        return first, second

    assert p.run(1) == (("[1]", "[0.0]"), ("[1.0]", "[-0.0]"))


class Frozen(dict[str, int]):
    def __setitem__(self, key: str, value: int) -> None:
        raise TypeError("frozen")


class Folding(dict[str, int]):
    def __setitem__(self, key: str, value: int) -> None:
        super().__setitem__(key.lower(), value)


@pytest.mark.parametrize("held", [Frozen(A=1), Folding(A=1)])
def test_one_that_takes_items_in_its_own_way_is_passed_as_it_is(held: Any) -> None:
    @flow.op
    def same(given: Any, x: int) -> bool:
        return given is held

    @flow.pipeline
    def p(x: int) -> Any:
        return same(held, x), same([held][0], x)

    assert p.run(1) == (True, True)
