"""Errors that a placeholder provoked, and refusals that were caught: all leave a trace as TraceError."""

from __future__ import annotations

import csv
import decimal
import io
import json
import re
import sqlite3
import struct
import traceback
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import dataflow as flow

TABLE = {"a": 1}


def helper(x: Any) -> Any:
    return np.zeros(x.shape)


class Opaque:
    """Json cannot write it."""


def library() -> dict[str, Any]:
    """A module that is installed: not the user's."""
    scope: dict[str, Any] = {"np": np}
    source = "def shape_of(x):\n    return np.zeros(x.shape)\ndef count(x):\n    return len(x)"
    exec(compile(source, "/usr/lib/python3/site-packages/library.py", "exec"), scope)
    return scope


PROVOKED: list[tuple[Callable[[Any], Any], type[BaseException]]] = [
    (lambda x: np.zeros(x.shape), TypeError),
    (lambda x: helper(x), TypeError),
    (lambda x: np.quantile(np.ones(3), 0.5, method=x), ValueError),
    (lambda x: np.ones(3).reshape(x), TypeError),
    (lambda x: dict(x), TypeError),
    (lambda x: "".join(["text", x]), TypeError),  # noqa: FLY002
    (lambda x: int("3", base=x), TypeError),
    (lambda x: np.dtype(x), Exception),
    (lambda x: json.dumps({"a": object.__new__(Opaque), "b": x}), TypeError),
    (lambda x: np.random.default_rng().normal(size=x.shape), TypeError),
    (lambda x: library()["shape_of"](x), TypeError),
    (lambda x: library()["count"](x), Exception),
    (lambda x: getattr(np.ones(3), "swapaxes")(x, 0), TypeError),  # noqa: B009
    (lambda x: [np.zeros(part.shape) for part in (x, x.T)], TypeError),
    (lambda x: (x, [[np.ones(1).reshape(i) for i in part] for part in ([1], [x])]), TypeError),
    (lambda x: [np.zeros(3).reshape(x[i]) for i in range(3)], TypeError),
    (lambda x: list(np.zeros(part.shape) for part in [x]), TypeError),  # noqa: C400
]


@pytest.mark.parametrize(("body", "cause"), PROVOKED)
def test_numpys_and_pythons_errors_name_the_line(body: Callable[[Any], Any], cause: type[BaseException]) -> None:
    with pytest.raises(flow.TraceError, match=rf"at {__file__}:\d+: ") as caught:
        flow.pipeline(body).graph()
    error: BaseException | None = caught.value
    assert error is not None
    line = (helper.__code__ if "helper" in body.__code__.co_names else body.__code__).co_firstlineno
    assert f"{__file__}:{line + ('helper' in body.__code__.co_names)}: " in str(error)
    if error.__cause__ is not None:
        assert isinstance(error.__cause__, cause)


def raises(x: Any) -> Any:
    raise ValueError("no such depth")


def reraises(x: Any) -> Any:
    try:
        TABLE["b"]
    except KeyError as missing:
        raise LookupError("no weights") from missing


OWN: list[tuple[Callable[[Any], Any], type[BaseException], str]] = [
    (raises, ValueError, "no such depth"),
    (lambda x: raises(x), ValueError, "no such depth"),
    (reraises, LookupError, "no weights"),
    (lambda x: TABLE["b"] + x, KeyError, "b"),
    (lambda x: [x][len(TABLE)], IndexError, "list index out of range"),
    (lambda x: (x, 1 / 0), ZeroDivisionError, "division by zero"),
    (lambda x: x + undefined, NameError, "undefined"),  # type: ignore[name-defined]  # noqa: F821
    (lambda x: x._hidden, AttributeError, "begin with an underscore"),
    (lambda x: (x, [int(word) for word in ("1", "one")]), ValueError, "invalid literal"),
    (lambda x: np.stack([x, int("one")]), ValueError, "invalid literal"),  # type: ignore[list-item]
    (lambda x: x if int("x") else 1, ValueError, "invalid literal"),
]


