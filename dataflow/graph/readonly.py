"""Read-only protection: a write to an array that others read is an error, not a data race.

Readers get a view over a read-only memoryview of the array, which numpy refuses to make writable. The flags of the
array itself are never changed: it may be the caller's, a constant, or a result that its kernel keeps for itself, and
how many refer to it, no interpreter tells reliably (3.14 lends references, free-threaded builds share the counts).
Subclasses and dtypes without a buffer get a plain read-only view.

Containers (tuples, lists, dicts, deques, dataclasses, and what is derived from them) are rebuilt around guarded arrays.
Other objects are passed on as they are, also dataclasses with operators or pipelines among their methods: those are
models, whose methods may well set their attributes.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from dataflow.graph.nodes import Declared

__all__ = ["ANY_RESULT", "PLAIN_RESULT", "guard", "own", "writable"]

PLAIN_RESULT: frozenset[type] = frozenset(
    [type(None), bool, int, float, complex, str, bytes, np.bool_, np.float64, np.float32, np.int64, np.int32]
)
"""Results that can be neither written to, awaited nor indexed into something that can."""
ANY_RESULT: frozenset[type] = PLAIN_RESULT | {np.ndarray}
"""Results of a step with one reader that need no second look."""

_CONTAINERS = (tuple, list, dict, deque)


def guard(value: Any) -> Any:
    """What readers get instead of a value."""
    if type(value) in PLAIN_RESULT:
        return value
    if isinstance(value, np.ndarray):
        return _view(value)
    if _is_container(value):
        return _rebuild(value, guard)
    return value


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


def _is_container(value: Any) -> bool:
    kind: Any = type(value)
    return issubclass(kind, _CONTAINERS) or _is_record(kind)


@lru_cache(maxsize=1024)
def _is_record(kind: type) -> bool:
    """Whether its instances are dataclasses that only hold data."""
    attributes = (attribute for cls in kind.__mro__ for attribute in vars(cls).values())
    return is_dataclass(kind) and not any(isinstance(attribute, Declared) for attribute in attributes)


def _rebuild(container: Any, guarded: Callable[[Any], Any]) -> Any:
    """The container over guarded items; the very same one if there was nothing to guard."""
    if isinstance(container, dict):
        return _with_items(container, {key: guarded(item) for key, item in container.items()}, dict.__setitem__)
    if is_dataclass(container):
        held = {f.name: getattr(container, f.name) for f in fields(container) if hasattr(container, f.name)}
        new = {name: guarded(item) for name, item in held.items()}
        return _with_items(container, {n: v for n, v in new.items() if v is not held[n]}, object.__setattr__)
    items = [guarded(item) for item in container]
    kind = type(container)
    if all(new is old for new, old in zip(items, container, strict=True)):
        return container
    if kind is tuple or kind is list:
        return kind(items)
    if isinstance(container, tuple):
        make = getattr(kind, "_make", None)
        return make(items) if make is not None else container
    return _with_items(container, dict(enumerate(items)), kind.__setitem__)


def _with_items(container: Any, items: dict[Any, Any], put: Callable[[Any, Any, Any], object]) -> Any:
    """A copy that holds these instead; the container itself if it holds them already."""
    if isinstance(container, dict) and all(items[key] is container[key] for key in items):
        return container
    if not items:
        return container
    if type(container) is dict:
        return items
    same_kind = copy.copy(container)
    for key, item in items.items():
        put(same_kind, key, item)
    return same_kind


def writable(value: Any, *, copy: bool) -> Any:
    """What an operator gets that writes into its argument: arrays that are read-only, or all if `copy`, as copies."""
    if isinstance(value, np.ndarray):
        return value.copy(order="K") if copy or not value.flags.writeable else value
    if _is_container(value):
        return _rebuild(value, lambda item: writable(item, copy=copy))
    return value


def own(result: Any, arguments: Any, constants: Any = ()) -> Any:
    """A final result that is the user's to write to.

    What became read-only only because it is a view of a guarded argument, or of a constant, is copied; what is
    read-only by nature (the kernel made it so, or broadcast it) stays as it is.
    """
    if type(result) in PLAIN_RESULT:
        return result
    if isinstance(result, np.ndarray):
        if result.flags.writeable:
            return result
        memory = _root(result)
        guarded = [argument for argument in _arrays(arguments) if not argument.flags.writeable]
        if any(_root(argument) is memory for argument in (*guarded, *_arrays(constants))):
            return result.copy(order="K")
        return result
    if _is_container(result):
        return _rebuild(result, lambda item: own(item, arguments, constants))
    return result


def _root(array: np.ndarray[Any, Any]) -> Any:
    base: Any = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return base.obj if isinstance(base, memoryview) else base


def _arrays(arguments: Any) -> list[np.ndarray[Any, Any]]:
    found: list[np.ndarray[Any, Any]] = []
    waiting = [arguments]
    while waiting:
        value = waiting.pop()
        if isinstance(value, np.ndarray):
            found.append(value)
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, (tuple, list, deque)):
            waiting += value
        elif is_dataclass(value) and not isinstance(value, type):
            waiting += [getattr(value, field.name, None) for field in fields(value)]
    return found
