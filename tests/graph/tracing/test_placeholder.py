"""Statements mean themselves: what stands on the left of a node, and what is refused, with remedies that work."""

from __future__ import annotations

import copy
import datetime
import functools
import itertools
import operator
import subprocess
import sys
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from operator import concat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.graph.tracing import operations

Array = np.ndarray[Any, Any]


def outcome(body: Callable[..., Any], *args: Any) -> Any:
    """What two equal results have in common; of an error its type alone, which numpy words as it likes."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = body(*args)
    except Exception as error:
        return type(error)
    if isinstance(got, np.ma.MaskedArray):
        return type(got), got.dtype, got.shape, repr(got.data), repr(got.mask)
    if isinstance(got, np.ndarray):
        return type(got), got.dtype, got.shape, repr(got)
    return type(got), repr(got)


# ---------------------------------------------------------------------------------------------- the left operand

SIGNS = ["+", "-", "*", "/", "//", "%", "@", "<<", ">>", "&", "|", "^", "**", "==", "!=", "<", "<=", ">", ">="]
FUNCTIONS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "@": operator.matmul,
    "<<": operator.lshift,
    ">>": operator.rshift,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "**": operator.pow,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def matrix(values: Any) -> Any:
    return np.array(values).view(np.matrix)


class Labelled(np.ndarray):  # type: ignore[type-arg]
    """A subclass of the user's with an operator that calls the base's, and then says so."""

    label = ""

    def __mul__(self, other: Any) -> Any:
        product = super().__mul__(other)
        return product + 1

    def __array_finalize__(self, of: Any) -> None:
        self.label = getattr(of, "label", "")


LEFTS: list[Any] = [
    np.array([[1.0, 2], [3, 4]]),
    np.array([[1, 2], [3, 4]]),
    np.array([True, False]),
    np.array(["a", "b"]),
    np.array([1, "a"], object),
    np.array(2),
    np.array(["2026-01-01", "2026-01-02"], "M8[D]"),
    np.int64(3),
    np.int8(3),
    np.float64(2),
    np.float32(2),
    np.bool_(True),
    np.complex64(1j),
    np.str_("a"),
    np.timedelta64(1, "D"),
    matrix([[1, 2], [3, 4]]),
    np.array([1.0, 2]).view(np.recarray),
    np.array([1.0, 2]).view(Labelled),
    np.ma.masked_array([1.0, 2], [0, 1]),
]
VALUES: list[Any] = [
    matrix([[1, 2], [3, 4]]),
    np.array([1, 2]),
    np.array([[1.5, 2], [3, 4]]).view(Labelled),
    [1, 2],
    (1, 2),
    "a",
    ["a", "b"],
    2,
    2.5,
    np.float32(2),
    Decimal(2),
    {1},
    np.ma.masked_array([1, 2], [0, 1]),
    np.array(["a", "c"]),
]


def statement(sign: str, left: Any) -> Callable[[Any], Any]:
    scope: dict[str, Any] = {"left": left}
    exec(compile(f"def body(x):\n    return left {sign} x", __file__, "exec"), scope)
    return scope["body"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("sign", SIGNS)
def test_an_operator_is_recorded_as_it_is_written(sign: str) -> None:
    """Whatever stands on its left, and whatever the value is."""
    recorded = 0
    for left in LEFTS:
        for body in (statement(sign, left), lambda x, left=left: FUNCTIONS[sign](left, x)):
            pipeline = flow.pipeline(body)
            try:
                pipeline.graph()
            except flow.TraceError:
                # Comparisons of masked arrays and powers of matrices look at the right operand.
                assert (type(left), sign) in [(np.matrix, "**"), *itertools.product([np.ma.MaskedArray], SIGNS[-6:])]
                continue
            for value in VALUES:
                if not (sign == "%" and isinstance(left, str)):  # a format is another matter
                    assert outcome(pipeline.debug, value) == outcome(body, value), (left, value)
            recorded += 1
    assert recorded >= 2 * len(LEFTS) - 2


UFUNCS = [np.add, np.multiply, np.power, np.divmod, np.equal, np.less, np.bitwise_and, np.matmul, np.remainder]


@pytest.mark.parametrize("ufunc", UFUNCS)
def test_a_ufunc_stays_one(ufunc: np.ufunc) -> None:
    for left in [left for left in LEFTS if not isinstance(left, np.ma.MaskedArray)]:
        pipeline = flow.pipeline(lambda x, left=left: ufunc(left, x))
        assert [node.spec.fn for node in pipeline.graph().nodes] == [ufunc]
        for value in VALUES:
            assert outcome(pipeline.debug, value) == outcome(ufunc, left, value), (left, value)


W = np.array([[1, 2], [3, 4]])
FORMS: list[tuple[Callable[[Any], Any], list[Any]]] = [
    (lambda x: sum([W, x, x]), [operator.add, operator.add]),
    (lambda x: functools.reduce(operator.mul, [W, x]), [operator.mul]),
    (lambda x: functools.reduce(np.multiply, [W, x]), [np.multiply]),
    (lambda x: list(map(operator.mul, [W, W], [x, x])), [operator.mul] * 2),
    (lambda x: list(map(np.multiply, [W, W], [x, x])), [np.multiply] * 2),
    (lambda x: [f(W, x) for f in (operator.mul, np.multiply) * 2], [operator.mul, np.multiply] * 2),
    (lambda x: [f(np.float64(2), x) for f in (operator.matmul, np.multiply)], [operator.matmul, np.multiply]),
    (lambda x: [W * x for _ in range(3)], [operator.mul] * 3),
    (lambda x: (W * x) @ (W @ x) * W, [operator.mul, operator.matmul, operator.matmul, operator.mul]),
    (lambda x: W * x.T, [operator.mul]),
    (lambda x: np.multiply(x.T, x), [np.multiply]),
    (lambda x: np.multiply(x, x.T), [np.multiply]),
    (lambda x: np.add(x, W), [np.add]),
    (lambda x: np.add(W, x, dtype=float), [np.add]),
    (lambda x: (pow(W, x), divmod(W, x)), [pow, divmod]),
    (lambda x: W.__mul__(x), [operator.mul]),
    (lambda x: {"k": W * x, "l": np.multiply(W, x)}, [operator.mul, np.multiply]),
    (lambda x: W[0] * x if W[0, 0] == 1 else 0, [operator.mul]),
]  # fmt: skip


@pytest.mark.parametrize(("body", "functions"), FORMS)
def test_operators_and_ufuncs_are_told_apart_in_every_form(body: Callable[[Any], Any], functions: list[Any]) -> None:
    found = [node.spec.fn for node in flow.pipeline(body).graph().nodes]
    assert [fn if fn in functions else type(fn) for fn in found if not isinstance(fn, int)][
        -len(functions) :
    ] == functions


class Wrapped(np.lib.mixins.NDArrayOperatorsMixin):
    """A class with numpy's operators over what it wraps."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        held = [each.held if isinstance(each, Wrapped) else each for each in inputs]
        return Wrapped(getattr(ufunc, method)(*held, **kwargs))

    def __repr__(self) -> str:
        return f"Wrapped({self.held!r})"


