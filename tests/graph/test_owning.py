"""Results are the user's: on no memory of an input or a constant, however they were made; what is read-only by nature
stays so."""

from __future__ import annotations

import functools
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from ctypes import POINTER, c_double
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided, sliding_window_view

import dataflow as flow
from dataflow.graph.owning import Addresses, Given, own
from dataflow.graph.readonly import Held, readonly

Array = np.ndarray[Any, Any]


def given(*values: Any, shared: bool = True, constants: Any = ()) -> Given:
    held = [Held(value) if shared else value for value in values]
    return Given(held, range(len(values)), bytes([shared] * len(values)), constants)


# ---------------------------------------------------------------- arrays, however they were made

VIEWS: dict[str, Callable[[Array], Any]] = {
    "itself": lambda x: x,
    "slice": lambda x: x[1:],
    "every second": lambda x: x[::2],
    "transposed": lambda x: x.reshape(2, 3).T,
    "another dtype": lambda x: x.view("i8"),
    "bytes": lambda x: x.view("u1"),
    "windows": lambda x: sliding_window_view(x, 2),
    "as_strided": lambda x: as_strided(x, (3,), (16,)),
    "through a memoryview": lambda x: np.asarray(memoryview(x)),
    "from a buffer": lambda x: np.frombuffer(memoryview(x).cast("B"), dtype="f8"),
    "over a buffer": lambda x: np.ndarray((2,), "f8", memoryview(x).cast("B"), offset=8),
    "from dlpack": lambda x: np.from_dlpack(x),
    "from a pointer": lambda x: np.ctypeslib.as_array(x.ctypes.data_as(POINTER(c_double)), shape=(6,)),
    "masked": lambda x: np.ma.array(x, mask=[0, 1] * 3, copy=False),
    "matrix": lambda x: x.view(np.matrix),
    "squeezed": lambda x: np.squeeze(x[None]),
    "in a list": lambda x: [x[1:], 1],
    "in a dict": lambda x: {"a": (x, None)},
    "in a deque": lambda x: deque([x]),
    "a memoryview": lambda x: memoryview(x),
    "a memoryview of records": lambda x: memoryview(x.view([("a", "f4"), ("b", "i4")])),
    "a memoryview of big-endian numbers": lambda x: memoryview(x.view(">f8")),
    "nothing of it": lambda x: x[:0],
    "no columns of it": lambda x: x.reshape(2, 3)[:, :0].T,
}


def arrays_in(value: Any) -> list[Array]:
    if isinstance(value, np.ma.MaskedArray):
        return [np.ma.getdata(value), np.ma.getmaskarray(value)]
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, memoryview):
        return [np.asarray(value)]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple, deque)) else ()
    return [array for item in items for array in arrays_in(item)]


SOURCES = ["input", "constant", "part of an input", "passed on", "async", "managed"]
WAYS = [(how, source) for how in VIEWS for source in SOURCES]
WAYS.remove(("from a pointer", "passed on"))  # nobody can follow a pointer that far


@pytest.mark.parametrize(("how", "source"), WAYS)
def test_no_result_is_on_memory_of_the_callers(run_async: Callable[[Any], Any], how: str, source: str) -> None:
    mine, view = np.arange(1.0, 7), VIEWS[how]
    operator = flow.op(view)
    same = flow.op(lambda value: value)

    @flow.op
    async def later(x: Any) -> Any:
        return view(x)

    body: Callable[[Any], Any] = {
        "input": lambda x: operator(x["x"]),
        "constant": lambda x: operator(mine),
        "part of an input": lambda x: operator(x["x"][:]),
        "passed on": lambda x: same(operator(x["x"])),
        "async": lambda x: later(x["x"]),
        "managed": lambda x: operator.options(retries=1)(x["x"]),
    }[source]
    result, plain = run_async(flow.pipeline(body)({"x": mine})), view(mine)
    assert type(result) is type(plain)
    for array, wanted in zip(arrays_in(result), arrays_in(plain), strict=True):
        np.testing.assert_array_equal(array, wanted)
        assert not np.shares_memory(array, mine)
        repeats = array.size * array.itemsize > np.ptp(np.lib.array_utils.byte_bounds(array))
        assert array.flags.writeable or repeats
    assert mine.flags.writeable


