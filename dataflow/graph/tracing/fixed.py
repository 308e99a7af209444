"""What operators may not change: others would not see it, as they do in plain Python, or other runs would.

Containers of which an operator gets one of its own, though the body gives them to others as well:

    out = {"x": x}
    add(out, y)            gets a dict around the value of x
    return count(out)      and so does this: what add puts into its dict, nobody sees

    log = []
    add(log, y)            gets a list as it is now
    log.append(0)
    return count(log)      and so does this

Plain Python hands the same one to both. And objects of the user's own of which there is only one:

    tally = Tally()        the body made it, which runs once: so all runs have the same
    add(tally, y)

Plain Python makes a new one in each call. So an operator that changes such a one fails with a remedy (see
`dataflow.graph.watched`); here is found where they are, when the trace ends.

While the body runs, what it has put nodes into is kept alive: so no other object has its id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from dataflow.graph.nodes import Kind, Node, Path, Ref
from dataflow.graph.pytree import ATOMS, kind_of
from dataflow.graph.templates import Literal, kind_of_literal

__all__ = ["Around", "add_own", "paths"]

_CALLED: Final = (Kind.KERNEL, Kind.ASYNC)
"""The kinds of nodes that may change what they are given."""
_RETURNED: Final = -1
_DEEPEST: Final = 16
"""What is further inside is not looked at: the ways to it would take memory as the square of its depth."""


def paths(place: int | str, value: Any, frozen: Any) -> Iterator[tuple[Path, Any]]:
    """The containers of an argument that can be changed and were frozen as new ones, for they hold nodes."""
    seen = set()
    waiting: list[tuple[Path, Any, Any]] = [((place,), value, frozen)]
    while waiting:
        path, container, new = waiting.pop()
        kind = kind_of(type(container))
        if kind is None or container is new or type(new) is Ref or id(container) in seen:  # the owner is a Ref
            continue
        seen.add(id(container))
        if kind.mutable:
            yield path, container
        pairs = zip(kind.items(container), kind.items(new), strict=True) if len(path) < _DEEPEST else ()
        waiting += [((*path, at), a, b) for at, (a, b) in enumerate(pairs) if a is not b and kind_of(type(a))]


class Around:
    """Those of one trace."""

    __slots__ = ("_uses",)

    def __init__(self) -> None:
        self._uses: list[tuple[int, list[tuple[Path, Any]]]] = []

    def add(self, found: list[tuple[Path, Any]], number: int = _RETURNED) -> None:
        """The node of this number was given these, or the body has returned them."""
        if found:
            self._uses.append((number, found))

    def read_later(self, nodes: list[Node], first: int) -> dict[int, tuple[Path, ...]]:
        """For each operator that was given some which others read later: where, in its arguments."""
        last = {id(container): use for use, (_, found) in enumerate(self._uses) for _, container in found}
        later: dict[int, tuple[Path, ...]] = {}
        for use, (number, found) in enumerate(self._uses):
            if number == _RETURNED or nodes[number - first].spec.kind not in _CALLED:
                continue
            where = tuple(path for path, container in found if last[id(container)] > use)
            if where:
                later[number] = where
        return later


def add_own(fixed: dict[int, tuple[Path, ...]], nodes: Sequence[Node], own: Collection[Literal]) -> None:
    """Add where operators are given constants for which these stand."""
    things = {id(literal.value): literal for literal in own}
    for node in nodes if own else ():
        if node.spec.kind in _CALLED:
            found = [path for place, value in node.given.items() for path in _own(place, value, own, things)]
            if found:
                fixed[node.number] = (*fixed.get(node.number, ()), *found)


def _own(place: int | str, argument: Any, own: Collection[Literal], things: Mapping[int, Literal]) -> Iterator[Path]:
    seen = set()
    waiting: list[tuple[Path, Any, bool]] = [((place,), argument, False)]
    while waiting:
        path, part, inside = waiting.pop()
        if type(part) is Literal:
            part, inside = part.value, inside or part in own
        if type(part) in ATOMS or type(part) is Ref or id(part) in seen:
            continue
        seen.add(id(part))
        kind = kind_of_literal(type(part))
        if kind is None:
            if id(part) in things:
                yield path
            continue
        if inside and kind.mutable:
            yield path
        if len(path) < _DEEPEST:
            items = enumerate(kind.items(part))
            waiting += [((*path, at), item, inside) for at, item in items if type(item) not in ATOMS]