def series() -> Any:
    return pytest.importorskip("pandas").Series([1.0, 2.0])


def frame() -> Any:
    return pytest.importorskip("pandas").DataFrame({"v": [1.0, 2.0], "w": [3.0, 4.0]})


def index() -> Any:
    return pytest.importorskip("pandas").Index([1, 2])


@pytest.mark.parametrize("make", [lambda: Wrapped(np.ones(2)), series, frame, index, lambda: datetime.timedelta(1)])
@pytest.mark.parametrize("sign", ["+", "-", "*", "/", "%", "**", "==", "<"])
def test_operands_of_other_libraries_leave_the_operation_to_a_node(make: Callable[[], Any], sign: str) -> None:
    left = make()
    body = statement(sign, left)
    pipeline = flow.pipeline(body)
    assert len(pipeline.graph()) == 1
    for value in (left, 2.0, 3, np.array([1.0, 3.0]), matrix([[1.0], [2.0]])):
        assert outcome(pipeline.debug, value) == outcome(body, value), value


def sparse() -> Any:
    return pytest.importorskip("scipy.sparse").csr_array(np.eye(2))


def labelled() -> Any:
    return pytest.importorskip("xarray").DataArray(np.ones(2), dims=("a",))


UNDECIDED: list[tuple[Callable[[], Any], str, Any]] = [
    (sparse, "@", np.ones(2)),
    (sparse, "*", np.ones((2, 2))),
    (labelled, "*", 2.0),
    (labelled, "-", np.ones(2)),
    (lambda: Fraction(1, 2), "*", Fraction(1, 3)),
    (lambda: Fraction(1, 2), "<", 1),
    (lambda: Decimal(2), "<", 1),
    (lambda: Path("a"), "/", "b"),
    (lambda: np.polynomial.Polynomial([1, 2]), "*", 2),
    (lambda: np.poly1d([1, 2]), "+", 2),
    (lambda: np.ma.masked_array([1, 2], [0, 1]), "==", np.array([1, 2])),
    (lambda: np.zeros(2, [("a", int)]), "==", np.zeros(2, [("a", int)])),
    (lambda: matrix([[1, 2], [3, 4]]), "**", 2),
]


@pytest.mark.parametrize(("make", "sign", "value"), UNDECIDED)
@pytest.mark.filterwarnings("ignore:elementwise")  # numpy's, where it has caught the refusal
def test_an_operand_that_decides_by_the_right_one_is_refused(make: Callable[[], Any], sign: str, value: Any) -> None:
    left = make()
    with pytest.raises(flow.TraceError, match=rf"at {__file__}:2: its left operand decides .* flow\.op\(operator\."):
        flow.pipeline(statement(sign, left)).graph()
    apply = flow.op(FUNCTIONS[sign])  # the remedy
    assert outcome(flow.pipeline(lambda x: apply(left, x)).run, value) == outcome(statement(sign, left), value)


def added(x: Any) -> Any:
    total = np.zeros(2)
    total += x
    return total


def added_to_a_parameter(x: Any) -> Any:
    into(np.zeros(2), x)


def into(total: Array, x: Any) -> None:
    total -= x


