"""Protection by kind: what several readers get of a value, or any reader of what is the caller's, and what copies are.

Two registries by type say it, to which users add their own types; a type in neither is passed on as it is:

    readonly    what one reader gets: of an array a read-only view of its own, so that a write is an error and no data
                race, and what a kernel does to the shape of its view is seen by no other
    copied      what one that writes gets, what each attempt of several gets, and `stream(copy=True)`

How many refer to a value, no interpreter tells reliably (3.14 lends references, free-threaded builds share the counts),
so nothing here counts: a value is protected if the plan has several readers for it, or if it is the caller's. Nor are
flags of arrays changed, which may be the caller's, a constant's, or those of a result that its kernel keeps for itself.

In the values of a run, a protected one is *held* (`Held`); who reads it makes his own of it (`handed`). bytearray and
array.array can be copied only: nothing read-only is of their type. Containers (see `dataflow.graph.pytree`) are rebuilt
around what is in them. Other objects are passed on, also dataclasses with operators or pipelines among their methods:
those are models, whose methods may well set their attributes.
"""

from __future__ import annotations

import copy
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from threading import Lock
from typing import Any, Final

import numpy as np

from dataflow.graph.arrays import Array, copied_array, locked, locked_kind, memory_of
from dataflow.graph.bytype import ByType
from dataflow.graph.libraries import LIBRARIES
from dataflow.graph.pytree import ATOMS, Visit, is_model, kind_of, leaves, map_leaves, walked

__all__ = [
    "ANY_RESULT",
    "PLAIN_RESULT",
    "Bare",
    "Handed",
    "Held",
    "bare",
    "containers_in",
    "copied",
    "handed",
    "is_rebuilt",
    "map_parts",
    "memory",
    "parts_of",
    "readonly",
    "renewed",
    "writable",
]

PLAIN_RESULT: frozenset[type] = ATOMS
"""Results that can be neither written to, awaited nor indexed into something that can."""
ANY_RESULT: frozenset[type] = PLAIN_RESULT | {np.ndarray}
"""Results of a step with one reader that need no second look."""

_FIXED: frozenset[type] = ANY_RESULT | {object, list, tuple, dict, set, frozenset, deque, bytearray}

# ------------------------------------------------------------------------------------------------ the registries


def _meet(kind: type) -> None:
    """Describe the types of a library when the first of them, or of what is derived from them, is met."""
    for root in {base.__module__.partition(".")[0] for base in kind.__mro__} & _undescribed:
        module, describe = LIBRARIES[root]
        if module not in sys.modules:
            continue
        with _meeting:
            if root in _undescribed:
                described = describe()
                readonly.default({type_: each.readonly for type_, each in described.items()})
                copied.default({type_: each.copied for type_, each in described.items()})
                memory.default({type_: each.memory for type_, each in described.items()})
                _undescribed.discard(root)


_undescribed = set(LIBRARIES)
_meeting = Lock()


def _container_readonly(kind: type) -> Callable[[Any], Any] | None:
    return _readonly_container if _holds_data(kind) else None


def _readonly_container(container: Any) -> Any:
    return map_leaves(readonly, container, into=_into_readonly)


def _into_readonly(container: Any) -> bool:
    return readonly.dispatch(type(container)) is _readonly_container


def _container_copied(kind: type) -> Callable[[Any], Any] | None:
    if _holds_data(kind):
        return _copied_container
    return _copied_kind if issubclass(kind, (list, dict, set, deque, bytearray)) else None


def _copied_container(container: Any) -> Any:
    return map_leaves(copied, container, into=_into_copied, always=True)


def _into_copied(container: Any) -> bool:
    return copied.dispatch(type(container)) is _copied_container


def _copied_kind(value: Any) -> Any:
    """Of a kind of list or dict, which knows best what else belongs to it."""
    try:
        return copy.deepcopy(value)
    except Exception:  # it holds a lock, a module
        return copy.copy(value)


def _holds_data(kind: type) -> bool:
    return kind_of(kind) is not None and not is_model(kind)


