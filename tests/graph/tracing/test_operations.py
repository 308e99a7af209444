"""Statements record what they do with the value, and fail as they do: `a, b = node`, `h += g`."""

from __future__ import annotations

import array
import copy
import itertools
import operator
import pickle
import threading
from collections import Counter, deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.graph.nodes import Kind
from dataflow.graph.tracing.operations import in_place

Array = np.ndarray[Any, Any]


def two(x: Any) -> Any:
    a, b = x
    return b, a


def nested(x: Any) -> Any:
    (a, b), c = x
    return c, a, b


def targets(x: Any) -> Any:
    holder: dict[str, Any] = {}
    holder["a"], (holder["b"],) = x
    return holder


def in_a_loop(x: Any) -> Any:
    found = []
    for a, b in [x, x]:
        found += [b, a]
    return found


def in_a_comprehension(x: Any) -> Any:
    return [b for a, b in [x]]


def in_a_lambda(x: Any) -> Any:
    unpack = lambda y: [None for a, b in [y]] and [a for a, b in [y]]
    return unpack(x)


def as_list(x: Any) -> Any:
    [a, b] = x
    return a, b


def one(x: Any) -> Any:
    (a,) = x
    return a


def chained(x: Any) -> Any:
    a, b = c, d = x
    return a, b, c, d


BODIES: list[tuple[Callable[[Any], Any], Any]] = [
    (two, (1, 2)),
    (two, [1, 2]),
    (two, np.arange(6).reshape(2, 3)),
    (two, {"k": 1, "l": 2}),
    (two, "ab"),
    (nested, ((1, 2), 3)),
    (targets, (1, (2,))),
    (in_a_loop, (1, 2)),
    (in_a_comprehension, (1, 2)),
    (in_a_lambda, (1, 2)),
    (as_list, (1, 2)),
    (one, [7]),
    (chained, (1, 2)),
]


def same(left: Any, right: Any) -> bool:
    return repr(left) == repr(right)


@pytest.mark.parametrize(("body", "value"), BODIES)
def test_as_the_plain_statement(body: Callable[[Any], Any], value: Any) -> None:
    pipeline = flow.pipeline(body)
    for _ in range(3):
        assert same(pipeline.run(value), body(value))
    assert any(node.spec.name.startswith("unpack_") for node in pipeline.graph().nodes)


