"""One value of each kind that numpy's users have: dtypes, layouts, subclasses, scalars, plain Python.

`KINDS[name]()` makes it anew, always with the same bits, so that a program may change it.
"""

from __future__ import annotations

import array
import tempfile
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import numpy as np

__all__ = ["KINDS", "Named", "Tagged"]

Array = np.ndarray[Any, Any]


class Tagged(np.ndarray[Any, Any]):
    """An array with a unit, as numpy's guide to subclasses has it."""

    unit: str

    def __array_finalize__(self, base: object) -> None:
        self.unit = getattr(base, "unit", "none")


class Named(np.ndarray[Any, Any]):
    """A kind of array that is asked before others, and keeps what is set on it in its `__dict__`."""

    __array_priority__ = 5.0


class Plain:
    """An object that numpy knows nothing of."""

    def __init__(self) -> None:
        self.size = 3

    def __eq__(self, other: object) -> bool:
        return type(other) is Plain  # asks nothing that a node refuses

    __hash__ = None  # type: ignore[assignment]


_BASE: Final = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, 0.25], [0.5, 0.25, 2.0]])
_LINE: Final = np.array([0.5, 0.25, 0.75])
_FILE: Final = tempfile.NamedTemporaryFile(suffix=".f8")  # noqa: SIM115  # open as long as the process
_FILE.write(_BASE.tobytes())
_FILE.flush()


def _of(dtype: Any, items: Any = (2, 0, 1)) -> Callable[[], Array]:
    return lambda: np.array(list(items), dtype=dtype)


def _unaligned() -> Array:
    raw = np.zeros(25, np.uint8)
    result = raw[1:].view(np.float64)
    result[:] = _LINE
    return result


def _read_only() -> Array:
    result = _BASE.copy()
    result.setflags(write=False)
    return result


def _tagged() -> Array:
    result = _BASE.copy().view(Tagged)
    result.unit = "m"
    return result


def _named() -> Array:
    result: Any = _LINE.copy().view(Named)
    result.title = "a line"
    return result  # type: ignore[no-any-return]


def _masked_record() -> Array:
    return np.ma.array([(0.5, 1), (0.25, 2)], mask=[(True, False), (False, False)], dtype=_PAIR)


def _hard() -> Array:
    return np.ma.array(_LINE.copy(), mask=[False, True, False], hard_mask=True, fill_value=-1.0)


def _itself() -> list[Any]:
    xs: list[Any] = [_LINE.copy()]
    xs.append(xs)
    return xs


_PAIR: Final = np.dtype([("a", "f8"), ("b", "i4")])
_PADDED: Final = np.dtype([("a", "i1"), ("b", "f8")], align=True)
_NESTED: Final = np.dtype([("p", _PAIR), ("q", "f4", (2,))])
_HELD: Final = np.dtype([("a", "O"), ("b", "i4")])
_UNIT: Final = np.dtype("f8", metadata={"unit": "m"})

