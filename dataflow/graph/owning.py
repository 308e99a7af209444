"""Results are the user's: writable, and on no memory of an input or a constant, however they were made.

What a kernel returns may be on the memory of what it was given: a view of it (also one that does not say so, such as a
sliding window), a sparse matrix or a DataArray around it, an object that keeps it. Whether it is, the addresses say.
Such a result is copied (`flow.copied`); what repeats, such as a broadcast, is copied once and still repeats.

What is read-only by nature, because the kernel made it so, stays as it is. An object of a type that nobody has
registered is not copied: what is read-only in it is replaced by copies, in place, since a kernel has made it. Where
that cannot be done, a `ResultWarning` says what to do.
"""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final, cast

import numpy as np
from numpy.lib.array_utils import byte_bounds

from dataflow.errors import ResultWarning
from dataflow.graph.arrays import Array, apart
from dataflow.graph.attributes import dict_of, own_attributes
from dataflow.graph.nodes import Ref
from dataflow.graph.readonly import PLAIN_RESULT, bare, copied, map_parts, memory, parts_of
from dataflow.graph.templates import Literal

__all__ = ["Given", "own", "own_part"]

MOST_PARTS = 200
"""Attributes and items of objects that are looked at: arrays are rarely further down, and objects may hold a world."""
_NOT_LOOKED_INTO: Final = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


class Given:
    """What a step was given: values, of which some are `shared` (the caller's, or read by others), and constants."""

    __slots__ = ("_changed", "_constants", "_direct", "_everything", "_objects", "_shared", "_slots", "_values")

    def __init__(
        self,
        values: Sequence[Any],
        slots: Iterable[int],
        shared: Sequence[int],
        constants: Iterable[Any],
        changed: Iterable[Any] = (),
    ) -> None:
        self._changed = [array for value in changed for leaf in parts_of(value) for array in memory(leaf)]
        """What the step was to change for everybody: what is on the memory of that, is meant to be."""
        self._values = values
        self._slots = slots
        self._shared = shared
        self._constants = constants
        self._direct: list[Array] | None = None
        self._everything: Addresses | None = None
        self._objects: dict[int, Any] = {}
        """Those that are somebody else's, by id."""

    def on_memory_of(self, array: Array) -> bool:
        """Whether an array is on memory that is somebody else's."""
        if not array.size:  # on no memory at all
            return not array.flags.writeable
        if any(np.may_share_memory(array, other) for other in self._changed):
            return False
        direct = self._reached()
        if any(np.may_share_memory(array, other) for other in direct):
            return True
        if array.flags.writeable:  # what stood in a container was read-only, and so is every view of it
            return False
        if self._everything is None:
            self._everything = Addresses(self._all())
        return self._everything.meet(array)

    def includes(self, value: Any, slots: Iterable[int]) -> bool:
        """Whether a value is that of one of these slots, or a constant from outside."""
        return any(value is bare(self._values[slot]) for slot in slots) or any(
            value is constant.value for constant in self._constants if type(constant) is Literal
        )

    def passed(self, value: Any) -> bool:
        """Whether an object was given, or is a part of one that was."""
        self._reached()
        return id(value) in self._objects

    def _protected(self) -> Iterator[Any]:
        values, shared = self._values, self._shared
        yield from (bare(values[slot]) for slot in self._slots if shared[slot])
        for constant in self._constants:
            if type(constant) is not Ref:
                yield constant
                yield from (leaf.value for leaf in parts_of(constant) if type(leaf) is Literal)

    def _reached(self) -> list[Array]:
        """What a kernel gets hold of directly, and what is in objects, which are passed on as they are."""
        if self._direct is None:
            self._direct = []
            for value in self._protected():
                kind = type(value)
                if kind in PLAIN_RESULT:
                    continue
                if kind is np.ndarray:
                    self._direct.append(value)
                    continue
                if memory.knows(type(value)):
                    self._direct += memory(value)
                    continue
                objects = (leaf for leaf in parts_of(value) if not memory.knows(type(leaf)))
                for leaf in islice(objects, MOST_PARTS):
                    for part in _insides(leaf):
                        self._objects[id(part)] = part
                        self._direct += memory(part)
        return self._direct

    def _all(self) -> Iterator[Array]:
        for value in self._protected():
            for leaf in parts_of(value):
                yield from memory(leaf)
        for slot in self._slots:
            if not self._shared[slot]:
                for leaf in parts_of(self._values[slot]):
                    for part in _insides(leaf):
                        yield from (array for array in memory(part) if not array.flags.writeable)


class Addresses:
    """The memory that arrays are spread over, as a row of ranges apart from each other."""

    __slots__ = ("_begins", "_ends")

    def __init__(self, arrays: Iterable[Array]) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []
        for begin, end in sorted(byte_bounds(array) for array in arrays if array.size):
            if self._ends and begin <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._begins.append(begin)
                self._ends.append(end)

    def meet(self, array: Array) -> bool:
        """Whether an array is on any of it."""
        begin, end = byte_bounds(array)
        place = bisect_right(self._ends, begin)  # the first range that ends behind the beginning
        return place < len(self._begins) and self._begins[place] < end


