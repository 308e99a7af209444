"""The containers that a body gives to its nodes as constants, and whose they are.

    @flow.pipeline
    def p(x):
        buffer = []                   the body made it: every run has one of its own
        fill(x, buffer)
        return look_up(x, CACHE)      from outside: every run gets that very dict

Each is kept as it was when a node was recorded that reads it: a body that changes it between two nodes gives each what
it would see. When the trace has ended, a container to which nobody but the trace refers was made by the body. All that
is in one from outside is from outside as well. Nothing runs then, so the number of references is exact; it is
compared with that of a container made here, since interpreters differ in whether they count the one that asks.
"""

from __future__ import annotations

import copy
import operator
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Container, Iterable
from typing import Any, Final, cast

import numpy as np

from dataflow.graph.nodes import Node
from dataflow.graph.pytree import ATOMS, CHANGEABLE, ContainerKind, Visit, built, is_model, kind_of, leaves, walked
from dataflow.graph.templates import Literal, kind_of_literal, kind_of_result

__all__ = ["Literals", "is_literal"]


_LIST: Final = cast(ContainerKind, kind_of(list))
_THING: Final = ContainerKind(items=lambda value: (), whole=lambda like, items: like)


def _kind_of_changed(type_: type) -> ContainerKind | None:
    """Of an array, or of any other object: as a container that holds nothing."""
    return None if type_ in ATOMS else kind_of_result(type_) or _kind_of_array(type_) or _THING


def _kind_of_array(type_: type) -> ContainerKind | None:
    return kind_of_result(np.ndarray) if issubclass(type_, np.ndarray) else None


def _looked_into(container: Any) -> bool:
    type_: Any = type(container)
    return not is_model(type_)


def is_literal(value: Any) -> bool:
    """Whether this is a container that can be changed, or that holds one."""
    if kind_of_literal(type(value)) is None or not _looked_into(value):
        return False
    if type(value) in CHANGEABLE or kind_of(type(value)) is None:
        return True
    return any(_changeable(visit) for visit in _walk(value))


def _changeable(visit: Visit) -> bool:
    parameters = getattr(type(visit.like), "__dataclass_params__", None)
    return visit.kind.mutable and not (parameters is not None and parameters.frozen)


Walk = Callable[[Any], list[Visit]]


class _Kept:
    """One state of a container, and the constant that stands for it."""

    __slots__ = ("_walk", "copies", "literal", "visits", "where")

    def __init__(self, walk: Walk, visits: list[Visit], where: str) -> None:
        self._walk = walk
        self.literal = Literal()
        self.visits = visits
        self.copies = [copy.copy(visit.like) if _is_more(visit.like) else None for visit in visits]
        """Of those that are more than their items, which a visit has."""
        self.where = where

    def equals(self, visits: list[Visit]) -> bool:
        """Whether this is the container in this state, with all that is in it."""
        return len(visits) == len(self.visits) and all(map(_equal, self.visits, self.copies, visits))

    def joined(self, others: list[_Kept]) -> _Kept:
        """One for a tuple of this container and of others', which are parts of it from now on."""
        members = [self, *others]
        walk = _walk_result if any(member._walk is _walk_result for member in members) else self._walk
        whole = _Kept(walk, walk(tuple(member.visits[0].like for member in members)), self.where)
        for place, member in enumerate(members):
            member.literal.part = whole.literal, place
        return whole

    def settle(self, outside: Container[int]) -> None:
        """The body made it: the constant is new in every run, but for what is `outside`."""
        inner = [visit.like for visit in self.visits if id(visit.like) in outside]
        inner += _arrays(self.visits)
        new = [number for number, visit in enumerate(self.visits) if id(visit.like) not in outside]
        for number in new:
            if self.copies[number] is not None:
                self.visits[number].like = self.copies[number]
        self.literal.settle(built(self.visits, new), fresh=True, kept=inner)

    @property
    def holds(self) -> bool:
        """Whether it is still in this state."""
        return self.equals(self._walk(self.visits[0].like))


def _is_more(container: Any) -> bool:
    type_ = type(container)
    if kind_of(type_) is None:
        return kind_of_literal(type_) is not None
    return type_ in (dict, bytearray) or hasattr(type_, "__dataclass_fields__")


def _equal(old: Visit, more: Any, new: Visit) -> bool:
    if old.like is not new.like or len(old.items) != len(new.items):
        return False
    if new.kind is _THING:
        return True
    if isinstance(new.like, (array, bytearray)):
        return bytes(more) == bytes(new.like)
    if isinstance(new.like, dict):
        names = new.kind.names
        assert names is not None
        if not all(map(operator.is_, names(more), names(new.like))):
            return False
    return all(map(operator.is_, old.items, new.items))


