"""Arrays that others read are protected: a write is an error that names the operator; the user's flags never change."""

from __future__ import annotations

import threading
import warnings
from array import array as row
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import dataflow as flow

Runner = Callable[[Any], Any]
Array = np.ndarray[Any, Any]


@flow.op
def fresh(n: int) -> Array:
    return np.arange(float(n))


@flow.op
def total(x: Any) -> float:
    return float(np.sum(x))


@flow.op
def double(x: Array) -> Array:
    return 2 * x


# Each way to write; the array that it is given has other readers.


def in_place(x: Array) -> Array:
    x += 1
    return x


def by_index(x: Array) -> Array:
    x[0] = 1
    return x


def through_a_view(x: Array) -> Array:
    x[1:].T[:] = 1
    return x


def by_out(x: Array) -> Array:
    return np.add(x, 1, out=x)


def by_method(x: Array) -> Array:
    x.sort()
    return x


def by_function(x: Array) -> Array:
    np.copyto(x, 0)
    return x


def by_ufunc_at(x: Array) -> Array:
    np.add.at(x, [0], 1)
    return x


def by_flipping_the_flag(x: Array) -> Array:
    x.setflags(write=True)
    x[0] = 1
    return x


def by_flipping_the_flag_of_a_view(x: Array) -> Array:
    view = x[:]
    view.flags.writeable = True
    view[0] = 1
    return view


def by_flipping_the_flag_of_the_base(x: Array) -> Array:
    base: Any = x
    while isinstance(base.base, np.ndarray):
        base = base.base
    x.setflags(write=True)
    return x


def heeds_the_flag(write: Callable[[Array], Array]) -> bool:
    """Whether numpy itself refuses: up to 2.4, `ufunc.at` writes to read-only arrays, and nobody can stop it."""
    x = np.arange(5.0)
    try:
        write(np.asarray(memoryview(x).toreadonly()))  # type: ignore[arg-type]
    except ValueError:
        return True
    return False


WRITES = [in_place, by_index, through_a_view, by_out, by_method, by_function, by_flipping_the_flag]
WRITES += [by_flipping_the_flag_of_a_view, by_flipping_the_flag_of_the_base]
WRITES += [by_ufunc_at] if heeds_the_flag(by_ufunc_at) else []


@pytest.mark.parametrize("write", WRITES, ids=lambda fn: fn.__name__)
@pytest.mark.parametrize(
    "source", ["argument", "result", "constant", "constant in a list", "in a list", "nested result"]
)
def test_every_way_to_write_is_an_error_that_names_the_operator(
    run_async: Runner, write: Callable[[Array], Array], source: str
) -> None:
    writer = flow.op(name="the_writer")(write)
    mine = np.arange(5.0)

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        if source == "argument":
            shared = x
        elif source == "result":
            shared = fresh(5)
        elif source == "constant":
            shared = mine
        elif source == "constant in a list":
            return flow.op(lambda xs: write(xs[0]), name="the_writer")([mine, x])
        elif source == "in a list":
            return flow.op(lambda xs: write(xs[0]), name="the_writer")([x, 1])
        else:
            shared = make_pair()[0]
        return writer(shared), total(shared), shared

    @flow.op
    def make_pair() -> tuple[Array, int]:
        return np.arange(5.0), 1

    flags = mine.flags.writeable, mine.flags.owndata
    for _ in range(3):
        with pytest.raises(ValueError, match=r"read-only|cannot set WRITEABLE flag|not writeable") as caught:
            run_async(pipeline(mine))
        notes = "\n".join(caught.value.__notes__)
        assert "'the_writer'" in notes
        assert ".copy()" in notes
        assert (mine.flags.writeable, mine.flags.owndata) == flags
        np.testing.assert_array_equal(mine, np.arange(5.0))
    mine[0] = 7  # as much ours as before


