"""Templates: what a node is given, and what a body returned, with a Ref wherever a value of the run belongs.

    [Ref(3), {"a": Ref(5)}, 1]   ──builder──▶   a function of the run's values that gives [v[3], {"a": v[5]}, 1]

Containers without a Ref are constants of the graph. Those that can be changed are kept as a `Literal`, which knows
whose they are: one that the body made is made anew in every run, and is the same for all readers of a run; one from
outside is that very object. `dataflow.graph.tracing.literals` decides it when the trace ends.
"""

from __future__ import annotations

import copy
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

import numpy as np

from dataflow.graph.nodes import Graph, Node, Ref
from dataflow.graph.pytree import (
    ATOMS,
    CHANGEABLE,
    ContainerKind,
    Visit,
    arranged,
    kind_of,
    leaves,
    map_leaves,
    types_of,
    walked,
)

__all__ = [
    "Builder",
    "Literal",
    "Numbering",
    "Renewed",
    "Template",
    "builder",
    "fill",
    "kind_of_base",
    "kind_of_literal",
    "kind_of_result",
    "output_template",
    "rearranged",
    "renumber",
    "renumbered",
]

Known = Mapping[int, Any] | Sequence[Any]
Numbering = Mapping[int, int] | Sequence[int]
"""For each of a graph's numbers that occur, the slot."""
Builder = Callable[[Sequence[Any]], Any]
"""Gives, from a run's values, what a template stands for."""


_ARRAY: Final = ContainerKind(
    items=lambda value: (),
    shell=lambda like: like.copy(order="K"),
    put=lambda shell, like, items: None,
)


def _keys(value: Any) -> list[Any]:
    """In the order that it has; that of an OrderedDict is one of its own."""
    return list(OrderedDict.keys(value) if isinstance(value, OrderedDict) else dict.keys(value))


_DICT: Final = ContainerKind(
    items=lambda value: [dict.__getitem__(value, key) for key in _keys(value)],
    shell=copy.copy,
    put=lambda shell, like, items: [dict.__setitem__(shell, *each) for each in zip(_keys(shell), items, strict=True)],
    names=_keys,
)
_LIST: Final = ContainerKind(
    items=lambda value: list.__getitem__(value, slice(None)),
    shell=copy.copy,
    put=lambda shell, like, items: list.__setitem__(shell, slice(None), items),
)
_DEQUE: Final = ContainerKind(
    items=lambda value: list(deque.__iter__(value)),
    shell=copy.copy,
    put=lambda shell, like, items: (deque.clear(shell), deque.extend(shell, items)),
)
_SET: Final = ContainerKind(
    items=lambda value: list(set.__iter__(value)), shell=copy.copy, put=lambda shell, like, items: None
)
_NUMBERS: Final = ContainerKind(items=lambda value: (), shell=copy.copy, put=lambda shell, like, items: None)
_KINDS: Final = {
    OrderedDict: _DICT,
    Counter: _DICT,
    defaultdict: _DICT,
    dict: _DICT,
    list: _LIST,
    set: _SET,
    deque: _DEQUE,
    array: _NUMBERS,
}
_MINDED: Final = frozenset(
    {"__new__", "__init__", "__copy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"}
    | {"__setattr__", "__getattribute__", "__setitem__", "__iter__", "append", "extend", "add", "update"}
)
"""What copying calls: who has these of his own may do anything there."""


def kind_of_literal(type_: type) -> ContainerKind | None:
    """As `kind_of`, and of kinds of list, dict, set and deque, and of array.array, which the body may have made, too.

    Not of a kind with a mind of its own on how it is made: nobody else knows how to copy that.
    """
    return kind_of(type_) or _kind_of_kind(type_)


@lru_cache(maxsize=1024)
def _kind_of_kind(type_: Any) -> ContainerKind | None:
    for cls in type_.__mro__:
        if cls in _KINDS:
            return _KINDS[cls]
        if not _MINDED.isdisjoint(vars(cls)):
            return None
    return None


def kind_of_base(type_: Any) -> ContainerKind | None:
    """As `kind_of_literal`, and of one with a mind of its own, too: by this is seen what is in it, not made another."""
    return kind_of_literal(type_) or next((_KINDS[cls] for cls in type_.__mro__ if cls in _KINDS), None)


