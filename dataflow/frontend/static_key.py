"""What a graph is kept under for a static argument: equal keys are values that a body cannot tell apart.

    3                        (int, 3)                       1, 1.0 and True are three
    (1, "a")                 (tuple, (int, 1), (str, "a"))
    Settings(depth=3)        (Settings, it itself, (("depth", (int, 3)),))

An object counts as what it says is equal, or else as itself, and with what is in it at the moment of the call: when it
was changed, the body is traced anew. So the values of its attributes are looked at, at each call, and what they hold in
turn: those of the user's classes, of dataclasses, attrs' and pydantic's models (of dataclasses and attrs' those that
take part in comparing), and lists, dicts and sets. Arrays, and objects of other libraries, whose attributes come and go
as they like, count as themselves. No code of the object is run but its `__eq__` and `__hash__`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import fields, is_dataclass
from datetime import datetime, time
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from types import FunctionType, MappingProxyType, MethodType, SimpleNamespace
from typing import Any, Final

import numpy as np

from dataflow.graph.attributes import own_attributes
from dataflow.graph.nodes import Declared
from dataflow.graph.tracing.tracer import Traced, is_module_of_user

__all__ = ["static_key"]

PARTS: Final = 10_000
"""How much of one value is looked at, which takes some milliseconds; what is beyond counts as it says of itself."""
DEPTH: Final = 50
"""How deep, likewise."""

_PLAIN = (int, bool, str, bytes, type(None))
_AS_THEY_ARE = (type, Enum, FunctionType, Declared, np.ndarray)
_BY_REPR = (float, complex, Decimal, datetime, time, range, np.generic)
"""Some of these are equal though they are not the same: 0.0 and -0.0, an hour and 60 minutes. And nan is not equal."""


def static_key(value: Any) -> Hashable:
    """The key of a value. TypeError for one that has no hash; TraceError for a placeholder."""
    kind = type(value)
    if kind in _PLAIN:
        return kind, value
    hash(value)
    return _Look().key(value, 0)


class _Same:
    """An object that counts as itself; kept alive, so that no other gets its identity."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._value is other._value

    def __hash__(self) -> int:
        return id(self._value)


class _Look:
    """One look at a value."""

    __slots__ = ("_inside", "_left")

    def __init__(self) -> None:
        self._left = PARTS
        self._inside: dict[int, int] = {}
        """The containers and objects that are being looked at, by identity: how deep they are."""

    def key(self, value: Any, depth: int) -> Hashable:
        kind = type(value)
        if kind in _PLAIN:
            return kind, value
        if issubclass(kind, Traced):
            hash(value)  # refused
        if issubclass(kind, _BY_REPR):
            return kind, repr(value)
        if issubclass(kind, np.dtype):
            return kind, value, self.key(dict(value.metadata or {}), depth + 1)
        if issubclass(kind, _AS_THEY_ARE):
            return kind, _itself(value)
        if id(value) in self._inside:  # it contains itself
            return kind, "inside", depth - self._inside[id(value)]
        self._left -= 1
        if self._left < 0 or depth > DEPTH:
            return kind, _itself(value)
        self._inside[id(value)] = depth
        try:
            return self._whole(kind, value, depth + 1)
        finally:
            del self._inside[id(value)]

    def _whole(self, kind: type, value: Any, depth: int) -> Hashable:
        items = self._items(value, depth)
        attributes = tuple((name, self.key(part, depth)) for name, part in _attributes(value))
        if items is not None:
            return kind, items, attributes
        if attributes and type(value).__hash__ is None:
            return kind, attributes
        return kind, _itself(value), attributes

    def _items(self, value: Any, depth: int) -> Hashable:
        """What is in a container; None for what is none."""
        kind = type(value)  # of which isinstance does not ask alone
        if issubclass(kind, (dict, MappingProxyType)):
            return tuple([(self.key(key, depth), self.key(item, depth)) for key, item in list(value.items())])
        if issubclass(kind, (set, frozenset)):
            return frozenset([self.key(item, depth) for item in list(value)])
        if issubclass(kind, partial):
            return tuple([self.key(part, depth) for part in (value.func, value.args, value.keywords)])
        if issubclass(kind, MethodType):
            return self.key(value.__func__, depth), self.key(value.__self__, depth)
        if not issubclass(kind, (tuple, list, deque)):
            return None
        if len(value) > self._left:
            return _itself(value)
        return tuple([self.key(item, depth) for item in list(value)])


def _itself(value: Any) -> Hashable:
    """What stands for a value that is compared as it says of itself, or by identity if it says nothing."""
    kind: Any = type(value)
    return _Same(value) if kind.__hash__ is None or kind.__eq__ is object.__eq__ else value


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """The attributes that matter."""
    kind: Any = type(value)
    if not _is_looked_into(kind):
        return
    compared = kind.__eq__ is not object.__eq__
    if compared and is_dataclass(kind):
        names = [each.name for each in fields(value) if each.compare]
    elif compared and hasattr(kind, "__attrs_attrs__"):
        names = [each.name for each in kind.__attrs_attrs__ if each.eq]
    else:
        yield from own_attributes(value)
        return
    for name in names:
        try:
            yield name, object.__getattribute__(value, name)
        except AttributeError:
            pass  # a field that was never set


@lru_cache(maxsize=1024)
def _is_looked_into(kind: Any) -> bool:
    """Whether the attributes of its instances say what they are."""
    if is_dataclass(kind) or issubclass(kind, SimpleNamespace):
        return True
    if hasattr(kind, "__attrs_attrs__") or hasattr(kind, "__pydantic_fields__"):
        return True
    return is_module_of_user(kind.__module__)
