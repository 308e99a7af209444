"""What a body may do with a placeholder, as operators: the OpSpecs of attributes, methods and numpy's functions.

Each is made once and then shared, so that two nodes that do the same have the same spec.
"""

from __future__ import annotations

import copy
import inspect
import operator
import sys
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from types import EllipsisType, NoneType
from typing import Any, Final

import numpy as np

from dataflow.graph.nodes import Declared, Kind, OpSpec
from dataflow.graph.readonly import copied
from dataflow.graph.tracing.tracer import Traced

__all__ = [
    "CALL",
    "CHANGED_BY_AN_OP",
    "CHANGES_ITSELF",
    "CHANGES_ITS_ARGUMENT",
    "CONCAT",
    "CONSTANT_GETITEM",
    "GETITEM",
    "LIKE",
    "MUTABLE",
    "POWER",
    "ROUND",
    "attribute",
    "changes_itself",
    "copied_for_inplace",
    "function_call",
    "in_place",
    "is_constant_index",
    "like_call",
    "method_call",
    "place_of_out",
    "recorded",
    "ufunc_method_call",
    "unpack",
    "unpacking",
]


def recorded(fn: Callable[..., Any], name: str) -> OpSpec:
    """A function that runs as a kernel."""
    return OpSpec(fn, name, Kind.RECORDED)


