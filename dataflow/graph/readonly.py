"""Read-only protection: a write to an array that others read is an error, not a data race.

Readers get a view over a read-only memoryview of the array, which numpy refuses to make writable. The flags of the
array itself are never changed: it may be the caller's, a constant, or a result that its kernel keeps for itself, and
how many refer to it, no interpreter tells reliably (3.14 lends references, free-threaded builds share the counts).
Subclasses and dtypes without a buffer get a plain read-only view.

Containers (see `dataflow.graph.pytree`) are rebuilt around guarded arrays. Other objects are passed on as they are,
also dataclasses with operators or pipelines among their methods: those are models, whose methods may well set their
attributes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dataflow.graph.pytree import is_record, kind_of, leaves, map_leaves
from dataflow.graph.templates import Literal

__all__ = ["ANY_RESULT", "PLAIN_RESULT", "Guarded", "guard", "own", "writable"]

PLAIN_RESULT: frozenset[type] = frozenset(
    [type(None), bool, int, float, complex, str, bytes, np.bool_, np.float64, np.float32, np.int64, np.int32]
)
"""Results that can be neither written to, awaited nor indexed into something that can."""
ANY_RESULT: frozenset[type] = PLAIN_RESULT | {np.ndarray}
"""Results of a step with one reader that need no second look."""


def guard(value: Any) -> Any:
    """What readers get instead of a value."""
    if type(value) in PLAIN_RESULT:
        return value
    if kind_of(type(value)) is None:
        return _guarded(value)
    return map_leaves(_guarded, value, into=_looked_into)


class Guarded:
    """An input that was guarded before its run begins: looking through a large one is nothing for the loop."""

    __slots__ = ("guarded", "original")

    def __init__(self, guarded: Any, original: Any) -> None:
        self.guarded = guarded
        self.original = original

    @classmethod
    def of(cls, value: Any) -> Guarded:
        """This value, guarded."""
        return cls(guard(value), value)


def _guarded(leaf: Any) -> Any:
    return _view(leaf) if isinstance(leaf, np.ndarray) else leaf


def _looked_into(container: Any) -> bool:
    type_: Any = type(container)
    return not hasattr(type_, "__dataclass_fields__") or is_record(type_)


def _view(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if type(array) is np.ndarray:
        base: Any = array.base
        if not array.flags.writeable and type(base) is memoryview and base.readonly:
            return array  # a view of this kind already
        plain: Any = array.view(np.int64) if array.dtype.kind in "mM" else array  # dates have no buffer, integers do
        try:
            view = np.asarray(memoryview(plain).toreadonly())
        except (ValueError, TypeError, BufferError, NotImplementedError):
            pass  # no buffer for this dtype
        else:
            if plain is not array:
                view = view.view(array.dtype)
            if view.dtype == array.dtype and view.strides == array.strides:
                return view
    view = array.view()
    view.setflags(write=False)
    return view


def writable(value: Any, *, copy: bool) -> Any:
    """What an operator gets that writes into its argument: arrays that are read-only, or all if `copy`, as copies."""

    def writable_leaf(leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray):
            return leaf
        return leaf.copy(order="K") if copy or not leaf.flags.writeable else leaf

    return map_leaves(writable_leaf, value, into=_looked_into, always=copy)


def own(result: Any, arguments: Any, constants: Any = ()) -> Any:
    """A final result that is the user's to write to.

    What became read-only only because it is a view of a guarded argument, or of a constant, is copied; what is
    read-only by nature (the kernel made it so, or broadcast it) stays as it is.
    """
    if type(result) in PLAIN_RESULT or (kind_of(type(result)) is None and not isinstance(result, np.ndarray)):
        return result
    memories: set[int] = set()
    """Of what may not be written to, by id; filled when something read-only is met."""

    def of_the_user(leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray) or leaf.flags.writeable:
            return leaf
        if not memories:
            guarded = [argument for argument in _arrays(arguments) if not argument.flags.writeable]
            memories.update(id(_root(argument)) for argument in (*guarded, *_arrays(constants)))
            memories.add(0)
        return leaf.copy(order="K") if id(_root(leaf)) in memories else leaf

    return map_leaves(of_the_user, result, into=_looked_into)


def _root(array: np.ndarray[Any, Any]) -> Any:
    base: Any = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return base.obj if isinstance(base, memoryview) else base


def _arrays(arguments: Any) -> list[np.ndarray[Any, Any]]:
    found: list[np.ndarray[Any, Any]] = []
    for leaf in leaves(arguments):
        if isinstance(leaf, np.ndarray):
            found.append(leaf)
        elif type(leaf) is Literal:
            found += _arrays(leaf.value)
    return found