readonly: Final = ByType(
    "readonly",
    """What one reader gets of a value that several see, or that is the caller's; a registry by type.

    An array gives a read-only view of its own over the same memory; a masked array one of its data and of its mask; a
    DataFrame a shallow copy under copy-on-write; DataArrays, Datasets and sparse matrices the same kind over read-only
    buffers; a memoryview a read-only one. Containers are rebuilt around what is in them, and all else is passed on as
    it is. Say what becomes of your own types with

        @flow.readonly.register(Image)
        def _(image: Image) -> Image:
            return Image(flow.readonly(image.pixels))

    The function is called once for each reader, on the thread that reads, and must not change the value.
    """,
    met=_meet,
    otherwise=_container_readonly,
    fixed=_FIXED,
)
copied: Final = ByType(
    "copied",
    """A copy that shares nothing that can be written to with the value; a registry by type.

    It says what an operator gets that writes into its argument (`writes=`), what each of several attempts (`retries=`)
    gets of what it alone reads, what `stream(copy=True)` makes of an item, and what becomes of a result that is on the
    memory of an input. Arrays of all kinds, DataFrames, DataArrays, sparse matrices, lists, dicts, sets, deques,
    bytearrays and dataclasses are copied, with all of these that they hold; other objects are passed on as they are.
    Say what a copy of your own type is with

        @flow.copied.register(Image)
        def _(image: Image) -> Image:
            return Image(image.pixels.copy())
    """,
    met=_meet,
    otherwise=_container_copied,
    fixed=_FIXED,
)
memory: Final = ByType(
    "memory",
    """The arrays on whose memory a value is.""",
    met=_meet,
    otherwise=lambda kind: None,
    fixed=frozenset(),
    default=lambda value: (),
)


def _masked(array: Any) -> Any:
    if array is np.ma.masked:  # as everybody asks with `is`
        return array
    view: Any = locked_kind(array, readonly)
    view._optinfo = dict(array._optinfo)
    view._fill_value = None if array._fill_value is None else array._fill_value.copy()  # written to by the setter
    return view


def _copied_record(record: Any) -> Any:
    """A masked record, which has numpy's `copy` and cannot call it."""
    return type(record)(record._data.copy(), record._mask.copy(), fill_value=record._fill_value)


def _at_the_same_place(new: Any, old: Any) -> Any:
    deque(islice(new, old.index), maxlen=0)
    return new


def _array_of(view: memoryview) -> tuple[Array, ...]:
    try:
        return (np.asarray(view),)
    except (ValueError, TypeError, RuntimeError):  # released, or of a format that numpy does not read
        return ()


def _copied_memory(view: memoryview) -> memoryview:
    own = memoryview(bytearray(view.tobytes()))
    try:
        return own.cast(view.format, view.shape) if view.ndim else own.cast(view.format, ())  # type: ignore[call-overload, no-any-return]
    except (ValueError, TypeError):  # nothing in it; or complex numbers, structured types, another order of bytes
        pass
    exporter: Any = view.obj
    try:
        exporter = np.asarray(view)
    except (ValueError, TypeError, RuntimeError):  # a format that numpy writes, and does not read
        if not isinstance(exporter, (np.ndarray, np.generic)):
            return view.toreadonly()
    copied_view = memoryview(exporter.copy())
    return copied_view if copied_view.shape == view.shape else view.toreadonly()


readonly.default(
    {
        np.ndarray: lambda array: locked(array) if type(array) is np.ndarray else locked_kind(array, readonly),
        np.ma.MaskedArray: _masked,
        np.void: lambda record: record.copy(),  # a part of an array, which no view of it can protect
        memoryview: memoryview.toreadonly,
    }
)
copied.default(
    {
        np.ndarray: lambda array: copied_array(array, copied),
        np.ma.MaskedArray: lambda array: array if array is np.ma.masked else copied_array(array, copied),
        np.ma.mvoid: _copied_record,
        np.void: lambda record: record.copy(),
        np.flatiter: lambda places: _at_the_same_place(copied(places.base).flat, places),
        memoryview: _copied_memory,
        array: copy.copy,
    }
)
memory.default({np.ndarray: memory_of, np.flatiter: lambda places: memory_of(places.base), memoryview: _array_of})


def map_parts(function: Callable[[Any], Any], value: Any) -> Any:
    """The value with what the function gives for each leaf that is no atom."""
    return map_leaves(function, value, into=_into_readonly)


def parts_of(value: Any) -> Iterator[Any]:
    """All leaves of a value that are no atoms; itself if it is no container."""
    return leaves(value, into=_into_readonly)


def containers_in(value: Any) -> list[Visit]:
    """All containers of a value that are rebuilt around what is protected in them."""
    return walked(value, into=_into_readonly) if is_rebuilt(type(value)) else []


def is_rebuilt(kind: type) -> bool:
    """Whether values of this type are containers that are rebuilt for each reader, if they hold what is protected."""
    return readonly.dispatch(kind) is _readonly_container