def call_of_value(called: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Call what only the run knows. TypeError for an operator or pipeline that is more than its function."""
    if isinstance(called, Declared) and called.is_managed_or_run:
        name = getattr(called, "name", "?")
        raise TypeError(
            f"{name!r} is reached by way of an argument, where it would be called as a plain function, without its "
            "options and not as a part of the graph; name that argument in static=, or give the object as a constant"
        )
    return called(*args, **kwargs)


CALL: Final = recorded(call_of_value, "call")
GETITEM: Final = recorded(operator.getitem, "getitem")
CONSTANT_GETITEM: Final = OpSpec(operator.getitem, "getitem", Kind.PLUMBING)
POWER: Final = recorded(pow, "power")
ROUND: Final = recorded(round, "round")


class Method:
    """Calls one method by its name: `Method("mean")(array, axis=0)` is `array.mean(axis=0)`."""

    __slots__ = ("_may_change", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._may_change = name in _MAY_CHANGE

    def __call__(self, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        if self._may_change and _changes(target, self.name):
            raise TypeError(
                f".{self.name}() would change a {type(target).__name__} that other nodes may read; {CHANGED_BY_AN_OP}"
            )
        return call_of_value(getattr(target, self.name), *args, **kwargs)

    def __repr__(self) -> str:
        return f"Method({self.name!r})"


CHANGED_BY_AN_OP: Final = (
    "build the new one inside an op, of a copy, or let an op change what the caller owns (flow.op(inout=...))"
)
MUTABLE: Final = (list, dict, set, bytearray, deque, array)
_CHANGES_SOME: Final = frozenset(
    {"add", "appendleft", "extendleft", "insert", "move_to_end", "pop", "popleft", "remove", "rotate", "subtract"}
    | {"difference_update", "intersection_update", "symmetric_difference_update"}
    | {"byteswap", "frombytes", "fromfile", "fromlist", "fromunicode"}
)
"""Methods that change a container, but have namesakes that make something new: only the value can tell."""
_CHANGES_KINDS: Final[dict[str, frozenset[tuple[str, str]]]] = {
    "insert": frozenset({("pandas", "DataFrame"), ("polars", "Series")}),
    "pop": frozenset({("pandas", "NDFrame"), ("pandas", "DataFrame"), ("pandas", "Series")}),
    "isetitem": frozenset({("pandas", "DataFrame")}),
    "resize": frozenset({("numpy", "ndarray"), ("scipy", "_spbase")}),
    "partition": frozenset({("numpy", "ndarray")}),
    "prune": frozenset({("scipy", "_spbase")}),
    "check_format": frozenset({("scipy", "_spbase")}),
}
"""The same for methods of libraries: the types that they change, by the library and the name of a class of theirs."""
_MAY_CHANGE: Final = _CHANGES_SOME | _CHANGES_KINDS.keys()


def _changes(target: Any, name: str) -> bool:
    """Whether the method with this name would change it."""
    if name in _CHANGES_SOME and isinstance(target, MUTABLE):
        return hasattr(target, name)
    kinds = _CHANGES_KINDS.get(name, ())
    return any((base.__module__.partition(".")[0], base.__name__) in kinds for base in type(target).__mro__)


@lru_cache(maxsize=1024)
def method_call(name: str) -> OpSpec:
    """The call of a method: one node."""
    return recorded(Method(name), name)


@lru_cache(maxsize=1024)
def attribute(name: str) -> OpSpec:
    """The value of an attribute."""
    return OpSpec(operator.attrgetter(name), name, Kind.PLUMBING)


@lru_cache(maxsize=1024)
def function_call(fn: Callable[..., Any]) -> OpSpec:
    """One of numpy's functions, or a ufunc."""
    return recorded(fn, getattr(fn, "__name__", type(fn).__name__))


@lru_cache(maxsize=1024)
def ufunc_method_call(ufunc: np.ufunc, name: str) -> OpSpec:
    """`np.add.reduce` and its like."""
    return recorded(getattr(ufunc, name), f"{ufunc.__name__}.{name}")


def unpack(value: object, count: int) -> tuple[object, ...]:
    """What `a, b = value` does at run time: exactly `count` items, or the ValueError of the statement.

    >>> unpack("ab", 2)
    ('a', 'b')
    """
    items: list[object] = []
    for item in value:  # type: ignore[attr-defined]  # TypeError if it cannot be iterated, as the statement's
        if len(items) == count:
            raise ValueError(f"too many values to unpack (expected {count})")
        items.append(item)
    if len(items) < count:
        raise ValueError(f"not enough values to unpack (expected {count}, got {len(items)})")
    return tuple(items)


@lru_cache(maxsize=64)
def unpacking(count: int) -> OpSpec:
    """The tuple behind `a, b = node`, which has as many items as there are names."""
    return OpSpec(partial(unpack, count=count), f"unpack_{count}", Kind.PLUMBING)


# ------------------------------------------------------------------------------------------------ constant indices

_INDEX_LEAVES = frozenset({int, NoneType, EllipsisType, str})  # by exact type: True is an index of another kind
_SLICE_LEAVES = frozenset({int, NoneType})


def is_constant_index(key: Any) -> bool:
    """Whether an index is made of plain constants, so that indexing only picks and is as cheap as an attribute."""
    return all(map(_is_constant_part, key)) if type(key) is tuple else _is_constant_part(key)


def _is_constant_part(key: Any) -> bool:
    kind = type(key)
    if kind is slice:
        return type(key.start) in _SLICE_LEAVES and type(key.stop) in _SLICE_LEAVES and type(key.step) in _SLICE_LEAVES
    return kind in _INDEX_LEAVES


# ------------------------------------------------------------------------------------------------ writing in place


class InPlace:
    """`x += y` on a copy of x, which others may read: the result has the type, dtype and shape that x has.

    >>> InPlace(operator.iadd)([1], (2,))
    [1, 2]
    """

    __slots__ = ("_method", "_operation", "_ufunc")

    def __init__(self, operation: Callable[[Any, Any], Any], ufunc: np.ufunc | None = None) -> None:
        self._operation = operation
        self._method = f"__{operation.__name__}__"
        self._ufunc = ufunc

    def __call__(self, left: Any, right: Any) -> Any:
        if self._ufunc is not None and type(right) in _ARRAYS_AND_NUMBERS and _is_plain_array(left):
            # It is what the statement does, with `left` itself as the last argument: the copy is written once.
            return self._ufunc(left, right, np.empty_like(left))
        if hasattr(type(left), self._method):  # others make something new
            left = copied_for_inplace(left)
        return self._operation(left, right)

    def __reduce__(self) -> tuple[Any, ...]:
        return InPlace, (self._operation, self._ufunc)

    def __repr__(self) -> str:
        return f"InPlace({self._operation.__name__})"


def in_place(operation: Callable[[Any, Any], Any], ufunc: np.ufunc | None = None) -> OpSpec:
    """An in-place operator; `ufunc` is what it calls for arrays, if it does nothing else."""
    return recorded(InPlace(operation, ufunc), operation.__name__)


def _concat_in_place(left: Any, right: Any) -> Any:
    """`operator.iconcat` on a copy of what it would change."""
    changed: Any = copied_for_inplace(left) if hasattr(type(left), "__iadd__") else left
    return operator.iconcat(changed, right)  # type: ignore[no-untyped-call]


CONCAT: Final = {
    "concat": recorded(operator.concat, "concat"),
    "iconcat": recorded(_concat_in_place, "iconcat"),
}
"""What asks a placeholder for `+`, and means something else by it: no sum of arrays."""

_ARRAYS_AND_NUMBERS: Final[frozenset[Any]] = frozenset({np.ndarray, bool, int, float, complex, *np.sctypeDict.values()})
"""What numpy's in-place operators never leave to the right operand."""


def copied_for_inplace(value: Any) -> Any:
    """What an in-place operator changes instead of a value: a copy as deep as such operators reach.

    Containers and arrays hold the same items. Of everything else that has such operators, and may share its memory with
    a shallow copy, `flow.copied` says what a copy is; of what it does not know, it is a deep one. Raises TypeError for
    what cannot be copied.
    """
    if isinstance(value, np.ndarray):
        if _repeats_itself(value):
            return value
        return value.copy(order="K") if type(value) is np.ndarray else copied(value)
    if isinstance(value, MUTABLE):
        return copy.copy(value)
    try:
        return copied(value) if copied.knows(type(value)) else copy.deepcopy(value)
    except Exception as error:
        raise TypeError(
            f"an in-place operator would change a {type(value).__name__} that other nodes may read, and which cannot be"
            " copied; do it inside an op, or say with flow.copied.register how it is copied"
        ) from error


def _is_plain_array(value: Any) -> bool:
    return type(value) is np.ndarray and not value.dtype.hasobject and not _repeats_itself(value)


def _repeats_itself(array: np.ndarray[Any, Any]) -> bool:
    """Whether it is read-only because its items share memory, as those of np.broadcast_to: numpy refuses it so."""
    if array.flags.writeable or not array.size or 0 not in array.strides:
        return False
    return any(stride == 0 and length > 1 for stride, length in zip(array.strides, array.shape))


CHANGES_ITS_ARGUMENT: Final[frozenset[str]] = frozenset(
    {"copyto", "put", "place", "putmask", "put_along_axis", "fill_diagonal", "assign_fields_by_name"}
)
"""Numpy's functions that write into an argument without being told to by `out`; the last is in numpy.lib.recfunctions,
which is not imported for this."""

CHANGES_ITSELF: Final[frozenset[str]] = frozenset(
    {"fill", "itemset", "put", "setfield", "setflags", "sort"}  # of arrays
    | {"harden_mask", "shrink_mask", "soften_mask", "unshare_mask"}  # of masked ones
    | {"append", "clear", "discard", "extend", "popitem", "reverse", "setdefault", "update"}  # of lists, dicts and sets
    | {"eliminate_zeros", "setdiag", "sort_indices", "sum_duplicates"}  # of sparse matrices
    | {"drop_in_place", "insert_column", "replace_column"}  # of frames of polars
)
"""Methods whose point is to change the object, while others may read it. Not those that other types have as well and
that make something new there (`resize` of images, `partition` and `insert` of strings and indices)."""


def changes_itself(name: str, kwargs: Mapping[str, Any]) -> str:
    """How the call of a method says that it changes the object, or another, that others may read; empty if it does not.

    `inplace=` is pandas' word for it, a name that ends in an underscore torch's.
    """
    if name in CHANGES_ITSELF or (name[-1:] == "_" and name[:1] != "_"):
        return f".{name}()"
    if kwargs.get("inplace", False) is not False:
        return f".{name}(inplace=...)"
    return f".{name}(out=...)" if _is_written_to(kwargs.get("out")) else ""


def _is_written_to(out: Any) -> bool:
    """Whether this is an array, or what may be one: of other types, only their class knows what `out` means."""
    kinds = map(type, out) if type(out) is tuple else (type(out),)
    return any(issubclass(kind, (np.ndarray, Traced)) for kind in kinds)


LIKE: Final = frozenset(
    {"array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray", "require"}
    | {"arange", "empty", "eye", "full", "identity", "ones", "tri", "zeros"}
    | {"frombuffer", "fromfile", "fromfunction", "fromiter", "fromstring", "genfromtxt", "loadtxt"}
)
"""Numpy's functions that are dispatched by their argument `like`, and by no other; it is not among what they are told.
"""


class Like:
    """One of these functions, with `like`, to which the frame of this call refers until it is over.

    Numpy itself takes it out of the dict of keywords first, and reads it then: frombuffer(b"", **{"like": made_anew})
    reads memory that is free already.
    """

    __slots__ = ("__name__", "_function")

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__name__ = function.__name__

    def __call__(self, /, *args: Any, like: Any, **kwargs: Any) -> Any:
        return self._function(*args, like=like, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return Like, (self._function,)

    def __repr__(self) -> str:
        return f"Like({self.__name__})"


@lru_cache(maxsize=64)
def like_call(function: Callable[..., Any]) -> OpSpec:
    """One of numpy's functions in `LIKE`."""
    return recorded(Like(function), function.__name__)


@lru_cache(maxsize=1024)
def place_of_out(fn: Callable[..., Any]) -> int:
    """Where a numpy function takes `out` when it is passed by position; beyond all places if it never does."""
    if fn in (np.dot, np.concatenate):  # written in C; not every numpy knows their signature
        return 2
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except ValueError:
        return sys.maxsize
    for place, parameter in enumerate(parameters):
        if parameter.name == "out" and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            return place
    return sys.maxsize