def kind_of_result(type_: type) -> ContainerKind | None:
    """As `kind_of_literal`, for what a body returned: an array that it made is new in every run, too."""
    return _ARRAY if type_ is np.ndarray else kind_of_literal(type_)


class Literal:
    """A constant that can be changed: a container, a bytearray or, among what a body returned, an array."""

    __slots__ = ("fresh", "kept", "part", "value")

    def __init__(self, value: Any = None, *, fresh: bool = False, kept: Iterable[Any] = ()) -> None:
        self.settle(value, fresh=fresh, kept=kept)
        self.part: tuple[Literal, int] | None = None
        """If others have containers in common with it: what stands for a tuple of all of these, and its place there."""

    def settle(self, value: Any, *, fresh: bool, kept: Iterable[Any] = ()) -> None:
        """Say what it stands for; a trace does so when it ends."""
        self.value = value
        """The object itself or, if it is to be made anew, as the body had it when the node was recorded."""
        self.fresh = fresh
        """Whether every run has its own."""
        self.kept = {id(container): container for container in kept}
        """The containers in it, by id, that are from outside and stay those very objects."""

    def into(self, container: Any) -> bool:
        """Whether a container in it is made anew."""
        return id(container) not in self.kept

    def mapped(self, function: Callable[[Any], Any]) -> Literal:
        """The same around other leaves; itself if they are the same."""
        value = map_leaves(function, self.value)
        return self if value is self.value else Literal(value, fresh=True, kept=self.kept.values())

    def make(self) -> Any:
        """What one run has of it."""
        return self.builder()(()) if self.fresh else self.value

    def builder(self) -> Builder:
        """What makes it anew."""
        return builder(self.value, into=self.into, kinds=kind_of_result)

    def __repr__(self) -> str:
        return repr(self.value)


class Renewed:
    """For a copy of a graph: its own literals in place of those that are new in every run."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[Literal, Literal] = {}

    def __call__(self, leaf: Any) -> Any:
        """The literal in place of this one; all else itself."""
        if type(leaf) is not Literal or not leaf.fresh:
            return leaf
        if leaf not in self._made:
            new = self._made[leaf] = Literal(leaf.value, fresh=True, kept=leaf.kept.values())
            if leaf.part is not None:
                new.part = self(leaf.part[0]), leaf.part[1]
        return self._made[leaf]


def renumber(template: Any, slot_of: Numbering) -> Any:
    """The template with slots instead of the graph's numbers."""
    return map_leaves(lambda leaf: Ref(slot_of[leaf]) if type(leaf) is Ref else leaf, template)


def renumbered(node: Node, place: Numbering) -> Node:
    """The node with other numbers."""
    return node._replace(
        number=place[node.number],
        args=tuple(renumber(argument, place) for argument in node.args),
        kwargs={name: renumber(argument, place) for name, argument in node.kwargs.items()},
        reads=tuple(place[number] for number in node.reads),
    )


