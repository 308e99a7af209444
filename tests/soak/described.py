"""What can be told of a value, as plain tuples that can be compared: bits, type, dtype, flags and layout."""

from __future__ import annotations

import types
from collections import deque
from typing import Any

import numpy as np

__all__ = ["described"]

Array = np.ndarray[Any, Any]


def described(value: Any, layout: str = "its own", depth: int = 6) -> Any:
    """Everything that tells this value from others. `layout` is "its own", or "of a copy" that has the same order.

    Whether an array is writable, or the owner of its memory, is not told: readers get read-only views.
    """
    if depth == 0:
        return "..."

    def inner(part: Any) -> Any:
        return described(part, layout, depth - 1)

    kind = type(value)
    if isinstance(value, np.ma.MaskedArray):
        return _masked(value, layout, depth)
    if isinstance(value, np.ndarray):
        return _array(value, layout, depth)
    if isinstance(value, np.generic):
        return kind, _dtype(value.dtype), _bits(np.asarray(value), depth)
    if isinstance(value, np.dtype):
        return _dtype(value)
    if isinstance(value, np.flatiter):
        return kind, value.index, _array(value.copy(), layout, depth)
    if isinstance(value, (list, tuple, deque)):
        return kind, [inner(item) for item in value]
    if isinstance(value, dict):
        return kind, [(inner(key), inner(item)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return kind, sorted(map(repr, value))
    if isinstance(value, memoryview):
        return kind, value.format, value.shape, value.tobytes()
    if isinstance(value, (float, complex)):
        return kind, repr(value)  # tells nan from nan, and -0.0 from 0.0
    if isinstance(value, (types.BuiltinMethodType, types.MethodType)) and value.__self__ is not None:
        return kind, value.__name__
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType, np.ufunc)):
        return kind, getattr(value, "__qualname__", value.__name__)
    if isinstance(value, np._core.multiarray.flagsobj):
        return kind, value.c_contiguous, value.f_contiguous, value.aligned
    if isinstance(value, slice):
        return kind, inner(value.start), inner(value.stop), inner(value.step)
    if _told_by_repr(value):
        return kind, repr(value)
    return kind, _attributes(value, layout, depth)


def _told_by_repr(value: Any) -> bool:
    return " at 0x" not in repr(value) and type(value).__repr__ is not object.__repr__


def _masked(value: np.ma.MaskedArray[Any, Any], layout: str, depth: int) -> Any:
    if value is np.ma.masked:
        return "np.ma.masked itself"
    mask: Any = value.mask
    return (
        type(value),
        _array(value.data, layout, depth),
        "no mask" if mask is np.ma.nomask else _array(mask, layout, depth),
        described(value._fill_value, layout, depth - 1),  # to ask for the public one sets it
        value.hardmask,
        value.baseclass,
    )


def _array(value: Array, layout: str, depth: int) -> Any:
    told = type(value), _dtype(value.dtype), value.shape, _bits(value, depth)
    laid = value.view(np.ndarray).copy(order="K") if layout == "of a copy" else value
    flags = laid.flags
    strides = [stride for stride, length in zip(laid.strides, laid.shape) if length > 1] if value.size else []
    if layout == "of a copy" and strides and any(s == 0 and n > 1 for s, n in zip(value.strides, value.shape)):
        told += ([stride == 0 for stride in value.strides],)  # what repeats still repeats
    else:
        told += (strides, flags.c_contiguous, flags.f_contiguous, flags.aligned)
    return *told, _attributes(value, layout, depth)


def _bits(value: Array, depth: int) -> Any:
    """The bits that mean something."""
    value, dtype = value.view(np.ndarray), value.dtype
    if dtype.subdtype is not None or depth == 0:
        return value.tobytes()
    if dtype.names is not None:
        return [(name, _bits(value[name], depth - 1)) for name in dtype.names]
    if dtype.kind in "OT":
        return [described(item, depth=depth - 1) for item in value.ravel().tolist()]
    if dtype.type in (np.longdouble, np.clongdouble) and dtype.itemsize % 16 == 0:  # 80 bits, and what was there before
        words = np.frombuffer(value.tobytes(), np.uint8).reshape(-1, 16)
        return words[:, :10].tobytes()
    return value.tobytes()


def _dtype(dtype: np.dtype[Any]) -> Any:
    metadata = None if dtype.metadata is None else dict(dtype.metadata)
    fields = None if dtype.fields is None else [(n, o[1], _dtype(o[0])) for n, o in dtype.fields.items()]
    inner = None if dtype.subdtype is None else (_dtype(dtype.subdtype[0]), dtype.subdtype[1])
    return type(dtype), dtype.type, dtype.str, dtype.itemsize, dtype.isalignedstruct, metadata, fields, inner


def _attributes(value: Any, layout: str, depth: int) -> Any:
    if isinstance(value, np.memmap) and (layout == "of a copy" or value._mmap is None):
        return []  # those of its file: a copy has none
    own = getattr(value, "__dict__", {})
    return [(k, described(v, layout, depth - 1)) for k, v in sorted(own.items()) if k[:1] != "_"]
