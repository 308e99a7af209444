"""What operators may be asked for, and what is refused: the message names the operator, the option and the remedy."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.graph.nodes import Options

LIMIT = flow.Limit(2)


def plain(x: int) -> int:
    return x


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    *[({"timeout": value}, TypeError, "timeout must be a number of seconds") for value in (True, "1", [1], 1j)],
    *[
        ({"timeout": value}, ValueError, "leave it out for no timeout")
        for value in (0, -1, 0.0, float("nan"), float("inf"))
    ],
    *[({"retries": value}, TypeError, "retries must be an int") for value in (True, 1.0, "1", None)],
    ({"retries": -1}, ValueError, "0 is one attempt only"),
    *[
        ({"retries": 1, "retry_on": value}, TypeError, "an exception class or a tuple of such")
        for value in (3, "OSError", OSError(), [OSError], (OSError, 3), int, ())
    ],
    *[
        ({"retries": 1, "retry_on": value}, TypeError, "name subclasses of Exception")
        for value in (BaseException, KeyboardInterrupt, (OSError, asyncio.CancelledError), GeneratorExit)
    ],
    *[({"retries": 1, "backoff": value}, TypeError, "backoff must be a number of seconds") for value in (True, "1")],
    *[
        ({"retries": 1, "backoff": value}, ValueError, "0 is no wait at all")
        for value in (-0.1, float("nan"), float("inf"))
    ],
    ({"retry_on": OSError}, ValueError, "retry_on does nothing without retries"),
    ({"backoff": 1}, ValueError, "backoff does nothing without retries"),
    ({"retries": 0, "backoff": 1}, ValueError, "backoff does nothing without retries"),
    *[({"limit": value}, TypeError, "limit must be a flow.Limit") for value in (2, asyncio.Semaphore(), flow.Limit)],
]


@pytest.mark.parametrize(("asked", "kind", "says"), WRONG, ids=lambda value: str(value)[:40])
def test_what_makes_no_sense_is_refused(asked: dict[str, Any], kind: type[Exception], says: str) -> None:
    for declare in (
        lambda: flow.op(**asked)(plain),
        lambda: flow.op(plain).options(**asked),
        lambda: flow.op(name="x")(plain).options(name="plain", **asked),
    ):
        with pytest.raises(kind) as caught:
            declare()
        assert str(caught.value).startswith("op 'plain': ")
        assert next(reversed(asked)) in str(caught.value)
        assert says in str(caught.value)


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="there is no option 'time_out'"):
        flow.op(plain).options(time_out=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("asked", "want"),
    [
        ({"timeout": 2}, Options(timeout=2.0)),
        ({"timeout": np.float32(0.5)}, Options(timeout=0.5)),
        ({"timeout": Fraction(1, 2)}, Options(timeout=0.5)),
        ({"retries": np.int64(3)}, Options(retries=3)),
        (
            {"retries": 1, "retry_on": OSError, "backoff": 0},
            Options(retries=1, retry_on=(OSError,), backoff=0.0),
        ),
        ({"retries": 1, "retry_on": (OSError, flow.OperatorTimeout)}, None),
        ({"limit": LIMIT}, Options(limit=LIMIT)),
    ],
)
def test_what_makes_sense(asked: dict[str, Any], want: Options | None) -> None:
    options = flow.op(**asked)(plain)._spec.options
    assert options is not None
    if want is not None:
        assert options == want


def test_without_any_a_call_is_not_managed() -> None:
    for op in (flow.op(plain), flow.op(name="x", timeout=None, retries=0, retry_on=None)(plain)):
        assert op._spec.options is None
        assert not op.is_managed


def test_options_change_what_they_name_and_nothing_else() -> None:
    first = flow.op(name="first", timeout=1, retries=2, retry_on=OSError, backoff=3, limit=LIMIT)(plain)
    assert first.is_managed
    assert first.options(name="second")._spec.options == first._spec.options
    assert first.options(timeout=None).options(timeout=4)._spec.options == Options(4.0, 2, (OSError,), 3.0, LIMIT)
    assert first.options(retry_on=None)._spec.options == Options(1.0, 2, (Exception,), 3.0, LIMIT)
    once = first.options(retries=0)
    assert once._spec.options == Options(timeout=1.0, limit=LIMIT), "retry_on and backoff have no meaning any more"
    assert once.options(timeout=None, limit=None)._spec.options is None
    assert first.name == once.name == "first"
    assert first._spec.options == Options(1.0, 2, (OSError,), 3.0, LIMIT), "the first one is as it was"


def test_options_of_a_bound_operator() -> None:
    class Model:
        @flow.op(timeout=1)
        def step(self, x: int) -> int:
            return x

    bound = Model().step.options(retries=2)
    assert bound._spec.options == Options(timeout=1.0, retries=2)
    assert bound(3) == 3
