"""The containers of which operators get one of their own, though the body gives them to others as well.

    out = {"x": x}
    add(out, y)            gets a dict around the value of x
    return count(out)      and so does this: what add puts into its dict, nobody sees

    log = []
    add(log, y)            gets a list as it is now
    log.append(0)
    return count(log)      and so does this

Plain Python hands the same one to both. So an operator that changes such a one fails with a remedy (see
`dataflow.graph.watched`); here is found where they are, when the trace ends.

While the body runs, what it has put nodes into is kept alive: so no other object has its id.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Sequence
from typing import Any, Final

from dataflow.graph.nodes import Kind, Node, Path
from dataflow.graph.pytree import kind_of
from dataflow.graph.templates import Literal, kind_of_literal

__all__ = ["Around", "add_overtaken", "paths"]

_CALLED: Final = (Kind.KERNEL, Kind.ASYNC)
"""The kinds of nodes that may change what they are given."""
_RETURNED: Final = -1


def paths(place: int | str, value: Any, frozen: Any) -> Iterator[tuple[Path, Any]]:
    """The containers of an argument that can be changed and were frozen as new ones, for they hold nodes."""
    seen = set()
    waiting: list[tuple[Path, Any, Any]] = [((place,), value, frozen)]
    while waiting:
        path, container, new = waiting.pop()
        kind = kind_of(type(container))
        if kind is None or container is new or id(container) in seen:
            continue
        seen.add(id(container))
        if kind.mutable:
            yield path, container
        pairs = zip(kind.items(container), kind.items(new), strict=True)
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


def add_overtaken(later: dict[int, tuple[Path, ...]], nodes: Sequence[Node], overtaken: Collection[Literal]) -> None:
    """Add where operators are given constants that the body has changed after that."""
    for node in nodes if overtaken else ():
        if node.spec.kind in _CALLED:
            found = [path for place, value in node.given.items() for path in _overtaken(place, value, overtaken)]
            if found:
                later[node.number] = (*later.get(node.number, ()), *found)


def _overtaken(place: int | str, argument: Any, overtaken: Container[Literal]) -> Iterator[Path]:
    seen = set()
    waiting: list[tuple[Path, Any, bool]] = [((place,), argument, False)]
    while waiting:
        path, part, inside = waiting.pop()
        if type(part) is Literal:
            if part not in overtaken:
                continue
            part, inside = part.value, True
        kind = kind_of_literal(type(part)) if inside else kind_of(type(part))
        if kind is None or id(part) in seen:
            continue
        seen.add(id(part))
        if inside and kind.mutable:
            yield path
        waiting += [((*path, at), item, inside) for at, item in enumerate(kind.items(part))]
