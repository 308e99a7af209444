"""Errors that a placeholder provoked, and refusals that were caught: all leave a trace as TraceError."""

from __future__ import annotations

import json
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
