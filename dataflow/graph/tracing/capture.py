"""Freezing: what a call was given, or a body returned, as the graph keeps it.

    [x, {"a": 1, "b": x.shape}]   ──▶   [Ref(0), {"a": 1, "b": Ref(2)}]          reads 0, 2; nested

Rules:

1. Every placeholder becomes its Ref; pending plumbing is recorded by that.
2. Containers (see `dataflow.graph.pytree`) are rebuilt around Refs. What is shared within one argument stays shared.
3. A container without a placeholder that can be changed is kept as a `Literal`: a body that changes it later does not
   change what the node gets.
4. Arrays and all other objects are kept as they are. One that holds a placeholder is refused: nobody would fill it in.
   So is an array that the body writes to afterwards.
5. The owner of the trace (a method pipeline's `self`) becomes Ref(0): a graph never holds it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum
from functools import lru_cache, partial
from itertools import islice
from types import (
    BuiltinFunctionType,
    CellType,
    EllipsisType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
    NoneType,
)
from typing import Any, Final, cast

import numpy as np

from dataflow.errors import TraceError
from dataflow.graph.attributes import has_attributes, own_attributes
from dataflow.graph.nodes import Declared, Kind, OpSpec, Path, Ref
from dataflow.graph.once import (
    close_coroutines,
    described,
    is_coroutine,
    is_later,
    is_once,
    later_within,
    once_within,
)
from dataflow.graph.pytree import kind_of, leaves, map_leaves
from dataflow.graph.readonly import readonly
from dataflow.graph.stateful import found_in, is_stateful, uses_something
from dataflow.graph.templates import Literal, kind_of_base, kind_of_literal
from dataflow.graph.tracing.fixed import paths
from dataflow.graph.tracing.literals import is_literal
from dataflow.graph.tracing.tracer import (
    NO_KWARGS,
    Trace,
    Traced,
    array_changed,
    here,
    is_module_of_user,
    refusal,
    stranger,
    user_line,
)

__all__ = ["CLOSED_OVER", "LEAVES", "Scan", "closes_over"]

LEAVES: Final[frozenset[Any]] = frozenset(
    {str, int, float, bool, complex, bytes, NoneType, EllipsisType, type, ModuleType, range}
    | {BuiltinFunctionType, np.ufunc, *np.sctypeDict.values()}
    | {type(np.dtype(char)) for char in "?bhilqpBHILQPefdgFDGSUVOMm"}
)
"""Types of constants that hold nothing to look at."""

_NOT_REBUILT: tuple[type, ...] = (set, frozenset, deque, type({}.keys()), type({}.values()), type({}.items()))
_REMEDY_CONTAINER = (
    "a placeholder may stand in tuples, lists, deques, dicts (as a value) and dataclasses; put it into one, or pass it"
    " as an argument of its own"
)
CLOSED_OVER: Final = (
    "it is called when placeholders mean nothing any more; let it take the node as an argument"
    " (flow.map(function, items, name=node), flow.cond(pred, then, otherwise, node)), or put both into an op"
)
_SLICE = OpSpec(slice, "slice", Kind.RECORDED)
_METHOD = OpSpec(MethodType, "method", Kind.RECORDED)
_BOUND = OpSpec(lambda declared, instance: declared.__get__(instance), "method", Kind.RECORDED)


_NO_THINGS: Final = (type, Declared, partial, Enum, np.generic, np.ndarray, BaseException, tuple, frozenset)


@lru_cache(maxsize=1024)
def _is_thing(kind: Any) -> bool:
    """Whether values of this type are objects of the user's own class with attributes or items, which nobody knows how
    to copy. What libraries change in theirs is often a lock's count, or what they have computed once."""
    if kind_of_literal(kind) is not None or issubclass(kind, _NO_THINGS) or is_stateful(kind) or readonly.knows(kind):
        return False
    return is_module_of_user(kind.__module__) and (kind_of_base(kind) is not None or has_attributes(kind))


