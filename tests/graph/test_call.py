"""call: a step's function fetches its arguments, however many there are."""

from __future__ import annotations

from typing import Any

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