def test_a_write_that_would_have_been_a_race_is_refused_while_another_reads(run_async: Runner) -> None:
    """The reader is in the middle of its array when the writer comes."""
    flow.set_num_interop_threads(2)
    reading, refused = threading.Event(), threading.Event()

    @flow.op
    def read(x: Array) -> float:
        before = x.sum()
        reading.set()
        assert refused.wait(20)
        return float(x.sum() - before)

    @flow.op
    def write(x: Array) -> str:
        assert reading.wait(20)
        try:
            x += 1
        except ValueError as exc:
            return str(exc)
        finally:
            refused.set()
        return "written"

    @flow.pipeline
    def pipeline() -> Any:
        x = fresh(1000)
        return read(x), write(x)

    difference, message = run_async(pipeline())
    assert difference == 0
    assert "read-only" in message


def test_a_lone_reader_of_a_result_may_write_to_it(run_async: Runner) -> None:
    @flow.op
    def increment(x: Array) -> Array:
        x += 1
        return x

    @flow.pipeline
    def chain() -> Any:
        return increment(increment(fresh(3)))

    np.testing.assert_array_equal(run_async(chain()), [2.0, 3.0, 4.0])


# The user's own arrays.


@dataclass
class Holder:
    array: Array


def test_flags_of_arguments_closures_and_caches_are_as_before(run_async: Runner) -> None:
    arguments = [np.arange(4.0), np.arange(8.0)[::2], np.asfortranarray(np.ones((2, 2))), np.arange(4)]
    arguments[3].setflags(write=False)
    closure = np.ones(4)
    cache: dict[str, Array] = {}
    holder = Holder(np.ones(2))

    @flow.op
    def cached() -> Array:
        if "it" not in cache:
            cache["it"] = np.zeros(4)
        return cache["it"]

    @flow.op
    def passes(x: Any, y: Any) -> Any:
        return x

    @flow.op
    def attribute(h: Holder) -> Array:
        return h.array

    @flow.pipeline
    def pipeline(a: Any, b: Any, c: Any, d: Any, h: Any) -> Any:
        kept = cached()
        same = passes(a, kept)
        held = attribute(h)
        return [same, total(same), passes(kept, closure), total(kept), total(closure), b, total(b), double(c), d, held]

    def flags() -> list[bool]:
        cache.setdefault("it", np.zeros(4))
        return [x.flags.writeable for x in (*arguments, closure, cache["it"], holder.array)]

    before = flags()
    assert before == [True, True, True, False, True, True, True]
    for _ in range(4):
        run_async(pipeline(*arguments, holder))
        assert flags() == before
    cache["it"][0] = 5  # none of them is locked behind the user's back
    closure[0] = arguments[0][0] = holder.array[0] = 5


def test_flags_are_as_before_after_failures_and_cancellation(run_async: Runner) -> None:
    @flow.op
    def fails(x: Array) -> Array:
        raise KeyError("no")

    cache = np.zeros(4)

    @flow.op
    def cached() -> Array:
        return cache

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        c = cached()
        return total(c), double(c), fails(x), x, c

    mine = np.arange(3.0)
    for _ in range(5):
        with pytest.raises(KeyError):
            run_async(pipeline(mine))
        assert mine.flags.writeable
        assert cache.flags.writeable


# Final results.


def test_final_results_are_the_users_to_write_to_and_no_views_of_inputs(run_async: Runner) -> None:
    @flow.op
    def head(x: Array) -> Array:
        return x[:2]

    @flow.op
    def parts(x: Array) -> tuple[Array, dict[str, Array]]:
        return x[:2], {"rest": x[2:]}

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        shared = fresh(4)
        return {
            "shared": shared,
            "sum": total(shared),
            "doubled": double(shared),
            "head of input": head(x),
            "head of shared": head(shared),
            "parts": parts(x),
            "index": x[1:],
            "attribute": x.T,
            "in a list": [double(x)],
        }

    mine = np.arange(4.0)
    for _ in range(3):
        result = run_async(pipeline(mine))
        arrays = [result[k] for k in ("shared", "doubled", "head of input", "head of shared", "index", "attribute")]
        arrays += [result["parts"][0], result["parts"][1]["rest"], result["in a list"][0]]
        for array in arrays:
            assert array.flags.writeable
            array += 100
        np.testing.assert_array_equal(mine, np.arange(4.0))


