"""Arrays of every layout: views that keep all of it, copies, and copies that still repeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.array_utils import byte_bounds
from numpy.lib.stride_tricks import as_strided, sliding_window_view

import dataflow as flow
from dataflow.graph.arrays import apart, copied_array, locked
from dataflow.graph.readonly import copied

Array = np.ndarray[Any, Any]


def itself(value: Any) -> Any:
    return value


DTYPES: dict[str, Any] = {
    "metadata": np.dtype("f8", metadata={"unit": "m"}),
    "an enum of h5py": np.dtype("i1", metadata={"enum": {"red": 1}}),
    "strings of h5py": np.dtype("O", metadata={"vlen": str}),
    "metadata in a field": np.dtype([("a", np.dtype("f8", metadata={"unit": "m"})), ("b", "i4")]),
    "aligned": np.dtype([("a", "i1"), ("b", "f8")], align=True),
    "aligned and nested": np.dtype([("p", np.dtype([("x", "i1"), ("y", "f8")], align=True)), ("q", "i1")], align=True),
    "padding": np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"], "offsets": [0, 16], "itemsize": 40}),
    "overlapping fields": np.dtype({"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [0, 2]}),
    "fields in another order": np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [4, 0]}),
    "titles": np.dtype([(("The first", "a"), "f4"), (("The second", "b"), "i8")]),
    "objects": np.dtype([("a", "O"), ("b", "f8")]),
    "objects and padding": np.dtype([("a", "i1"), ("b", "O")], align=True),
    "an array in a field": np.dtype([("a", "f8", (2, 2)), ("b", "i1")]),
    "text in a field": np.dtype([("a", "U3"), ("b", "S5")]),
    "dates in a field": np.dtype([("when", "M8[D]"), ("long", "m8[s]")]),
    "no fields": np.dtype([]),
    "void": np.dtype("V5"),
    "text": np.dtype("U4"),
    "dates": np.dtype("M8[ms]"),
    "half": np.dtype("f2"),
    "long double": np.dtype("g"),
    "other byte order": np.dtype(">c16"),
    "records": np.dtype((np.record, [("a", "i4"), ("b", "f8")])),
}
SHAPES: dict[str, Callable[[Array], Array]] = {
    "row": lambda x: x,
    "every second": lambda x: x[::2],
    "backwards": lambda x: x[::-1],
    "table": lambda x: x.reshape(2, 3).T,
    "one item": lambda x: x[2:3, None],
    "no dimension": lambda x: x[1, ...],
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_a_view_keeps_dtype_and_layout(dtype: Any, shape: Callable[[Array], Array]) -> None:
    x = shape(np.zeros(6, dtype))
    seen = locked(x)
    assert seen.dtype is x.dtype
    assert (seen.shape, seen.strides) == (x.shape, x.strides)
    for flag in ("C_CONTIGUOUS", "F_CONTIGUOUS", "ALIGNED"):
        assert seen.flags[flag] == x.flags[flag]
    assert seen.__array_interface__["data"][0] == x.__array_interface__["data"][0]
    assert not seen.flags.writeable
    assert x.flags.writeable
    if not dtype.hasobject and dtype.itemsize:
        with pytest.raises(ValueError, match="WRITEABLE"):
            seen.view().setflags(write=True)
    same = copied_array(x, itself)
    assert same.dtype is x.dtype
    assert same.flags.writeable
    assert not np.shares_memory(same, x)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_operators_and_callers_find_the_dtype_as_it_was(dtype: Any) -> None:
    x = np.zeros(3, dtype)
    same = flow.op(lambda x: x)
    look = flow.op(lambda x: x.dtype)

    def body(x: Any) -> Any:
        shared = flow.op(lambda x: x.copy())(x)
        return look(x), x.dtype, look(same(x)), look(shared), look(shared[1:]), same(x), same(shared), shared

    for found in flow.pipeline(body).run(x):
        found = getattr(found, "dtype", found)
        assert found == dtype
        assert found.metadata == dtype.metadata
        assert found.alignment == dtype.alignment
        assert found.fields == dtype.fields
        assert found.isalignedstruct == dtype.isalignedstruct


# ---------------------------------------------------------------- what repeats


def base_bytes(array: Array) -> int:
    begin, end = byte_bounds(array)
    return end - begin


X = np.arange(24.0).reshape(4, 6)
REPEATS: dict[str, Callable[[], Array]] = {
    "rows": lambda: np.broadcast_to(X[0], (1000, 6)),
    "columns": lambda: np.broadcast_to(X[:, None], (4, 1000, 6)),
    "a number": lambda: np.broadcast_to(np.float64(3), (50, 50)),
    "one of each two": lambda: np.broadcast_to(X[:, ::2].T, (70, 3, 4)),
    "backwards": lambda: np.broadcast_to(X[::-1, ::-1], (70, 4, 6)),
    "windows": lambda: sliding_window_view(X[0], 3),
    "windows of two dimensions": lambda: sliding_window_view(X, (2, 2)),
    "windows backwards": lambda: sliding_window_view(X[::-1, ::-1], (2, 2)),
    "windows over each second": lambda: sliding_window_view(X[:, ::2], (2, 2)),
    "windows, broadcast": lambda: np.broadcast_to(sliding_window_view(X[0], 3), (5, 4, 3)),
    "objects": lambda: np.broadcast_to(np.array([1, None], dtype=object), (50, 2)),
    "bytes within items": lambda: as_strided(X[0].view("u1"), (10, 8), (1, 2)).view("u1"),
    "metadata": lambda: np.broadcast_to(np.ones(2, np.dtype("f8", metadata={"a": 1})), (9, 2)),
    "records": lambda: np.broadcast_to(np.zeros(2, [("a", "i1"), ("b", "f8")]), (9, 2)),
}


@pytest.mark.parametrize("make", REPEATS.values(), ids=REPEATS)
def test_what_repeats_repeats_a_copy(make: Callable[[], Array]) -> None:
    x = make()
    mine = apart(x, itself)
    assert mine.dtype is x.dtype
    assert mine.tolist() == x.tolist()
    assert [stride == 0 for stride in mine.strides] == [stride == 0 for stride in x.strides]
    assert not np.shares_memory(mine, x)
    assert base_bytes(mine) <= max(base_bytes(x), 8)
    assert not mine.flags.writeable


@pytest.mark.parametrize(
    "make",
    [lambda: X, lambda: X.T, lambda: X[::-1], lambda: X[None], lambda: X[:, ::2], lambda: X[:0], lambda: X[1, 1:2]],
)
def test_what_does_not_repeat_is_a_writable_copy(make: Callable[[], Array]) -> None:
    x = make()
    mine = apart(x, itself)
    np.testing.assert_array_equal(mine, x)
    assert mine.flags.writeable
    assert not np.shares_memory(mine, x)
    assert mine.flags.f_contiguous or not x.flags.f_contiguous


class Kind(np.ndarray[Any, Any]):
    pass


class OwnCopy(np.ndarray[Any, Any]):
    def copy(self) -> Any:  # type: ignore[override]  # takes no order
        return np.ndarray.copy(self)


@pytest.mark.parametrize("kind", [Kind, np.matrix, np.recarray, np.ma.MaskedArray, OwnCopy])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_copy_of_a_kind_of_array_has_the_order_of_the_original(kind: Any, order: Any) -> None:
    x = np.arange(6.0).reshape(2, 3).copy(order).view(kind)
    mine = apart(x, copied)
    assert type(mine) is kind
    assert mine.flags.c_contiguous is True if kind is OwnCopy else mine.strides == x.strides
    np.testing.assert_array_equal(mine, x)


@settings(max_examples=300, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    strides=st.lists(st.integers(-3, 3), min_size=4, max_size=4),
    kind=st.sampled_from(["f8", "i2", "O"]),
)
def test_any_strides(shape: list[int], strides: list[int], kind: str) -> None:
    row = np.arange(100).astype(kind)
    x = as_strided(row[50:], shape, [stride * row.itemsize for stride in strides[: len(shape)]])
    for mine in (apart(x, itself), copied_array(x, itself)):
        assert mine.tolist() == x.tolist()
        assert not np.shares_memory(mine, x)
    assert locked(x).strides == x.strides
