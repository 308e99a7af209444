"""What is one object in the plain call is one in an operator, in whatever places it is given; cycles included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import dataflow as flow


@flow.op
def same_items(items: Any) -> bool:
    return items[0] is items[1]


@flow.op
def same(a: Any, b: Any) -> bool:
    return a is b


@flow.op
def same_named(*, a: Any, b: Any) -> bool:
    return a is b


@flow.op
async def same_on_loop(a: Any, *, b: Any) -> bool:
    return a is b


PLACES: dict[str, Callable[[Any], Any]] = {
    "positional": lambda x: same(x, x),
    "named": lambda x: same_named(a=x, b=x),
    "one of each": lambda x: same(x, b=x),
    "on the loop": lambda x: same_on_loop(x, b=x),
    "in a list with nodes": lambda x: same_items([x, x]),
    "managed": lambda x: same.options(timeout=60)(x, b=x),
    "with retries": lambda x: same.options(retries=1)(x, b=x),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("readers", [1, 2])
def test_an_argument_that_is_given_twice(place: str, readers: int) -> None:
    p = flow.pipeline(lambda x: [PLACES[place](x) for _ in range(readers)])
    assert p.run(np.ones(3)) == [True] * readers
    assert p.run([np.ones(3)]) == [True] * readers
    of_a_kernel = flow.pipeline(lambda x: [PLACES[place](y) for y in [x + 1] for _ in range(readers)])
    assert of_a_kernel.run(np.ones(3)) == [True] * readers


@pytest.mark.parametrize("make", [list, tuple, lambda items: {0: items[0], 1: items[1]}])
def test_an_array_that_occurs_twice_in_a_container(make: Callable[[Any], Any]) -> None:
    x = np.ones(3)
    p = flow.pipeline(lambda items: (same_items(items), same_items(items)))
    assert p.run(make([x, x])) == (True, True)
    assert p.run(make([x, np.ones(3)])) == (False, False)
    constant = make([x, x])
    assert flow.pipeline(lambda y: same_items(constant)).run(1) is True


def test_a_result_that_occurs_twice() -> None:
    p = flow.pipeline(lambda x: flow.op(lambda x: (x[1:], x[1:2], [x]) + (x,) * 2)(x))
    _, _, (one,), two, three = p.run(np.ones(3))
    assert one is two is three
    view = flow.op(lambda x: (y := x[1:], y))
    first, second = flow.pipeline(lambda x: view(x)).run(np.ones(3))
    assert first is second


class Kept(np.ndarray[Any, Any]):
    other: Any


@flow.op
def goes_round(x: Any) -> Any:
    return x.other.other is x, x.flags.writeable, x.other.flags.writeable


@flow.op(writes=("x",))
def writes_round(x: Any) -> Any:
    x += 1
    x.other += 1
    return x.other.other is x


def test_arrays_that_know_each_other() -> None:
    a, b = np.ones(3).view(Kept), np.ones(3).view(Kept)
    a.other, b.other = b, a
    p = flow.pipeline(lambda x: (goes_round(x), writes_round(x), flow.op(lambda x: x[:2])(x)))
    seen, written, view = p.run(a)
    assert seen == (True, False, False)
    assert written is True
    assert a.tolist() == b.tolist() == [1, 1, 1]
    assert view.flags.writeable
    assert not np.shares_memory(view, a)


def test_an_array_that_is_an_item_of_its_own() -> None:
    x = np.empty(2, dtype=object)
    x[0], x[1] = x, 1

    @flow.op(writes=("x",))
    def change(x: Any) -> Any:
        x[1] = 5
        return x[0] is x

    assert flow.pipeline(lambda x: (change(x), flow.op(len)(x))).run(x) == (True, 2)
    assert x[1] == 1


@dataclass
class Record:
    x: Any

    def __post_init__(self) -> None:
        self.same, self.twice = self.x, self.x * 2


@flow.op
def of_a_record(record: Record) -> Any:
    return record.same is record.x, record.same.flags.writeable, record.twice.sum()


def test_attributes_of_a_dataclass_that_are_no_fields() -> None:
    p = flow.pipeline(lambda record: (of_a_record(record), of_a_record(record)))
    assert p.run(Record(np.ones(3))) == ((True, False, 6.0),) * 2
    assert flow.pipeline(lambda x: of_a_record(Record(x))).run(np.ones(3)) == (True, False, 6.0)
    x = np.ones(3)
    result = flow.pipeline(lambda x: flow.op(lambda x: Record(x))(x)).run(x)
    assert result.same is result.x
    assert result.x.flags.writeable
    assert not np.shares_memory(result.x, x)


class Node:
    def __init__(self, *items: Any) -> None:
        self.items = list(items)
        self.up: Any = None


@pytest.mark.parametrize("deep", [1, 2000])
def test_results_of_objects_that_know_each_other(deep: int) -> None:
    @flow.op
    def tree(x: Any) -> Any:
        first = here = Node(x[:2])
        for _ in range(deep):
            below = Node(x[1:])
            below.up = here
            here.items.append(below)
            here = below
        return first

    x = np.ones(3)
    result = flow.pipeline(lambda x: tree(x)).run(x)
    assert result.items[0].flags.writeable
    assert not np.shares_memory(result.items[0], x)
    assert result.items[1].up is result


def test_what_a_list_from_outside_holds_is_protected_whenever_it_got_there() -> None:
    held: list[Any] = [1, 2]

    @flow.op
    def write(items: Any) -> Any:
        if not isinstance(items[0], int):
            items[0][0] = 9
        return len(items)

    p = flow.pipeline(lambda x: write(held))
    assert p.run(0) == p.run(0) == 2
    held[0] = x = np.zeros(3)
    with pytest.raises(ValueError, match="read-only"):
        p.run(0)
    assert x.tolist() == [0, 0, 0]