@pytest.mark.parametrize(("body", "error", "message"), OWN)
def test_the_users_own_errors_pass_through(
    body: Callable[[Any], Any], error: type[BaseException], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        flow.pipeline(body).graph()
    assert not isinstance(caught.value, flow.TraceError)


class Unusable(Exception):
    def __init__(self, node: Any) -> None:
        self.node = node

    def __str__(self) -> str:
        return f"cannot use {self.node}: {self.node!r}"


def raises_from_a_helper(x: Any) -> Any:
    check(x)


def check(x: Any) -> None:
    raise ValueError("no such depth:", x)


def raises_from_another(x: Any) -> Any:
    try:
        TABLE["b"]
    except KeyError as missing:
        raise RuntimeError(x) from missing


def throw(error: BaseException) -> Any:
    raise error


HOLDING: list[tuple[Callable[[Any], Any], type[BaseException], str]] = [
    (lambda x: throw(ValueError(x)), ValueError, "<placeholder 0>"),
    (lambda x: throw(TypeError(x)), TypeError, "<placeholder 0>"),
    (lambda x: throw(KeyError(x + 1)), KeyError, "<placeholder 1>"),
    (lambda x: throw(KeyError(f"no depth {x!r}")), KeyError, "'no depth <placeholder 0: x>'"),
    (lambda x: throw(Unusable(x)), Unusable, "cannot use <placeholder 0>: <placeholder 0>"),
    (lambda x: throw(OSError(2, x)), FileNotFoundError, "[Errno 2] <placeholder 0>"),
    (lambda x: throw(ValueError([x], {"a": x})), ValueError, "([<placeholder 0>], {'a': <placeholder 0>})"),
    (lambda x: throw(StopIteration(x.shape)), StopIteration, "<placeholder: shape>"),
    (lambda x: throw(ExceptionGroup("two", [ValueError(x)])), ExceptionGroup, "two (1 sub-exception)"),
    (raises_from_a_helper, ValueError, "('no such depth:', <placeholder 0>)"),
    (raises_from_another, RuntimeError, "<placeholder 0>"),
    (lambda x: throw(AssertionError(x)), AssertionError, "<placeholder 0>"),  # which `assert condition, x` raises
]


@pytest.mark.parametrize(("body", "kind", "text"), HOLDING)
def test_the_users_own_error_may_hold_a_placeholder(
    body: Callable[[Any], Any], kind: type[BaseException], text: str
) -> None:
    pipeline = flow.pipeline(body, name="edges")
    for _ in range(2):  # the second trace is not disturbed by what the first error holds
        with pytest.raises(kind) as caught:
            pipeline.run(1)
        assert type(caught.value) is kind
        assert str(caught.value) == text
        (note,) = caught.value.__notes__
        assert note.startswith("raised by the body of 'edges' while it was traced: a placeholder stands for a value")
        assert "str() failed" not in "".join(traceback.format_exception(caught.value))


def test_an_error_that_holds_no_placeholder_has_no_note() -> None:
    with pytest.raises(ValueError, match="no such depth") as caught:
        flow.pipeline(raises).run(1)
    assert not hasattr(caught.value, "__notes__")


def test_a_placeholder_that_an_error_holds_is_no_text_of_another_body() -> None:
    with pytest.raises(Unusable) as caught:
        flow.pipeline(lambda x: throw(Unusable(x))).run(1)
    for body in (lambda x: (x, str(caught.value.node)), lambda x: (x, f"{caught.value.node}")):
        with pytest.raises(flow.TraceError, match="is used after the body"):
            flow.pipeline(body).run(1)


def test_inside_an_op_the_error_tells_the_value() -> None:
    """The remedy, followed."""

    @flow.op
    def checked(x: Any) -> Any:
        if x < 0:
            raise ValueError("no such depth:", x)
        return x

    with pytest.raises(ValueError, match="no such depth") as caught:
        flow.pipeline(lambda x: checked(x)).run(-1)
    assert caught.value.args == ("no such depth:", -1)


def raises_a_node(x: Any) -> Any:
    raise x


def raises_from_a_node(x: Any) -> Any:
    raise ValueError("no") from x


@pytest.mark.parametrize("body", [raises_a_node, raises_from_a_node])
def test_a_node_is_not_raised(body: Callable[[Any], Any]) -> None:
    line = body.__code__.co_firstlineno + 1
    with pytest.raises(flow.TraceError, match=rf"must derive from BaseException, at {__file__}:{line}: .*inside an op"):
        flow.pipeline(body).run(ValueError("yes"))


def guesses_length(x: Any) -> Any:
    try:
        count = len(x)
    except TypeError:
        count = 1
    return x * count


def asks_truth(x: Any) -> Any:
    with suppress(Exception):
        if x:
            return x
    return -x


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (guesses_length, r"len\(\) of <placeholder 0: x>"),
        (asks_truth, r"bool\(\) of <placeholder 0: x>"),
        (lambda x: (np.iterable(x), x), "iteration over <placeholder 0: x>"),
    ],
)
def test_a_refusal_that_is_caught_is_not_forgotten(body: Callable[[Any], Any], what: str) -> None:
    """On values the body would have gone another way: its graph would be silently wrong."""
    with pytest.raises(flow.TraceError, match=rf"{what} .*\(the refusal was caught, and .* went on"):
        flow.pipeline(body).graph()


# ---------------------------------------------------------------------------------------------- errors of libraries


class LapackError(Exception):
    """As libraries define them."""


def installed(source: str, file: str = "/usr/lib/python3/site-packages/library.py") -> dict[str, Any]:
    scope: dict[str, Any] = {"np": np, "LapackError": LapackError}
    exec(compile(source, file, "exec"), scope)
    return scope