def test_a_part_of_a_result_that_is_returned_and_read_is_protected_and_writable_at_the_end(run_async: Runner) -> None:
    """Parts of parts, too: each is evaluated beside its kernel, and each has readers of its own."""
    seen: list[bool] = []

    @flow.op
    def make() -> Any:
        return (np.arange(6.0), 1), 2

    @flow.op
    def look(x: Array) -> Array:
        seen.append(x.flags.writeable)
        return x

    @flow.pipeline
    def pipeline() -> Any:
        outer = make()
        first = outer[0][0]
        rest = first[2:]
        last = rest[1:]
        return first, rest, last, look(first), look(rest), look(last), total(first), total(last)

    for _ in range(3):
        first, rest, last, *looked, _sum, _last_sum = run_async(pipeline())
        assert seen == [False] * 3
        seen.clear()
        expected = [first, rest, last, *looked]
        for array, plain in zip(expected, [np.arange(6.0), np.arange(2.0, 6.0), np.arange(3.0, 6.0)] * 2, strict=True):
            np.testing.assert_array_equal(array, plain)
        for array in expected:
            assert array.flags.writeable


@pytest.mark.parametrize(
    "spread",
    [
        lambda x: np.broadcast_to(x, (10**5, 3)),
        lambda x: np.broadcast_to(x[:, None], (3, 10**5)),
        lambda x: np.broadcast_arrays(x, np.empty((10**5, 1)))[0],
        lambda x: np.broadcast_to(x[::-2], (10**5, 2)),
        lambda x: np.lib.stride_tricks.sliding_window_view(np.tile(x, 1000), 900),
        lambda x: np.lib.stride_tricks.sliding_window_view(x, 2),
    ],
)
@pytest.mark.parametrize("way", ["recorded", "operator", "constant"])
def test_what_repeats_an_input_repeats_a_copy_of_it(
    run_async: Runner, spread: Callable[[Array], Array], way: str
) -> None:
    mine = np.arange(3.0)
    body = {
        "recorded": lambda x: spread(x),
        "operator": lambda x: flow.op(spread)(x),
        "constant": lambda _: flow.op(spread)(mine),
    }[way]
    result, plain = run_async(flow.pipeline(body)(mine)), spread(mine)
    np.testing.assert_array_equal(result, plain)
    assert [stride == 0 for stride in result.strides] == [stride == 0 for stride in plain.strides]
    assert not np.shares_memory(result, mine)
    begin, end = np.lib.array_utils.byte_bounds(result)
    assert end - begin <= 3000 * 8  # not blown up
    assert not result.flags.writeable


@pytest.mark.parametrize("view", [lambda x: x[None], lambda x: x[:, None], lambda x: x[::-1], lambda x: x[::2]])
def test_no_view_of_an_input_is_a_final_result(run_async: Runner, view: Callable[[Any], Any]) -> None:
    """Also those with an axis that goes nowhere, which look like a broadcast."""
    mine = np.arange(3.0)
    result = run_async(flow.pipeline(lambda x: view(x))(mine))
    assert result.flags.writeable
    assert not np.shares_memory(result, mine)


def test_a_constant_that_a_kernel_passes_on_is_a_copy_for_each_run(run_async: Runner) -> None:
    constant = np.arange(4.0)

    @flow.op
    def same(x: Any, *_: Any, **__: Any) -> Any:
        return x

    for body in [
        lambda a: same(constant),
        lambda a: same([constant, a])[0],
        lambda a: same([a, {"k": constant}])[1]["k"],
    ]:
        pipeline = flow.pipeline(body)
        first, second = run_async(pipeline(0)), run_async(pipeline(0))
        assert first.flags.writeable
        assert not np.shares_memory(first, constant)
        assert not np.shares_memory(first, second)


@dataclass
class Layer:
    weight: Any
    name: str = "layer"


