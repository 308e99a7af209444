"""The order of what changes things: operators with `inout=`, against all that reads the same value.

    1: total(x)      2: fill(x, y)      3: total(x)      4: fill(x, z)         fill changes x

    after    2 ◀── 3,  2 ◀── 4           what was changed is read, or changed again, afterwards
    waits    1 ◀── 2,  3 ◀── 4           what is about to be changed was read before

Both are edges of the plan. They differ in what a part of the graph needs: 3 needs 2 to have the right value, and 2 runs
as well without 1.

A *cell* is what one operator may change, by all the names that it has: an input, a constant or the result of a node,
with its attributes and items (plumbing), what numpy and methods make of it (a view, perhaps), and what the operators
that change it return. Whatever reads a cell may have a part of it as its result, so what reads that reads the cell as
well. That two inputs, or an input and a constant, are one object, only a call can tell: see `alike`.

Everything is linear in the size of the graph: a node has at most one edge of each kind for each cell, and a node of
very many cells makes one of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace as changed
from typing import Any, NamedTuple

import numpy as np

from dataflow.graph.nodes import Graph, Kind, Node, OpSpec, Ref
from dataflow.graph.pytree import ATOMS, kind_of, larger_than, leaves, walked
from dataflow.graph.templates import Literal, rearranged, renumber

__all__ = [
    "Live",
    "alike",
    "at_their_places",
    "changed_by",
    "constants_of",
    "in_order",
    "keys_of",
    "live",
]

MOST_CELLS = 32
"""Cells of one node: if it has more, they become one."""
MOST_PARTS = 2000
"""Parts of an input that are looked at."""

Key = Hashable
"""What stands for a value: its number, or (for a constant) the id of the object that is on its memory."""


def changed_by(node: Node) -> list[Any]:
    """The arguments that a node changes."""
    given = node.given if node.spec.inout else {}
    return [given[place] for place in node.spec.inout if place in given]


def keys_of(value: Any) -> Iterator[int]:
    """The ids of the objects that a constant, or an input, consists of; of an array, of what has its memory."""
    if type(value) is Literal:
        value = value.value
    if kind_of(type(value)) is not None:
        yield from (id(visit.like) for visit in walked(value) if visit.kind.mutable)
    for leaf in leaves(value):
        if type(leaf) is Literal:
            yield from keys_of(leaf)
        elif type(leaf) is not Ref:
            yield id(_owner(leaf))


def _owner(leaf: Any) -> Any:
    """What has the memory of an array; anything else itself."""
    while isinstance(leaf, np.ndarray) and leaf.base is not None:
        leaf = leaf.base
    return leaf.obj if isinstance(leaf, memoryview) else leaf


class _Cells:
    """Which values are in one cell: a union-find."""

    def __init__(self) -> None:
        self._parent: dict[Key, Key] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._parent

    def __iter__(self) -> Iterator[Key]:
        return iter(list(self._parent))

    def find(self, key: Key) -> Key:
        """What stands for the cell of a value; a cell of its own if it had none."""
        parent = self._parent
        parent.setdefault(key, key)
        root = key
        while parent[root] != root:
            root = parent[root]
        while parent[key] != root:
            parent[key], key = root, parent[key]
        return root

    def join(self, key: Key, other: Key) -> None:
        """These are in one."""
        self._parent[self.find(key)] = self.find(other)


class _Order:
    """Finds the cells of a graph, and the edges between those that read and change them."""

    def __init__(self, graph: Graph, same: Iterable[Sequence[Key]]) -> None:
        self._graph = graph
        self._first = len(graph.inputs)
        self._cells = _Cells()
        self._constants: dict[int, tuple[Key, ...]] = {}
        """For each node, what stands for its constants."""
        for group in same:
            for key in group[1:]:
                self._cells.join(group[0], key)
        self._find_cells()
        self.of: list[frozenset[Key]] = []
        """For each number, the cells that its value may be a part of."""
        self._spread()

    def _keys(self, node: Node) -> tuple[Key, ...]:
        """What stands for the constants of a node."""
        known = self._constants.get(node.number)
        if known is None:
            arguments = (*node.args, *node.kwargs.values())
            known = self._constants[node.number] = tuple(
                ("constant", key) for argument in arguments if type(argument) is not Ref for key in keys_of(argument)
            )
        return known

    def _changed(self, node: Node) -> list[Key]:
        """What stands for what a node changes."""
        found: list[Key] = []
        for argument in changed_by(node):
            if type(argument) is Ref:
                found.append(int(argument))
            else:
                found += [("constant", key) for key in keys_of(argument)]
                found += [int(leaf) for leaf in leaves(argument) if type(leaf) is Ref]
        return found

    def _find_cells(self) -> None:
        """From each value that is changed to those of which it may be a part."""
        seen: set[Key] = set()
        for node in self._graph.nodes:
            waiting = self._changed(node)
            while waiting:
                key = waiting.pop()
                self._cells.find(key)
                if key in seen:
                    continue
                seen.add(key)
                for origin in self._origins(key):
                    self._cells.join(key, origin)
                    waiting.append(origin)

    def _origins(self, key: Key) -> Sequence[Key]:
        """What a value may be a part of: plumbing is one of what it reads, and so may be what numpy and methods give.

        An operator's result is taken for new, unless it is what the operator changes: a view of something protected
        could not be written to.
        """
        if not isinstance(key, int) or key < self._first:
            return ()
        node = self._graph.nodes[key - self._first]
        if node.spec.kind in (Kind.PLUMBING, Kind.RECORDED):
            return (*node.reads, *self._keys(node))
        return self._changed(node)

    def _spread(self) -> None:
        """From each cell to all that may be a part of it."""
        cells, none = self._cells, frozenset[Key]()
        self.of = [frozenset({cells.find(number)}) if number in cells else none for number in range(self._first)]
        for node in self._graph.nodes:
            found = self._touched(node)
            if node.number in cells:
                found |= {cells.find(node.number)}
            if len(found) > MOST_CELLS:
                one = next(iter(found))
                for key in found:
                    cells.join(one, key)
                found = frozenset({cells.find(one)})
            self.of.append(found)

    def _touched(self, node: Node) -> frozenset[Key]:
        """The cells that a node reads."""
        cells = self._cells
        constants = [cells.find(key) for key in self._keys(node) if key in cells]
        return frozenset(constants).union(*{self.of[number] for number in node.reads})

    def _targets(self) -> set[Key]:
        """The cells that are changed."""
        return {self._cells.find(key) for node in self._graph.nodes for key in self._changed(node)}

    def edges(self) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        """What `after` and `waits` of the graph lack."""
        find, after, waits, targets = self._cells.find, dict[int, list[int]](), dict[int, list[int]](), self._targets()
        last: dict[Key, int] = {}
        """For each cell, the node that changed it last."""
        readers: dict[Key, dict[int, None]] = {cell: {} for cell in targets}
        """For each cell, the nodes that have read it since, without those that others of them wait for."""
        for node in self._graph.nodes:
            written = {find(key) for key in self._changed(node)}
            touched = ({find(key) for key in self._touched(node)} | written) & targets
            for cell in touched:
                before = last.get(cell)
                if before is not None and not self._comes_after(node, before, cell):
                    after.setdefault(node.number, []).append(before)
                open_readers = readers[cell]
                for number in node.reads:
                    open_readers.pop(number, None)
                if cell not in written:
                    open_readers[node.number] = None
                    continue
                if open_readers:
                    waits.setdefault(node.number, []).extend(open_readers)
                last[cell], readers[cell] = node.number, {}
        return after, waits

    def _comes_after(self, node: Node, before: int, cell: Key) -> bool:
        """Whether a node comes after another anyway: it reads its result, or something that comes after it."""
        if before in self._graph.after.get(node.number, ()):
            return True
        find = self._cells.find
        return any(number >= before and any(find(key) == cell for key in self.of[number]) for number in node.reads)

    def live(self) -> Live:
        """See `live`."""
        find, targets = self._cells.find, self._targets()
        parts = [number for number, cells in enumerate(self.of) if any(find(key) in targets for key in cells)]
        names = [key for key in self._cells if find(key) in targets]
        paths = self._paths()
        wanted = {paths[key] for key in names if isinstance(key, int) and key in paths}
        return Live(
            frozenset(parts),
            frozenset(number for number, path in paths.items() if path in wanted),
            frozenset(key[1] for key in names if isinstance(key, tuple)),
        )

    def _paths(self) -> dict[int, int]:
        """For each input and for plumbing, what is the same where it is the same attribute or item: of two `x["a"]`."""
        paths = {number: number for number in range(self._first)}
        known: dict[tuple[int, OpSpec, str], int] = {}
        for node in self._graph.nodes:
            if node.spec.kind is Kind.PLUMBING and node.reads:
                source = paths.setdefault(node.reads[0], node.reads[0])
                paths[node.number] = known.setdefault((source, node.spec, repr(node.args[1:])), node.number)
        return paths


def constants_of(graph: Graph) -> frozenset[int]:
    """What stands for the constants of a graph."""
    return frozenset(
        key
        for node in graph.nodes
        for argument in (*node.args, *node.kwargs.values())
        if type(argument) is not Ref
        for key in keys_of(argument)
    )


def alike(inputs: Sequence[Any], constants: frozenset[int], changed: frozenset[Key]) -> tuple[tuple[Key, ...], ...]:
    """The groups of inputs and constants that are one object, or on one memory, and of which one is `changed`.

    For `in_order`. Inputs go by their number. One that has very many parts is taken to be one with all others: to look
    through it would hold the loop.
    """
    given = {number: value for number, value in enumerate(inputs) if type(value) not in ATOMS}
    if len(given) > 1 and any(larger_than(value, MOST_PARTS) for value in given.values()):
        return () if changed.isdisjoint(given) else (tuple(given),)
    found: dict[int, list[Key]] = {}
    for number, value in given.items():
        for key in set(keys_of(value)):
            found.setdefault(key, []).append(number)
    groups = {
        (*numbers, ("constant", key)) if key in constants else tuple(numbers)
        for key, numbers in found.items()
        if (len(numbers) > 1 or key in constants) and not changed.isdisjoint(numbers)
    }
    return tuple(sorted(groups, key=str))


class Live(NamedTuple):
    """What of a graph is changed while it runs."""

    parts: frozenset[int]
    """The numbers of values that may be a part of it."""
    names: frozenset[int]
    """Of those that are it, as the caller has it."""
    constants: frozenset[int]
    """The ids of constants."""


def live(graph: Graph, same: Iterable[Sequence[Key]] = ()) -> Live:
    """What operators change while a graph runs; `same` as for `in_order`."""
    return _Order(graph, same).live()


def in_order(graph: Graph, same: Iterable[Sequence[Key]] = ()) -> Graph:
    """The graph with the edges that keep what changes things in order; `same` are groups of what is in one cell."""
    after, waits = _Order(graph, same).edges()
    return changed(graph, after=_merged(graph.after, after), waits=_merged(graph.waits, waits))


def _merged(known: Mapping[int, tuple[int, ...]], more: Mapping[int, list[int]]) -> dict[int, tuple[int, ...]]:
    merged = dict(known)
    for number, others in more.items():
        merged[number] = tuple(dict.fromkeys((*known.get(number, ()), *others)))
    return merged


def at_their_places(graph: Graph, made_at: Mapping[int, int]) -> Graph:
    """The graph with plumbing where the body asked for it, not where it was read first.

    `made_at` says of plumbing how many nodes there were before it. What the body asked for before something was changed
    is what it was before.
    """
    first, nodes = len(graph.inputs), graph.nodes
    changing = [place for place, node in enumerate(nodes) if node.spec.inout]
    if all(bisect_left(changing, place) == bisect_left(changing, number - first) for number, place in made_at.items()):
        return graph
    keys: list[tuple[int, int, int]] = []
    """Of each node, by which it is sorted: plumbing comes before the node that came next, and after what it reads."""
    for index, node in enumerate(nodes):
        asked_at = made_at.get(node.number)
        if asked_at is None:
            keys.append((index, 1, 0))
        else:
            source = node.reads[0] - first
            after = keys[source] if source >= 0 else (0, 0, 0)
            keys.append(max((asked_at, 0, node.number), (*after[:2], node.number)))
    order = [nodes[index] for index in sorted(range(len(nodes)), key=keys.__getitem__)]
    place = {number: number for number in range(first)}
    place |= {node.number: number for number, node in enumerate(order, first)}
    return rearranged(graph, order, place, renumber(graph.output, place))