def added_to_an_item(x: Any) -> Any:
    totals = np.zeros((2, 2))
    totals[0] *= x
    return totals


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (added, added.__code__.co_firstlineno + 2),
        (added_to_a_parameter, into.__code__.co_firstlineno + 1),
        (added_to_an_item, added_to_an_item.__code__.co_firstlineno + 2),
    ],
)
def test_an_array_of_the_bodys_is_not_added_to(body: Callable[[Any], Any], line: int) -> None:
    """Plain Python changes it for whoever holds it."""
    with pytest.raises(flow.TraceError, match=rf"augmented assignment\), at {__file__}:{line}: .*`a = a \+ b`"):
        flow.pipeline(body).graph()

    def remedy(x: Any) -> Any:
        total = np.zeros(2)
        total = total + x
        return total

    np.testing.assert_array_equal(flow.pipeline(remedy).run(np.ones(2)), [1, 1])


# ---------------------------------------------------------------------------------------------- questions of type


def library() -> dict[str, Any]:
    """A module that is installed: not the user's."""
    scope: dict[str, Any] = {"np": np}
    source = """
def is_sparse(x):
    return hasattr(x, "todense") and x.ndim == 2
def size_of(x):
    return getattr(x, "size", 1)
def is_number(x):
    return isinstance(x, (int, float))
"""
    exec(compile(source, "/usr/lib/python3/site-packages/library.py", "exec"), scope)
    return scope


LIBRARY = library()


class Registry:
    @functools.singledispatchmethod
    def look(self, x: Any) -> str:
        return "anything"

    @look.register
    def _(self, x: np.ndarray) -> str:  # type: ignore[type-arg]
        return "an array"


@functools.singledispatch
def kind_of(x: Any) -> str:
    return "anything"


@kind_of.register
def _(x: np.ndarray) -> str:  # type: ignore[type-arg]
    return "an array"