KINDS: Final[dict[str, Callable[[], Any]]] = {
    # dtypes
    "bool": _of(bool, (True, False, True)),
    "int8": _of(np.int8),
    "uint8": _of(np.uint8),
    "int32": _of(np.int32),
    "int64": _of(np.int64),
    "uint64": _of(np.uint64),
    "float16": _of(np.float16, _LINE),
    "float32": _of(np.float32, _LINE),
    "float64": _of(np.float64, _LINE),
    "longdouble": _of(np.longdouble, _LINE),
    "complex64": _of(np.complex64, (1 + 2j, 0, -1j)),
    "complex128": _of(np.complex128, (1 + 2j, 0, -1j)),
    "big-endian": _of(">f8", _LINE),
    "nan and inf": _of(np.float64, (np.nan, np.inf, -0.0)),
    "str": _of("U5", ("one", "two", "three")),
    "bytes": _of("S5", (b"one", b"two", b"three")),
    "StringDType": _of(np.dtypes.StringDType(), ("one", "two", "three")),
    "datetime64": _of("M8[D]", ("2026-01-05", "NaT", "2026-01-06")),
    "timedelta64": _of("m8[s]", (3, 1, 2)),
    "object": _of(object, (2, 0.5, Fraction(1, 3))),
    "object of texts": _of(object, ("b", "a", "c")),
    "structured": lambda: np.array([(0.5, 1), (0.25, 2), (0.75, 0)], dtype=_PAIR),
    "structured and padded": lambda: np.array([(1, 0.5), (2, 0.25)], dtype=_PADDED),
    "structured in structured": lambda: np.array([((0.5, 1), (1, 2))], dtype=_NESTED),
    "structured with objects": lambda: np.array([("a", 1), (None, 2)], dtype=_HELD),
    "some fields": lambda: np.array([(1, 0.5), (2, 0.25)], dtype=_PADDED)[["b"]],
    "metadata": lambda: np.array([0.5, 0.25, 0.75], dtype=_UNIT),
    # layouts
    "square": _BASE.copy,
    "F": lambda: np.asfortranarray(_BASE),
    "strided": lambda: np.arange(12.0).reshape(3, 4)[:, ::2],
    "every second": lambda: np.arange(6.0)[::2],
    "backwards": lambda: _BASE.copy()[::-1, ::-1],
    "transposed": lambda: np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
    "0-d": lambda: np.array(2.5),
    "0-d integer": lambda: np.array(2),
    "empty": lambda: np.zeros(0),
    "empty rows": lambda: np.zeros((0, 3)),
    "one item": lambda: np.array([[2.0]]),
    "broadcast": lambda: np.broadcast_to(_LINE.copy(), (3, 3)),
    "read-only": _read_only,
    "unaligned": _unaligned,
    # subclasses
    "matrix": lambda: np.matrix(_BASE),
    "masked": lambda: np.ma.array(_LINE.copy(), mask=[False, True, False]),
    "masked square": lambda: np.ma.masked_greater(_BASE.copy(), 2.5),
    "masked, no mask": lambda: np.ma.array(_LINE.copy()),
    "masked, hard": _hard,
    "masked record": _masked_record,
    "np.ma.masked": lambda: np.ma.masked,
    "recarray": lambda: np.rec.array([(0.5, 1), (0.25, 2)], dtype=_PAIR),
    "chararray": lambda: np.char.array(["one", "two", "three"]),
    "memmap": lambda: np.memmap(_FILE.name, dtype=np.float64, mode="c", shape=(3, 3)),
    "subclass with attributes": _tagged,
    "subclass with a dict": _named,
    # numpy's scalars
    "np.bool": lambda: np.bool_(True),
    "np.int64": lambda: np.int64(2),
    "np.uint8": lambda: np.uint8(2),
    "np.float32": lambda: np.float32(0.5),
    "np.float64": lambda: np.float64(0.5),
    "np.longdouble": lambda: np.longdouble(0.5),
    "np.complex128": lambda: np.complex128(1 + 2j),
    "np.str_": lambda: np.str_("two"),
    "np.bytes_": lambda: np.bytes_(b"two"),
    "np.datetime64": lambda: np.datetime64("2026-01-05"),
    "np.timedelta64": lambda: np.timedelta64(3, "D"),
    "NaT": lambda: np.datetime64("NaT"),
    "np.void": lambda: np.array([(0.5, 1)], dtype=_PAIR)[0],
    "np.record": lambda: np.rec.array([(0.5, 1)], dtype=_PAIR)[0],
    # plain Python
    "int": lambda: 2,
    "-1": lambda: -1,
    "float": lambda: 0.5,
    "True": lambda: True,
    "complex number": lambda: 1 + 2j,
    "text": lambda: "two",
    "some bytes": lambda: b"two",
    "None": lambda: None,
    "...": lambda: ...,
    "list": lambda: [2, 0, 1],
    "list of lists": lambda: [[1.0, 2.0], [3.0, 4.0]],
    "list of arrays": lambda: [_LINE.copy(), _LINE[::-1].copy()],
    "list in itself": _itself,
    "tuple": lambda: (2, 0),
    "tuple of arrays": lambda: (_LINE.copy(), _BASE.copy()),
    "dict": lambda: {"a": 1, "b": _LINE.copy()},
    "set": lambda: {1, 2},
    "deque": lambda: deque([1, 2]),
    "range": lambda: range(3),
    "slice": lambda: slice(0, 2),
    "bytearray": lambda: bytearray(b"two"),
    "memoryview": lambda: memoryview(_LINE.copy()),
    "array.array": lambda: array.array("d", [0.5, 0.25]),
    "Fraction": lambda: Fraction(1, 3),
    "Decimal": lambda: Decimal("0.5"),
    "dtype": lambda: np.dtype("f4"),
    "an object": Plain,
}
"""By name, what makes the value."""