class Weights(list[Any]):
    """A list of a kind of its own."""


HOLDERS: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
    (lambda x: {"a": x}, lambda h: h["a"]),
    (lambda x: deque([0, x]), lambda h: h[1]),
    (lambda x: Layer(x), lambda h: h.weight),
    (lambda x: [Layer((x, {"deep": x}))], lambda h: h[0].weight[1]["deep"]),
]


@pytest.mark.parametrize(("hold", "take"), HOLDERS)
def test_arrays_inside_containers_are_protected(
    run_async: Runner, hold: Callable[[Any], Any], take: Callable[[Any], Any]
) -> None:
    @flow.op
    def writes(holder: Any) -> None:
        take(holder)[0] = 99

    @flow.op
    def writes_to(x: Any) -> None:
        x[0] = 99

    @flow.op
    def kind(holder: Any) -> str:
        return type(holder).__name__

    mine = np.zeros(3)
    held = hold(mine)
    for body in [lambda h: writes(h), lambda h: writes_to(take(h)), lambda h: writes(held)]:
        with pytest.raises(ValueError, match="read-only"):
            run_async(flow.pipeline(body)(held))
    assert run_async(flow.pipeline(lambda h: kind(h))(held)) == type(held).__name__
    assert take(held) is mine
    assert not mine.any()
    mine[0] = 1


@pytest.mark.parametrize(("hold", "take"), HOLDERS)
def test_results_inside_containers_are_the_users(
    run_async: Runner, hold: Callable[[Any], Any], take: Callable[[Any], Any]
) -> None:
    @flow.op
    def puts(x: Any) -> Any:
        return hold(x)

    mine = np.zeros(3)
    arrays = [take(run_async(flow.pipeline(lambda x: puts(x))(mine)))]
    arrays.append(run_async(flow.pipeline(lambda h: take(h))(hold(mine))))
    for array in arrays:
        array += 1
        assert not mine.any()


def test_an_attribute_of_any_object_is_protected(run_async: Runner) -> None:
    class Holding:
        def __init__(self) -> None:
            self.weight = np.zeros(3)

    @flow.op
    def writes(x: Any) -> None:
        x[0] = 1

    holder = Holding()
    with pytest.raises(ValueError, match="read-only"):
        run_async(flow.pipeline(lambda h: writes(h.weight))(holder))
    assert holder.weight.flags.writeable


def test_an_input_that_is_returned_is_the_very_object(run_async: Runner) -> None:
    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return x, total(x)

    mine = np.arange(4.0)
    assert run_async(pipeline(mine))[0] is mine


def test_what_its_kernel_made_read_only_stays_so(run_async: Runner) -> None:
    @flow.op
    def broadcast() -> Array:
        return np.broadcast_to(np.arange(3), (1000, 3))

    @flow.op
    def locked() -> Array:
        x = np.arange(3)
        x.setflags(write=False)
        return x

    @flow.pipeline
    def pipeline() -> Any:
        b, l = broadcast(), locked()  # noqa: E741
        return b, l, total(b), total(l)

    b, locked_one, *_ = run_async(pipeline())
    assert not b.flags.writeable
    assert not locked_one.flags.writeable


KINDS: list[Callable[[Any], Any]] = [
    lambda x: OrderedDict(a=x),
    lambda x: defaultdict(list, a=x),
    lambda x: Weights([0, x]),
]


@pytest.mark.parametrize("hold", KINDS)
def test_a_kind_of_list_or_dict_is_passed_as_it_is(run_async: Runner, hold: Callable[[Any], Any]) -> None:
    given, constant = hold(np.zeros(3)), hold(np.zeros(3))

    @flow.op
    def is_given(one: Any, other: Any) -> bool:
        return one is given and other is constant

    assert run_async(flow.pipeline(lambda one: (is_given(one, constant), is_given(one, constant)))(given)) == (
        True,
        True,
    )