class Meta(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return issubclass(instance.__class__, float)


class Floats(metaclass=Meta):
    pass


def matches_a_sequence(x: Any) -> Any:
    match x:
        case [a, b]:
            return a + b
        case _:
            return x


def matches_a_longer_sequence(x: Any) -> Any:
    match (1, x):
        case (1, [first, *_]):
            return first
    return x


def matches_a_class(x: Any) -> Any:
    match x:
        case float(value):
            return value
        case str() | bytes():
            return "text"
    return x


def matches_a_value(x: Any) -> Any:
    match x:
        case 1:
            return "one"
    return x


def is_float(x: Any) -> bool:
    return isinstance(x, float)


asks = isinstance
has = hasattr

QUESTIONS: list[tuple[Callable[[Any], Any], str, str]] = [
    (lambda x: 1 if isinstance(x, float) else 2, "isinstance() or the class of", "inside an op"),
    (lambda x: asks(x, float), "isinstance() or the class of", "static="),
    (lambda x: list(map(isinstance, [x], [float])), "isinstance() or the class of", "static="),
    (lambda x: [each for each in [1, x] if isinstance(each, float)], "isinstance() or the class of", "static="),
    (lambda x: any(isinstance(x, kind) for kind in (int, str)), "isinstance() or the class of", "static="),
    (lambda x: functools.partial(isinstance, x)(float), "isinstance() or the class of", "static="),
    (lambda x: isinstance(x, (int, (float, str))), "isinstance() or the class of", "static="),
    (lambda x: isinstance(x, int | str), "isinstance() or the class of", "static="),
    (lambda x: isinstance(x, Floats), "isinstance() or the class of", "static="),
    (lambda x: isinstance(x, Sequence), "isinstance() or the class of", "static="),
    (lambda x: issubclass(x.__class__, float), "isinstance() or the class of", "static="),
    (lambda x: x.__class__.__name__, "isinstance() or the class of", "static="),
    (lambda x: getattr(x, "__class__"), "isinstance() or the class of", "static="),  # noqa: B009
    (lambda x: getattr(x, "__class__", None), "isinstance() or the class of", "static="),
    (lambda x: Registry().look(x), "isinstance() or the class of", "inside an op"),
    (lambda x: kind_of(x), "isinstance() or the class of", "inside an op"),
    (lambda x: kind_of(x.T), "isinstance() or the class of <placeholder: T>", "inside an op"),
    (lambda x: LIBRARY["is_number"](x), "isinstance() or the class of", "inside an op"),
    (lambda x: np.ma.is_masked(x), "the mask of <placeholder 0: x> is asked for", "flow.op(np.ma.is_masked)(node)"),
    (lambda x: np.ma.getmask(x + 1), "the mask of <placeholder 1: add> is asked for", "flow.op(np.ma.getmask)"),
    (lambda x: np.ma.getmaskarray(x.T), "the mask of <placeholder: T> is asked for", "flow.op(np.ma.getmask)"),
    (lambda x: np.ma.isMaskedArray(x), "isinstance() or the class of", "inside an op"),
    (lambda x: hasattr(x, "shape"), "whether <placeholder 0: x> has an attribute 'shape' is asked", "inside an op"),
    (lambda x: 1 if has(x, "tocsr") else 2, "has an attribute 'tocsr' is asked", "inside an op"),
    (lambda x: getattr(x, "name", None), "has an attribute 'name' is asked", "inside an op"),
    (lambda x: [has(each, "a") for each in [x]], "has an attribute 'a' is asked", "static="),
    (lambda x: all(map(hasattr, [x], ["a"])), "has an attribute 'a' is asked", "static="),
    (lambda x: LIBRARY["is_sparse"](x), "has an attribute 'todense' is asked", "inside an op"),
    (lambda x: LIBRARY["size_of"](x * 2), "whether <placeholder 1: multiply> has an attribute 'size'", "inside an op"),
    (matches_a_sequence, "len() of", "node.shape[0]"),
    (matches_a_longer_sequence, "len() of", "node.shape[0]"),
    (matches_a_class, "isinstance() or the class of", "inside an op"),
    (matches_a_value, "bool() of", "flow.cond"),
]


@pytest.mark.parametrize(("body", "what", "remedy"), QUESTIONS)
def test_a_question_about_the_type_is_noticed(body: Callable[[Any], Any], what: str, remedy: str) -> None:
    for _ in range(3):
        with pytest.raises(flow.TraceError) as caught:
            flow.pipeline(body).graph()
        assert what in str(caught.value)
        assert remedy in str(caught.value)
        assert f", at {__file__}:" in str(caught.value)


SOURCE = """
import numpy as np, dataflow as flow
asks = isinstance
for body in [
    lambda x: isinstance(x, float), lambda x: asks(x, float), lambda x: list(map(isinstance, [x], [float])),
    lambda x: hasattr(x, "shape"), lambda x: np.ma.is_masked(x), lambda x: getattr(x, "shape", None),
]:
    try:
        flow.pipeline(body).graph()
    except flow.TraceError:
        print("refused")
print(len(flow.pipeline(lambda x: (x.shape, getattr(x, "shape"), x.mean(), x[0])).graph()))
"""


@pytest.mark.parametrize("options", [[], ["-X", "no_debug_ranges"], ["-O"], ["-OO", "-X", "no_debug_ranges"]])
def test_whatever_the_interpreters_options(options: list[str]) -> None:
    done = subprocess.run([sys.executable, *options, "-c", SOURCE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused"] * 6 + ["4"]


def test_an_op_or_a_static_argument_knows_the_type() -> None:
    """The remedies, followed."""
    masked = np.ma.masked_array([1, 2], [0, 1])
    assert flow.pipeline(lambda x: flow.op(np.ma.is_masked)(x)).run(masked) is True
    assert flow.pipeline(lambda x: flow.op(np.ma.getmask)(x)).run(masked).tolist() == [False, True]
    assert flow.pipeline(lambda x: flow.op(LIBRARY["is_sparse"])(x)).run(masked) is False
    assert flow.pipeline(lambda x: flow.op(kind_of)(x)).run(masked) == "an array"
    assert flow.pipeline(lambda x: flow.op(matches_a_sequence)(x)).run([1, 2]) == 3
    pipeline = flow.pipeline(static=("x",))(lambda x, y: y * 2 if is_float(x) else y)
    assert (pipeline.run(1.5, 3), pipeline.run("a", 3)) == (6, 3)


def test_attributes_that_are_used_are_recorded() -> None:
    names = ["shape", "ndim"]
    pipeline = flow.pipeline(lambda x: (x.shape, [getattr(x, name) for name in names], operator.attrgetter("T")(x)))
    shape, both, transposed = pipeline.run(np.ones((2, 3)))
    assert (shape, both, transposed.shape) == ((2, 3), [(2, 3), 2], (3, 2))


LOOKING: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (np.ma.max, (), {}),
    (np.ma.min, (), {"axis": 0}),
    (np.ma.ptp, (), {"axis": 0}),
    (np.ma.is_mask, (), {}),
    (np.ma.filled, (), {"fill_value": 7.0}),
    (np.ma.getmaskarray, (), {}),
    (np.char.multiply, (2,), {}),
]


@pytest.mark.parametrize(("fn", "rest", "options"), LOOKING, ids=lambda value: getattr(value, "__name__", ""))
def test_functions_that_try_one_thing_and_go_on_with_another_take_no_node(
    fn: Callable[..., Any], rest: tuple[Any, ...], options: dict[str, Any]
) -> None:
    def body(x: Any) -> Any:
        return fn(x, *rest, **options)  # the line that is named

    with pytest.raises(flow.TraceError, match=f"{__file__}:{body.__code__.co_firstlineno + 1}"):
        flow.pipeline(body).graph()
    x = np.array(["one", "two"]) if fn is np.char.multiply else np.ma.array([1.0, 2.0, 3.0], mask=[0, 1, 0])
    result = flow.pipeline(lambda x: flow.op(fn)(x, *rest, **options)).run(x)  # the remedy
    assert type(result) is type(fn(x, *rest, **options))
    np.testing.assert_array_equal(result, fn(x, *rest, **options))


def test_numpy_says_what_it_was_that_looked() -> None:
    with pytest.raises(flow.TraceError, match=r"numpy\.ma\.is_mask looks at what it is given, a placeholder here"):
        flow.pipeline(lambda x: np.ma.is_mask(x)).graph()


CALLING: list[Callable[[Any, Any], Any]] = [
    lambda ndimage, f: ndimage.generic_filter1d(np.ones((3, 3)), f, 2),
    lambda ndimage, f: ndimage.generic_filter(np.ones((3, 3)), f, size=2),
    lambda ndimage, f: ndimage.geometric_transform(np.ones((3, 3)), f),
]


@pytest.mark.parametrize("call", CALLING)
def test_a_library_is_not_handed_a_node_as_a_function(call: Callable[[Any, Any], Any]) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    with pytest.raises(flow.TraceError, match=rf"at {__file__}:"):
        flow.pipeline(lambda f: call(ndimage, f)).graph()

    def fill(line: Any, out: Any) -> None:
        out[:] = line[1:] * 2

    filtered = flow.op(lambda f: ndimage.generic_filter1d(np.ones((3, 3)), f, 2))  # the remedy
    np.testing.assert_array_equal(flow.pipeline(lambda f: filtered(f)).run(fill), np.full((3, 3), 2.0))


@pytest.mark.parametrize(
    "body", [lambda f: f(2), lambda f: next(map(f, [2])), lambda f: functools.reduce(lambda a, b: b(a), [f], 2)]
)
def test_a_body_calls_a_node(body: Callable[[Any], Any]) -> None:
    assert flow.pipeline(body).run(lambda x: x + 1) == 3


BYTES = np.array([97, 98, 99], np.uint8)


@pytest.mark.parametrize("make", [bytearray, memoryview])
@pytest.mark.parametrize("sign", [operator.eq, operator.ne, operator.lt, operator.ge])
def test_a_comparison_with_a_buffer_is_refused(make: Callable[[bytes], Any], sign: Callable[[Any, Any], Any]) -> None:
    """`bytearray == array` compares the buffers, and gives one bool; `array == bytearray` gives an array."""
    buffer = make(b"abc")
    for body in (lambda x: sign(x, buffer), lambda x: sign(buffer, x)):
        with pytest.raises(flow.TraceError, match=f"a comparison of <placeholder 0: x> with a {type(buffer).__name__}"):
            flow.pipeline(body).graph()
    remedies: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
        (lambda x: sign(x, np.asarray(memoryview(buffer))), lambda x: sign(x, np.asarray(memoryview(buffer)))),
        (lambda x: flow.op(sign)(buffer, x), lambda x: sign(buffer, x)),
        (lambda x: flow.op(sign)(x, buffer), lambda x: sign(x, buffer)),
    ]
    for recorded, plainly in remedies:
        assert outcome(flow.pipeline(recorded).run, BYTES) == outcome(plainly, BYTES)


def test_fields_are_not_assigned_to_an_argument() -> None:
    recfunctions = pytest.importorskip("numpy.lib.recfunctions")
    pair = np.zeros(2, dtype=[("a", "f8"), ("b", "i4")])

    def assigned(dst: Any, src: Any) -> Any:
        recfunctions.assign_fields_by_name(dst, src)
        return dst

    for body in (lambda x: assigned(pair, x), lambda x: assigned(x, pair), lambda x: assigned(x, x)):
        with pytest.raises(flow.TraceError, match=r"numpy\.assign_fields_by_name writes into its argument"):
            flow.pipeline(body).graph()
    written = flow.op(assigned, writes=("dst",))  # the remedy
    source = np.array([(1.5, 2), (2.5, 3)], dtype=pair.dtype)
    assert flow.pipeline(lambda x: written(pair, x)).run(source).tolist() == source.tolist()
    assert pair.tolist() == [(0.0, 0), (0.0, 0)]


# ---------------------------------------------------------------------------------------------- methods that change


class Weights:
    """A class of the user's with names that libraries use for what changes an object."""

    def __init__(self, value: float = 1.0) -> None:
        self.value = value

    def insert(self, name: str) -> str:
        return f"with {name}"

    pop = partition = prune = resize = insert

    def scaled(self, by: float, inplace: bool = False, out: Any = None) -> Any:
        return self.value * by, inplace, out


BUFFER = np.zeros(3)
BY_CALL: list[tuple[Callable[[Any], Any], str]] = [
    (lambda x: x.fillna(0, inplace=True), "fillna(inplace=...)"),
    (lambda x: x.sort_values("v", inplace=True), "sort_values(inplace=...)"),
    (lambda x: x.drop(columns=["v"], inplace=True), "drop(inplace=...)"),
    (lambda x: x.rename(columns={"v": "w"}, inplace=x.flag), "rename(inplace=...)"),
    (lambda x: x["v"].clip(0, 1, inplace=True), "clip(inplace=...)"),
    (lambda x: x.byteswap(inplace=True), "byteswap(inplace=...)"),
    (lambda x: x.sort(), "sort()"),
    (lambda x: x.T.fill(0), "fill()"),
    (lambda x: x.setdiag(1), "setdiag()"),
    (lambda x: x.sum_duplicates(), "sum_duplicates()"),
    (lambda x: x.eliminate_zeros(), "eliminate_zeros()"),
    (lambda x: x.sort_indices(), "sort_indices()"),
    (lambda x: x.harden_mask(), "harden_mask()"),
    (lambda x: x.update({"a": 1}), "update()"),
    (lambda x: x.append(1), "append()"),
    (lambda x: x.add_(1), "add_()"),
    (lambda x: x.relu_(), "relu_()"),
    (lambda x: x.insert_column(0, 1), "insert_column()"),
    (lambda x: x.sum(axis=0, out=BUFFER), "sum(out=...)"),
    (lambda x: x.clip(0, 1, out=x), "clip(out=...)"),
    (lambda x: x.dot(x, out=BUFFER), "dot(out=...)"),
    (lambda x: x.cumsum(out=(BUFFER,)), "cumsum(out=...)"),
]


@pytest.mark.parametrize(("body", "what"), BY_CALL)
def test_a_method_that_changes_what_others_read_is_refused(body: Callable[[Any], Any], what: str) -> None:
    with pytest.raises(flow.TraceError) as caught:
        flow.pipeline(body).graph()
    line = f"{__file__}:{body.__code__.co_firstlineno}"
    assert f".{what} of <placeholder" in str(caught.value)
    assert f"changes what others may read, at {line}: a graph makes new values" in str(caught.value)


def test_methods_that_only_sound_like_it_are_recorded() -> None:
    body = lambda x: (x.scaled(2), x.scaled(2, inplace=False), x.scaled(2, out="text"), x.scaled(2, out=None))
    assert flow.pipeline(body).run(Weights()) == body(Weights())
    body = lambda x: [x.insert("a"), x.pop("b"), x.partition("c"), x.prune("d"), x.resize("e")]
    assert flow.pipeline(body).run(Weights()) == body(Weights())
    assert flow.pipeline(lambda x: (x.partition(","), x.sum(out=None) if x is None else 0)).run("a,b") == (
        ("a", ",", "b"),
        0,
    )
    np.testing.assert_array_equal(flow.pipeline(lambda x: x.byteswap()).run(np.ones(2, "u2")), [256, 256])


BY_VALUE: list[tuple[Callable[[Any], Any], Callable[[], Any], str]] = [
    (lambda x: (x.insert(0, "a", 1), x["v"].sum())[1], frame, "insert"),
    (lambda x: (x.pop("v"), x)[1], frame, "pop"),
    (lambda x: (x.isetitem(0, 1), x)[1], frame, "isetitem"),
    (lambda x: (x.pop(0), x)[1], series, "pop"),
    (lambda x: (x.resize(3, 3), x)[1], sparse, "resize"),
    (lambda x: (x.prune(), x)[1], sparse, "prune"),
    (lambda x: (x.partition(1), x)[1], lambda: np.array([3, 1, 2]), "partition"),
    (lambda x: ((x + 0).resize(2), x)[1], lambda: np.array([3, 1, 2]), "resize"),
    (lambda x: (x.pop(), x)[1], lambda: [1, 2], "pop"),
    (lambda x: (x.insert(0, 1), x)[1], lambda: [1, 2], "insert"),
    (lambda x: (x.add(1), x)[1], lambda: {3}, "add"),
    (lambda x: (x.rotate(1), x)[1], lambda: deque([1, 2]), "rotate"),
]


@pytest.mark.parametrize(("body", "make", "name"), BY_VALUE)
def test_a_method_is_refused_where_only_the_value_can_tell(
    body: Callable[[Any], Any], make: Callable[[], Any], name: str
) -> None:
    value = make()
    before = repr(value)
    with pytest.raises(
        TypeError, match=rf"\.{name}\(\) would change an? {type(value).__name__} that other nodes"
    ) as caught:
        flow.pipeline(body).run(value)
    assert not isinstance(caught.value, flow.TraceError)
    assert f"{__file__}:{body.__code__.co_firstlineno}" in "".join(caught.value.__notes__)
    assert repr(value) == before


def test_a_new_value_or_an_op_says_what_was_meant() -> None:
    """The remedies, followed."""
    df = frame()
    without = flow.pipeline(lambda x: x.drop(columns=["v"]))
    assert list(without.run(df)) == ["w"]
    assert list(df) == ["v", "w"]

    @flow.op(writes=("df",))
    def inserted(df: Any) -> Any:
        df.insert(0, "a", 1)
        return df

    assert list(flow.pipeline(lambda x: (inserted(x), x)).run(df)[0]) == ["a", "v", "w"]
    assert list(df) == ["v", "w"]

    @flow.op(inout=("df",))
    def insert(df: Any) -> None:
        df.insert(0, "a", 1)

    flow.pipeline(lambda x: insert(x)).run(df)
    assert list(df) == ["a", "v", "w"]
    np.testing.assert_array_equal(flow.pipeline(lambda x: np.sort(x)).run(np.array([2, 1])), [1, 2])
    np.testing.assert_array_equal(flow.pipeline(lambda x: np.partition(x, 0)).run(np.array([2, 1])), [1, 2])


# ---------------------------------------------------------------------------------------------- out, like, pow, texts


@pytest.mark.parametrize(
    "body",
    [
        lambda x: np.add(x, 1, out=None),
        lambda x: np.add(x, 1, None),
        lambda x: np.add.reduce(x, out=None),
        lambda x: np.add.reduce(x, 0, None, None),
        lambda x: np.sum(x, None, None, None),
        lambda x: np.concatenate([x, x], 0, None),
        lambda x: x.sum(0, None, None),
    ],
)
def test_an_out_that_is_none_is_recorded(body: Callable[[Any], Any]) -> None:
    value = np.arange(3.0)
    np.testing.assert_array_equal(flow.pipeline(body).run(value), body(value))


class Unit(np.ndarray):  # type: ignore[type-arg]
    """Makes arrays of its own class, where numpy is asked for one like it."""

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function.__name__ in operations.LIKE:
            return function(*args, **kwargs).view(Unit)
        return super().__array_function__(function, types, args, kwargs)


LIKE: list[Callable[[Any], Any]] = [
    lambda x: np.zeros(3, like=x),
    lambda x: np.ones((2, 2), "f4", like=x),
    lambda x: np.empty(0, like=x),
    lambda x: np.full(3, 7, like=x),
    lambda x: np.arange(1, 5, like=x),
    lambda x: np.eye(2, like=x),
    lambda x: np.identity(2, like=x),
    lambda x: np.tri(2, like=x),
    lambda x: np.array([1, 2], like=x),
    lambda x: np.asarray([1, 2], like=x),
    lambda x: np.asanyarray([1, 2], like=x),
    lambda x: np.ascontiguousarray([1, 2], like=x),
    lambda x: np.asfortranarray([[1, 2]], like=x),
    lambda x: np.require([1, 2], like=x),
    lambda x: np.frombuffer(b"ab", "u1", like=x),
    lambda x: np.fromiter([1, 2], int, like=x),
    lambda x: np.fromfunction(lambda i: i * 2, (3,), like=x),
    lambda x: np.fromstring("1 2", sep=" ", like=x),
]


@pytest.mark.parametrize("body", LIKE)
def test_like_is_recorded(body: Callable[[Any], Any]) -> None:
    pipeline = flow.pipeline(body)
    assert pipeline.graph().nodes[-1].reads == (0,)
    for value in (np.ones(2), np.ones(2).view(Unit), np.ma.masked_array([1, 2])):
        assert outcome(pipeline.debug, value) == outcome(body, value)
    for wrong in (3, "text", [1, 2]):
        assert outcome(pipeline.debug, wrong) is outcome(body, wrong) is TypeError


def test_every_function_with_like_is_known() -> None:
    documented = {name for name in dir(np) if "like : array_like" in (getattr(getattr(np, name), "__doc__", "") or "")}
    assert documented == operations.LIKE


def test_pow_with_three_arguments() -> None:
    body = lambda x: (pow(x, 2, 5), pow(x, -1, 7))
    assert flow.pipeline(body).run(3) == body(3)
    power = flow.op(pow)
    forms: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
        (lambda x: pow(2, x, 5), lambda x: power(2, x, 5)),
        (lambda x: pow(2, 3, x), lambda x: power(2, 3, x)),
    ]
    for body, remedy in forms:
        assert flow.pipeline(remedy).run(4) == body(4)
        try:
            assert flow.pipeline(body).run(4) == body(4)  # since 3.14, the second argument is asked as well
        except flow.TraceError as error:
            assert f"at {__file__}:" in str(error)
            assert "inside an op" in str(error)


