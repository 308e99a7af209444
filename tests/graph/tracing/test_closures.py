"""Functions that a body gives to its nodes are called when it is over: a variable of theirs that changes is told."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import dataflow as flow

apply = flow.op(lambda function, x: function(x))


def in_a_loop(give: Callable[[Callable[[Any], Any], Any], Any], xs: Any) -> list[Any]:
    return [give(lambda v: v * k, xs) for k in (1, 10)]  # noqa: B023  # the fault that is told


GIVERS: dict[str, Callable[[Callable[[Any], Any], Any], Any]] = {
    "an argument": apply,
    "a partial": lambda function, x: apply(partial(function), x),
    "map": lambda function, x: flow.map(function, [x, x]),
    "cond": lambda function, x: flow.cond(True, function, function, x),
    "an operator of the body's": lambda function, x: flow.op(function)(x),
    "an operator as an argument": lambda function, x: apply(flow.op(function), x),
    "a library": lambda function, x: np.apply_along_axis(function, 0, x),
    "in a list": lambda function, x: flow.op(lambda functions, x: functions[0](x))([function], x),
}


@pytest.mark.parametrize("giver", GIVERS)
def test_a_variable_that_the_body_binds_again(giver: str) -> None:
    p = flow.pipeline(lambda xs: in_a_loop(GIVERS[giver], xs), name="late")
    with pytest.raises(flow.TraceError, match=rf"the variable 'k' of a lambda .*{__file__}:\d+: .*\(k=k\)"):
        p.graph()


@pytest.mark.parametrize("giver", GIVERS)
def test_the_remedies(giver: str) -> None:
    give, x = GIVERS[giver], np.ones(2)

    def by_default(xs: Any) -> Any:
        return [give(lambda v, k=k: v * k, xs) for k in (1, 10)]

    def times(k: int, v: Any) -> Any:
        return v * k

    def by_partial(xs: Any) -> Any:
        return [give(partial(times, k), xs) for k in (1, 10)]

    def by_a_function(xs: Any) -> Any:
        def scaled(k: int) -> Any:
            return lambda v: v * k

        return [give(scaled(k), xs) for k in (1, 10)]

    for body in (by_default, by_partial, by_a_function):
        small, large = flow.pipeline(body).run(x)
        assert np.all(np.asarray(small) == 1)
        assert np.all(np.asarray(large) == 10)


def test_variables_that_stay_and_equal_numbers_are_fine() -> None:
    def body(x: Any) -> Any:
        k = 3
        first = apply(lambda v: v + k, x)
        k = int("3")
        return first, apply(lambda v: v + k, x)

    assert flow.pipeline(body).run(1) == (4, 4)


def test_pipelines_that_are_recorded_at_once_may_be_made_in_a_loop() -> None:
    def body(x: Any) -> Any:
        for k in (1, 10):
            x = flow.pipeline(lambda v: v * k)(x)  # noqa: B023  # called at once
        return x

    assert flow.pipeline(body).run(2) == 20


def test_a_function_that_knows_itself_and_what_comes_after_it() -> None:
    def body(x: Any) -> Any:
        @flow.op
        def factorial(n: int) -> int:
            return one if n == 0 else n * factorial(n - 1)

        one = 1
        return factorial(x)

    assert flow.pipeline(body).run(5) == 120