class Scan:
    """Freezes the arguments of one call, or what a body returned."""

    __slots__ = ("_reads", "_spec", "_trace", "_where", "around", "nested")

    def __init__(self, recording: Trace, reads: dict[int, None], spec: OpSpec | None, where: str = "") -> None:
        self.nested = False  # whether a Ref stands inside a container
        self.around: list[tuple[Path, Any]] = []  # such containers
        self._reads = reads  # the numbers read, in order of appearance
        self._trace = recording
        self._spec = spec  # None for what a body returned
        self._where = where

    def whole(self, value: Any, place: int | str = 0) -> Any:
        """Freeze the argument of this place."""
        try:
            return self._whole(value, place)
        except TraceError:
            close_coroutines(value)
            raise

    def _whole(self, value: Any, place: int | str) -> Any:
        if kind_of(type(value)) is None:
            return self._constant(self._freeze(value))
        if type(value) is tuple and LEAVES.issuperset(map(type, value)):
            return value
        met: dict[int, Any] = {}
        """The containers of the user's, by id."""

        def into(container: Any) -> bool:
            met[id(container)] = container
            if type(container) is dict and not LEAVES.issuperset(map(type, container)):
                self._refuse_keys(container)
            return container is not self._trace.owner

        frozen = map_leaves(self._freeze, value, into=into)
        if frozen is value:
            return self._constant(value)
        self.nested = True
        self.around += paths(place, value, frozen)
        # What is new holds a Ref; what in it is the user's does not.
        return map_leaves(self._constant, frozen, into=lambda container: id(container) not in met)

    def _constant(self, value: Any) -> Any:
        returned = self._spec is None and type(value) is np.ndarray
        if returned or is_literal(value):
            return self._literal(value)
        things = self._trace.things
        if things and kind_of(type(value)) is not None and any(id(leaf) in things for leaf in leaves(value)):
            self._trace.literals.add_changed(value, self._where or here())  # whose it is, these are
        return value

    def _literal(self, value: Any) -> Literal:
        where = self._where
        return self._trace.literals.add(value, lambda: where or here(), returned=self._spec is None)

    def _freeze(self, value: Any) -> Any:
        kind: Any = type(value)
        if kind in LEAVES:
            return value
        if isinstance(value, Traced):
            return self._ref(value)
        if kind is np.ndarray and not value.dtype.hasobject:
            return self._array(value)
        if value is self._trace.owner:
            self._refuse_hidden(_attributes(value), value)
            return self._put(Ref(0))
        if kind is slice:
            return self._slice(value)
        if kind is FunctionType:
            return self._function(value)
        if kind is MethodType:
            return self._method(value)
        if isinstance(value, Declared) and value._of is not None:
            return self._bound(value)
        if kind is Literal:
            return value
        if issubclass(kind, (partial, Declared)):
            self._trace.closures.watch(value, user_line())
        if is_later(kind) or is_once(value):
            raise self._no_value(value, "is")
        if uses_something(kind) and any(True for _ in found_in(value)):
            self._trace.stateful = True
        self._refuse_hidden(_contents(value), value)
        if isinstance(value, (*_NOT_REBUILT, dict, list)):
            for within in (later_within, once_within):
                found = within(value)
                if found is not None:
                    raise self._no_value(found, "holds")
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return self._array(value)
        if _is_thing(kind) and id(value) not in self._trace.things:
            self._trace.things[id(value)] = self._trace.literals.add_changed(value, self._where or here())
        return value

    def _array(self, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if written := self._trace.constants.watch(value, self._where or here()):
            raise array_changed(written)
        return value

    def _put(self, ref: Ref) -> Ref:
        self._reads[+ref] = None  # a plain int
        return ref

    def _ref(self, placeholder: Traced) -> Ref:
        if placeholder._trace is not self._trace:
            raise stranger(placeholder, self._where)
        return self._put(placeholder._read())

    def _slice(self, value: slice) -> Any:
        """A slice of placeholders is built by a node of its own."""
        parts = (value.start, value.stop, value.step)
        if not any(isinstance(part, Traced) for part in parts):
            return value
        return self._made_by(_SLICE, parts)

    def _method(self, value: MethodType) -> Any:
        """A method of the owner is bound by a node of its own; a graph never holds the owner."""
        if isinstance(value.__self__, Traced):
            raise self._hidden(value)
        if value.__self__ is not self._trace.owner:
            return value
        return self._made_by(_METHOD, (value.__func__, value.__self__))

    def _bound(self, value: Declared) -> Any:
        """An operator or a pipeline of the owner, or of a record that holds nodes, is bound by a node of its own."""
        reads: dict[int, None] = {}
        Scan(self._trace, reads, self._spec, self._where).whole(value._owner)
        return self._made_by(_BOUND, (value._of, value._owner)) if reads else value

    def _function(self, value: FunctionType) -> Any:
        if closes_over(value):
            raise self._error(f"is {value.__qualname__}, which uses a placeholder from outside", CLOSED_OVER)
        if value.__closure__ is not None:
            self._trace.closures.watch(value, user_line())
        return value

    def _made_by(self, spec: OpSpec, parts: tuple[Any, ...]) -> Ref:
        """What a node of its own makes of these at run time."""
        reads: dict[int, None] = {}
        scan = Scan(self._trace, reads, spec, self._where)
        args = tuple(map(scan.whole, parts))
        code, lasti = user_line()
        return self._put(self._trace.add(spec, args, NO_KWARGS, tuple(reads), scan.nested, code, lasti))

    def _refuse_keys(self, value: dict[Any, Any]) -> None:
        if any(map(_holds, value)):
            raise self._error("has a placeholder as the key of a dict", "use names as keys, placeholders as values")

    def _refuse_hidden(self, contents: Iterable[Any], holder: object) -> None:
        if any(map(_holds, contents)):
            raise self._hidden(holder)

    def _hidden(self, holder: object) -> TraceError:
        return self._error(f"holds a placeholder inside an object of type {type(holder).__name__}", _REMEDY_CONTAINER)

    def _no_value(self, value: Any, has: str) -> TraceError:
        """For what is to be awaited first, and for what the first run would use up."""
        what = described(value)
        kind: Any = type(value)
        if not is_later(kind):
            return self._error(
                f"{has} {what}, which gives its items once",
                "make it a list, list(...), or have an operator make it in each run",
            )
        if is_coroutine(kind):
            return self._error(
                f"{has} {what}, which nobody has awaited: an `async def` without @flow.op was called",
                f"put @flow.op above `async def {value.__name__}`, and call it without await; one from outside of the "
                "body is to be awaited before, and its result passed as an argument",
            )
        remedy = "await it before, and pass its result as an argument"
        return self._error(f"{has} {what}, which is no value yet", remedy)

    def _error(self, what: str, remedy: str) -> TraceError:
        spec, name = self._spec, self._trace.name
        whose = f"what the body of {name!r} returned" if spec is None else f"an argument of {spec.name}"
        return refusal(f"{whose} {what}", remedy, self._where)


def _holds(value: Any, depth: int = 3) -> bool:
    """Whether this is a placeholder, or a container with one not far below."""
    if isinstance(value, Traced):
        return True
    if not depth or not isinstance(value, (tuple, list, dict)):
        return False
    items = value.values() if isinstance(value, dict) else value
    return any(_holds(item, depth - 1) for item in islice(items, 100))


def closes_over(function: FunctionType) -> bool:
    """Whether a function holds a placeholder in its closure or in its defaults."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]
    return any(map(_holds, (*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())))


def _contents(value: Any) -> Iterable[Any]:
    """What an object that is not rebuilt holds, one level deep: enough for the usual mistakes, and cheap."""
    if isinstance(value, dict):  # a kind of dict, with a mind of its own
        return (*dict.values(value), *_attributes(value))
    if isinstance(value, list):
        return (*list.__iter__(value), *_attributes(value))
    if isinstance(value, tuple):
        return (*tuple.__iter__(value), *_attributes(value))
    if isinstance(value, _NOT_REBUILT):
        return list(cast(Iterable[Any], value))
    if isinstance(value, np.ndarray):
        return cast(Iterable[Any], value.ravel().tolist()) if value.dtype == object else ()
    if isinstance(value, partial):
        return (*value.args, *value.keywords.values())
    if isinstance(value, MappingProxyType):
        return list(value.values())
    if isinstance(value, BaseException):
        return (value.args, *_attributes(value))
    return _attributes(value)


def _attributes(value: object) -> Iterator[Any]:
    return (part for _, part in own_attributes(value))