def rearranged(graph: Graph, nodes: Iterable[Node], place: Mapping[int, int], output: Any) -> Graph:
    """These nodes of a graph as one, in this order; `place` has their new numbers, and those of the inputs."""

    def edges(known: Mapping[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
        return {place[n]: tuple(place[m] for m in known[n] if m in place) for n in known if n in place}

    return replace(
        graph,
        nodes=tuple(renumbered(node, place) for node in nodes),
        output=output,
        after=edges(graph.after),
        waits=edges(graph.waits),
        labels={place[n]: label for n, label in graph.labels.items() if n in place},
        scopes={place[n]: scope for n, scope in graph.scopes.items() if n in place},
        names={name: place[n] for name, n in graph.names.items() if n in place},
        fixed={place[n]: paths for n, paths in graph.fixed.items() if n in place},
    )


def fill(template: Any, known: Known, literals: Callable[[Literal], Any] = Literal.make) -> Any:
    """The template with every Ref replaced by what is known for it, and every Literal by what `literals` gives for it:
    by default, one of its own.

    Containers are new.
    """

    def value_of(leaf: Any) -> Any:
        if type(leaf) is Ref:
            return known[leaf]
        return literals(leaf) if type(leaf) is Literal else leaf

    return map_leaves(value_of, template, always=True)


# ------------------------------------------------------------------------------------------------ the way back


def builder(
    template: Any,
    slot: Callable[[Any], int | None] = lambda leaf: None,
    *,
    constant: Callable[[Any], Any] = lambda leaf: leaf,
    into: Callable[[Any], bool] | None = None,
    kinds: Callable[[type], ContainerKind | None] = kind_of,
) -> Builder:
    """What makes the value of a template from the values of a run; every container in it is new each time.

    `slot` says where a leaf finds its value, or None: then it is the same in all runs, namely what `constant` makes of
    it, which is asked once. Containers that `into` refuses are leaves.
    """
    kind = kinds(type(template))
    if kind is None or (into is not None and not into(template)):
        return _leaf(template, slot, constant)
    items = kind.items(template)
    if type(template) in CHANGEABLE and types_of(items) <= ATOMS:
        return lambda v, copy=template.copy: copy()  # type: ignore[misc]  # mypy infers no defaults
    if type(template) in _FLAT and not any(kinds(type(item)) for item in items):
        places = [None if type(item) in ATOMS else slot(item) for item in items]
        if None not in places:
            return _FLAT[type(template)](template, places)
    return _nested(walked(template, into, kinds=kinds), slot, constant)


def _leaf(leaf: Any, slot: Callable[[Any], int | None], constant: Callable[[Any], Any]) -> Builder:
    place = slot(leaf)
    if place is not None:
        return itemgetter(place)
    same = constant(leaf)
    return lambda v: same


def _flat_list(_: Any, places: list[Any]) -> Builder:
    return lambda v: [v[place] for place in places]


def _flat_tuple(_: Any, places: list[Any]) -> Builder:
    if len(places) < 2:  # of one, itemgetter gives no tuple
        return lambda v: tuple([v[place] for place in places])
    return itemgetter(*places)


def _flat_dict(template: dict[Any, Any], places: list[Any]) -> Builder:
    named = list(zip(template, places, strict=True))
    return lambda v: {name: v[place] for name, place in named}


_FLAT: Final[dict[type, Callable[[Any, list[Any]], Builder]]] = {
    list: _flat_list,
    tuple: _flat_tuple,
    dict: _flat_dict,
}

_VALUES, _MADE, _CONSTANTS = range(3)
"""Where an item of a container comes from."""


def _nested(visits: list[Visit], slot: Callable[[Any], int | None], constant: Callable[[Any], Any]) -> Builder:
    """First the shells of what can be filled later, then the tuples, inner ones first, then what goes into the shells.

    So it needs no recursion, and a container may be a part of itself.
    """
    constants: list[Any] = []

    def source(item: Any) -> tuple[int, int]:
        known = None if type(item) in ATOMS else slot(item)
        if known is not None:
            return _VALUES, known
        constants.append(item if type(item) in ATOMS else constant(item))
        return _CONSTANTS, len(constants) - 1

    steps = []
    for number in arranged(visits, range(len(visits))):
        visit = visits[number]
        inner = dict(visit.inner)
        items = [(_MADE, inner[place]) if place in inner else source(item) for place, item in enumerate(visit.items)]
        steps.append((number, visit.kind.make if visit.kind.shell is None else None, visit.kind.put, visit.like, items))
    shells = [(visit.kind.shell, visit.like) for visit in visits]

    def build(values: Sequence[Any]) -> Any:
        made = [None if shell is None else shell(like) for shell, like in shells]
        lists = values, made, constants
        for place, make, put, like, items in steps:
            found = [lists[which][at] for which, at in items]
            if make is not None:
                made[place] = make(like, found)
            elif put is not None:
                put(made[place], like, found)
        return made[0]

    return build


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """What a body returned."""

    refs: tuple[int, ...]
    build: Builder
    """The result of a run. A returned constant is that very object."""


def output_template(output: Any, slot_of: Numbering, constant_slot: Callable[[Any], int]) -> Template:
    """What a body returned, over slots instead of the graph's numbers."""

    def slot(leaf: Any) -> int | None:
        if type(leaf) is Ref:
            return slot_of[leaf]
        return constant_slot(leaf) if type(leaf) is Literal and leaf.fresh else None

    refs = dict.fromkeys(slot_of[leaf] for leaf in leaves(output) if type(leaf) is Ref)
    return Template(tuple(refs), builder(output, slot, constant=_itself))


def _itself(leaf: Any) -> Any:
    return leaf.value if type(leaf) is Literal else leaf
