"""Graph → Graph: the part that some outputs need, and the same graph with other functions.

Neither changes the graph it is given. Inputs stay as they are, so a derived pipeline is called as its origin is.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace as changed
from typing import Any

from dataflow.errors import GraphError
from dataflow.graph.inout import in_order
from dataflow.graph.nodes import Graph, Node, OpSpec, Ref
from dataflow.graph.pytree import map_leaves
from dataflow.graph.stateful import in_turn
from dataflow.graph.templates import Literal, rearranged

__all__ = ["replaced", "selected"]


def selected(graph: Graph, labels: Sequence[str]) -> Graph:
    """The ancestors of the nodes with these labels; the output is their value, or a tuple of the values of several.

    A label may stand alone, or with its scope before it: "block3/t17". Raises GraphError for one that no node has, and
    for one that several have in different scopes.
    """
    wanted = [_labelled(graph, label) for label in labels]
    first = len(graph.inputs)
    needed = set(wanted)
    for node in reversed(graph.nodes):  # readers have greater numbers: one pass finds all ancestors
        if node.number in needed:
            needed.update(node.reads, graph.after.get(node.number, ()))
    kept = [node for node in graph.nodes if node.number in needed]
    place = {number: number for number in range(first)}
    place |= {node.number: number for number, node in enumerate(kept, first)}
    outputs = tuple(Ref(place[number]) for number in wanted)
    return rearranged(graph, kept, place, outputs[0] if len(wanted) == 1 else outputs)


def _labelled(graph: Graph, label: str) -> int:
    if label in graph.names:
        return graph.names[label]
    found = [name for name in graph.names if name.endswith(f"/{label}")]
    if len({graph.names[name] for name in found}) == 1:
        return graph.names[found[0]]
    if found:
        raise GraphError(
            f"several nodes of {graph.name!r} are labelled {label!r}: {_listed(found)}; name the scope, too"
        )
    raise GraphError(f"no node of {graph.name!r} is labelled {label!r}; labels are: {_listed(list(graph.names))}")


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:20])) or "none"


Swap = Callable[[Any, set[int]], Any]
"""What stands for a constant in a changed graph; adds the ids of the functions that it calls to the set."""


def replaced(
    graph: Graph, functions: Mapping[int, OpSpec], plain: Container[int], names: Mapping[int, str], swap: Swap
) -> Graph:
    """The same graph, where calls of some functions are calls of others; all three mappings go by id.

    Those that are replaced by `plain` functions stay managed as they are, and change what they did. The order of what
    changes things stays, and that of what other operators change comes to it.
    `swap` is asked what stands for each constant argument: it may be an operator itself, which the node calls. Raises
    GraphError for a function that is never called.
    """
    called: set[int] = set()
    nodes: list[Node] = []
    managed: dict[OpSpec, OpSpec] = {}
    for node in graph.nodes:
        called.add(id(node.spec.fn))
        args = tuple(_swapped(arg, swap, called) for arg in node.args)
        kwargs = {name: _swapped(arg, swap, called) for name, arg in node.kwargs.items()}
        spec = functions.get(id(node.spec.fn), node.spec)
        if (node.spec.options is not None or node.spec.inout) and id(node.spec.fn) in plain:
            if node.spec not in managed:  # one for each, as before
                managed[node.spec] = changed(spec, options=node.spec.options, inout=node.spec.inout)
            spec = managed[node.spec]
        nodes.append(node._replace(spec=spec, args=args, kwargs=kwargs))
    for function, name in names.items():
        if function not in called:
            raise GraphError(f"no node of {graph.name!r} calls {name!r}, which is to be replaced")
    new = changed(graph, nodes=tuple(nodes))
    new = in_order(new) if any(node.spec.inout for node in nodes) else new
    if graph.stateful or any(node.spec.owner is not None for node in nodes):
        new = in_turn(changed(new, stateful=True))
    return new


def _swapped(argument: Any, swap: Swap, called: set[int]) -> Any:
    def swapped(leaf: Any) -> Any:
        return leaf.mapped(swapped) if type(leaf) is Literal else swap(leaf, called)

    return map_leaves(swapped, argument)