@pytest.mark.parametrize(
    ("body", "value", "message"),
    [
        (two, (1, 2, 3), r"too many values to unpack \(expected 2\)"),
        (two, (1,), r"not enough values to unpack \(expected 2, got 1\)"),
        (two, np.ones((3, 2)), "too many values"),
    ],
)
def test_the_wrong_number_is_the_statements_own_error(body: Callable[[Any], Any], value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        flow.pipeline(body).run(value)
    assert f"recorded at {__file__}:{body.__code__.co_firstlineno + 1}" in caught.value.__notes__[0]


def test_what_cannot_be_iterated_says_so() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        flow.pipeline(two).run(3)


def starred(x: Any) -> Any:
    a, *rest = x
    return a, rest


@pytest.mark.parametrize(
    "body", [starred, lambda x: [*x], lambda x: tuple(x), lambda x: max(*x), lambda x: x.__iter__()]
)
def test_where_the_bytecode_does_not_know_it_is_refused(body: Callable[[Any], Any]) -> None:
    with pytest.raises(flow.TraceError, match=r"(iteration over|len\(\) of|`in`).*at .*test_operations.py:\d+: "):
        flow.pipeline(body).graph()


# ---------------------------------------------------------------------------------------------- in-place operators

SIGNS = ["+", "-", "*", "/", "//", "%", "@", "<<", ">>", "&", "|", "^", "**"]


def augmented(sign: str) -> Callable[[Any, Any], Any]:
    """The statement on a copy of its own, which nobody else sees."""
    scope: dict[str, Any] = {}
    exec(compile(f"def body(x, g):\n    h = x\n    h {sign}= g\n    return h", __file__, "exec"), scope)
    return scope["body"]  # type: ignore[no-any-return]


def bits(value: Any) -> Any:
    """What two equal results have in common."""
    if isinstance(value, np.ndarray):
        order = "C" if value.flags.c_contiguous else "F" if value.flags.f_contiguous else "K"
        return type(value), value.dtype, value.shape, order, value.tobytes() if value.dtype != object else repr(value)
    return type(value), repr(value)


def outcome(body: Callable[..., Any], *args: Any) -> Any:
    try:
        with np.errstate(all="ignore"):
            return bits(body(*args))
    except Exception as error:
        return type(error), str(error)


ARRAYS: list[Any] = [
    *(np.array([[1, 2, 3], [4, 5, 6]], dtype=kind) for kind in ("?", "i1", "u2", "i8", "f2", "f4", "f8", "c16", "O")),
    np.array([[1.5, 2], [3, 4]], order="F"),
    np.arange(12, dtype="f4")[::-2],
    np.array(3),
    np.array(2.5),
    np.zeros((0, 3)),
    np.array(["a", "b"]),
    np.array(["2026-01-01", "2026-01-02"], "M8[D]"),
    np.array([1, 2], "m8[D]"),
    np.frombuffer(bytearray(25), "f8", 3, 1),
    np.broadcast_to(np.arange(3.0), (2, 3)),
    np.array([1.0, 2.0, 3.0], dtype=">f8"),
]
NUMBERS: list[Any] = [1, 2.5, 1j, True, np.float32(2), np.int64(3), np.array([1, 2, 3]), np.array([0.5, 1, 2]), 300]
NUMBERS += [np.ones((2, 2)), np.ones((4, 2, 3), "f4"), np.array(2), np.timedelta64(1, "D"), Decimal(1), [1, 2, 3], "a"]


@pytest.mark.parametrize("sign", SIGNS)
def test_an_array_is_changed_in_place_on_a_copy(sign: str) -> None:
    """Same bits, type, dtype, shape and layout, or the same error: for all kinds of arrays and operands."""
    body = augmented(sign)
    pipeline = flow.pipeline(body)
    agreed = failed = 0
    for left, right in itertools.product(ARRAYS, [*NUMBERS, *ARRAYS]):
        # K keeps the layout; what numpy would make of a copy of a broadcast is not asked: as it is, it is read-only
        mine = left if left.strides[:1] == (0,) and left.size else left.copy(order="K")
        before = bits(left)
        wanted = outcome(body, mine, right)
        assert outcome(pipeline.debug, left, right) == wanted, (left, right)
        assert bits(left) == before
        failed += wanted[0] != np.ndarray
        agreed += 1
    assert agreed == len(ARRAYS) * (len(NUMBERS) + len(ARRAYS))
    assert failed < agreed


class Tally:
    """A class of the user's with an in-place operator, and state that a shallow copy shares."""

    def __init__(self) -> None:
        self.seen = [0]

    def __iadd__(self, other: Any) -> Tally:
        self.seen.append(other)
        return self

    def __repr__(self) -> str:
        return f"Tally({self.seen})"


class Shelf(list[Any]):
    """A list of another name."""


SHARED = np.zeros(2)
OTHERS: list[tuple[str, Any, Any]] = [
    ("+", [1], [2]),
    ("+", [1], (2,)),
    ("+", [1], "ab"),
    ("+", [1], {"k": 2}),
    ("+", [1, 2], np.ones(2)),
    ("+", [1], 2),
    ("*", [1], 3),
    ("+", Shelf([1]), [2]),
    ("+", (1,), (2,)),
    ("+", (1,), [2]),
    ("+", "a", "b"),
    ("+", b"a", b"b"),
    ("+", bytearray(b"a"), b"b"),
    ("*", bytearray(b"a"), 2),
    ("+", deque([1]), [2]),
    ("|", {1}, {2}),
    ("|", {1}, [2]),
    ("-", {1, 2}, {2}),
    ("^", {1, 2}, {2, 3}),
    ("&", {1, 2}, frozenset({2})),
    ("|", frozenset({1}), {2}),
    ("|", {"a": 1}, {"b": 2}),
    ("|", {"a": 1}, [("b", 2)]),
    ("+", Counter("a"), Counter("ab")),
    ("-", Counter("ab"), Counter("a")),
    ("+", array.array("d", [1]), array.array("d", [2])),
    ("+", Tally(), 5),
    ("-", Tally(), 5),
    ("+", 1, 2),
    ("/", 1, 2),
    ("*", 2.0, np.ones(2)),
    ("+", np.float32(1), 2.0),
    ("+", np.int64(1), [1, 2]),
    ("*", np.array([[1, 2], [3, 4]]).view(np.matrix), np.array([[1, 2], [3, 4]]).view(np.matrix)),
    ("+", np.ma.masked_array([1, 2, 3], [0, 1, 0]), np.ma.masked_array([1, 1, 1], [0, 0, 1])),
    ("/", np.ma.masked_array([1.0, 2], [0, 1]), 0),
    ("+", np.array([1.5, 2]).view(np.recarray), 1),
]


@pytest.mark.parametrize(("sign", "left", "right"), OTHERS, ids=repr)
def test_whatever_else_is_changed_in_place_on_a_copy(sign: str, left: Any, right: Any) -> None:
    body = augmented(sign)
    before = repr(left)
    wanted = outcome(body, copy.deepcopy(left), right)
    pipeline = flow.pipeline(body)
    for _ in range(2):
        assert outcome(pipeline.debug, left, right) == wanted
        assert repr(left) == before
    if hasattr(type(left), "__iadd__") and wanted[0] is type(left):
        assert pipeline.run(left, right) is not left


def test_a_list_that_is_added_to_holds_the_same_items() -> None:
    item = object()
    got = flow.pipeline(augmented("+")).run([item], [item])
    assert got[0] is item
    assert got[1] is item


def test_the_readers_of_the_old_name_see_the_old_value() -> None:
    def body(x: Any, g: Any) -> Any:
        before, h = x + 0, x
        old = before
        before += g
        h *= 2
        before -= 1
        return old, before, h, x

    x, g = np.array([1.0, 2.0]), np.array([3, 4])
    pipeline = flow.pipeline(body)
    for _ in range(3):
        old, new, doubled, same_x = pipeline.run(x, g)
        np.testing.assert_array_equal(old, [1, 2])
        np.testing.assert_array_equal(new, [3, 5])
        np.testing.assert_array_equal(doubled, [2, 4])
        np.testing.assert_array_equal(same_x, [1, 2])
    np.testing.assert_array_equal(x, [1, 2])


def test_an_item_is_changed_on_a_copy_as_well() -> None:
    def body(x: Any) -> Any:
        row, rows = x[0], [x[1], x]
        row += 1
        rows[0] -= 1
        return row, rows

    x = np.arange(4.0).reshape(2, 2)
    row, rows = flow.pipeline(body).run(x)
    np.testing.assert_array_equal(row, [1, 2])
    np.testing.assert_array_equal(rows[0], [1, 2])
    np.testing.assert_array_equal(x, [[0, 1], [2, 3]])


KEPT: list[Any] = []


@flow.op
def keeps(x: Any) -> Any:
    KEPT.append(x + 0)
    return KEPT[-1]


def test_what_an_operator_keeps_is_not_changed() -> None:
    KEPT.clear()

    def body(x: Any) -> Any:
        h = keeps(x)
        h += 1
        return h

    for _ in range(3):
        np.testing.assert_array_equal(flow.pipeline(body).run(np.zeros(2)), [1, 1])
    np.testing.assert_array_equal(KEPT, np.zeros((3, 2)))


def test_a_value_that_cannot_be_copied_is_told() -> None:
    class Locked:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __iadd__(self, other: Any) -> Locked:
            return self

    with pytest.raises(TypeError, match=r"would change a Locked .* cannot be copied; do it inside an op, or say with"):
        flow.pipeline(augmented("+")).run(Locked(), 1)

    add = flow.op(lambda x, g: type(operator.iadd(x, g)).__name__)  # the remedies
    assert flow.pipeline(lambda x, g: add(x, g)).run(Locked(), 1) == "Locked"
    flow.copied.register(Locked, lambda value: Locked())
    assert type(flow.pipeline(augmented("+")).run(Locked(), 1)) is Locked


def test_how_a_type_is_copied_is_what_flow_copied_says() -> None:
    class Counted(Tally):
        copies = 0

    def counted(value: Counted) -> Counted:
        same = Counted()
        same.seen, same.copies = [*value.seen], value.copies + 1
        return same

    flow.copied.register(Counted, counted)
    mine = Counted()
    got = flow.pipeline(augmented("+")).run(mine, 5)
    assert (got.seen, got.copies, mine.seen, mine.copies) == ([0, 5], 1, [0], 0)


def test_in_place_operators_are_nodes_like_others() -> None:
    (node,) = flow.pipeline(augmented("+")).graph().nodes
    assert (node.spec.name, node.spec.kind) == ("iadd", Kind.RECORDED)
    assert node.where == f"{__file__}:3"
    again = pickle.loads(pickle.dumps(in_place(operator.iadd, np.add).fn))
    assert repr(again) == "InPlace(iadd)"
    assert again([1], (2,)) == [1, 2]


def test_the_error_of_an_in_place_operator_names_the_line() -> None:
    with pytest.raises(TypeError, match="Cannot cast ufunc 'add' output") as caught:
        flow.pipeline(augmented("+")).run(np.arange(3), np.ones(3))
    assert "iadd" in caught.value.__notes__[0]


def appended(x: Any) -> Any:
    found = [0]
    found += x
    return found


def appended_by_a_helper(x: Any) -> Any:
    found: list[Any] = []
    extend(found, x)
    return found


def extend(found: list[Any], x: Any) -> None:
    found += x


def united(x: Any) -> Any:
    found = {0}
    found |= x
    return found


def queued(x: Any) -> Any:
    found = deque([0])
    found += x
    return found


@pytest.mark.parametrize(
    ("body", "kind", "line"),
    [
        (appended, "list", appended.__code__.co_firstlineno + 2),
        (appended_by_a_helper, "list", extend.__code__.co_firstlineno + 1),
        (united, "set", united.__code__.co_firstlineno + 2),
        (queued, "deque", queued.__code__.co_firstlineno + 2),
    ],
)
def test_a_container_of_the_bodys_is_not_added_to(body: Callable[[Any], Any], kind: str, line: int) -> None:
    """Plain Python changes it for whoever holds it, which nothing of a graph could do later."""
    with pytest.raises(flow.TraceError, match=rf"would change a {kind} .*{__file__}:{line}: .*plain operator"):
        flow.pipeline(body).graph()


def test_the_plain_operator_adds_to_a_container() -> None:
    """The remedy, followed."""
    assert flow.pipeline(lambda x: [0] + x).run([1, 2]) == [0, 1, 2]  # noqa: RUF005
    assert flow.pipeline(lambda x: {0} | x).run({1}) == {0, 1}
    extended = flow.op(lambda found, x: deque([*found, *x]))
    assert flow.pipeline(lambda x: extended(deque([0]), x)).run([1]) == deque([0, 1])


def frame() -> Any:
    return pytest.importorskip("pandas").DataFrame({"v": [1.0, 2.0], "w": [3.0, 4.0]})


def series() -> Any:
    return pytest.importorskip("pandas").Series([1.0, 2.0], name="v")


def sparse() -> Any:
    return pytest.importorskip("scipy.sparse").csr_array(np.eye(2))


def labelled() -> Any:
    return pytest.importorskip("xarray").DataArray(np.ones((2, 2)), dims=("a", "b"))


def dataset() -> Any:
    return pytest.importorskip("xarray").Dataset({"v": ("a", np.ones(2))})


@pytest.mark.parametrize("make", [frame, series, sparse, labelled, dataset])
@pytest.mark.parametrize("sign", ["+", "*", "-"])
def test_values_of_libraries_are_changed_in_place_on_a_copy(make: Callable[[], Any], sign: str) -> None:
    body = augmented(sign)
    for right in (make(), 2.0):
        wanted, mine = outcome(body, make(), right), make()
        assert outcome(flow.pipeline(body).run, mine, right) == wanted
        assert repr(mine) == repr(make())
        if make is sparse:
            np.testing.assert_array_equal(mine.toarray(), np.eye(2))
