"""Containers: taken apart and put together alike by all who look into a value."""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.graph.pytree import kind_of, larger_than, leaves, map_leaves, types_of


class Pair(NamedTuple):
    left: Any
    right: Any = None


@dataclass
class Record:
    value: Any
    more: Any = field(init=False)


@dataclass(frozen=True, slots=True)
class Frozen:
    value: Any


@dataclass
class KindOfDict(dict[str, Any]):
    value: Any = 0


class Leaf:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


A, B = Leaf("A"), Leaf("B")


def marked(leaf: Any) -> Any:
    return f"<{leaf}>"


CONTAINERS = [
    ([A, 1], ["<A>", 1]),
    ((A, "a"), ("<A>", "a")),
    ({"k": A}, {"k": "<A>"}),
    ({A}, {"<A>"}),
    (deque([A], maxlen=3), deque(["<A>"], maxlen=3)),
    (Pair(A, [B]), Pair("<A>", ["<B>"])),
    (Frozen((A, {"b": B})), Frozen(("<A>", {"b": "<B>"}))),
]


@pytest.mark.parametrize(("value", "wanted"), CONTAINERS, ids=repr)
def test_the_same_container_around_other_leaves(value: Any, wanted: Any) -> None:
    assert kind_of(type(value)) is not None
    shown = repr(value)
    found = map_leaves(marked, value)
    assert found == wanted
    assert type(found) is type(wanted)
    assert repr(value) == shown
    if isinstance(value, deque):
        assert found.maxlen == value.maxlen


@pytest.mark.parametrize(("value", "_"), CONTAINERS, ids=repr)
def test_nothing_is_rebuilt_that_holds_nothing_new(value: Any, _: Any) -> None:
    assert map_leaves(lambda leaf: leaf, value) is value
    nested = [value, (value,), {"a": [A, 1]}]
    found = map_leaves(lambda leaf: "B!" if leaf is B else leaf, nested)
    assert found[2] is nested[2]
    new = map_leaves(lambda leaf: leaf, value, always=True)
    assert new is not value
    assert repr(new) == repr(value)


KINDS = [
    OrderedDict(a=A),
    defaultdict(list, a=A),
    Counter({A: 2}),
    type("Kind", (list,), {})([A]),
    type("Kind", (deque,), {})([A]),
    type("Kind", (tuple,), {})([A]),
    KindOfDict(),
    sys.version_info,
    frozenset({A}),
    {"a": A}.values(),
    range(3),
]


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_a_kind_of_container_is_a_leaf(kind: Any) -> None:
    assert kind_of(type(kind)) is None
    assert list(leaves(kind)) == [kind]
    assert map_leaves(lambda leaf: B if leaf is kind else leaf, [kind]) == [B]


def test_a_dataclass_lacks_what_it_lacked_and_keeps_what_is_no_field() -> None:
    record = Record(A)
    record.own = 5  # type: ignore[attr-defined]
    found = map_leaves(marked, record)
    assert (found.value, found.own) == ("<A>", 5)
    assert not hasattr(found, "more")
    assert record.value is A


def test_leaves_are_visited_in_order_and_atoms_are_not() -> None:
    seen: list[Any] = []
    map_leaves(seen.append, [A, (1, B, [2.0, A]), {"x": B, "y": None}, "text", b"", True, ...])
    assert seen == [A, B]
    assert Counter(leaves([A, (1, B, [2.0, A]), {"x": B}])) == {A: 2, B: 2}


def test_what_occurs_twice_occurs_twice() -> None:
    twice = [A]
    found = map_leaves(marked, {"one": twice, "two": (twice, Frozen(twice))})
    assert found["one"] is found["two"][0] is found["two"][1].value
    assert list(leaves([twice, twice])) == [A]


def test_cycles_are_kept() -> None:
    loop: list[Any] = [A]
    record = Record(loop)
    table = {"record": record, "loop": loop}
    inner = (table,)
    outer = (inner, loop)
    loop += [loop, outer]
    found = map_leaves(marked, outer)
    assert found[1] is found[0][0]["loop"] is found[0][0]["record"].value is found[1][1]
    assert found[1][0] == "<A>"
    assert found[1][2] is found
    assert loop[0] is A
    assert map_leaves(lambda leaf: leaf, outer) is outer
    assert list(leaves(outer)) == [A]


def test_depth_costs_no_stack() -> None:
    value: Any = A
    for level in range(50_000):
        value = ([value], (value, 1), {"k": value}, Frozen(value))[level % 4]
    assert list(leaves(value)) == [A]
    found = map_leaves(marked, value)
    for level in reversed(range(50_000)):
        found = (lambda v: v[0], lambda v: v[0], lambda v: v["k"], lambda v: v.value)[level % 4](found)
    assert found == "<A>"


def test_what_is_not_looked_into_is_a_leaf() -> None:
    kept = [A]
    found = map_leaves(lambda leaf: leaf if leaf is kept else marked(leaf), [kept, A], into=lambda c: c is not kept)
    assert found[0] is kept
    assert found[1] == "<A>"
    assert list(leaves([kept], into=lambda c: c is not kept)) == [kept]


def test_a_bytearray_is_a_container_without_items() -> None:
    data = bytearray(b"abc")
    assert map_leaves(marked, data) is data
    copy = map_leaves(marked, [data], always=True)[0]
    assert copy == data
    assert copy is not data


def test_size_is_told_without_looking_at_all() -> None:
    assert not larger_than([1] * 10, 10)
    assert larger_than([1] * 11, 10)
    assert larger_than([[1] * 4, [2] * 4, [3] * 4], 10)
    assert not larger_than([[1] * 4] * 3, 10)  # one list, three times
    assert not larger_than(Leaf("x"), 0)
    loop: list[Any] = []
    loop.append(loop)
    assert not larger_than(loop, 1)
    assert larger_than(Record([1] * 20), 10)


@pytest.mark.parametrize("count", [0, 1, 19_999, 20_000, 20_001, 60_000])
def test_the_types_of_many_items_are_those_of_all(count: int) -> None:
    items = [1] * count + [2.0]
    assert types_of(items) == {float} | ({int} if count else set())


nested = st.recursive(
    st.sampled_from([A, B]) | st.integers() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.lists(inner, max_size=3).map(deque)
        | st.dictionaries(st.text("xyz", max_size=2), inner, max_size=3)
        | st.builds(Pair, inner, inner)
        | st.builds(Frozen, inner)
    ),
    max_leaves=12,
)


@given(nested)
def test_random_structures(value: Any) -> None:
    """Repr shows all there is."""
    found = map_leaves(lambda leaf: Leaf(leaf.name.lower()), value)
    assert repr(found) == repr(value).replace("A", "a").replace("B", "b")
    assert repr(map_leaves(lambda leaf: leaf, value, always=True)) == repr(value)
    assert map_leaves(lambda leaf: leaf, value) is value
    assert (found is value) == (not list(leaves(value)))
