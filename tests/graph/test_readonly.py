"""What is handed out instead of an array that others read, and what becomes of its flags."""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from dataflow.graph.owning import Given, own
from dataflow.graph.readonly import Held, copied, handed, readonly

# numpy 2.5 deprecates both, and older ones do not.
pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape", "ignore:The chararray class")

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
    "one row": lambda: np.arange(3)[None],
}


def given(*values: Any, shared: bool = True) -> Given:
    return Given(values, range(len(values)), bytes([shared] * len(values)), ())


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
    seen = readonly(array)
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


LIFTABLE = {"empty"}  # nothing to write to


@pytest.mark.parametrize("name", sorted(ARRAYS.keys() - LIFTABLE))
def test_its_flag_cannot_be_lifted(name: str) -> None:
    assert locked_for_good(readonly(ARRAYS[name]()))


@pytest.mark.parametrize("value", [None, 3, 2.5, "text", b"bytes", np.float64(1), np.int32(3), object(), range(3)])
def test_what_holds_no_array_is_passed_on(value: Any) -> None:
    assert readonly(value) is value
    assert own(value, given(), "op") is value


@pytest.mark.parametrize("value", [[1, 2], (1, "two"), {"a": 1}, Pair(1, 2), ([], {}, ())])
def test_containers_without_arrays_stay_the_same_objects(value: Any) -> None:
    assert readonly(value) is value


def test_containers_are_rebuilt_around_their_arrays() -> None:
    x = np.arange(3)
    value = [x, (x, 1), {"k": x, "l": [x]}, Pair(x, None)]
    seen = readonly(value)
    assert type(seen) is list
    assert isinstance(seen[3], Pair)
    found = [seen[0], seen[1][0], seen[2]["k"], seen[2]["l"][0], seen[3].left]
    assert not any(array.flags.writeable for array in found)
    assert x.flags.writeable
    assert value[0] is x


# ---------------------------------------------------------------- each reader has its own


def test_each_reader_has_a_view_of_its_own() -> None:
    x = np.arange(6.0)
    shared = Held(x)
    first, second = handed(shared), handed(shared)
    assert first is not second
    first.shape = (2, 3)
    assert second.shape == handed(shared).shape == x.shape == (6,)
    for view in (first, second, handed(shared)):
        assert locked_for_good(view)
        assert np.shares_memory(view, x)


def test_each_reader_has_a_container_of_its_own_if_there_is_something_to_protect() -> None:
    x = np.arange(3)
    shared = Held({"xs": [x, x], "n": 1})
    first, second = handed(shared), handed(shared)
    first["xs"].append(1)
    first["xs"][0].shape = (3, 1)
    assert len(second["xs"]) == 2
    assert second["xs"][0].shape == second["xs"][1].shape == (3,)
    assert locked_for_good(second["xs"][0])


def test_a_container_with_nothing_to_protect_is_that_very_object_for_all() -> None:
    value = [1, {"a": ["text"]}, (None, 2.0)]
    shared = Held(value)
    assert handed(shared) is handed(shared) is value


# ---------------------------------------------------------------- subclasses keep what they are


class Tagged(np.ndarray[Any, Any]):
    """An array with a unit that goes on to views, and whatever else somebody sets."""

    unit: Any

    def __array_finalize__(self, obj: Any) -> None:
        self.unit = getattr(obj, "unit", None)


class Bare(np.ndarray[Any, Any]):
    """One without `__array_finalize__`."""


def test_attributes_of_subclasses_are_kept_and_protected() -> None:
    x = np.arange(3.0).view(Tagged)
    x.unit = "m"
    x.weights = np.ones(3)
    for made in (readonly(x), copied(x)):
        assert type(made) is Tagged
        assert made.unit == "m"
        assert made.weights.tolist() == [1, 1, 1]
    assert not readonly(x).weights.flags.writeable
    copied(x).weights[0] = 7
    assert x.weights[0] == 1

    y = np.arange(3.0).view(Bare)
    y.name = "why"
    assert readonly(y).name == copied(y).name == "why"


def test_a_reader_that_sets_an_attribute_sets_its_own() -> None:
    x = np.arange(3.0).view(Tagged)
    shared = Held(x)
    handed(shared).unit = "km"
    assert handed(shared).unit is x.unit is None


def test_memory_maps_are_read_only_memory_maps(tmp_path: Any) -> None:
    x: Any = np.memmap(tmp_path / "x", dtype="f8", mode="w+", shape=(4,))
    seen = readonly(x)
    assert type(seen) is np.memmap
    assert (seen.filename, seen.offset, seen.mode) == (x.filename, x.offset, x.mode)
    assert locked_for_good(seen)
    x[1] = 5
    assert seen[1] == 5


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.rec.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i4"), ("b", "f8")]),
        lambda: np.char.array(["one", "two"]),
        lambda: np.array([[1, 2], [3, 4]]).view(np.matrix),
    ],
)
def test_numpys_own_subclasses(make: Callable[[], Any]) -> None:
    x = make()
    seen = readonly(x)
    assert type(seen) is type(x)
    assert seen.dtype is x.dtype
    assert seen.tolist() == x.tolist()
    assert locked_for_good(seen)
    if x.dtype.names:
        assert seen.a.tolist() == [1, 3]
        assert type(seen[0]) is type(x[0])


