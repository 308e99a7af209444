"""Templates: every container comes back as it was, with values for Refs; constants are those very objects."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.graph.nodes import Ref
from dataflow.graph.templates import Literal, Template, fill, output_template, renumber


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass
class Layer:
    weights: Any
    name: str = "conv"
    cache: Any = field(init=False)


@dataclass(frozen=True, slots=True)
class Frozen:
    value: Any


VALUES = ["zero", "one", "two"]

TEMPLATES: list[tuple[Any, Any]] = [
    (Ref(1), "one"),
    (7, 7),
    ([Ref(0), 1], ["zero", 1]),
    ((Ref(0), (Ref(1), "a")), ("zero", ("one", "a"))),
    ({"a": Ref(2), "b": {"c": [Ref(0)]}}, {"a": "two", "b": {"c": ["zero"]}}),
    (Pair(Ref(0), [Ref(1)]), Pair("zero", ["one"])),
    (Frozen((Ref(0), Ref(0))), Frozen(("zero", "zero"))),
    ([], []),
    ((), ()),
    ([Ref, Frozen], [Ref, Frozen]),  # classes, not instances
    (deque([Ref(0), 1], maxlen=2), deque(["zero", 1], maxlen=2)),
    ([Ref(0), {"a": (Ref(1), deque([Pair(Ref(2), 5)]))}], ["zero", {"a": ("one", deque([Pair("two", 5)]))}]),
]


def output(template: Any, slot_of: Any = range(10)) -> Template:
    def no_slot(constant: Any) -> int:
        raise AssertionError(f"{constant!r} is no constant of its own in every run")

    return output_template(template, slot_of, no_slot)


@pytest.mark.parametrize(("template", "wanted"), TEMPLATES, ids=repr)
def test_every_container_is_rebuilt_around_the_values(template: Any, wanted: Any) -> None:
    filled = fill(template, VALUES)
    assert filled == wanted
    assert type(filled) is type(wanted)
    assert "Ref(" not in repr(filled)
    built = output(template)
    assert built.build(VALUES) == wanted
    assert all(type(ref) is int for ref in built.refs)


@pytest.mark.parametrize(("template", "wanted"), TEMPLATES, ids=repr)
def test_renumbered_it_reads_other_places(template: Any, wanted: Any) -> None:
    assert fill(renumber(template, [2, 0, 1]), ["one", "two", "zero"]) == wanted
    assert output(template, [2, 0, 1]).build(["one", "two", "zero"]) == wanted


def test_a_kind_of_list_or_dict_is_passed_on_as_it_is() -> None:
    ordered = OrderedDict(a=1)
    assert fill([ordered, Ref(0)], VALUES)[0] is ordered
    assert output([ordered, Ref(0)]).build(VALUES)[0] is ordered


def test_a_dataclass_keeps_what_it_had_and_lacks_what_it_lacked() -> None:
    template = Layer(Ref(0))
    filled = fill(template, VALUES)
    assert (filled.weights, filled.name) == ("zero", "conv")
    assert not hasattr(filled, "cache")
    assert template.weights == Ref(0)


def test_other_objects_are_passed_on_as_they_are() -> None:
    thing = object()
    assert fill([thing], VALUES)[0] is thing
    assert fill({1}, VALUES) == {1}


def test_a_constant_tuple_that_nobody_can_rebuild_is_passed_on() -> None:
    version = sys.version_info
    with pytest.raises(TypeError):
        type(version)(version)
    assert fill([version, Ref(0)], VALUES) == [version, "zero"]
    assert output([version, Ref(0)]).build(VALUES) == [version, "zero"]
    assert output([version, Ref(0)], [1]).build(VALUES) == [version, "one"]


def test_an_output_names_each_value_once_in_order() -> None:
    assert output([Ref(2), {"a": Ref(0), "b": Ref(2)}]).refs == (2, 0)
    assert output(7).refs == ()


def test_a_lone_result_is_handed_over_as_it_is() -> None:
    value = object()
    assert output(Ref(0)).build([value]) is value


def test_what_occurs_twice_occurs_twice_and_what_contains_itself_still_does() -> None:
    row = [Ref(0)]
    template: list[Any] = [row, (row, {"row": row})]
    template.append(template)
    for built in (fill(template, VALUES), output(template).build(VALUES)):
        assert built[0] == ["zero"]
        assert built[0] is built[1][0] is built[1][1]["row"]
        assert built[2] is built
    assert template[2] is template
    assert row == [Ref(0)]


def test_each_build_is_a_container_of_its_own() -> None:
    built = output({"a": [Ref(0)], "b": [[Ref(1)], Frozen([Ref(1)])]})
    one, two = built.build(VALUES), built.build(VALUES)
    one["a"].append(1)
    one["b"][0].append(1)
    one["b"][1].value.append(1)
    assert two == {"a": ["zero"], "b": [["one"], Frozen(["one"])]} == built.build(VALUES)


def test_depth_costs_no_stack() -> None:
    template: Any = Ref(1)
    for level in range(20_000):
        template = [template] if level % 2 else (template, level)
    for found in (fill(template, VALUES), output(template).build(VALUES), fill(renumber(template, [0, 2]), VALUES)):
        for level in reversed(range(20_000)):
            found = found[0]
            assert level or found in ("one", "two")


def test_a_literal_is_made_anew_around_what_is_kept() -> None:
    kept: list[Any] = [1]
    literal = Literal({"kept": kept, "own": [2], "again": kept}, fresh=True, kept=[kept])
    one, two = literal.make(), literal.make()
    assert one == two == {"kept": [1], "own": [2], "again": [1]}
    assert one["kept"] is one["again"] is two["kept"] is kept
    assert one is not two
    assert one["own"] is not two["own"]
    assert Literal(kept, fresh=False).make() is kept


def test_a_mapped_literal_keeps_the_rest() -> None:
    kept: list[Any] = [1]
    thing, other = object(), object()
    literal = Literal([kept, thing], fresh=True, kept=[kept])
    mapped = literal.mapped(lambda leaf: other if leaf is thing else leaf)
    assert mapped.make()[1] is other
    assert mapped.make()[0] is kept
    assert literal.mapped(lambda leaf: leaf) is literal


def test_values_are_not_copied() -> None:
    value = [1]
    built = output([Ref(0), Frozen(Ref(0))]).build([value])
    assert built[0] is value
    assert built[1].value is value


def test_other_constants_are_passed_on() -> None:
    lock = threading.Lock()
    built = output([lock, threading, Ref(0)]).build(VALUES)
    assert built[0] is lock
    assert built[1] is threading
    assert built[2] == "zero"


nested = st.recursive(
    st.integers(0, 9).map(Ref) | st.integers() | st.text(max_size=2) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.builds(Pair, inner, inner)
        | st.builds(Frozen, inner)
    ),
    max_leaves=12,
)


@given(nested, st.permutations(range(10)))
def test_random_structures(template: Any, slot_of: list[int]) -> None:
    """Repr shows all there is: filling replaces each Ref in it by its value."""
    values = [f"v{number}" for number in range(10)]
    wanted = repr(template)
    for number in range(10):
        wanted = wanted.replace(f"Ref({number})", repr(values[number]))
    assert repr(fill(template, values)) == wanted
    moved = [""] * 10
    for number, slot in enumerate(slot_of):
        moved[slot] = values[number]
    assert repr(output(template, slot_of).build(moved)) == wanted
