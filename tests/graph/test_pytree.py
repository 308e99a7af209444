"""Templates: every container comes back as it was, with values for Refs; constants are copied, nothing is shared."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.graph.nodes import Ref
from dataflow.graph.pytree import fill, holds_ref, output_template, rebuild_tuple, renumber


class Pair(NamedTuple):
    left: Any
    right: Any


class Labels(list[Any]):
    unit = "px"


class Odd(tuple[Any, ...]):
    """A tuple of a kind of its own."""

    __slots__ = ()


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
    (OrderedDict(b=Ref(0), a=Ref(1)), OrderedDict(b="zero", a="one")),
    ([Labels([Ref(2)])], [Labels(["two"])]),
]


@pytest.mark.parametrize(("template", "wanted"), TEMPLATES, ids=repr)
def test_every_container_is_rebuilt_around_the_values(template: Any, wanted: Any) -> None:
    filled = fill(template, VALUES)
    assert filled == wanted
    assert type(filled) is type(wanted)
    assert "Ref(" not in repr(filled)
    assert holds_ref(template) is ("Ref(" in repr(template))
    output = output_template(template)
    assert output.build(VALUES) == wanted
    assert all(type(ref) is int or type(ref) is Ref for ref in output.refs)


@pytest.mark.parametrize(("template", "wanted"), TEMPLATES, ids=repr)
def test_renumbered_it_reads_other_places(template: Any, wanted: Any) -> None:
    assert fill(renumber(template, [2, 0, 1]), ["one", "two", "zero"]) == wanted
    moved = output_template(template).renumbered([2, 0, 1])
    assert moved.build(["one", "two", "zero"]) == wanted


def test_a_defaultdict_keeps_its_factory() -> None:
    filled = fill(defaultdict(list, a=Ref(0)), VALUES)
    assert filled == {"a": "zero"}
    assert filled["missing"] == []


def test_a_list_of_a_kind_of_its_own_keeps_its_attributes() -> None:
    template = Labels([Ref(0)])
    template.unit = "mm"
    assert fill(template, VALUES).unit == "mm"
    assert list(template) == [Ref(0)]


def test_a_dataclass_keeps_what_it_had_and_lacks_what_it_lacked() -> None:
    template = Layer(Ref(0))
    filled = fill(template, VALUES)
    assert (filled.weights, filled.name) == ("zero", "conv")
    assert not hasattr(filled, "cache")
    assert template.weights == Ref(0)
    constant = Layer(3)
    assert fill(constant, VALUES) is constant


def test_other_objects_are_passed_on_as_they_are() -> None:
    thing = object()
    assert fill([thing], VALUES)[0] is thing
    assert fill({1}, VALUES) == {1}


def test_a_tuple_is_rebuilt_as_its_own_kind() -> None:
    assert rebuild_tuple((1, 2), [3, 4]) == (3, 4)
    assert rebuild_tuple(Pair(1, 2), [3, 4]) == Pair(3, 4)
    assert type(rebuild_tuple(Pair(1, 2), [3, 4])) is Pair
    assert type(rebuild_tuple(Odd((1, 2)), [3, 4])) is Odd


def test_a_constant_tuple_that_nobody_can_rebuild_is_passed_on() -> None:
    version = sys.version_info
    with pytest.raises(TypeError):
        type(version)(version)
    assert fill([version, Ref(0)], VALUES) == [version, "zero"]
    assert output_template([version, Ref(0)]).build(VALUES) == [version, "zero"]
    assert output_template([version, Ref(0)]).renumbered([1]).build(VALUES) == [version, "one"]


def test_an_output_names_each_value_once_in_order() -> None:
    assert output_template([Ref(2), {"a": Ref(0), "b": Ref(2)}]).refs == (2, 0)
    assert output_template(7).refs == ()


def test_a_lone_result_is_handed_over_as_it_is() -> None:
    value = object()
    assert output_template(Ref(0)).build([value]) is value


def test_constants_that_are_returned_are_copied_for_each_run() -> None:
    table = np.arange(3)
    output = output_template({"out": Ref(0), "table": table, "more": [[table], ({"x"},)], "pair": Pair([1], Ref(0))})
    one, two = output.build(VALUES), output.build(VALUES)
    one["table"][0] = 99
    one["more"][0][0][0] = 99
    one["more"][1][0].add("y")
    one["more"][0].append("z")
    one["pair"].left.append(2)
    assert table[0] == 0
    assert (two["table"][0], two["more"][0][0][0], two["more"][1][0], two["pair"].left) == (0, 0, {"x"}, [1])
    assert output.build(VALUES)["more"][0] == [pytest.approx(table)]


def test_constants_inside_a_dataclass_and_a_dict_of_its_own_kind_are_copied_too() -> None:
    output = output_template([Layer([1]), OrderedDict(a=[1], b=Ref(0)), Frozen([Ref(1), [1]])])
    layer, ordered, frozen = output.build(VALUES)
    layer.weights.append(2)
    ordered["a"].append(2)
    frozen.value[1].append(2)
    layer, ordered, frozen = output.build(VALUES)
    assert layer.weights == ordered["a"] == frozen.value[1] == [1]
    assert (ordered["b"], frozen.value[0]) == ("zero", "one")


def test_values_are_not_copied() -> None:
    value = [1]
    built = output_template([Ref(0), Frozen(Ref(0))]).build([value])
    assert built[0] is value
    assert built[1].value is value


def test_what_cannot_be_copied_is_passed_on() -> None:
    lock = threading.Lock()
    built = output_template([lock, threading, Ref(0)]).build(VALUES)
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
    assert repr(output_template(template).renumbered(slot_of).build(moved)) == wanted