# ---------------------------------------------------------------- masked arrays


MASKED: dict[str, Callable[[], Any]] = {
    "soft": lambda: np.ma.array([1.0, 2, 3], mask=[0, 1, 0]),
    "hard": lambda: np.ma.array([1.0, 2, 3], mask=[0, 1, 0], hard_mask=True),
    "no mask": lambda: np.ma.array([1.0, 2, 3]),
    "structured": lambda: np.ma.array([(1, 2.0)] * 3, mask=[(0, 1)] * 3, dtype=[("a", "i4"), ("b", "f8")]),
    "a view": lambda: np.ma.array(np.arange(6.0), mask=[0, 1] * 3)[::2],
}


@pytest.mark.parametrize("make", MASKED.values(), ids=MASKED)
def test_data_and_mask_are_protected(make: Callable[[], Any]) -> None:
    x = make()
    data, mask = np.ma.getdata(x).copy(), np.ma.getmaskarray(x).copy()
    seen = readonly(x)
    assert type(seen) is np.ma.MaskedArray
    assert seen.hardmask == x.hardmask
    assert (seen.mask is np.ma.nomask) == (x.mask is np.ma.nomask)
    assert repr(seen) == repr(x)
    writes: list[Callable[[Any], Any]] = [
        lambda x: x.__setitem__(0, x[0]),
        lambda x: x.__setitem__(1, np.ma.masked),
        lambda x: np.ma.getdata(x).__setitem__(0, 0),
        lambda x: x.mask.__setitem__(0, True),
        lambda x: setattr(x, "mask", True),
        lambda x: x.__setitem__(slice(None), 0),
    ]
    for write in writes:
        try:
            write(readonly(x))
        except (ValueError, AttributeError):
            pass  # read-only; or without a mask, where it gets a mask of its own
        assert np.ma.getdata(x).tolist() == data.tolist()
        assert np.ma.getmaskarray(x).tolist() == mask.tolist()
    assert locked_for_good(np.ma.getdata(seen))


@pytest.mark.parametrize("make", MASKED.values(), ids=MASKED)
def test_a_copy_of_a_masked_array_shares_neither_data_nor_mask(make: Callable[[], Any]) -> None:
    x = make()
    same = copied(x)
    assert repr(same) == repr(x)
    assert same.hardmask == x.hardmask
    same.soften_mask()
    same[0] = np.ma.masked
    assert np.ma.getmaskarray(x)[0].tolist() is not True
    assert not np.shares_memory(np.ma.getdata(same), np.ma.getdata(x))


def test_the_fill_value_is_each_readers_own() -> None:
    x = np.ma.array([1.0, 2], mask=[0, 1], fill_value=7)
    for made in (readonly(x), copied(x)):
        assert made.fill_value == 7
        made.fill_value = 9
        assert x.fill_value == 7


def test_masked_itself_is_that_object() -> None:
    assert readonly(np.ma.masked) is np.ma.masked
    assert copied(np.ma.masked) is np.ma.masked
    assert readonly([np.ma.masked, np.ones(1)])[0] is np.ma.masked


def test_one_record_of_a_masked_array() -> None:
    x = np.ma.array([(1, 2.0)] * 2, mask=[(0, 1)] * 2, dtype=[("a", "i4"), ("b", "f8")])
    one = x[0]
    seen = readonly(one)
    assert type(seen) is type(one)
    assert repr(seen) == repr(one)
    with pytest.raises(ValueError, match="read-only"):
        seen["a"] = 5
    assert x["a"][0] == 1


# ---------------------------------------------------------------- what is no array


def test_a_record_is_a_copy_since_it_is_a_part_of_an_array() -> None:
    x = np.zeros(2, dtype=[("a", "f8")])
    readonly(x[0])["a"] = 5
    copied(x[0])["a"] = 5
    assert x["a"].tolist() == [0, 0]


