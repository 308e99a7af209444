"""The functions that a body gives to its nodes, and what their closures held then.

    for k in (1, 10):
        parts.append(flow.map(lambda v: v * k, x))      both are called when the body is over, and k is 10

In plain Python each would have been called with the k of its turn.
"""

from __future__ import annotations

from functools import partial
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any, NamedTuple

from dataflow.graph.nodes import Declared
from dataflow.graph.pytree import ATOMS

__all__ = ["Closures", "Rebound"]


class Rebound(NamedTuple):
    """A variable of a closure that is bound to something else by now."""

    function: str
    variable: str
    at: tuple[CodeType | None, int]
    """The instruction that recorded the node."""


class _Seen(NamedTuple):
    function: FunctionType
    variable: str
    cell: CellType
    value: Any
    at: tuple[CodeType | None, int]


class Closures:
    """What the closures of functions held when they were given to nodes."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], _Seen] = {}
        """By the ids of a function and a cell, which are kept alive."""

    def watch(self, value: Any, at: tuple[CodeType | None, int]) -> None:
        """This is called when the run comes to it: a function, or what is made of some."""
        kind = type(value)
        if kind is FunctionType:
            self._function(value, at)
        elif issubclass(kind, partial):
            for part in (value.func, *value.args, *value.keywords.values()):
                self.watch(part, at)
        elif issubclass(kind, MethodType):
            self.watch(value.__func__, at)
        elif issubclass(kind, Declared):
            self.watch(getattr(value, "__wrapped__", None), at)

    def _function(self, function: FunctionType, at: tuple[CodeType | None, int]) -> None:
        for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            try:
                seen = _Seen(function, variable, cell, cell.cell_contents, at)
            except ValueError:  # it is empty, and will not be when the function is called
                continue
            self._seen.setdefault((id(function), id(cell)), seen)

    def rebound(self) -> Rebound | None:
        """A variable that the body has bound to something else since then; None if there is none."""
        for function, variable, cell, then, at in self._seen.values():
            try:
                now = cell.cell_contents
            except ValueError:
                continue
            if now is not then and not (type(now) is type(then) and type(now) in ATOMS and now == then):
                return Rebound(function.__qualname__.rpartition(".")[2], variable, at)
        return None
