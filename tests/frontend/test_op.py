"""Operators: recorded in a pipeline's body, and the plain function anywhere else."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import unittest.mock
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dataflow as flow
from dataflow.frontend.op import _arity

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


# writes=


@flow.op(writes=("acc",))
def accumulate(acc: Any, x: Any) -> Any:
    acc += x
    return acc


@flow.op
def zeros(n: int) -> Any:
    return np.zeros(n)


def test_what_nobody_else_reads_is_written_into_as_it_is(run_async: Runner) -> None:
    seen: list[int] = []

    @flow.op(writes=["acc"])
    def watched(acc: Any, x: Any) -> Any:
        seen.append(acc.__array_interface__["data"][0])
        acc += x
        return acc

    @flow.pipeline
    def chain(x: Any) -> Any:
        acc = zeros(3)
        for _ in range(5):
            acc = watched(acc, x)
        return acc

    np.testing.assert_array_equal(run_async(chain(np.ones(3))), [5.0] * 3)
    assert len(set(seen)) == 1


@pytest.mark.parametrize(
    "body",
    [
        lambda x, c: (accumulate(x, 1), x),  # the caller's
        lambda x, c: (accumulate(c, 1), c),  # a constant
        lambda x, c: (accumulate(z := zeros(3), 1), z),  # returned as well
        lambda x, c: (accumulate(z := zeros(3), 1), accumulate(z, 0)),  # read twice
        lambda x, c: (accumulate(z := zeros(3), z + 1), z),
        lambda x, c: (accumulate(x[:], 1), x),  # a part of the caller's
        lambda x, c: (accumulate(acc=x, x=1), x),
    ],
)
def test_everything_else_is_copied(run_async: Runner, body: Callable[[Any, Any], Any]) -> None:
    mine, constant = np.zeros(3), np.zeros(3)
    pipeline = flow.pipeline(lambda x: body(x, constant))
    for _ in range(2):
        written, other = run_async(pipeline(mine))
        np.testing.assert_array_equal(written, [1.0] * 3)
        np.testing.assert_array_equal(other, [0.0] * 3)
    assert not mine.any()
    assert not constant.any()
    assert mine.flags.writeable


def test_writes_into_containers_and_keyword_only_arguments(run_async: Runner) -> None:
    @flow.op(writes=("into", "state"))
    def put(x: float, into: Any, *, state: Any) -> Any:
        into[0][0] = state["s"][0] = x
        return into[0], state["s"]

    mine = np.zeros(2)
    pipeline = flow.pipeline(lambda x: put(7.0, [x], state={"s": x}))
    into, state = run_async(pipeline(mine))
    assert (into[0], state[0], mine[0]) == (7, 7, 0)
    assert put(7.0, [mine], state={"s": mine})[0] is mine  # the plain function writes
    assert mine[0] == 7


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (
            lambda: flow.op(writes=("b",))(lambda a: a),
            r"writes names 'b', .* no single parameter of <lambda>\(a\)",
        ),
        (lambda: flow.op(writes="args")(lambda *args: 0), "writes names 'args', which is no single parameter"),
        (lambda: accumulate.options(writes=("y",)), "writes names 'y'"),
    ],
)
def test_writes_must_name_parameters(declare: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        declare()


def test_options_keep_what_they_do_not_change(run_async: Runner) -> None:
    renamed = accumulate.options(name="other")
    assert run_async(flow.pipeline(lambda x: renamed(x, 1))(np.zeros(1))) == [1.0]
    with pytest.raises(ValueError, match="read-only"):
        run_async(flow.pipeline(lambda x: accumulate.options(writes=())(x, 1))(np.zeros(1)))


def test_the_attributes_of_what_is_wrapped_are_not_its_own() -> None:
    """`functools.wraps` copies all attributes of an operator to a plain function around it."""

    @flow.op(name="inner")
    def inner(x: Any) -> Any:
        return x

    @flow.op
    @functools.wraps(inner)
    def outer(x: Any) -> Any:
        return inner(x) + 1

    @flow.pipeline(name="plain")
    def plain(x: Any) -> Any:
        return x

    @flow.pipeline
    @functools.wraps(plain)
    def around(x: Any) -> Any:
        return outer(plain(x))

    assert around.run(1) == outer(1) == 2
    assert plain.run(1) == 1
    assert "outer(" not in str(plain.graph())
    bound = flow.op(functools.partial(Doubler().twice))
    assert not bound.is_async
    assert flow.op(functools.partial(bound)).is_async is False
    assert flow.op(functools.partial(Doubler().later)).is_async


class Doubler:
    @flow.op
    def twice(self, x: Any) -> Any:
        return 2 * x

    @flow.op
    async def later(self, x: Any) -> Any:
        return x


@dataclass
class Counter:
    """A dataclass that is a model: its methods may set its attributes."""

    weights: Any
    calls: int = 0

    @flow.op
    def scaled(self, x: Any, times: int = 1) -> Any:
        """Scale it."""
        self.calls += 1
        return x * self.weights * times

    @flow.op
    async def later(self, x: Any) -> Any:
        return self, x

    @flow.pipeline
    def both(self, x: Any) -> Any:
        return self.scaled(x), self.later(x)


def test_an_operator_of_an_instance(run_async: Runner) -> None:
    model = Counter(np.ones(2))

    async def main() -> None:
        assert (await model.scaled.start(np.ones(2), 3)).tolist() == [3, 3]
        assert await model.later.start(model.scaled.start(1)) is not None
        with pytest.raises(TypeError, match="missing a required argument: 'x'"):
            model.scaled.start()
        assert (await model.both(2))[1][0] is model
        assert (await flow.pipeline(lambda x: model.later(x))(2))[0] is model

    run_async(main())
    assert model.calls == 3
    assert str(inspect.signature(model.scaled)) == "(x: 'Any', times: 'int' = 1) -> 'Any'"
    assert (model.scaled.name, model.later.is_async) == ("scaled", True)
    assert model.scaled == model.scaled != Counter(model.weights).scaled
    assert len({model.scaled, model.scaled}) == 1
    assert repr(model.later).startswith("<async op later of Counter(")
    other = model.scaled.options(name="other")
    assert str(flow.pipeline(lambda x: other(x)).graph()).splitlines()[2] == "     1  other(0)"
    with pytest.raises(TypeError, match="is an operator already"):
        flow.op(model.scaled)


def test_on_an_instance_it_is_an_operator_still() -> None:
    """As the methods of Python: a new object at each access, equal to others of the same declaration and instance."""
    model, other = Counter(1), Counter(1)
    assert type(model.scaled) is type(Counter.scaled) is flow.Op
    assert Counter.scaled is Counter.scaled is not model.scaled
    assert {model.scaled: 1, other.scaled: 2, Counter.scaled: 3}[model.scaled] == 1
    assert model.scaled != other.scaled
    assert model.scaled != Counter.scaled != model.scaled
    assert model.scaled != model.later
    assert model.scaled != model.scaled.options(name="other")
    assert model.scaled == unittest.mock.ANY
    assert (model.scaled.__name__, model.scaled.__doc__) == ("scaled", "Scale it.")
    assert model.scaled.__get__(other) is not None
    assert model.scaled.__get__(other)(3) == 3
    assert (model.calls, other.calls) == (1, 0)  # bound once, as methods are
    assert copy.deepcopy(model).scaled != model.scaled


def test_a_bound_operator_is_called_as_its_method_is(run_async: Runner) -> None:
    model = Counter(2)
    assert run_async(flow.pipeline(lambda x: model.scaled(x, times=x))(3)) == 18
    assert run_async(flow.pipeline(lambda x: model.scaled(times=5, x=x))(3)) == 30
    assert flow.pipeline(lambda x: model.scaled.options(name="n")(x, 2)).run(3) == 12
    nodes = (
        flow.pipeline(lambda x: [model.scaled(x), model.scaled(x=x, times=2), model.scaled(x, times=3)]).graph().nodes
    )
    assert [len(node.args) for node in nodes] == [2, 3, 3]
    for wrong in (lambda x: model.scaled(), lambda x: model.scaled(x, 1, 2), lambda x: model.scaled(x, self=x)):
        with pytest.raises(TypeError, match=r"scaled\(\) (missing a required|too many|got an unexpected .*'self')"):
            flow.pipeline(wrong).graph()


def test_a_parameter_may_be_called_self(run_async: Runner) -> None:
    plain = flow.op(lambda a, self=1: (a, self))
    assert plain(1, self=5) == run_async(flow.pipeline(lambda x: plain(x, self=5))(1)) == (1, 5)


def test_methods_of_records_that_hold_nodes_may_be_arguments(run_async: Runner) -> None:
    @flow.op
    def call(functions: Any, x: Any) -> Any:
        return [function(x) for function in functions]

    @flow.pipeline
    def passes(w: Any, x: Any) -> Any:
        record = Counter(w)
        return call([record.scaled, record.scaled], x), call((Counter(2).scaled,), x)

    assert run_async(passes(3, 10)) == ([30, 30], [20])


def test_operators_and_pipelines_of_the_owner_may_be_arguments(run_async: Runner) -> None:
    @flow.op
    def call(function: Any, x: Any) -> Any:
        return function.run(x)[0] if hasattr(function, "run") else function(x)

    class Model(Counter):
        @flow.pipeline
        def passes(self, x: Any) -> Any:
            return call(self.scaled, x), call([self.both][0], x)

    model = Model(3)
    assert run_async(model.passes(2)) == (6, 6)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_signature_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    signature = inspect.signature

    def watched(fn: Any, **how: Any) -> Any:
        read.append(fn)
        return signature(fn, **how)

    def plain(a: Any, b: Any = 2, c: Any = 3) -> Any:
        return a, b, c

    fn = flow.op(plain)
    monkeypatch.setattr(inspect, "signature", watched)
    graph = flow.pipeline(lambda x: [fn(x), fn(x, c=5), fn(c=1, b=2, a=x), fn(x, 1, c=x), fn(b=x, a=1)]).graph()
    assert read.count(plain) == 1
    shown = [(node.args, dict(node.kwargs)) for node in graph.nodes]
    assert shown == [((0,), {}), ((0,), {"c": 5}), ((0, 2, 1), {}), ((0, 1, 0), {}), ((1, 0), {})]


@given(st.data())
def test_the_arity_read_from_code_is_that_of_the_signature(data: st.DataObject) -> None:
    counts = [data.draw(st.integers(0, 2)) for _ in range(6)]
    names = iter("abcdefghijklmnop")
    by_position = [next(names) for _ in range(counts[0])]
    both = [next(names) for _ in range(counts[1])] + [f"{next(names)}=1" for _ in range(counts[2])]
    by_name = [next(names) for _ in range(counts[3])] + [f"{next(names)}=1" for _ in range(counts[4])]
    parts = [*by_position, "/"] if by_position else []
    parts += both
    variadic = counts[5] == 1
    if variadic or by_name:
        parts.append("*rest" if variadic else "*")
    parts += by_name
    if data.draw(st.booleans()):
        parts.append("**others")
    function = eval(f"lambda {', '.join(parts)}: None")
    like = partial(function)
    assert _arity(function) == _arity(like)
    for positional in range(5):
        with suppress(TypeError):
            function(*range(positional))
            least, most, _ = _arity(function)
            assert least <= positional <= most