@pytest.mark.parametrize(
    "compute",
    [
        lambda x, edges: np.histogram(x, edges)[1],
        lambda x, edges: np.histogram(x, edges),
        lambda x, edges: np.meshgrid(x, edges, copy=False),
        lambda x, edges: np.broadcast_arrays(x, edges[:, None]),
        lambda x, edges: np.broadcast_to(x, (10, 6)),
        lambda x, edges: np.atleast_1d(x, edges),
        lambda x, edges: np.array_split(x, 3),
        lambda x, edges: np.unique(edges, return_index=True),
        lambda x, edges: np.diagonal(x.reshape(2, 3)),
        lambda x, edges: np.real(x),
        lambda x, edges: np.expand_dims(np.squeeze(x), (0, 1)),
        lambda x, edges: (x.T, edges.flat[1:], x.reshape(2, 3)[0]),
        lambda x, edges: np.lib.stride_tricks.sliding_window_view(x, 2),
        lambda x, edges: np.moveaxis(np.rollaxis(x.reshape(2, 3), 1), 0, 1),
        lambda x, edges: np.nan_to_num(x, copy=True),
    ],
)
@pytest.mark.parametrize("constant", [False, True])
def test_what_numpy_gives_is_on_no_memory_of_the_callers(compute: Callable[[Any, Any], Any], constant: bool) -> None:
    mine, edges = np.arange(6.0), np.arange(4.0)
    body = (lambda x: compute(x, edges)) if constant else compute
    result = flow.pipeline(body).run(mine) if constant else flow.pipeline(body).run(mine, edges)
    plain = compute(mine, edges)
    for array, wanted in zip(arrays_in(result), arrays_in(plain), strict=True):
        np.testing.assert_array_equal(array, wanted)
        assert not np.shares_memory(array, mine)
        assert not np.shares_memory(array, edges)
        repeats = array.size * array.itemsize > np.ptp(np.lib.array_utils.byte_bounds(array))
        assert array.flags.writeable != repeats