TEXTS = {
    "'a text' % x": "no place for a value",
    "b'a text' % x": "no place for a value",
    "(x + 1, '100%% sure' % (x * 2))": "no place for a value",
    "'a text' % x.shape": "no place for a value",
    "[x, ('a text' % x)]": "no place for a value",
    "'%s' % x": "str() of",
    "'%d' % x": "int() of",
    "'%.2f' % x": "float() of",
    "'%s and %s' % (x, 1)": "str() of",
    "'%(a)s' % x": "str() of",
    "'%(a)s' % {'a': x}": "str() of",
    "b'%s' % x": "bytes() of",
    "'{}'.format(x)": "format() of",
    "'{a}'.format(a=x)": "format() of",
    "'{0.shape}'.format(x)": "format() of",
    "'{:>{width}}'.format(1, width=x)": "format() of",
    "'{a}'.format_map({'a': x})": "format() of",
    "f'{x}'": "format() of",
    "f'{x:.2f}'": "format() of",
    "f'{x!s}'": "str() of",
    "format(x)": "format() of",
    "format(x, '.2f')": "format() of",
    "ascii(x)": "ascii() of",
    "[ascii(y) for y in (x, x.T)]": "ascii() of",
    "f'{x!a}'": "ascii() of",
    "f'{x!a:>10}'": "ascii() of",
    "format(1, x)": "TypeError because of a placeholder",
    "''.join(['a', x])": "TypeError because of a placeholder",
    "'a'.replace('a', x)": "TypeError because of a placeholder",
}


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_of_a_node_is_refused(text: str) -> None:
    for source in (f"def body(x):\n    return {text}, x", f"def body(x):\n    y = {text}\n    return x, y"):
        scope: dict[str, Any] = {}
        exec(compile(source, __file__, "exec"), scope)
        with pytest.raises(flow.TraceError) as caught:
            flow.pipeline(scope["body"]).graph()
        assert TEXTS[text] in str(caught.value)
        assert f"at {__file__}:2: " in str(caught.value)


