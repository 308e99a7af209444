"""A graph as text: a line for each value, with what makes it.

    Graph edges(image): 4 nodes
         0  input image
         1  blur(0, sigma=1)
         2  blur(0, sigma=4)
         3  details/subtract(1, 2) 'fine'
         4  power(3, =2)
      returns 4

A bare number is a value of the graph; constants have the name of the parameter, or at least a `=` before them. A large
graph is folded: what stands in a scope is one line, and of the lines that are left the middle is left out.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from types import FunctionType
from typing import Any, Final

import numpy as np

from dataflow.graph.nodes import Declared, Graph, Node, Ref
from dataflow.graph.pytree import kind_of, leaves
from dataflow.graph.templates import Literal

__all__ = ["argument", "called", "in_one_line", "title", "written_out"]

MOST_LINES: Final = 300
"""Nodes above which scopes are folded, and lines that are shown of what is left."""
MOST_ITEMS: Final = 4
"""Items of a container that are shown."""
MOST_TEXT: Final = 24
"""Characters of a constant."""
MOST_BITS: Final = 200
"""Bits of a number that is written out."""


def written_out(graph: Graph) -> str:
    """The whole text."""
    lines = [repr(graph)[1:-1]]
    lines += [f"  {number:>4}  input {name}" for number, name in enumerate(graph.inputs)]
    body = [_line(node, graph) for node in graph.nodes] if len(graph) <= MOST_LINES else list(_folded(graph))
    if len(body) > MOST_LINES:
        half = MOST_LINES // 2
        body[half:-half] = [f"     …  {len(body) - 2 * half:,} lines more"]
    return "\n".join([*lines, *body, f"  returns {argument(graph.output)}"])


def _line(node: Node, graph: Graph) -> str:
    scope, label = graph.scopes.get(node.number), graph.labels.get(node.number)
    line = f"  {node.number:>4}  {in_one_line(f'{scope}/') if scope else ''}{called(node)}"
    if node.number in graph.after:
        line += f" after {', '.join(map(str, graph.after[node.number]))}"
    if node.number in graph.waits:
        line += f" waits for {', '.join(map(str, graph.waits[node.number]))}"
    return f"{line} {label!r}" if label is not None else line


def _folded(graph: Graph) -> Iterator[str]:
    def outermost(node: Node) -> str:
        return graph.scopes.get(node.number, "").partition("/")[0]

    for scope, group in groupby(graph.nodes, key=outermost):
        nodes = list(group)
        if not scope or len(nodes) == 1:
            yield from (_line(node, graph) for node in nodes)
            continue
        kinds = Counter(node.spec.name for node in nodes).most_common()
        named = ", ".join(f"{count} × {in_one_line(name)}" for name, count in kinds[:MOST_ITEMS])
        more = f" and {len(kinds) - MOST_ITEMS} more" if len(kinds) > MOST_ITEMS else ""
        yield f"  {nodes[0].number:>4}  {in_one_line(scope)}/ … {nodes[-1].number}: {len(nodes)} nodes: {named}{more}"


def title(node: Node, graph: Graph) -> str:
    """A node in few words: its label, or its operator with its constants."""
    label = graph.labels.get(node.number)
    return in_one_line(label) if label is not None else called(node, values=False)


def called(node: Node, *, values: bool = True) -> str:
    """A node as a call; without `values`, only its constants."""
    names = _parameters(node.spec.fn)
    parts = []
    for place, given in enumerate(node.args):
        name = names[place] if place < len(names) else ""
        if _is_value(given):
            parts += [argument(given)] if values else []
        elif name != "self":
            parts.append(f"{name}={argument(given)}")
    parts += [f"{name}={argument(given)}" for name, given in node.kwargs.items() if values or not _is_value(given)]
    name = in_one_line(node.spec.name)
    return f"{name}({', '.join(parts)})" if parts or values else name


def _is_value(given: Any) -> bool:
    return any(type(leaf) is Ref for leaf in leaves(given))


def _parameters(function: Any) -> tuple[str, ...]:
    """The names of those that may be given by position, as far as they are known and mean something."""
    if isinstance(function, FunctionType):
        code = function.__code__
        positional = code.co_varnames[: code.co_argcount]
        return ("",) * code.co_posonlyargcount + positional[code.co_posonlyargcount :]
    if isinstance(function, np.ufunc):
        return ()
    try:
        parameters = inspect.signature(function).parameters.values()
    except Exception:  # of the function's own making, too
        return ()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(each.name if each.kind is kinds[1] else "" for each in parameters if each.kind in kinds)


def argument(value: Any) -> str:
    """An argument in few characters; a value of the graph is its number."""
    return _shown(value, 3)


def _shown(value: Any, depth: int) -> str:
    try:
        return _words(value, depth)
    except Exception:  # what its own code has raised
        return f"<{type(value).__name__}>"


def _words(value: Any, depth: int) -> str:
    kind: Any = type(value)
    if kind is Literal:
        return _shown(value.value, depth)
    if kind is Ref:
        return str(int(value))
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    if issubclass(kind, Declared):
        return in_one_line(str(getattr(value, "name", kind.__name__)))
    if issubclass(kind, tuple) and value and issubclass(type(value[0]), Declared):  # what `flow.map` calls
        return _words(value[0], depth)
    container = kind_of(kind)
    if container is not None and kind is not bytearray:
        return _items(value, kind, container.items(value), container.names, depth)
    if kind is int and value.bit_length() > MOST_BITS:
        return f"<int of {value.bit_length():,} bits>"
    if kind in (str, bytes):
        return _short(repr(value[: 2 * MOST_TEXT]))
    if kind in (int, float, complex, bool, type(None), slice):
        return _short(repr(value))
    if issubclass(kind, np.generic):
        return _short(str(value))
    if kind is type or issubclass(kind, np.ufunc) or inspect.isroutine(value):
        name = getattr(value, "__name__", None)
        if type(name) is str:
            return in_one_line(name)
    return f"<{kind.__name__}>"


def in_one_line(text: str) -> str:
    """The text without line ends and what else would break a line or a table."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


_BRACKETS: Final = {list: ("[", "]"), tuple: ("(", ")"), dict: ("{", "}"), set: ("{", "}")}


def _items(value: Any, kind: Any, items: Any, names: Any, depth: int) -> str:
    opening, closing = _BRACKETS.get(kind, (f"{kind.__name__}(", ")"))
    if not depth:
        return f"{opening}…{closing}"
    keys = list(names(value)) if names is not None else None
    shown = []
    for place, item in enumerate(list(items)[:MOST_ITEMS]):
        text = _shown(item, depth - 1)
        if keys is not None:
            text = f"{_short(repr(keys[place]))}: {text}" if kind is dict else f"{keys[place]}={text}"
        shown.append(text)
    if len(items) > MOST_ITEMS:
        shown.append("…")
    comma = "," if kind is tuple and len(items) == 1 else ""
    return f"{opening}{', '.join(shown)}{comma}{closing}"


def _short(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 2]}…{text[-1]}"


Graph.__str__ = written_out  # type: ignore[method-assign, assignment]  # said here, since a graph knows nothing of drawing