def own(result: Any, given: Given, name: str) -> Any:
    """A result of the operator of this name that is the user's to write to."""
    if type(result) is np.ndarray:
        return apart(result, copied) if given.on_memory_of(result) else result

    def of_the_user(leaf: Any) -> Any:
        known = memory.knows(type(leaf)) or isinstance(leaf, np.void)
        return _own_data(leaf, given) if known else _own_object(leaf, given, name)

    return map_parts(of_the_user, result)


def _own_data(leaf: Any, given: Given) -> Any:
    """An array or the like, as the user's; an object as it is."""
    if isinstance(leaf, np.void):
        return leaf.copy()  # nobody can tell of which array it is a part
    if any(map(given.on_memory_of, memory(leaf))):
        return apart(leaf, copied) if isinstance(leaf, np.ndarray) else copied(leaf)
    return leaf


def own_part(part: Any) -> Any:
    """A result that is an attribute or an item of an input, as the user's: arrays and the like are copied, and objects
    are the caller's own."""

    def of_the_user(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            return apart(leaf, copied)
        return copied(leaf) if memory.knows(type(leaf)) or isinstance(leaf, np.void) else leaf

    return map_parts(of_the_user, part)


# ------------------------------------------------------------------------------------------------ objects


def _own_object(value: Any, given: Given, name: str) -> Any:
    """An object of which nothing is known: what is read-only in it, and was given, is replaced."""
    if isinstance(value, _NOT_LOOKED_INTO) or given.passed(value):
        return value
    for holder in _holders(value):
        if given.passed(holder):
            continue
        for place, part in _places(holder):
            if not any(_is_locked(array, given) for leaf in parts_of(part) for array in memory(leaf)):
                continue
            if copied.knows(type(value)):
                return copied(value)
            if not _put(holder, place, map_parts(lambda leaf: _own_data(leaf, given), part)):
                _warn(value, name)
                return value
    return value


def _is_locked(array: Array, given: Given) -> bool:
    return not array.flags.writeable and given.on_memory_of(array)


def _insides(value: Any) -> Iterator[Any]:
    """A value, and what is in it: attributes, items, and theirs; up to so many."""
    for holder in _holders(value):
        yield holder
        for _, part in _places(holder):
            if memory.knows(type(part)):
                yield part


def _holders(value: Any) -> Iterator[Any]:
    """A value, and what in it may hold something in turn; not far down."""
    seen = {id(value): value}
    for holder in (waiting := [value]):  # grows
        yield holder
        if memory.knows(type(holder)):
            continue
        for _, part in _places(holder):
            if len(seen) < MOST_PARTS and id(part) not in seen and _may_hold(part):
                seen[id(part)] = part
                waiting.append(part)


def _may_hold(part: Any) -> bool:
    kind = type(part)
    return kind not in PLAIN_RESULT and not memory.knows(kind) and not isinstance(part, _NOT_LOOKED_INTO)


_ITEMS: Final[dict[type, Any]] = {list: list.__setitem__, dict: dict.__setitem__, deque: deque.__setitem__}


def _places(value: Any) -> Iterator[tuple[tuple[Any, Any], Any]]:
    """((how to put something there, name or index), what is there) of an object's own attributes, and of the items of a
    list, dict, deque or tuple; runs no code of its class."""
    if isinstance(value, dict):
        yield from (((dict, key), part) for key, part in _first(dict.items(value)))
    elif isinstance(value, (list, tuple, deque)):
        base: Any = next(base for base in (list, tuple, deque) if isinstance(value, base))
        yield from (((base, place), part) for place, part in enumerate(_first(base.__iter__(value))))
    yield from (((None, name), part) for name, part in islice(own_attributes(value), MOST_PARTS))


def _first(items: Iterable[Any]) -> list[Any]:
    try:
        return list(islice(items, MOST_PARTS))
    except RuntimeError:  # somebody is changing it
        return []


def _put(holder: Any, place: tuple[Any, Any], part: Any) -> bool:
    """Put something in the place of what is there; whether that was possible."""
    how, name = place
    try:
        if how is None and name in dict_of(holder):
            cast("dict[str, Any]", dict_of(holder))[name] = part
        elif how is None:
            object.__setattr__(holder, name, part)
        else:
            _ITEMS[how](holder, name, part)
    except (AttributeError, TypeError, KeyError):  # a tuple; an object that cannot be changed
        return False
    return True


def _warn(value: Any, name: str) -> None:
    kind = type(value).__qualname__
    warnings.warn(
        f"the result of operator {name!r} holds, in a {kind}, arrays that stay read-only, since they are on the memory "
        f"of an argument: let it return copies of them (`x.copy()`), or say with flow.copied.register({kind}) how one "
        "is copied",
        ResultWarning,
        stacklevel=2,
    )