def test_a_text_that_is_filled_in_place_is_refused() -> None:
    scope: dict[str, Any] = {}
    exec(compile("def body(x):\n    return ('a ' 'text') % (x + 1)", __file__, "exec"), scope)
    with pytest.raises(flow.TraceError, match=r"no place for a value, in the body of 'body', at .*: give it"):
        flow.pipeline(scope["body"]).graph()


def test_texts_of_other_values_are_no_matter() -> None:
    source = """
def body(x, n):
    name = "item %d of %s, 100%%" % (n, "a")
    rest = n % 2, "%s" % n, "%(k)s" % {"k": 1}, "a text", 5 % n, "%%%s" % "a"
    repr(x), f"{x!r}", ascii("a") + repr(x), f"{n!a}{x!r}"
    return flow.label(x % 2, name), rest
"""
    scope: dict[str, Any] = {"flow": flow}
    exec(compile(source, __file__, "exec"), scope)
    pipeline = flow.pipeline(static=("n",))(scope["body"])
    assert pipeline.run(5, 3) == (1, (1, "3", "1", "a text", 2, "%a"))
    named = flow.pipeline(lambda a, b: ({"a": a, "b": b}, b % 2, a % b))  # variables have such names, too
    assert named.run(7, 5) == ({"a": 7, "b": 5}, 1, 2)


