"""Graph, graph, … → Graph: side by side, as `flow.map` runs one graph for each of its items.

    inputs of all | nodes of the first | nodes of the second | …        output: [that of the first, …]

Nothing is traced anew, so the bodies have run once, however many items there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dataflow.graph.nodes import Fixed, Graph, Node, Ref
from dataflow.graph.pytree import map_leaves
from dataflow.graph.templates import Renewed

__all__ = ["joined"]

_node = tuple.__new__  # a NamedTuple's constructor is a Python function


def joined(name: str, graphs: Sequence[Graph], *, scoped: bool) -> Graph:
    """These graphs as one, which gives a list of what each gives. What a body made is new in each of them.

    With `scoped`, the labels and scopes of each are inside a scope named by its place: "0", "1", …
    """
    place_of_input = 0
    place_of_node = first = sum(len(graph.inputs) for graph in graphs)
    inputs: list[str] = []
    nodes: list[Node] = []
    outputs: list[Any] = []
    items: list[int] = []
    after: dict[int, tuple[int, ...]] = {}
    waits: dict[int, tuple[int, ...]] = {}
    labels: dict[int, str] = {}
    scopes: dict[int, str] = {}
    names: dict[str, int] = {}
    fixed: dict[int, Fixed] = {}
    for item, graph in enumerate(graphs):
        count = len(graph.inputs)
        moved = [*range(place_of_input, place_of_input + count), *range(place_of_node, place_of_node + len(graph))]
        move = _Move(moved)
        items.append(place_of_node)
        inputs += [f"{label} of item {item}" for label in graph.inputs]
        nodes += map(move.node, graph.nodes)
        outputs.append(move.argument(graph.output))
        place_of_input += count
        place_of_node += len(graph)
        for edges, found in ((graph.after, after), (graph.waits, waits)):
            for number, earlier in edges.items():
                found[moved[number]] = tuple(moved[other] for other in earlier)
        for number, label in graph.labels.items():
            labels[moved[number]] = label
        for number, each in graph.fixed.items():
            fixed[moved[number]] = each
        if scoped:
            for node in graph.nodes:
                inner = graph.scopes.get(node.number)
                scopes[moved[node.number]] = f"{item}/{inner}" if inner else str(item)
            for label, number in graph.names.items():
                names[f"{item}/{label}"] = moved[number]
    assert place_of_input == first
    stateful = any(graph.stateful for graph in graphs)
    return Graph(
        name,
        tuple(inputs),
        tuple(nodes),
        outputs,
        after,
        labels,
        scopes,
        names,
        tuple(items),
        waits,
        stateful,
        fixed,
    )


class _Move:
    """Moves the nodes of one graph to their places."""

    __slots__ = ("_moved", "_renewed")

    def __init__(self, moved: Sequence[int]) -> None:
        self._moved = moved
        self._renewed = Renewed()

    def node(self, node: Node) -> Node:
        """The node on the values of its own copy of the graph."""
        moved, argument = self._moved, self.argument
        number, spec, args, kwargs, reads, nested, code, lasti = node
        args = tuple([Ref(moved[arg]) if type(arg) is Ref else argument(arg) for arg in args])
        if kwargs:
            kwargs = {name: argument(value) for name, value in kwargs.items()}
        new = tuple([moved[read] for read in reads])
        return _node(Node, (moved[number], spec, args, kwargs, new, nested, code, lasti))

    def argument(self, value: Any) -> Any:
        """An argument of a node, or what the body returned."""
        return map_leaves(self._leaf, value)

    def _leaf(self, leaf: Any) -> Any:
        if type(leaf) is Ref:
            return Ref(self._moved[leaf])
        return self._renewed(leaf)