def test_a_constant_that_is_returned_is_that_very_object(run_async: Runner) -> None:
    array, table, thing = np.arange(3), {"a": [1]}, object()

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return {"array": array, "table": [table], "thing": thing, "x": x}

    for _ in range(2):
        result = run_async(pipeline(1))
        assert result["array"] is array
        assert result["table"][0] is table
        assert result["thing"] is thing
    assert run_async(flow.pipeline(lambda x: array)(1)) is array
    assert run_async(flow.pipeline(lambda x: table)(1)) is table


def test_a_constant_that_the_body_made_is_new_in_every_run(run_async: Runner) -> None:
    @flow.pipeline
    def pipeline(x: Any) -> Any:
        zeros = np.zeros(3)
        return {"array": zeros, "table": [{"a": [1]}], "x": x, "seen": total(zeros), "nested": [[np.ones(2)]]}

    one, two = run_async(pipeline(1)), run_async(pipeline(1))
    one["array"] += 1
    one["table"][0]["a"].append(2)
    one["nested"][0][0][:] = 5
    for result in (two, run_async(pipeline(1))):
        assert result["seen"] == 0
        np.testing.assert_array_equal(result["array"], np.zeros(3))
        np.testing.assert_array_equal(result["nested"][0][0], np.ones(2))
        assert result["table"] == [{"a": [1]}]


def test_async_ops_are_handed_the_same_views(run_async: Runner) -> None:
    @flow.op
    async def writes(x: Array) -> None:
        x[0] = 1

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return writes(x), total(x)

    with pytest.raises(ValueError, match="read-only") as caught:
        run_async(pipeline(np.zeros(3)))
    assert "'writes'" in caught.value.__notes__[0]


@pytest.mark.parametrize("way", ["run", "debug"])
def test_the_blocking_ways_protect_alike(way: str) -> None:
    writer = flow.op(in_place)

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return writer(x), total(x)

    mine = np.zeros(3)
    with pytest.raises(ValueError, match="read-only") as caught:
        getattr(pipeline, way)(mine)
    assert "'in_place'" in caught.value.__notes__[0]
    assert mine.flags.writeable


# ---------------------------------------------------------------- each reader has its own


@pytest.mark.filterwarnings("ignore:Setting the")  # numpy 2.5 deprecates it, and older ones do not
@pytest.mark.parametrize(
    "change",
    [
        lambda x: setattr(x, "shape", (2, 3)),
        lambda x: setattr(x, "dtype", "i8"),
        lambda x: setattr(x, "dtype", np.dtype("f8", metadata={"mine": 1})),
        lambda x: setattr(x, "strides", (0,)),
        lambda x: x.setflags(align=False),
    ],
)
@pytest.mark.parametrize(
    "source", ["argument", "result", "constant", "in a list", "part of a result", "part of an input"]
)
def test_what_one_reader_does_to_its_view_no_other_sees(
    run_async: Runner, change: Callable[[Array], object], source: str
) -> None:
    mine = np.arange(6.0)
    known: list[Array] = []

    @flow.op
    def changes(x: Array) -> Any:
        change(x)
        known.append(x)
        return 1

    @flow.op
    def told(x: Array, *_: Any) -> tuple[Any, ...]:
        return x.shape, x.dtype.str, x.dtype.metadata, x.strides, x.flags.aligned, x.tolist()

    first = flow.op(lambda xs, fn: fn(xs[0]))

    @flow.pipeline
    def pipeline(x: Any, xs: Any) -> Any:
        if source == "in a list":
            done = first(xs, changes)
            with flow.after(done):
                return first(xs, told), first([x], told), first(xs, told)
        made = flow.op(lambda: (np.arange(6.0), 1))()
        value = {
            "argument": x,
            "result": made[0] + 0.0,
            "constant": mine,
            "part of a result": made[0],
            "part of an input": xs[0],
        }[source]
        with flow.after(changes(value)):
            return told(value), told(value, 1), told(value)

    expected = told(mine)
    for _ in range(2):
        assert run_async(pipeline(mine, [mine])) == (expected,) * 3
    assert told(mine) == expected
    assert known