def test_a_result_that_nobody_else_has_is_not_copied() -> None:
    made: list[Array] = []

    @flow.op
    def fresh(x: Array) -> Array:
        made.append(x * 2)
        return made[-1]

    @flow.op
    def half(x: Array) -> Array:
        return x[: len(x) // 2]

    result = flow.pipeline(lambda x: fresh(x)).run(np.ones(4))
    assert result is made[-1]
    result = flow.pipeline(lambda x: half(fresh(x))).run(np.ones(4))
    assert np.shares_memory(result, made[-1])


def test_results_of_which_the_user_has_several_share_memory_as_in_plain_python() -> None:
    made = flow.op(lambda: np.arange(6.0).reshape(2, 3))
    whole, row = flow.pipeline(lambda: (x := made(), x[0])).run()
    whole[0, 0] = 7
    assert row[0] == 7
    assert row.flags.writeable


@pytest.mark.parametrize("make", [lambda: np.broadcast_to(np.arange(3), (2, 3)), lambda: locked_for(np.arange(3))])
def test_what_is_read_only_by_nature_stays_so(make: Callable[[], Array]) -> None:
    value = make()
    assert own(value, given(np.arange(3)), "op") is value
    assert flow.pipeline(flow.op(lambda x: value)).run(np.arange(3)) is value


def locked_for(array: Array) -> Array:
    array.setflags(write=False)
    return array


def test_a_read_only_input_gives_results_that_may_be_written_to() -> None:
    mine = locked_for(np.arange(4.0))
    result = flow.pipeline(flow.op(lambda x: x[1:])).run(mine)
    result += 1
    assert mine.tolist() == [0, 1, 2, 3]


def test_an_element_that_is_a_record_is_a_copy() -> None:
    mine = np.zeros(3, dtype=[("a", "f8")])
    result = flow.pipeline(flow.op(lambda x: x[0])).run(mine)
    result["a"] = 7
    assert mine["a"].tolist() == [0, 0, 0]


def test_attributes_of_an_object_that_a_kernel_returns_are_copies() -> None:
    class Model:
        def __init__(self) -> None:
            self.w = np.zeros(3)
            self.layers = [np.zeros(2), {"b": np.zeros(1)}]

    mine = Model()
    for body in (
        lambda m: flow.op(lambda m: m.w)(m),
        lambda m: flow.op(lambda m: m.w[1:])(m),
        lambda m: m.w,
        lambda m: m.layers[1]["b"],
        lambda m: flow.op(lambda m: m.layers[0])(m),
        lambda m: flow.op(lambda ms: ms[0].w)([m]),
    ):
        result = flow.pipeline(body).run(mine)
        result += 1
        assert not mine.w.any()
        assert not mine.layers[0].any()
        assert not mine.layers[1]["b"].any()
    assert flow.pipeline(flow.op(lambda m: m)).run(mine) is mine
    assert flow.pipeline(lambda m: m.layers).run(mine)[0] is not mine.layers[0]


# ---------------------------------------------------------------- objects


class Plain:
    def __init__(self, x: Any) -> None:
        self.x = x


class Slotted:
    __slots__ = ("__weakref__", "_Slotted__hidden", "x")

    def __init__(self, x: Any) -> None:
        self.x = self.__hidden = x

    @property
    def hidden(self) -> Any:
        return self.__hidden


class Deep:
    def __init__(self, x: Any) -> None:
        self.plain = Plain([x, {"k": (x, Plain(x))}])
        self.lazily = functools.cache(lambda: x)


class Rich(dict[str, Any]):
    """A kind of dict."""


class Row(list[Any]):
    """A kind of list."""


class Pair(NamedTuple):
    x: Any
    y: int


@dataclass(frozen=True)
class Frozen:
    x: Any


@dataclass
class Model:
    """A dataclass with an operator in its class is passed on as it is."""

    x: Any

    @flow.op
    def call(self) -> float:
        return float(self.x.sum())


OBJECTS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "attribute": (Plain, lambda v: v.x),
    "slot": (Slotted, lambda v: v.x),
    "private slot": (Slotted, lambda v: v.hidden),
    "list in an object in an object": (Deep, lambda v: v.plain.x[0]),
    "far down": (Deep, lambda v: v.plain.x[1]["k"][1].x),
    "frozen dataclass": (Frozen, lambda v: v.x),
    "dataclass with operators": (Model, lambda v: v.x),
    "namedtuple": (lambda x: Pair(x, 1), lambda v: v.x),
    "kind of dict": (lambda x: Rich(a=x), lambda v: v["a"]),
    "kind of list": (lambda x: Row([1, x]), lambda v: v[1]),
    "defaultdict": (lambda x: defaultdict(list, a=x), lambda v: v["a"]),
    "OrderedDict": (lambda x: OrderedDict(a=[x]), lambda v: v["a"][0]),
    "list of objects": (lambda x: [Plain(x), Plain(x)], lambda v: v[1].x),
    "view": (lambda x: Plain(x[1:]), lambda v: v.x),
    "masked": (lambda x: Plain(np.ma.array(x, copy=False)), lambda v: v.x),
}


@pytest.mark.parametrize(("wrap", "take"), OBJECTS.values(), ids=OBJECTS)
@pytest.mark.parametrize("source", ["input", "constant", "passed on"])
def test_what_an_object_holds_of_an_argument_is_replaced_by_copies(
    wrap: Callable[[Any], Any], take: Callable[[Any], Any], source: str
) -> None:
    mine = np.arange(1.0, 5)
    wraps, same = flow.op(wrap), flow.op(lambda value: value)
    body: Callable[[Any], Any] = {
        "input": wraps,
        "constant": lambda x: wraps(mine),
        "passed on": lambda x: same(wraps(x)),
    }[source]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = flow.pipeline(body).run(mine)
    array, plain = take(result), take(wrap(mine))
    assert type(result) is type(wrap(mine))
    np.testing.assert_array_equal(array, plain)
    array += 1
    assert mine.tolist() == [1, 2, 3, 4]


class Sealed(tuple[Any, ...]):
    """Nobody can put anything into it."""

    __slots__ = ()


