"""`a, b = node` records what the statement does with the value, and fails as the statement does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dataflow as flow

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