LIBRARY = installed("""
def again(x):
    try:
        return float(x)
    except Exception as error:
        raise type(error)("the library's own words") from error
def without_a_word_of_it(x):
    try:
        return float(x)
    except Exception as error:
        raise type(error)("the library's own words") from None
def with_more(x):
    try:
        return len(x)
    except TypeError as error:
        raise type(error)(f"in the library: {error}")
def of_its_own(x):
    try:
        return int(x)
    except TypeError:
        raise LapackError("illegal value in argument 1")
def of_its_own_from_none(x):
    try:
        return int(x)
    except TypeError:
        raise LapackError("illegal value in argument 1") from None
def checked(x):
    if type(x) is not float:
        raise LapackError("expected a number")
""")
COMPILED = installed("def of_cython(x):\n    raise TypeError('Expected a str')", "<stringsource>")
CURSOR = sqlite3.connect(":memory:").cursor()

FOREIGN: list[tuple[Callable[[Any], Any], str, str]] = [
    (lambda x: struct.pack("d", x), "float() of <placeholder 0: x>", "(error: required argument is not a float)"),
    (lambda x: struct.pack("4s", x), "error because of a placeholder", "flow.op(struct.pack)(...)"),
    (lambda x: struct.pack_into("d", bytearray(8), 0, x + 1), "float() of <placeholder 1: add>", "(error: "),
    (lambda x: csv.writer(io.StringIO()).writerow(x), "iteration over <placeholder 0: x>", "(Error: iterable expected"),
    (
        lambda x: CURSOR.execute("select ?", (x,)),
        "Error because of|the buffer of",
        "flow.op(CURSOR.execute)",
    ),
    (lambda x: zlib.compress(x), "TypeError because of|the buffer of", "flow.op(zlib.compress)(...)"),
    (lambda x: decimal.Decimal(x), "TypeError because of|the class of", "flow.op(decimal.Decimal)(...)"),
    (lambda x: re.match("a", x), "TypeError because of|the buffer of", "flow.op(re.match)(...)"),
    (lambda x: LIBRARY["again"](x), "float() of <placeholder 0: x>", "(the library's own words)"),
    (lambda x: LIBRARY["without_a_word_of_it"](x.T), "float() of <placeholder: T>", "(the library's own words)"),
    (lambda x: LIBRARY["with_more"](x), "in the library: len() of <placeholder 0: x>", "static="),
    (lambda x: LIBRARY["of_its_own"](x), "int() of <placeholder 0: x>", "(LapackError: illegal value"),
    (lambda x: LIBRARY["of_its_own_from_none"](x), "int() of <placeholder 0: x>", "(LapackError: illegal value"),
    (lambda x: LIBRARY["checked"](x), "LapackError because of a placeholder", "flow.op(LIBRARY['checked'])(...)"),
    (lambda x: COMPILED["of_cython"](x), "TypeError because of a placeholder", "flow.op(COMPILED['of_cython'])(...)"),
]


@pytest.mark.parametrize(("body", "what", "remedy"), FOREIGN)
def test_an_error_of_a_library_names_the_line_and_the_remedy(
    body: Callable[[Any], Any], what: str, remedy: str
) -> None:
    with pytest.raises(flow.TraceError) as caught:
        flow.pipeline(body).graph()
    message = str(caught.value)
    assert any(each in message for each in what.split("|"))
    assert remedy in message
    assert f", at {__file__}:{body.__code__.co_firstlineno}: " in message
    assert "inside an op: flow.op(" in message


def raises_a_librarys_error(x: Any) -> Any:
    raise struct.error("the user's own")


def data_of_its_own(x: Any) -> Any:
    return x, struct.unpack("i", b"ab")


def caught_and_raised_later(x: Any) -> Any:
    try:
        struct.pack("i", "text")
    except struct.error as error:
        raise LookupError("no format") from error
    return x


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (raises_a_librarys_error, struct.error, "the user's own"),
        (data_of_its_own, struct.error, "unpack requires"),
        (caught_and_raised_later, LookupError, "no format"),
        (lambda x: (x, zlib.decompress(b"ab")), zlib.error, "Error"),
        (lambda x: (x, decimal.Decimal("text")), decimal.InvalidOperation, "(Conversion|literal)"),
        (lambda x: (x, CURSOR.execute("nonsense")), sqlite3.OperationalError, "syntax"),
    ],
)
def test_errors_of_libraries_about_other_values_pass_through(
    body: Callable[[Any], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        flow.pipeline(body).graph()
    assert not isinstance(caught.value, flow.TraceError)


def test_a_call_inside_an_op_is_what_was_meant() -> None:
    """The remedy, followed."""
    assert flow.pipeline(lambda x: flow.op(struct.pack)("d", x)).run(1.5) == struct.pack("d", 1.5)
    assert flow.pipeline(lambda x: flow.op(LIBRARY["again"])(x)).run("1.5") == 1.5
    assert flow.pipeline(lambda x: flow.op(re.match)("a", x)).run("b") is None
