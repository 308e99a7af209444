"""Operators: recorded in a pipeline's body, and the plain function anywhere else."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dataflow as flow

Runner = Callable[[Any], Any]


@flow.op
def scale(x: Any, by: float = 2.0, *, offset: float = 0.0) -> Any:
    """Scale and shift."""
    return x * by + offset


@flow.op
async def fetch(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1


def test_outside_of_a_body_it_is_the_plain_function(run_async: Runner) -> None:
    assert scale(3) == 6
    assert scale(3, 3, offset=1) == 10
    call = fetch(1)
    assert inspect.iscoroutine(call)
    assert run_async(call) == 2


def test_inside_a_kernel_it_is_the_plain_function_as_well(run_async: Runner) -> None:
    @flow.op
    def uses(x: int) -> int:
        return int(scale(scale(x)))

    @flow.op
    async def awaits(x: int) -> int:
        return await fetch(x) + scale(x)

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return uses(x), awaits(x)

    assert run_async(pipeline(3)) == (12, 10)


def test_it_looks_like_its_function() -> None:
    assert scale.__name__ == "scale"
    assert scale.__doc__ == "Scale and shift."
    assert scale.__module__ == __name__
    assert str(inspect.signature(scale)) == "(x: 'Any', by: 'float' = 2.0, *, offset: 'float' = 0.0) -> 'Any'"
    assert repr(scale) == "<op scale>"
    assert repr(fetch) == "<async op fetch>"


def test_it_is_pickled_by_name() -> None:
    assert pickle.loads(pickle.dumps(scale)) is scale
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(scale.options(name="other"))  # the module's name stands for another one


def test_arguments_arrive_as_written(run_async: Runner) -> None:
    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return scale(x), scale(x, 3), scale(x, offset=1), scale(offset=1, by=4, x=x), scale(x, *[5], offset=x)

    assert run_async(pipeline(3)) == (6, 9, 7, 13, 18)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: scale(), r"scale\(\) missing a required argument: 'x'"),
        (lambda x: scale(x, 1, 2), r"scale\(\) too many positional arguments"),
        (lambda x: scale(x, of=1), r"scale\(\) got an unexpected keyword argument 'of'"),
        (lambda x: scale(x, x=x), r"scale\(\) multiple values for argument 'x'"),
        (lambda x: fetch(x, x), r"fetch\(\) too many positional arguments"),
    ],
)
def test_wrong_arguments_fail_on_the_line_of_the_body(call: Callable[[Any], Any], message: str) -> None:
    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return call(x)

    with pytest.raises(TypeError, match=message) as caught:
        pipeline.graph()
    assert any(entry.name == "<lambda>" and entry.path == __file__ for entry in map(_Where, _entries(caught.value)))


class _Where:
    def __init__(self, frame: Any) -> None:
        self.name, self.path = frame.f_code.co_name, frame.f_code.co_filename


def _entries(error: BaseException) -> list[Any]:
    frames = []
    tb = error.__traceback__
    while tb is not None:
        frames.append(tb.tb_frame)
        tb = tb.tb_next
    return frames


class Filter:
    """Methods of all kinds."""

    gain = 3

    def __init__(self, offset: int) -> None:
        self.offset = offset

    @flow.op
    def shift(self, x: Any) -> Any:
        return x + self.offset

    @flow.op
    async def shift_later(self, x: Any) -> Any:
        await asyncio.sleep(0)
        return x + self.offset

    @staticmethod
    @flow.op
    def negate(x: Any) -> Any:
        return -x

    @classmethod
    @flow.op
    def amplify(cls, x: Any) -> Any:
        return x * cls.gain


def test_methods(run_async: Runner) -> None:
    ten, twenty = Filter(10), Filter(20)

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return ten.shift(x), twenty.shift(x), ten.shift_later(x), Filter.negate(x), Filter.amplify(x)

    assert run_async(pipeline(1)) == (11, 21, 11, -1, 3)
    assert ten.shift(1) == 11
    assert run_async(ten.shift_later(1)) == 11
    assert Filter.shift(ten, 1) == 11
    assert (ten.negate(2), ten.amplify(2)) == (-2, 6)


def test_whatever_can_be_called(run_async: Runner) -> None:
    class Adds:
        def __init__(self, n: int) -> None:
            self.n = n

        def __call__(self, x: int) -> int:
            return x + self.n

    class AddsLater(Adds):
        async def __call__(self, x: int) -> int:
            return x + self.n

    adds, adds_later = flow.op(Adds(1)), flow.op(AddsLater(2))
    halves = flow.op(functools.partial(pow, mod=None), name="power")  # type: ignore[call-overload]
    arctan, roll = flow.op(np.arctan2), flow.op(np.roll)

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return adds(x), adds_later(x), halves(x, 2), arctan(x, 1), roll([x, 1, 2], 1)

    *scalars, rolled = run_async(pipeline(3))
    assert scalars == [4, 5, 9, np.arctan2(3, 1)]
    assert rolled.tolist() == [2, 3, 1]
    assert repr(adds_later) == "<async op AddsLater>"
    assert halves.name == "power"


def test_options_give_another_operator_of_the_same_function() -> None:
    renamed = scale.options(name="t17")
    assert renamed is not scale
    assert (renamed.name, scale.name) == ("t17", "scale")
    assert renamed.options().name == "t17"
    assert renamed(3) == 6

    @flow.op(name="named")
    def anonymous(x: int) -> int:
        return x

    assert anonymous.name == "named"

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return renamed(x), anonymous(x), scale(x)

    assert [node.spec.name for node in pipeline.graph().nodes] == ["t17", "named", "scale"]


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: flow.op(3), "op: expected a function, got int"),
        (lambda: flow.op(scale), r"is an operator already; use scale\.options"),
        (lambda: flow.op(staticmethod(len)), "put @staticmethod above @op"),
        (lambda: flow.op(classmethod(len)), "put @classmethod above @op"),
        (lambda: flow.op(name=3)(len), "op: name must be a str, got int"),
        (lambda: scale.options(name=b"x"), "op: name must be a str, got bytes"),
        (lambda: flow.op(len, names="x"), "unexpected keyword argument 'names'"),
    ],
)
def test_misuse_is_refused(declare: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        declare()


@pytest.mark.parametrize("make", [lambda: (i for i in range(3)), lambda: fetch(1), lambda: asyncio.Queue().get()])
def test_a_kernel_that_returns_no_value_says_so(run_async: Runner, make: Callable[[], Any]) -> None:
    @flow.op
    def forgot(x: int) -> Any:
        return make()

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return forgot(x)

    with pytest.raises(TypeError, match=r"'forgot' .*returned (an awaitable|a generator)"):
        run_async(pipeline(1))
