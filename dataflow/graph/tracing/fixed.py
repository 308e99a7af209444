"""What operators may not change: others would not see it, as they do in plain Python, or other runs would.

Containers of which an operator gets one of its own, though the body gives them to others as well:

    out = {"x": x}
    add(out, y)            gets a dict around the value of x
    return count(out)      and so does this: what add puts into its dict, nobody sees

    log = []
    add(log, y)            gets a list as it is now
    log.append(0)
    return count(log)      and so does this

Plain Python hands the same one to both. And objects of the user's own classes, of which there is only one:

    tally = Tally()        the body made it, which runs once: so all runs have the same
    add(tally, y)

Plain Python makes a new one in each call. So an operator that changes such a one fails with a remedy (see
`dataflow.graph.watched`); here is found where they are, when the trace ends. Of objects count attributes without an
underscore, and what is in those that are containers; not in those that somebody else has as well.

While the body runs, what it has put nodes into is kept alive: so no other object has its id.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from dataflow.graph.attributes import dict_of, own_attributes
from dataflow.graph.nodes import Declared, Fixed, Kind, Node, Path, Ref, Thing
from dataflow.graph.pytree import ATOMS, kind_of
from dataflow.graph.templates import Literal, kind_of_base, kind_of_literal

__all__ = ["Around", "paths", "with_own"]

_RETURNED: Final = -1
_DEEPEST: Final = 16
"""What is further inside is not looked at: the ways to it would take memory as the square of its depth."""
MOST_PLACES: Final = 100
"""Containers of one argument that are looked at, the outer ones first."""


def paths(place: int | str, value: Any, frozen: Any) -> Iterator[tuple[Path, Any]]:
    """The containers of an argument that can be changed and were frozen as new ones, for they hold nodes."""
    return islice(_paths(place, value, frozen), MOST_PLACES)


def _paths(place: int | str, value: Any, frozen: Any) -> Iterator[tuple[Path, Any]]:
    seen = set()
    waiting: deque[tuple[Path, Any, Any]] = deque([((place,), value, frozen)])
    while waiting:
        path, container, new = waiting.popleft()
        kind = kind_of(type(container))
        if kind is None or container is new or type(new) is Ref or id(container) in seen:  # the owner is a Ref
            continue
        seen.add(id(container))
        if kind.mutable:
            yield path, container
        pairs = zip(kind.items(container), kind.items(new), strict=True) if len(path) < _DEEPEST else ()
        waiting += [((*path, at), a, b) for at, (a, b) in enumerate(pairs) if a is not b and kind_of(type(a))]


class Around:
    """The containers around nodes of one trace."""

    __slots__ = ("_uses",)

    def __init__(self) -> None:
        self._uses: list[tuple[int, list[tuple[Path, Any]]]] = []

    def add(self, found: list[tuple[Path, Any]], number: int = _RETURNED) -> None:
        """The node of this number was given these, or the body has returned them."""
        if found:
            self._uses.append((number, found))

    def read_later(self, nodes: list[Node], first: int) -> dict[int, Fixed]:
        """For each operator that was given some which others read later: where, in its arguments."""
        last = {id(container): use for use, (_, found) in enumerate(self._uses) for _, container in found}
        later: dict[int, Fixed] = {}
        for use, (number, found) in enumerate(self._uses):
            where = tuple(path for path, container in found if last[id(container)] > use)
            if where and number != _RETURNED and _may_change(nodes[number - first]):
                later[number] = Fixed(where)
        return later


def _may_change(node: Node) -> bool:
    """Whether a node calls something of the user's."""
    if node.spec.kind is Kind.RECORDED:  # `flow.map` and its like have it in a tuple
        pairs = (argument for argument in node.args if isinstance(argument, tuple) and argument)
        return any(isinstance(pair[0], Declared) for pair in pairs)
    return node.spec.kind is not Kind.PLUMBING


def with_own(
    fixed: dict[int, Fixed], nodes: Sequence[Node], overtaken: Collection[Literal], things: Iterable[Literal]
) -> dict[int, Fixed]:
    """The same, and what else operators are given: constants that the body has changed later, and things it made."""
    own = {id(thing.value): Thing(thing.value, _names(thing.value)) for thing in things if thing.fresh}
    for node in nodes if own or overtaken else ():
        if _may_change(node):
            places: list[Path] = []
            found: dict[int, Thing] = {}
            for place, argument in node.given.items():
                places += islice(_overtaken(place, argument, overtaken), MOST_PLACES) if overtaken else ()
                found.update(_found(argument, own) if own else ())
            if places or found:
                before = fixed.get(node.number, Fixed())
                fixed[node.number] = Fixed((*before.places, *places), (*before.things, *found.values()))
    return fixed


def _overtaken(place: int | str, argument: Any, overtaken: Collection[Literal]) -> Iterator[Path]:
    seen = set()
    waiting: deque[tuple[Path, Any, Literal | None]] = deque([((place,), argument, None)])
    while waiting:
        path, part, literal = waiting.popleft()
        if type(part) is Literal:
            if part not in overtaken:
                continue
            literal, part = part, part.value
        kind = (
            None if type(part) is Ref else kind_of_literal(type(part)) if literal is not None else kind_of(type(part))
        )
        if kind is None or id(part) in seen:
            continue
        seen.add(id(part))
        if literal is not None and kind.mutable and literal.into(part):
            yield path
        if len(path) < _DEEPEST:
            items = enumerate(kind.items(part))
            waiting += [((*path, at), item, literal) for at, item in items if type(item) not in ATOMS]


def _found(argument: Any, own: Mapping[int, Thing]) -> Iterator[tuple[int, Thing]]:
    seen = set()
    waiting = [argument]
    while waiting:
        part = waiting.pop()
        part = part.value if type(part) is Literal else part
        if type(part) in ATOMS or id(part) in seen:
            continue
        seen.add(id(part))
        if id(part) in own:
            yield id(part), own[id(part)]
        elif type(part) is not Ref and (kind := kind_of_literal(type(part))) is not None:
            waiting += kind.items(part)


def _names(thing: Any) -> tuple[str, ...]:
    """The attributes of an object that count; and "" if its own items do, as those of a kind of dict."""
    held = dict_of(thing)
    names = [
        name
        for name, kind, count in _counted(thing)
        if type(name) is str
        and name[:1] != "_"
        and (kind_of_literal(kind) is None or count <= (_HELD_ONCE if name in held else _HELD_ONCE_IN_SLOT))
    ]
    return (*names, "") if kind_of_base(type(thing)) is not None else tuple(names)


def _counted(thing: Any) -> list[tuple[Any, Any, int]]:
    """The name of each attribute, the type of its value, and how often that is referred to."""
    return [(name, type(value), sys.getrefcount(value)) for name, value in own_attributes(thing)]


class _Lone:
    def __init__(self) -> None:
        self.items: list[Any] = []


class _LoneInSlot:
    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: list[Any] = []


_HELD_ONCE: Final = _counted(_Lone())[0][2]
_HELD_ONCE_IN_SLOT: Final = _counted(_LoneInSlot())[0][2]