def test_attempts_have_views_of_their_own(run_async: Runner) -> None:
    shapes: list[Any] = []

    @flow.op(retries=2, backoff=0)
    def reshapes(x: Array) -> Any:
        shapes.append(x.shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x.shape = (-1, 1)
        if len(shapes) < 3:
            raise RuntimeError("again")
        return x.shape

    assert run_async(flow.pipeline(lambda x: (reshapes(x), total(x)))(np.zeros(3))) == ((3, 1), 0)
    assert shapes == [(3,)] * 3


# ---------------------------------------------------------------- what writes, and what is tried again, gets copies


WRITES_INTO: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "list": (list, lambda v: v.append(0)),
    "list in a list": (lambda: [[]], lambda v: v[0].append(0)),
    "dict": (dict, lambda v: v.update(a=1)),
    "set": (lambda: {1}, lambda v: v.add(2)),
    "deque": (lambda: deque([1], 5), lambda v: v.append(2)),
    "bytearray": (lambda: bytearray(b"a"), lambda v: v.extend(b"b")),
    "array.array": (lambda: row("i", [1]), lambda v: v.append(2)),
    "array": (lambda: np.zeros(2), lambda v: v.__setitem__(0, 5)),
    "array in a dict": (lambda: {"a": np.zeros(2)}, lambda v: v["a"].__setitem__(0, 5)),
    "masked array": (lambda: np.ma.array([1.0, 2], mask=[0, 1]), lambda v: v.__setitem__(0, np.ma.masked)),
    "hard mask": (lambda: np.ma.array([1.0, 2], mask=[0, 1], hard_mask=True), lambda v: v.__setitem__(0, 9)),
    "array of lists": (lambda: np.array([[1], [2, 3]], dtype=object), lambda v: v[0].append(5)),
    "dataclass": (lambda: Holder(np.zeros(2)), lambda v: v.array.__setitem__(0, 5)),
    "kind of list": (lambda: Weights([1]), lambda v: v.append(2)),
    "defaultdict": (lambda: defaultdict(list), lambda v: v["a"].append(2)),
}


@pytest.mark.parametrize(("make", "write"), WRITES_INTO.values(), ids=WRITES_INTO)
@pytest.mark.parametrize("source", ["argument", "constant", "result", "passed on", "keyword"])
def test_what_is_declared_as_written_is_a_copy(
    run_async: Runner, make: Callable[[], Any], write: Callable[[Any], Any], source: str
) -> None:
    @flow.op(writes=("value",))
    def writes(value: Any) -> Any:
        write(value)
        return value

    shown = flow.op(repr)
    same = flow.op(lambda value: value)
    made = flow.op(make)
    mine = make()

    @flow.pipeline
    def pipeline(value: Any) -> Any:
        given = {"argument": value, "constant": mine, "passed on": same(value), "keyword": value}.get(source)
        given = made() if source == "result" else given
        written = writes(value=given) if source == "keyword" else writes(given)
        if source == "passed on":  # nobody else reads it, but it is the caller's
            return shown(written), shown(written)
        return shown(written), shown(writes(given)), shown(given)

    changed = make()
    write(changed)
    for _ in range(2):
        first, second, *rest = run_async(pipeline(mine))
        assert first == second == repr(changed)
        assert rest == [repr(make())] * len(rest)
        assert repr(mine) == repr(make())


READ_ONLY = {"array", "array in a dict", "masked array", "hard mask", "dataclass"}


ATTEMPTS = [
    (name, declared, kind) for name in WRITES_INTO for declared in (True, False) for kind in ("kernel", "async")
]
ATTEMPTS.remove(("array of lists", False, "async"))  # what is in an array of objects is protected by nobody