class Literals:
    """Those of one trace."""

    __slots__ = ("_kept", "overtaken")

    def __init__(self) -> None:
        self.overtaken: set[Literal] = set()
        """Those that the body made, and changed after a node was recorded that reads them; once all are settled."""
        self._kept: dict[int, list[_Kept]] = {}
        """By the id of the container, which the visits keep alive: one for each state that a node has seen."""

    def add(self, value: Any, where: Callable[[], str], *, returned: bool = False) -> Literal:
        """The constant that stands for a container as it is now; if the body `returned` it, arrays count as such."""
        return self._add(value, _walk_result if returned else _walk, where)

    def _add(self, value: Any, walk: Walk, where: Callable[[], str]) -> Literal:
        visits = walk(value)
        known = self._kept.setdefault(id(value), [])
        for kept in known:
            if kept.equals(visits):
                return kept.literal
        known.append(_Kept(walk, visits, where()))
        return known[-1].literal

    def add_changed(self, value: Any, where: str) -> Literal:
        """The constant that stands for something that an operator changes, whatever it is."""
        return self._add(value, _walk_changed, lambda: where)

    def settle(self, nodes: Iterable[Node], output: list[Any]) -> str:
        """Decide whose each is, when only this, these nodes and the output (a list of it) may hold what the body made.

        Returns the line that recorded a reader of a container from outside that the body has changed since then, and
        else nothing.
        """
        everything = [kept for states in self._kept.values() for kept in states]
        self._kept = {}
        if not everything:
            return ""
        outside = _outside(everything, nodes, output)
        changed = ""
        made: list[_Kept] = []
        for kept in everything:
            first = kept.visits[0].like
            if id(first) in outside:
                kept.literal.settle(first, fresh=False)
                changed = changed or ("" if kept.holds else kept.where)
            else:
                made.append(kept)
                if not kept.holds:
                    self.overtaken.add(kept.literal)
        for kept in [*made, *_joined(made, outside)]:
            kept.settle(outside)
        return changed


def _joined(made: list[_Kept], outside: Container[int]) -> list[_Kept]:
    """For those that have containers in common which are new in every run: what stands for all of these together."""
    root = list(range(len(made)))  # a union-find

    def find(number: int) -> int:
        while root[number] != number:
            root[number] = number = root[root[number]]
        return number

    having: dict[int, int] = {}
    for number, kept in enumerate(made):
        for visit in kept.visits:
            if visit.kind.mutable and id(visit.like) not in outside:
                root[find(number)] = find(having.setdefault(id(visit.like), number))
    groups: dict[int, list[_Kept]] = {}
    for number, kept in enumerate(made):
        groups.setdefault(find(number), []).append(kept)
    alike = ([kept for kept in group if kept.holds] for group in groups.values() if len(group) > 1)
    return [group[0].joined(group[1:]) for group in alike if len(group) > 1]


def _arrays(visits: list[Visit]) -> list[Any]:
    """Those that count as no containers here: they are protected, and so need not be new."""
    visited = {id(visit.like) for visit in visits}
    items = (item for visit in visits for item in visit.items)
    return [item for item in items if type(item) is np.ndarray and id(item) not in visited]


def _walk(container: Any) -> list[Visit]:
    return walked(container, _looked_into, kinds=kind_of_literal)


def _walk_result(container: Any) -> list[Visit]:
    return walked(container, _looked_into, kinds=kind_of_result)


def _walk_changed(value: Any) -> list[Visit]:
    return walked(value, kinds=_kind_of_changed)


def _arguments(nodes: Iterable[Node], output: list[Any], known: Container[int]) -> list[int]:
    """The ids of all that nodes are given, or that is returned, but for what is in containers that are `known`; a
    function of its own, whose variables are gone when others count."""
    values = [value for node in nodes for value in (*node.args, *node.kwargs.values())] + output
    containers = [value for value in values if kind_of(type(value)) is not None and id(value) not in known]
    given = [leaf for value in values for leaf in leaves(value, lambda container: id(container) not in known)]
    bases = {id(leaf): id(leaf.base) for leaf in given if isinstance(leaf, np.ndarray)}
    return [*map(id, containers), *map(id, given), *bases.values()]


def _held(visit: Visit, things: set[int]) -> list[int]:
    """The ids of the containers, and of these things, that a container holds."""
    if not things:
        return [id(visit.items[place]) for place, _ in visit.inner]
    inner = {place for place, _ in visit.inner}
    return [id(item) for place, item in enumerate(visit.items) if place in inner or id(item) in things]


def _outside(everything: list[_Kept], nodes: Iterable[Node], output: list[Any]) -> set[int]:
    """The containers to which others refer than this trace and each other, and all that they hold; by id."""
    ours: Counter[int] = Counter()
    now: dict[int, Visit] = {}
    """What the containers hold at the end, by id."""
    things = {id(kept.visits[0].like) for kept in everything if kept.visits[0].kind is _THING}
    for kept in everything:
        for visit, more in zip(kept.visits, kept.copies, strict=True):
            ours[id(visit.like)] += 1
            held = 1 if more is None else 2
            for key in _held(visit, things):
                ours[key] += held
            if id(visit.like) not in now:
                plain = kind_of_result(type(visit.like)) is not None
                found = _walk_result(visit.like) if plain else _walk_changed(visit.like)
                now.update((id(each.like), each) for each in found if id(each.like) not in now)
                del found
    for visit in now.values():
        ours[id(visit.like)] += 1
        for key in _held(visit, things):
            ours[key] += 2  # in the visit's items, and its own
    if any(kind_of(type(visit.like)) is None for visit in now.values()):  # of containers, nodes hold literals
        ours.update(_arguments(nodes, output, now))
    alone = Visit([], _LIST)
    once = sys.getrefcount(alone.like) - 1
    outside = {key for key, each in now.items() if sys.getrefcount(each.like) - once > ours[key]}
    waiting = list(outside)
    while waiting:
        inner = set(_held(now[waiting.pop()], things)) - outside
        outside |= inner
        waiting += inner
    return outside