# ------------------------------------------------------------------------------------------------ what a run holds


class Held:
    """A value of a run that is handed out protected."""

    __slots__ = ("seed", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.seed: Any = None
        """What makes the next one quick. Two readers may set it at the same moment: one is as good as the other."""

    @classmethod
    def live(cls, value: Any) -> Held:
        """One that operators change meanwhile: whoever reads it looks at it as it is then."""
        made = cls(value)
        made.seed = _LIVE
        return made

    @classmethod
    def handed_out(cls, value: Any, own: Any) -> Held:
        """One whose only reader has been given his own already."""
        made = cls(value)
        made.seed = _Own(own)
        return made

    @classmethod
    def looked_through(cls, value: Any) -> Held:
        """One that has a seed: looking through a large value is nothing for the loop."""
        made = cls(value)
        _hand(made)
        return made

    def __repr__(self) -> str:
        return f"<held {type(self.value).__name__}>"


class _Own:
    """A seed: what was handed out."""

    __slots__ = ("own",)

    def __init__(self, own: Any) -> None:
        self.own = own


_PASSED_ON = object()
"""A seed: there is nothing in it to protect."""
_LIVE = object()
"""A seed: none will do."""


def bare(value: Any) -> Any:
    """The value itself, of one that may be held."""
    return value.value if type(value) is Held else value


def handed(value: Any) -> Any:
    """What one reader gets of a value that may be held."""
    if type(value) is Held:
        seed = value.seed
        return seed.view() if type(seed) is np.ndarray else _hand(value)
    return value


def _hand(held: Held) -> Any:
    value, seed = held.value, held.seed
    if seed is _PASSED_ON:
        return value
    if seed is _LIVE:
        return readonly(value)
    if type(seed) is _Own:
        return seed.own
    if type(value) is np.ndarray:
        held.seed = seed = value.view() if _is_locked(value) else locked(value)
        return seed.view()
    if readonly.dispatch(type(value)) is not _readonly_container:
        made = readonly(value)
    else:
        if seed is None:
            held.seed = seed = map_leaves(_seed, value, into=_into_readonly)
        made = map_leaves(_from_seed, seed, into=_into_readonly)
    if made is value:
        held.seed = _PASSED_ON
    return made


def _is_locked(array: Array) -> bool:
    """Whether an array is a view that was handed out, which a kernel has returned."""
    seed = array.base
    if array.flags.writeable or type(seed) is not np.ndarray:
        return False
    memory: Any = seed.base
    return type(memory) is memoryview and memory.readonly


def _seed(leaf: Any) -> Any:
    return locked(leaf) if type(leaf) is np.ndarray else leaf


def _from_seed(leaf: Any) -> Any:
    return leaf.view() if type(leaf) is np.ndarray else readonly(leaf)


class Handed:
    """The values of a run as one reader sees them: for what fetches them by number to put them into containers.

    What is read twice is the same object, as in plain Python.
    """

    __slots__ = ("_lone", "_seen", "_values")

    def __init__(self, values: Sequence[Any], lone: Callable[[Any], Any] | None = None) -> None:
        self._values = values
        self._lone = lone
        """What becomes of those that nobody else reads."""
        self._seen: dict[int, Any] = {}

    def __getitem__(self, slot: int) -> Any:
        seen = self._seen
        if slot not in seen:
            value = self._values[slot]
            seen[slot] = handed(value) if self._lone is None or type(value) is Held else self._lone(value)
        return seen[slot]


class Bare:
    """The values of a run as an operator sees them that changes them."""

    __slots__ = ("_values",)

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = values

    def __getitem__(self, slot: int) -> Any:
        return bare(self._values[slot])


def renewed(value: Any) -> Any:
    """Containers that are new, around what readers get or else copies: for each of several attempts at an async
    operator, of what it alone reads. Its arrays are read-only, since copying them would hold the loop."""
    return map_leaves(_renewed, value, into=_into_readonly, always=True)


def _renewed(leaf: Any) -> Any:
    return readonly(leaf) if readonly.knows(type(leaf)) else copied(leaf)


def writable(value: Any) -> Any:
    """What an operator gets that writes into an argument which nobody else has: what is read-only in it is copied."""
    return map_leaves(_writable, bare(value), into=_into_copied)


def _writable(leaf: Any) -> Any:
    return copied(leaf) if any(not array.flags.writeable for array in memory(leaf)) else leaf
