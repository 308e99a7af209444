"""Graph → Graph: the part that some outputs need, and the same graph with other functions.

Neither changes the graph it is given. Inputs stay as they are, so a derived pipeline is called as its origin is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace as changed
from typing import Any

from dataflow.errors import GraphError
from dataflow.graph.fill import renumber
from dataflow.graph.nodes import Graph, Node, OpSpec, Ref

__all__ = ["replaced", "selected"]


def selected(graph: Graph, labels: Sequence[str]) -> Graph:
    """The ancestors of the nodes with these labels; the output is their value, or a tuple of the values of several.

    Raises GraphError for a label that no node has.
    """
    number_of = {label: number for number, label in graph.labels.items()}
    unknown = [label for label in labels if label not in number_of]
    if unknown:
        known = ", ".join(map(repr, list(number_of)[:20])) or "none"
        raise GraphError(f"no node of {graph.name!r} is labelled {unknown[0]!r}; labels are: {known}")
    wanted = [number_of[label] for label in labels]
    first = len(graph.inputs)
    needed = set(wanted)
    for node in reversed(graph.nodes):  # readers have greater numbers: one pass finds all ancestors
        if node.number in needed:
            needed.update(node.reads, graph.after.get(node.number, ()))
    place = list(range(first + len(graph.nodes)))
    kept: list[Node] = []
    for node in graph.nodes:
        if node.number in needed:
            place[node.number] = first + len(kept)
            kept.append(_moved(node, place))
    numbers = {node.number for node in graph.nodes} & needed
    return Graph(
        name=graph.name,
        inputs=graph.inputs,
        nodes=tuple(kept),
        output=Ref(place[wanted[0]]) if len(wanted) == 1 else tuple(Ref(place[number]) for number in wanted),
        after={place[n]: tuple(place[m] for m in graph.after[n]) for n in numbers if n in graph.after},
        labels={place[n]: label for n, label in graph.labels.items() if n in numbers},
        scopes={place[n]: scope for n, scope in graph.scopes.items() if n in numbers},
    )


def _moved(node: Node, place: Sequence[int]) -> Node:
    return node._replace(
        number=place[node.number],
        args=tuple(renumber(arg, place) for arg in node.args),
        kwargs={name: renumber(arg, place) for name, arg in node.kwargs.items()},
        reads=tuple(place[number] for number in node.reads),
    )


def replaced(graph: Graph, functions: Mapping[Callable[..., Any], OpSpec]) -> Graph:
    """The same graph, where calls of these functions are calls of others. GraphError for one that is never called."""
    called = {id(node.spec.fn) for node in graph.nodes}
    for fn in functions:
        if id(fn) not in called:
            name = getattr(fn, "__name__", repr(fn))
            raise GraphError(f"no node of {graph.name!r} calls {name!r}, which is to be replaced")
    by_id = {id(fn): spec for fn, spec in functions.items()}
    nodes = tuple(
        node._replace(spec=by_id[id(node.spec.fn)]) if id(node.spec.fn) in by_id else node for node in graph.nodes
    )
    return changed(graph, nodes=nodes)
