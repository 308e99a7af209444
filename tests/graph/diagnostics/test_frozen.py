"""The time and random numbers in a body: they are asked for once, and a warning says so, once, with the line."""

from __future__ import annotations

import contextvars
import os
import random
import secrets
import textwrap
import time
import uuid
import warnings
from datetime import UTC, date, datetime
from random import random as drawn
from time import perf_counter
from typing import Any

import numpy as np
import pytest

import dataflow as flow

rng = np.random.default_rng(0)
dice = random.Random(0)


class Later(datetime):
    pass


@flow.op
def add(x: Any, y: Any) -> Any:
    return x + y


def noise() -> float:
    return random.random()


def shifted(x: Any) -> Any:
    return x + noise()


@flow.pipeline
def inner(x: Any) -> Any:
    return x + time.time()


class Sensor:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def noise(self) -> Any:
        return random.random()

    @staticmethod
    def now() -> float:
        return time.time()


sensor = Sensor()

tenant = contextvars.ContextVar("tenant", default="nobody")

ASKED: dict[str, Any] = {
    "random.random": lambda x: x + random.random(),
    "random.randint": lambda x: x + random.randint(1, 6),
    "drawn": lambda x: x + drawn(),
    "dice.random": lambda x: x + dice.random(),
    "np.random.rand": lambda x: x + np.random.rand(3),
    "np.random.normal": lambda x: x + np.random.normal(0, 1, size=3),
    "np.random.shuffle": lambda x: (x, np.random.shuffle([1])),
    "np.random.default_rng": lambda x: x + np.random.default_rng().normal(),
    "np.random.RandomState": lambda x: x + np.random.RandomState().rand(),
    "rng.normal": lambda x: x + rng.normal(size=(2, 2)),
    "time.time": lambda x: x + time.time(),
    "time.monotonic_ns": lambda x: x + time.monotonic_ns(),
    "perf_counter": lambda x: x + perf_counter(),
    "time.localtime": lambda x: (x, time.localtime()),
    "datetime.now": lambda x: (x, datetime.now(UTC)),
    "Later.now": lambda x: (x, Later.now(tz=UTC)),
    "date.today": lambda x: (x, date.today()),
    "uuid.uuid4": lambda x: (x, uuid.uuid4()),
    "secrets.token_hex": lambda x: (x, secrets.token_hex(3)),
    "secrets.choice": lambda x: (x, secrets.choice([1, 2])),
    "os.urandom": lambda x: (x, os.urandom(1)),
    "tenant.get": lambda x: (x, tenant.get()),
    "sensor.rng.normal": lambda x: x + sensor.rng.normal(),
}


@pytest.mark.parametrize("what", ASKED)
def test_a_body_that_asks_is_told_so(what: str) -> None:
    body = ASKED[what]
    pipeline = flow.pipeline(body)
    line = body.__code__.co_firstlineno
    with pytest.warns(flow.TraceWarning) as told:
        pipeline.run(1)
    (warning,) = told
    assert f"{what}() at {__file__}:{line} is called once, when the body is traced" in str(warning.message)
    assert (warning.filename, warning.lineno) == (__file__, line)


def test_it_is_told_once() -> None:
    @flow.pipeline(static=("n",))
    def pipeline(x: Any, n: int = 0) -> Any:
        return x + random.random() + n

    with pytest.warns(flow.TraceWarning) as told:
        for n in range(3):
            pipeline.run(1, n)
            pipeline.bind(n=n + 5).run(1)
            pipeline.retrace()
    assert len(told) == 1


def test_a_body_that_is_declared_again_and_again_is_told_of_once() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for n in range(3):
            flow.pipeline(lambda x, n=n: x + random.random() + n).run(1)
            flow.pipeline(shifted).run(1)
    assert len(told) == 2


