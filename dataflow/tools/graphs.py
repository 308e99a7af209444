"""Graphs for drawing programs: Mermaid, which many pages and notebooks show, and Graphviz's dot.

    inputs, nodes and what is returned, with arrows along the values; scopes are boxes around their nodes

Of a graph of very many nodes each outermost scope is drawn as one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from dataflow.frontend.pipeline import Pipeline
from dataflow.graph.nodes import Graph, Kind, Ref
from dataflow.graph.pytree import leaves
from dataflow.graph.text import in_one_line, title

__all__ = ["Box", "Drawing", "dot", "mermaid"]

MOST_NODES: Final = 300
"""Above so many, scopes are folded."""


@dataclass(frozen=True)
class Box:
    """An input, a node, a folded scope, or what is returned."""

    key: str
    text: str
    kind: str
    """"input", "operator", "async", "part", "scope" or "output"."""
    scope: tuple[str, ...]


class Drawing:
    """What is drawn of a graph: boxes, and the arrows between them, each once."""

    def __init__(self, graph: Graph) -> None:
        folded = len(graph) > MOST_NODES
        self.boxes: dict[str, Box] = {}
        self.arrows: dict[tuple[str, str], bool] = {}
        """Whether it stands for a value, and not only for an order."""
        key_of: dict[int, str] = {}
        folded_as: dict[str, str] = {}
        counts: dict[str, int] = {}
        """Of folded scopes, how many nodes they have."""
        for number, name in enumerate(graph.inputs):
            key_of[number] = self._add(Box(f"n{number}", name, "input", ()))
        for node in graph.nodes:
            scope = tuple(in_one_line(graph.scopes[node.number]).split("/")) if node.number in graph.scopes else ()
            if folded and scope:
                counts[scope[0]] = counts.get(scope[0], 0) + 1
                key = folded_as.setdefault(scope[0], f"s{len(folded_as)}")
                key_of[node.number] = self._add(Box(key, f"{scope[0]}: {counts[scope[0]]} nodes", "scope", ()))
            else:
                kind = {Kind.ASYNC: "async", Kind.PLUMBING: "part"}.get(node.spec.kind, "operator")
                key_of[node.number] = self._add(Box(f"n{node.number}", title(node, graph), kind, scope))
            for number in node.reads:
                self._arrow(key_of[number], key_of[node.number], value=True)
            for number in (*graph.after.get(node.number, ()), *graph.waits.get(node.number, ())):
                self._arrow(key_of[number], key_of[node.number], value=False)
        returned = dict.fromkeys(int(leaf) for leaf in leaves(graph.output) if type(leaf) is Ref)
        output = self._add(Box("out", "returns", "output", ()))
        for number in returned:
            self._arrow(key_of[number], output, value=True)

    def _add(self, box: Box) -> str:
        self.boxes[box.key] = box
        return box.key

    def _arrow(self, start: str, end: str, *, value: bool) -> None:
        if start != end:
            self.arrows[start, end] = value or self.arrows.get((start, end), False)

    def nested(self) -> dict[Any, Any]:
        """The boxes as a tree of scopes: those that stand directly in one are under None."""
        tree: dict[Any, Any] = {}
        for box in self.boxes.values():
            at = tree
            for name in box.scope:
                at = at.setdefault(name, {})
            at.setdefault(None, []).append(box)
        return tree


def _graph_of(drawn: Any, function: str) -> Graph:
    if isinstance(drawn, Pipeline):
        return drawn.graph()
    if isinstance(drawn, Graph):
        return drawn
    kind = type(drawn).__name__
    raise TypeError(f"flow.{function} draws a pipeline, or a graph such as p.graph() returns, not {kind}")


def mermaid(graph: Graph | Pipeline[..., Any]) -> str:
    """The graph as a flowchart of Mermaid (mermaid.js.org), for a page or a notebook that shows these.

    Inputs and what is returned are round, async operators have slanted sides; arrows that say only what comes after
    what are dotted. A pipeline is traced, if it was not. Of more than 300 nodes each outermost scope is drawn as one.
    """
    drawing = Drawing(_graph_of(graph, "mermaid"))
    lines = ["flowchart TD", *_mermaid_boxes(drawing.nested(), "  ", [0])]
    for (start, end), value in drawing.arrows.items():
        lines.append(f"  {start} {'-->' if value else '-.->'} {end}")
    return "\n".join(lines) + "\n"


_MERMAID: Final = {
    "input": ("([", "])"),
    "output": ("([", "])"),
    "async": ("[/", "/]"),
    "scope": ("[[", "]]"),
    "operator": ("[", "]"),
    "part": ("(", ")"),
}


def _mermaid_boxes(tree: dict[Any, Any], indent: str, count: list[int]) -> Iterable[str]:
    for name, inside in tree.items():
        if name is None:
            for box in inside:
                opening, closing = _MERMAID[box.kind]
                yield f'{indent}{box.key}{opening}"{_for_mermaid(box.text)}"{closing}'
        else:
            count[0] += 1
            yield f'{indent}subgraph g{count[0]}["{_for_mermaid(name)}"]'
            yield from _mermaid_boxes(inside, f"{indent}  ", count)
            yield f"{indent}end"


_ENTITIES: Final = str.maketrans({each: f"#{ord(each)};" for each in '&"<>#'} | {"`": "'"})


def _for_mermaid(text: str) -> str:
    return in_one_line(text).translate(_ENTITIES)


def dot(graph: Graph | Pipeline[..., Any]) -> str:
    """The graph in the language of Graphviz: `dot -Tsvg` makes a picture of it.

    Inputs and what is returned are ellipses, async operators parallelograms; arrows that say only what comes after what
    are dotted. A pipeline is traced, if it was not. Of more than 300 nodes each outermost scope is drawn as one.
    """
    drawn = _graph_of(graph, "dot")
    drawing = Drawing(drawn)
    lines = [f"digraph {_quoted(drawn.name)} {{", '  node [shape=box, fontname="sans-serif"];']
    lines += _dot_boxes(drawing.nested(), "  ", [0])
    for (start, end), value in drawing.arrows.items():
        lines.append(f"  {start} -> {end}{'' if value else ' [style=dotted]'};")
    return "\n".join([*lines, "}"]) + "\n"


_DOT: Final = {
    "input": " shape=ellipse",
    "output": " shape=ellipse",
    "async": " shape=parallelogram",
    "scope": " shape=box3d",
    "operator": "",
    "part": " style=rounded",
}


def _dot_boxes(tree: dict[Any, Any], indent: str, count: list[int]) -> Iterable[str]:
    for name, inside in tree.items():
        if name is None:
            for box in inside:
                yield f"{indent}{box.key} [label={_quoted(box.text)}{_DOT[box.kind]}];"
        else:
            count[0] += 1
            yield f"{indent}subgraph cluster_{count[0]} {{"
            yield f"{indent}  label={_quoted(name)};"
            yield from _dot_boxes(inside, f"{indent}  ", count)
            yield f"{indent}}}"


def _quoted(text: str) -> str:
    escaped = in_one_line(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