@pytest.mark.parametrize("wrap", [lambda x: Sealed([x, 1]), lambda x: Plain(Sealed([1, x])), lambda x: [Sealed([x])]])
def test_what_cannot_be_made_so_is_said_with_a_remedy(wrap: Callable[[Any], Any]) -> None:
    mine = np.arange(3.0)
    p = flow.pipeline(flow.op(wrap, name="wrap"))
    message = r"the result of operator 'wrap' holds, in a \w+, arrays that stay read-only.*`x\.copy\(\)`.*flow\.copied"
    with pytest.warns(flow.ResultWarning, match=message):
        p.run(mine)
    # Both remedies.
    copying = flow.pipeline(flow.op(lambda x: wrap(x.copy())))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copying.run(mine)


def test_a_type_that_says_how_it_is_copied_is_copied() -> None:
    class Kept(tuple[Any, ...]):
        __slots__ = ()

    @flow.copied.register(Kept)
    def _(kept: Kept) -> Kept:
        return Kept(flow.copied(item) for item in kept)

    mine = np.arange(3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = flow.pipeline(flow.op(lambda x: Kept([x, 1]))).run(mine)
    result[0][0] = 7
    assert mine.tolist() == [0, 1, 2]


def test_objects_of_the_callers_are_left_alone() -> None:
    """Also those that hold what is read-only, and those that hold what a kernel was given."""
    mine = Plain(locked_for(np.arange(3.0)))
    mine.child = Plain(mine.x)  # type: ignore[attr-defined]
    before = mine.x
    same = flow.op(lambda value: value)
    held = flow.op(lambda value: Plain(value))
    for body in (lambda m: same(m), lambda m: held(m), lambda m: same([m]), lambda m: m.child, lambda m: [m]):
        flow.pipeline(body).run(mine)
        assert mine.x is before
        assert mine.child.x is before  # type: ignore[attr-defined]


def test_what_an_object_holds_of_its_own_is_left_alone() -> None:
    kept = Plain(locked_for(np.arange(3.0)))
    array = kept.x
    result = flow.pipeline(flow.op(lambda x: kept)).run(np.arange(3.0))
    assert result is kept
    assert kept.x is array


# ---------------------------------------------------------------- addresses


def test_addresses_are_those_of_the_memory_that_arrays_are_spread_over() -> None:
    memory = np.arange(100.0)
    kept = Addresses([memory[10:20], memory[30:40], memory[35:50], memory[:0]])
    assert kept.meet(memory[10:11])
    assert kept.meet(memory[45:99])
    assert kept.meet(memory[:15:5])
    assert not kept.meet(memory[20:30])
    assert not kept.meet(memory[:10])
    assert not kept.meet(memory[50:])
    assert not kept.meet(np.arange(3.0))
    assert not Addresses([]).meet(memory)


def test_containers_of_a_great_many_arguments_are_looked_up_once() -> None:
    many = [np.arange(3.0) for _ in range(300)]
    handed = readonly(many)
    source = given(many)
    results = own([array[1:] for array in handed], source, "op")
    assert len(results) == 300
    assert all(result.flags.writeable for result in results)
    assert not any(np.shares_memory(result, array) for result, array in zip(results, many, strict=True))


@pytest.mark.parametrize("shared", [True, False])
def test_what_nobody_else_has_is_passed_on_unless_it_is_read_only(shared: bool) -> None:
    x = np.arange(4.0)
    view = readonly(x)[1:]
    assert own(view, given(view, shared=shared), "op").flags.writeable
    assert own(x[1:], given(x, shared=False), "op").base is x


def test_masked_records_that_are_parts_of_what_was_given() -> None:
    """numpy's own `copy` of these fails."""
    table = np.ma.array([(0.75, 1), (0.25, 2)], dtype=[("a", "f8"), ("b", "i4")], mask=[(1, 0), (0, 0)])
    first, second = flow.pipeline(lambda t: np.unstack(t) if hasattr(np, "unstack") else t).run(table)
    assert (repr(first), repr(second)) == (repr(table[0]), repr(table[1]))
    first["b"] = 9
    assert table["b"].tolist() == [1, 2]
    assert table.mask.tolist() == [(True, False), (False, False)]