@pytest.mark.parametrize(("name", "declared", "kind"), ATTEMPTS)
def test_each_attempt_gets_a_fresh_copy_of_what_it_alone_reads(
    run_async: Runner, name: str, declared: bool, kind: str
) -> None:
    make, write = WRITES_INTO[name]
    seen: list[str] = []

    def attempt(value: Any) -> str:
        seen.append(repr(value))
        write(value)
        if len(seen) < 3:
            raise RuntimeError("again")
        return repr(value)

    async def attempt_async(value: Any) -> str:
        return attempt(value)

    options: Any = {"retries": 2, "backoff": 0, "writes": ("value",) if declared else ()}
    tried = flow.op(attempt if kind == "kernel" else attempt_async, **options)
    made = flow.op(make)
    changed = make()
    write(changed)
    p = flow.pipeline(lambda: tried(made()))
    if kind == "async" and not declared and name in READ_ONLY:  # copying it would hold the loop
        with pytest.raises(ValueError, match="read-only") as caught:
            run_async(p())
        assert "writes=" in caught.value.__notes__[0]
        return
    assert run_async(p()) == repr(changed)
    assert seen == [repr(make())] * 3


def test_the_value_itself_is_written_to_where_nobody_else_has_it(run_async: Runner) -> None:
    known: list[int] = []

    @flow.op(writes=("xs",))
    def push(xs: list[int]) -> list[int]:
        known.append(id(xs))
        xs.append(0)
        return xs

    same = flow.op(lambda value: value)
    made = flow.op(list)
    assert run_async(flow.pipeline(lambda: push(push(same(made()))))()) == [0, 0]
    assert len(set(known)) == 1
    known.clear()
    mine: list[int] = []
    assert run_async(flow.pipeline(lambda xs: push(push(push(same(same(xs))))))(mine)) == [0, 0, 0]
    assert mine == []
    assert len(set(known)) == 1


@pytest.mark.parametrize(("make", "write"), WRITES_INTO.values(), ids=WRITES_INTO)
def test_a_stream_that_copies_copies_every_kind(
    run_async: Runner, make: Callable[[], Any], write: Callable[[Any], Any]
) -> None:
    buffer = make()
    shown = flow.pipeline(flow.op(repr))

    def refilled() -> Any:
        yield buffer
        write(buffer)
        yield buffer
        write(buffer)

    async def main() -> list[str]:
        return [text async for text in shown.stream(refilled(), copy=True, in_flight=2)]

    changed = make()
    write(changed)
    assert run_async(main()) == [repr(make()), repr(changed)]


# ---------------------------------------------------------------- masked arrays


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("mask", [[0, 1, 0], np.ma.nomask])
def test_masks_are_protected_as_data_are(run_async: Runner, hard: bool, mask: Any) -> None:
    mine = np.ma.array([1.0, 2, 3], mask=mask, hard_mask=hard)
    before = repr(mine)
    shown = flow.op(repr)

    @flow.op
    def hide(x: Any) -> str:
        x[0] = np.ma.masked
        return repr(x)

    @flow.op
    def unhide(x: Any) -> str:
        x.mask = False
        return repr(x)

    for change in (hide, unhide):
        p = flow.pipeline(lambda x, change=change: (shown(x), change(x), shown(x)))
        try:
            first, _, last = run_async(p(mine))
            assert first == last == before
        except ValueError as error:
            assert "read-only" in str(error)
        assert repr(mine) == before
    result = run_async(flow.pipeline(lambda x: flow.op(lambda x: x[:2])(x))(mine))
    result[1] = 7
    result[0] = np.ma.masked
    assert repr(mine) == before


@pytest.mark.parametrize(
    "body",
    [
        lambda x: x[:0],
        lambda x: x[3:],
        lambda x: np.split(x, [3])[1],
        lambda x: [x[:0], x[1:]],
        lambda x: x[:, None][:0],
        lambda x: flow.op(lambda x: x[5:])(x),
    ],
)
def test_an_empty_part_of_an_input_is_as_writable_as_any(body: Callable[[Any], Any]) -> None:
    result = flow.pipeline(body).run(np.arange(3.0))
    arrays = result if isinstance(result, list) else [result]
    assert all(array.flags.writeable for array in arrays)
    assert arrays[0].size == 0
