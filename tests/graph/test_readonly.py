"""What is handed out instead of an array that others read, and what becomes of its flags."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dataflow.graph.readonly import guard, own

Array = np.ndarray[Any, Any]
Pair = namedtuple("Pair", "left right")

ARRAYS: dict[str, Callable[[], Array]] = {
    "contiguous": lambda: np.arange(12.0).reshape(3, 4),
    "fortran order": lambda: np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "strided": lambda: np.arange(24.0)[::2],
    "backwards": lambda: np.arange(12)[::-1],
    "transposed": lambda: np.arange(12).reshape(3, 4).T,
    "no dimension": lambda: np.array(3.5),
    "empty": lambda: np.empty((0, 3)),
    "bool": lambda: np.ones(3, dtype=bool),
    "complex": lambda: np.ones(3, dtype=np.complex64),
    "half": lambda: np.ones(3, dtype=np.float16),
    "big-endian": lambda: np.arange(3, dtype=">i4"),
    "dates": lambda: np.array(["2026-01-01", "NaT"], dtype="datetime64[D]"),
    "durations": lambda: np.array([1, 2], dtype="timedelta64[ns]"),
    "text": lambda: np.array(["one", "three"]),
    "bytes": lambda: np.array([b"one", b"three"]),
    "objects": lambda: np.array([[], {}, None], dtype=object),
    "records": lambda: np.zeros(3, dtype=[("x", "f4"), ("y", "i8")]),
    "long double": lambda: np.ones(3, dtype=np.longdouble),
    "void": lambda: np.zeros(3, dtype="V5"),
    "read-only": lambda: _locked(np.arange(3)),
    "broadcast": lambda: np.broadcast_to(np.arange(3), (4, 3)),
    "masked": lambda: np.ma.array([1, 2, 3], mask=[0, 1, 0]),
}


def _locked(array: Array) -> Array:
    array.setflags(write=False)
    return array


def locked_for_good(array: Array) -> bool:
    """Neither a write nor the flag gets through."""
    if array.flags.writeable:
        return False
    try:
        array.setflags(write=True)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("make", ARRAYS.values(), ids=ARRAYS)
def test_an_array_that_is_not_ours_is_seen_through_a_read_only_view(make: Callable[[], Array]) -> None:
    array = make()
    before = array.flags.writeable
    seen = guard(array)
    assert type(seen) is type(array)
    assert (seen.dtype, seen.shape, seen.strides) == (array.dtype, array.shape, array.strides)
    assert seen.tobytes() == array.tobytes()
    assert np.may_share_memory(seen, array) or not array.size
    assert not seen.flags.writeable
    assert array.flags.writeable == before
    with pytest.raises(ValueError, match="read-only"):
        seen[...] = seen
    with pytest.raises(ValueError, match="read-only"):
        seen.T[...] = seen.T


LIFTABLE = {
    "empty",  # nothing to write to
    "masked",  # a subclass: only a plain view of it is one as well
    "void",  # no buffer
}


@pytest.mark.parametrize("name", sorted(ARRAYS.keys() - LIFTABLE))
def test_its_flag_cannot_be_lifted(name: str) -> None:
    assert locked_for_good(guard(ARRAYS[name]()))


def test_a_view_that_was_handed_out_is_handed_on_as_it_is() -> None:
    seen = guard(np.arange(3))
    assert guard(seen) is seen


@pytest.mark.parametrize("value", [None, 3, 2.5, "text", b"bytes", np.float64(1), np.int32(3), object(), range(3)])
def test_what_holds_no_array_is_passed_on(value: Any) -> None:
    assert guard(value) is value
    assert own(value, ()) is value


@pytest.mark.parametrize("value", [[1, 2], (1, "two"), {"a": 1}, Pair(1, 2), ([], {}, ())])
def test_containers_without_arrays_stay_the_same_objects(value: Any) -> None:
    assert guard(value) is value


def test_containers_are_rebuilt_around_their_arrays() -> None:
    x = np.arange(3)
    value = [x, (x, 1), {"k": x, "l": [x]}, Pair(x, None)]
    seen = guard(value)
    assert type(seen) is list
    assert isinstance(seen[3], Pair)
    found = [seen[0], seen[1][0], seen[2]["k"], seen[2]["l"][0], seen[3].left]
    assert not any(array.flags.writeable for array in found)
    assert x.flags.writeable
    assert value[0] is x


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[1:], lambda x: x.T, lambda x: x.reshape(-1)[::2]])
def test_a_final_result_that_is_a_view_of_a_guarded_argument_is_copied(view: Callable[[Array], Array]) -> None:
    x = np.arange(12.0).reshape(3, 4)
    argument = guard(x)
    result = own(view(argument), [argument])
    assert result.flags.writeable
    assert not np.may_share_memory(result, x)
    np.testing.assert_array_equal(result, view(x))


def test_a_copy_keeps_the_order_of_its_memory() -> None:
    argument = guard(np.asfortranarray(np.ones((3, 4))))
    assert own(argument, [argument]).flags.f_contiguous


def test_final_results_in_containers_are_copied_too() -> None:
    argument = guard(np.arange(3))
    fresh = np.arange(3)
    result = own([argument[1:], {"k": (argument, fresh)}], [argument])
    assert result[0].flags.writeable
    assert result[1]["k"][0].flags.writeable
    assert result[1]["k"][1] is fresh


def test_arguments_in_containers_count() -> None:
    argument = guard({"weights": [np.arange(3)]})
    assert own(argument["weights"][0], [argument]).flags.writeable


def test_what_is_read_only_by_nature_stays_so() -> None:
    argument = guard(np.arange(3))
    broadcast = np.broadcast_to(np.arange(3), (2, 3))
    made_so = _locked(np.arange(3))
    assert own(broadcast, [argument]) is broadcast
    assert own(made_so, [argument]) is made_so