def test_an_op_writes_a_text() -> None:
    """The remedy, followed."""
    text = flow.op(lambda x: f"{x} and {x:.1f}")
    assert flow.pipeline(lambda x: text(x)).run(2) == "2 and 2.0"
    assert flow.pipeline(lambda x: (flow.op(ascii)(x), flow.op(format)(x, ">3"))).run("ä") == ("'\\xe4'", "  ä")


# ---------------------------------------------------------------------------------------------- the module operator

SEQUENCES: list[Any] = [[1, 2], (1, 2), "ab", b"ab", bytearray(b"ab"), deque([1]), np.ones(2), 3, {"a": 1}]
CONCATENATED: list[Callable[[Any], Any]] = [
    lambda x: operator.concat(x, x),
    lambda x: operator.iconcat(x, x[:]),
    lambda x: concat(x, x),
    lambda x: functools.reduce(operator.concat, [x, x, x]),
    lambda x: operator.add(x, x),
    lambda x: x + x,
]


@pytest.mark.parametrize("body", CONCATENATED)
@pytest.mark.parametrize("value", SEQUENCES, ids=lambda value: type(value).__name__)
def test_sequences_are_concatenated_and_arrays_are_not_added_instead(body: Callable[[Any], Any], value: Any) -> None:
    before = copy.deepcopy(value)
    assert outcome(flow.pipeline(body).run, value) == outcome(body, copy.deepcopy(value))
    np.testing.assert_equal(value, before)


