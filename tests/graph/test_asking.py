"""Whoever asks for the type of a placeholder is refused, under whatever name; numpy's dispatch is not."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sized
from typing import Any

import numpy as np
import pytest

import dataflow as flow

A = np.ones(3)


def under_another_name(x: Any) -> Any:
    check = isinstance
    return 1 if check(x, float) else 2


def matched(x: Any) -> Any:
    match x:
        case float():
            return 1
    return 2


def in_turn(x: Any) -> Any:
    """The instruction that calls numpy is the one that asks, later."""
    return [call(x, None if call is np.sum else float) for call in (np.sum, np.sum, isinstance)]


ASKED: list[Callable[[Any], Any]] = [
    lambda x: isinstance(x, float),
    lambda x: isinstance(x.T, (float, np.ndarray)),
    lambda x: isinstance(np.stack([A, x]), float),
    lambda x: [isinstance(each, float) for each in (1, x)],
    lambda x: list(map(isinstance, [x], [float])),
    lambda x: list(filter(functools.partial(isinstance, x), [float])),
    lambda x: operator.call(isinstance, x, float),
    lambda x: getattr(x, "__class__"),  # noqa: B009
    lambda x: operator.attrgetter("__class__")(x),
    lambda x: x.__class__(1),
    lambda x: x.__class__ is float,
    lambda x: isinstance(*(x, float)),
    lambda x: isinstance(x, Sized),
    lambda x: float.__subclasscheck__(x.__class__),
    lambda x: type(float).__instancecheck__(float, x),
    under_another_name,
    matched,
    in_turn,
]


@pytest.mark.parametrize("body", ASKED)
def test_whoever_asks_for_the_type_is_refused(body: Callable[[Any], Any]) -> None:
    with pytest.raises(flow.TraceError, match=r"isinstance\(\) or the class of .*test_asking.py:\d+: "):
        flow.pipeline(body).graph()


class Kind(np.ndarray[Any, Any]):
    """numpy asks whether a placeholder is one."""


KIND = A.view(Kind)
SORTED: list[Callable[[Any], Any]] = [
    lambda x: np.stack([A, x]),
    lambda x: np.stack([KIND, x.T, x]),
    lambda x: np.stack([x, A, KIND, x.T]),
    lambda x: np.where(A, x, x.T),
    lambda x: list(map(np.dot, [A, KIND], [x, x.T])),
    lambda x: functools.partial(np.where, A)(x, x.T),
    lambda x: operator.call(np.dot, A, x),
    lambda x: [np.dot(each, x) for each in (A, KIND)],
    lambda x: functools.reduce(np.dot, [A, x, A, x]),
    lambda x: np.concatenate(*([A, x],)),
    lambda x: np.einsum("i,i", A, x),
    lambda x: np.zeros(3, like=x),
    lambda x: A + x,
]


@pytest.mark.parametrize("body", SORTED)
def test_numpy_may_sort_its_arguments_by_type(body: Callable[[Any], Any]) -> None:
    for _ in range(2):
        graph = flow.pipeline(body).graph()
        assert len(graph)


def test_what_a_placeholder_has_can_be_listed() -> None:
    seen: list[list[str]] = []
    flow.pipeline(lambda x: (seen.append(dir(x)), x)[1]).graph()
    assert "__array_function__" in seen[0]