def test_a_memoryview_is_a_read_only_one_of_its_own() -> None:
    x = bytearray(b"abc")
    view = memoryview(x)
    seen = readonly(view)
    assert seen.readonly
    seen.release()
    assert view[0] == readonly(view)[0] == ord("a")
    x[0] = ord("z")
    assert bytes(readonly(view)) == b"zbc"


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.array([1 + 2j, 0], "c8"),
        lambda: np.array([1.5, 2], ">f8"),
        lambda: np.array([(1, 2.5)], "i4, f8"),
        lambda: np.arange(6.0).reshape(2, 3),
        lambda: np.array(2.5),
        lambda: np.array([True, False]),
        lambda: np.zeros((0, 3)),
        lambda: np.array([((0.5, 1), 2)], [("p", [("a", "f8"), ("b", "i4")]), ("q", "f4")]),
        lambda: array("h", [1, 2]),
    ],
)
def test_a_copy_of_a_memoryview_has_its_format(make: Callable[[], Any]) -> None:
    view = memoryview(make())
    mine = copied(view)
    assert (mine.format, mine.shape, mine.tobytes()) == (view.format, view.shape, view.tobytes())
    assert not mine.readonly
    assert mine.obj is not view.obj


@pytest.mark.parametrize("value", [bytearray(b"abc"), array("d", [1, 2]), {1, 2}], ids=lambda v: type(v).__name__)
def test_what_cannot_be_read_only_and_of_its_type_is_passed_on(value: Any) -> None:
    assert readonly(value) is value


def test_an_iterator_over_an_array_is_passed_on_and_copied_with_its_place() -> None:
    x = np.arange(4)
    places = x.flat
    next(places)
    assert readonly(places) is places  # whoever takes an item of it takes it from all
    same = copied(places)
    assert (type(same), same.index, list(same)) == (np.flatiter, 1, [1, 2, 3])
    copied(places)[0] = 7
    assert x.tolist() == [0, 1, 2, 3]
    assert next(places) == 1


# ---------------------------------------------------------------- copies


class Counter2(dict[str, Any]):
    """A kind of dict."""


@dataclass
class Record:
    x: Any
    y: list[int]


COPIED: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "list": (lambda: [1, 2], lambda v: v.append(3)),
    "list in a list": (lambda: [[1], 2], lambda v: v[0].append(3)),
    "list in a tuple": (lambda: ([1], 2), lambda v: v[0].append(3)),
    "dict": (lambda: {"a": 1}, lambda v: v.update(b=2)),
    "list in a dict": (lambda: {"a": [1]}, lambda v: v["a"].append(2)),
    "set": (lambda: {1}, lambda v: v.add(2)),
    "deque": (lambda: deque([1], maxlen=3), lambda v: v.append(2)),
    "bytearray": (lambda: bytearray(b"a"), lambda v: v.extend(b"b")),
    "array.array": (lambda: array("i", [1]), lambda v: v.append(2)),
    "memoryview": (lambda: memoryview(bytearray(b"ab")), lambda v: v.__setitem__(0, 9)),
    "memoryview of floats": (lambda: memoryview(np.ones((2, 2))), lambda v: v.__setitem__((0, 1), 9)),
    "array": (lambda: np.ones(2), lambda v: v.__setitem__(0, 5)),
    "array in a list": (lambda: [np.ones(2)], lambda v: v[0].__setitem__(0, 5)),
    "array of lists": (lambda: np.array([[1], [2, 3]], dtype=object), lambda v: v[0].append(5)),
    "array of arrays": (lambda: np.array([np.ones(1), np.ones(2)], dtype=object), lambda v: v[0].__setitem__(0, 5)),
    "dataclass": (lambda: Record(1, [2]), lambda v: v.y.append(3)),
    "attribute of a dataclass": (lambda: Record(1, [2]), lambda v: setattr(v, "x", 3)),
    "namedtuple": (lambda: Pair([1], 2), lambda v: v.left.append(3)),
    "kind of dict": (lambda: Counter2(a=[1]), lambda v: v["a"].append(2)),
    "defaultdict": (lambda: defaultdict(list, a=[1]), lambda v: v["b"].append(2)),
    "OrderedDict": (lambda: OrderedDict(a=np.ones(1)), lambda v: v["a"].__setitem__(0, 2)),
}


@pytest.mark.parametrize(("make", "write"), COPIED.values(), ids=COPIED)
def test_what_is_written_to_a_copy_nobody_else_sees(make: Callable[[], Any], write: Callable[[Any], object]) -> None:
    value, before = make(), repr(make())
    same = copied(value)
    assert type(same) is type(value)
    text = repr(value.tolist() if isinstance(value, memoryview) else value)
    write(same)
    assert repr(value.tolist() if isinstance(value, memoryview) else value) == text
    assert isinstance(value, memoryview) or text == before
    changed = repr(same.tolist() if isinstance(same, memoryview) else same)
    assert changed != text


def test_a_kind_of_dict_that_cannot_be_copied_deeply_is_copied() -> None:
    value = Counter2(lock=threading.Lock(), n=1)
    same = copied(value)
    assert same is not value
    assert same == value


def test_objects_in_containers_are_passed_on() -> None:
    thing = object()
    assert copied([thing])[0] is thing
    assert copied(thing) is thing
