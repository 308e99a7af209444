"""call: a step's function fetches its arguments, however many there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dataflow as flow


@flow.op
def told(*args: Any, **named: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, named


@pytest.mark.parametrize("count", range(10))
def test_any_number_of_arguments_in_their_order(count: int) -> None:
    @flow.pipeline
    def p(values: list[Any]) -> Any:
        return told(*[values[i] for i in range(count)]), told(*[values[i] for i in range(count)], last=values[count])

    values = [object() for _ in range(count + 1)]
    expected = tuple(values[:count])
    assert p.run(values) == ((expected, {}), (expected, {"last": values[count]}))
    assert p.debug(values) == p.run(values)


@pytest.mark.parametrize("count", [5, 7])
def test_the_same_value_several_times_and_constants_between(count: int) -> None:
    @flow.pipeline
    def p(x: int) -> Any:
        return told(*[x, 1] * count, x)

    assert p.run(7) == ((*[7, 1] * count, 7), {})


GIVEN_TWICE: list[Callable[[Any], Any]] = [
    lambda x: flow.op(lambda a, b: a is b)(x, x),
    lambda x: flow.op(lambda a, b, c: a is c and b == 1)(x, 1, x),
    lambda x: flow.op(lambda t: t[0] is t[1])([x, x]),
    lambda x: flow.op(lambda t, k: t["a"] is k[0])({"a": x}, (x,)),
    lambda x: flow.op(lambda a, t: a is t[0])(x, [x]),
    lambda x: flow.op(lambda a, b: a is b, retries=1)(x, x),
    lambda x: flow.op(lambda *xs: all(each is xs[0] for each in xs))(*[x] * 12),
]


@pytest.mark.parametrize("value", [np.ones(3), {"a": np.ones(3)}, [np.ones(2)], np.ma.array([1.0])], ids=type)
@pytest.mark.parametrize("body", GIVEN_TWICE)
def test_what_an_operator_is_given_twice_is_one_object(body: Callable[[Any], Any], value: Any) -> None:
    p = flow.pipeline(lambda x: (body(x), flow.op(len)(x)))
    assert p.run(value)[0] is True
    assert p.debug(value)[0] is True
