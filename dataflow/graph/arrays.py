"""numpy's arrays, whatever their kind: read-only views over the same memory, copies, and which memory they are on.

A view over a read-only memoryview is one that numpy refuses to make writable; so is every view of it. The flags of the
array itself are never changed. The dtype of a view is the very object (with metadata, offsets, titles, alignment), its
strides are those of the array, and of a subclass it has the attributes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from math import gcd
from threading import local
from typing import Any, cast

import numpy as np
from numpy.lib.stride_tricks import as_strided

__all__ = ["Array", "apart", "copied_array", "locked", "locked_kind", "memory_of"]

Array = np.ndarray[Any, Any]
_NO_BUFFER = (ValueError, TypeError, BufferError, NotImplementedError, RuntimeError)
"""What numpy raises for a dtype that PEP 3118 cannot describe, or that numpy describes and cannot read."""


def locked(array: Array) -> Array:
    """A read-only view of an exact ndarray.

    It cannot be made writable, except where the dtype mixes objects with padding, or is a StringDType.
    """
    dtype = array.dtype
    try:
        exporter: Any = array
        view: Array = np.asarray(memoryview(exporter).toreadonly())
        if view.dtype is dtype and view.strides == array.strides:
            return view
        if view.dtype == dtype:
            return _as(array, view)
    except _NO_BUFFER:
        pass
    try:
        opaque: Any = array.view(f"S{dtype.itemsize}")  # bytes of the same size: for any layout, and back again
        return _as(array, np.asarray(memoryview(opaque).toreadonly()))
    except _NO_BUFFER:
        view = array.view()
        view.setflags(write=False)
        return view


def _as(array: Array, view: Array) -> Array:
    """The view with the dtype of the array; and with its strides, which the buffer protocol does not keep along axes
    of one item."""
    if view.strides != array.strides:
        view = as_strided(view, array.shape, array.strides, writeable=False)
    return view.view(array.dtype)


class _UnderWay(local):
    """Of arrays whose attributes or items are looked at in this thread, by id, what they become: arrays may hold each
    other."""

    def __init__(self) -> None:
        self.locked: dict[int, Array] = {}
        self.copied: dict[int, Array] = {}


_under_way = _UnderWay()


def locked_kind(array: Array, readonly: Callable[[Any], Any]) -> Array:
    """A read-only view of the same subclass; its attributes are what `readonly` gives for those of the array."""
    known = _under_way.locked
    if id(array) in known:
        return known[id(array)]
    kind: Any = type(array)
    try:
        view: Any = locked(np.ndarray.view(array, np.ndarray)).view(kind)
    except Exception:  # a class that cannot be put on a plain array
        view = array.view()
        view.setflags(write=False)
    view.__array_finalize__(array)
    known[id(array)] = locked_view = cast(Array, view)
    try:
        _take_attributes(view, array, readonly, lambda name: True)
    finally:
        del known[id(array)]
    return locked_view


def copied_array(array: Array, copied: Callable[[Any], Any]) -> Array:
    """A writable copy in the order of the memory, of the same class. `copied` is asked about items that are objects and
    about attributes."""
    known, plain = _under_way.copied, type(array) is np.ndarray
    if plain and array.dtype.kind != "O":
        return array.copy(order="K")
    if id(array) in known:
        return known[id(array)]
    own_copy = not plain and type(array).copy not in (np.ndarray.copy, np.ma.MaskedArray.copy)
    known[id(array)] = same = array.copy() if own_copy else array.copy(order="K")
    try:
        if not plain:
            held = getattr(same, "__dict__", {})
            _take_attributes(same, array, copied, lambda name: name not in held or held[name] is vars(array)[name])
        if array.dtype.kind == "O":
            _copy_items(same, copied)
    finally:
        del known[id(array)]
    return same


def _copy_items(array: Array, copied: Callable[[Any], Any]) -> None:
    old = np.ndarray.view(array, np.ndarray)
    items = list(old.flat)
    new = list(map(copied, items))
    if not all(map(operator.is_, new, items)):
        row = np.empty(len(new), dtype=object)
        for place, item in enumerate(new):
            row[place] = item  # all at once, numpy would look into lists
        old[...] = row.reshape(old.shape)


def _take_attributes(new: Any, old: Any, made: Callable[[Any], Any], wanted: Callable[[str], bool]) -> None:
    if hasattr(old, "__dict__"):
        vars(new).update({name: made(value) for name, value in vars(old).items() if wanted(name)})


def memory_of(array: Array) -> Iterator[Array]:
    """The arrays whose memory it is on: itself, and those among the attributes of a subclass, such as a mask."""
    waiting, met = [array], {id(array)}
    while waiting:
        array = waiting.pop()
        yield array
        if type(array) is not np.ndarray:
            for value in getattr(array, "__dict__", {}).values():
                if isinstance(value, np.ndarray) and id(value) not in met:
                    met.add(id(value))
                    waiting.append(value)


def apart(array: Array, copied: Callable[[Any], Any]) -> Array:
    """A copy that is the user's: writable, and in the order of the memory.

    What is seen several times over (a broadcast, windows that slide) is not blown up: it stays so, on a copy of the
    memory that it is spread over, and read-only. So do `broadcast_to` and `sliding_window_view` give it, and so will
    `broadcast_arrays`, as numpy announces.
    """
    if type(array) is not np.ndarray:
        return cast(Array, copied(array))
    if array.flags.forc or not array.size:
        return copied_array(array, copied)
    span = sum(abs(stride) * (count - 1) for stride, count in zip(array.strides, array.shape))  # first to last item
    if array.nbytes <= span + array.itemsize:
        return copied_array(array, copied)
    forward = tuple(slice(None, None, -1 if stride < 0 else None) for stride in array.strides)
    return _repeated(array[forward], span, copied)[forward]


def _repeated(array: Array, span: int, copied: Callable[[Any], Any]) -> Array:
    size, dtype = array.itemsize, array.dtype
    step = gcd(*(stride for stride, count in zip(array.strides, array.shape) if count > 1)) or size
    places = span // step + 1
    if dtype.hasobject or step % size or places >= array.size:  # what lies between items may be none of its kind
        once = array[tuple(slice(None) if stride else slice(1) for stride in array.strides)]
        return np.broadcast_to(copied_array(once, copied), array.shape)
    once = as_strided(array, (places,), (step,), writeable=False).copy()
    strides = [stride // step * size for stride in array.strides]
    return as_strided(once, array.shape, strides, writeable=False).view(dtype)