def test_where_warnings_are_errors_the_second_call_runs() -> None:
    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return x + random.random()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(flow.TraceWarning, match=r"random\.random\(\) at .* is called once"):
            pipeline.run(1)
        assert pipeline.run(1) == pipeline.run(1)


def helps(x: Any) -> Any:
    return shifted(x)


def loops(x: Any) -> Any:
    return sum([x * random.random() for _ in range(2)])


def comprehends(x: Any) -> Any:
    return {"a": x}, {k: time.time() for k in "ab"}, [*(np.random.rand() for _ in range(2))]


def spreads(x: Any) -> Any:
    return x, np.random.normal(*[0, 1], size=2)


def lists(x: Any) -> Any:
    add(
        x,
        random.random(),
    )
    return x + uuid.uuid4().int


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (helps, [(noise, 1)]),
        (lambda x: inner(x), [(inner.__wrapped__, 2)]),
        (lambda x: sensor.noise() + x, [(Sensor.noise, 1)]),
        (lambda x: Sensor.now() + x, [(Sensor.now, 2)]),
        (loops, [(loops, 1)]),
        (comprehends, [(comprehends, 1)] * 2),
        (spreads, [(spreads, 1)]),
        (lists, [(lists, 3), (lists, 5)]),
    ],
)
def test_helpers_that_are_called_are_looked_into(body: Any, lines: list[tuple[Any, int]]) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        flow.pipeline(body).graph()
    expected = [(__file__, function.__code__.co_firstlineno + line) for function, line in lines]
    assert sorted((each.filename, each.lineno) for each in told) == sorted(expected)


def test_methods() -> None:
    class Model:
        def __init__(self) -> None:
            self.rng = np.random.default_rng(1)

        @flow.pipeline
        def drawn(self, x: Any) -> Any:
            return x + self.rng.normal()

        @flow.pipeline
        def helped(self, x: Any) -> Any:
            return self.helper(x)

        def helper(self, x: Any) -> Any:
            return x + time.time()

    for pipeline, function, line in (
        (Model().drawn, Model.__dict__["drawn"].__wrapped__, 2),
        (Model().helped, Model.helper, 1),
    ):
        with pytest.warns(flow.TraceWarning) as told:
            pipeline.run(1)
        assert [each.lineno for each in told] == [function.__code__.co_firstlineno + line]


@flow.op
def draws(x: Any) -> Any:
    return x + random.random() + time.time() + rng.normal()


def plain(x: Any) -> Any:
    return x + random.random()


def seeded(x: Any) -> Any:
    random.seed(0)
    return x + np.random.default_rng(0).normal() + np.random.RandomState(0).rand() + random.Random(0).random()


def declares(x: Any) -> Any:
    @flow.op
    def inside(y: Any) -> Any:
        return y + random.random()

    return inside(x)


@pytest.mark.parametrize(
    "body",
    [
        draws,
        lambda x: draws(x),
        lambda xs: flow.map(plain, [xs, 1]),
        lambda x: flow.cond(x > 0, plain, plain, x),
        lambda x: flow.op(plain)(x),
        declares,
        seeded,
        lambda x: x + time.strptime("2026", "%Y").tm_year,
        lambda x: (x, datetime.fromisoformat("2026-01-01"), date(2026, 1, 1), os.getpid(), uuid.UUID(int=1)),
        lambda x: (x, random.random, time.time, rng),
        lambda x: (x, textwrap.dedent(" a"), np.sin(1.0), len("abc")),
    ],
)
def test_what_runs_in_every_run_or_is_not_called_is_no_reason(body: Any) -> None:
    flow.pipeline(body).graph(1)  # warnings are errors in these tests


def test_the_remedies_work() -> None:
    stamp = flow.op(time.perf_counter)
    inside, given = flow.pipeline(lambda x: (x, stamp())), flow.pipeline(lambda x, now: (x, now))
    assert inside.run(1) != inside.run(1)
    assert given.run(1, time.perf_counter()) != given.run(1, time.perf_counter())