ASKED: list[tuple[Callable[[Any], Any], Any]] = [
    (lambda x: operator.concat([1], x), [2]),
    (lambda x: operator.concat("a", x), "b"),
    (lambda x: operator.iconcat([1], x), (2,)),
    (lambda x: operator.iadd([1], x), (2,)),
    (lambda x: operator.ior({1}, x), {2}),
    (lambda x: operator.ior({}, x), {2: 3}),
    (lambda x: operator.length_hint(x), [1]),
    (lambda x: operator.length_hint(x, 5), [1]),
    (lambda x: operator.indexOf(x, 2), [1, 2]),
    (lambda x: operator.indexOf([1, 2], x), 2),
    (lambda x: operator.countOf(x, 2), [1, 2]),
    (lambda x: operator.countOf([1, 2], x), 2),
    (lambda x: operator.contains(x, 2), [1, 2]),
    (lambda x: operator.truth(x), 1),
]


@pytest.mark.parametrize(("body", "value"), ASKED)
def test_what_the_module_operator_asks_is_refused_and_answered_inside_an_op(
    body: Callable[[Any], Any], value: Any
) -> None:
    with pytest.raises(flow.TraceError, match=rf"at {__file__}:\d+: .*(inside an op|a graph makes new values)"):
        flow.pipeline(body).graph()
    inside = flow.op(body)
    assert flow.pipeline(lambda x: inside(x)).run(value) == body(value)


FORTRAN: list[Callable[[Any, Any], Any]] = [
    lambda linalg, x: linalg.cholesky(np.eye(2), lower=x),
    lambda linalg, x: linalg.blas.dgemm(x, np.eye(2), np.eye(2)),
    lambda linalg, x: linalg.blas.dgemm(1.0, np.eye(2), np.eye(2), trans_a=x.T),
]


@pytest.mark.parametrize("call", FORTRAN)
def test_functions_made_from_fortran_do_not_index_without_end(call: Callable[[Any, Any], Any]) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    with pytest.raises(flow.TraceError, match=rf"at {__file__}:\d+: "):
        flow.pipeline(lambda x: call(linalg, x)).graph()
    inside = flow.op(lambda x: call(linalg, x))  # the remedy
    np.testing.assert_array_equal(flow.pipeline(lambda x: inside(x)).run(np.array(1)), np.eye(2))


def test_items_of_items_are_recorded_all_the_same() -> None:
    nested: Any = 5
    for _ in range(20):
        nested = [nested]
    body = flow.pipeline(lambda x: functools.reduce(operator.getitem, [0] * 20, x))
    assert body.run(nested) == 5
