"""Pipelines: what becomes an input and what a Python value, when the body is traced, and what is kept how long."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import importlib
import inspect
import pickle
import threading
import weakref
from collections import ChainMap, UserDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

import dataflow as flow
from tests.release import let_go, settles, workers_have_left

Runner = Callable[[Any], Any]
plans_module = importlib.import_module("dataflow.frontend.plan_cache")


@flow.op
def add(x: Any, y: Any) -> Any:
    return x + y


@flow.pipeline
def plus_one(x: Any) -> Any:
    """One more."""
    return add(x, 1)


def traced(fn: Callable[..., Any], **options: Any) -> tuple[Any, list[Any]]:
    """The pipeline of this body, and a list that grows with each trace."""
    traces: list[Any] = []

    def body(*args: Any, **kwargs: Any) -> Any:
        traces.append(repr((args, kwargs)))
        return fn(*args, **kwargs)

    body.__signature__ = inspect.signature(fn)  # type: ignore[attr-defined]
    body.__name__ = fn.__name__
    return flow.pipeline(body, **options) if not options else flow.pipeline(**options)(body), traces


def test_it_looks_like_its_function() -> None:
    assert plus_one.__name__ == plus_one.name == "plus_one"
    assert plus_one.__doc__ == "One more."
    assert repr(plus_one) == "<pipeline plus_one(x: 'Any') -> 'Any'>"
    assert pickle.loads(pickle.dumps(plus_one)) is plus_one
    assert flow.pipeline(name="other")(lambda x: x).name == "other"


def test_the_body_is_traced_at_the_first_call_and_never_again(run_async: Runner) -> None:
    pipeline, traces = traced(lambda x, y: add(x, y))
    assert not traces
    for x in range(5):
        assert run_async(pipeline(x, y=1)) == x + 1
        assert run_async(pipeline(np.ones(x), 1)).shape == (x,)
    assert len(traces) == 1


def test_a_call_is_a_coroutine_and_binds_at_once() -> None:
    call = plus_one(1)
    assert inspect.iscoroutine(call)
    assert call.__qualname__ == "plus_one"
    call.close()
    with pytest.raises(TypeError, match=r"plus_one\(\) missing a required argument: 'x'"):
        plus_one()
    with pytest.raises(TypeError, match=r"plus_one\(\) too many positional arguments"):
        plus_one(1, 2)
    with pytest.raises(TypeError, match=r"plus_one\(\) got an unexpected keyword argument 'z'"):
        plus_one(1, z=2)


def test_retrace_forgets_and_the_body_runs_anew(run_async: Runner) -> None:
    settings = {"amount": 1}

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return add(x, settings["amount"])

    assert run_async(pipeline(1)) == 2
    settings["amount"] = 10
    assert run_async(pipeline(1)) == 2
    pipeline.retrace()
    assert run_async(pipeline(1)) == 11


class Keeps:
    """Its bodies make arrays that only graphs hold."""

    def __init__(self, made: list[Any]) -> None:
        self.made = made

    def constant(self) -> Any:
        array = np.ones(3)
        self.made.append(weakref.ref(array))
        return array

    @flow.pipeline
    def forward(self, x: Any) -> Any:
        return add(x, self.constant())

    @flow.pipeline(static=("n",))
    def static(self, x: Any, n: int = 1) -> Any:
        return add(x, self.constant()[:n])

    @flow.pipeline
    def carried(self, x: Any, state: Any) -> Any:
        return add(x, self.constant()), {"state": state + x}


async def all_of(stream: Any) -> list[Any]:
    return [y async for y in stream]


KEPT: list[Callable[[Any], Any]] = [
    lambda of: of.forward.run(1),
    lambda of: of.forward.on(flow.Runtime()).run(1),
    lambda of: of.forward.graph(),
    lambda of: [of.static.run(1, n) for n in range(1, 4)],
    lambda of: flow.map(of.forward, [1, 2]),
    lambda of: flow.map(of.static, [1, 2], [2, 3]),
    lambda of: flow.cond(True, of.forward, of.forward, 1),
    lambda of: asyncio.run(all_of(of.forward.stream([1, 2]))),
    lambda of: asyncio.run(all_of(of.carried.stream([1, 2], carry={"state": 0}))),
]


@pytest.mark.parametrize("use", KEPT)
@pytest.mark.parametrize("how", ["instance", "class", "dropped"])
def test_graphs_go_with_retrace_and_with_their_instance(use: Callable[[Any], Any], how: str) -> None:
    made: list[Any] = []
    of = Keeps(made)
    use(of)
    workers_have_left()
    gc.collect()
    assert made
    assert all(array() is not None for array in made)
    if how == "dropped":
        del of
    else:
        for name in ("forward", "static", "carried"):
            getattr(of if how == "instance" else Keeps, name).retrace()
    gc.collect()
    assert settles(lambda: let_go() or all(array() is None for array in made))


def test_a_run_under_way_finishes_on_its_old_graph(run_async: Runner) -> None:
    go = threading.Event()
    amount = 1

    @flow.op
    def wait(x: int) -> int:
        assert go.wait(20)
        return x

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return add(wait(x), amount)

    async def main() -> None:
        nonlocal amount
        running = asyncio.create_task(pipeline(1))
        await asyncio.sleep(0)
        amount = 10
        pipeline.retrace()
        go.set()
        assert await pipeline(1) == 11
        assert await running == 2

    run_async(main())


def test_graph_traces_ahead_of_time_and_runs_nothing() -> None:
    pipeline, traces = traced(lambda x, y, depth=2: add(x, y))
    graph = pipeline.graph()
    assert [node.spec.name for node in graph.nodes] == ["add"]
    assert pipeline.graph() is graph
    assert len(traces) == 1
    assert pipeline.run(1, 2) == 3
    assert len(traces) == 1
    assert str(graph).splitlines()[0] == "Graph <lambda>(x, y): 1 node"


def test_an_error_in_the_body_leaves_it_as_it_is_and_nothing_is_kept(run_async: Runner) -> None:
    broken = True

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        if broken:
            raise LookupError("no such weights")
        return add(x, 1)

    for _ in range(2):
        with pytest.raises(LookupError, match="no such weights"):
            pipeline(1)
        with pytest.raises(LookupError):
            pipeline.graph()
    broken = False
    assert run_async(pipeline(1)) == 2


# Python values: static arguments, None, and defaults that were left out.


def test_omitted_defaults_and_none_are_python_values(run_async: Runner) -> None:
    def fn(x: Any, mask: Any = None, scale: Any = 3) -> Any:
        assert type(scale) is not int or scale == 3
        y = add(x, 0) if mask is None else add(x, mask)
        return y * scale

    pipeline, traces = traced(fn)
    assert run_async(pipeline(1)) == 3
    assert run_async(pipeline(1, None)) == 3
    assert run_async(pipeline(1, mask=5)) == 18
    assert run_async(pipeline(1, mask=6)) == 21
    assert run_async(pipeline(1, scale=10)) == 10
    assert run_async(pipeline(1, scale=20)) == 20
    assert len(traces) == 4  # left out, None, mask given, scale given


def test_none_as_an_argument_without_default(run_async: Runner) -> None:
    @flow.pipeline
    def pipeline(x: Any, bias: Any) -> Any:
        return x if bias is None else add(x, bias)

    assert run_async(pipeline(1, None)) == 1
    assert run_async(pipeline(1, 2)) == 3
    assert run_async(pipeline(1, None)) == 1


def test_static_arguments_are_keyed_by_type_and_value(run_async: Runner) -> None:
    def fn(x: Any, depth: Any = 1) -> Any:
        for _ in range(int(depth)):
            x = add(x, 1)
        return x, repr(depth)

    pipeline, traces = traced(fn, static=("depth",))
    values = [1, 1.0, True, np.int64(1), 2, 0.0, -0.0]
    for _ in range(2):
        for value in values:
            assert run_async(pipeline(5, value)) == (5 + int(value), repr(value))
    assert len(traces) == len(values)
    assert run_async(pipeline(5)) == (6, "1")
    assert len(traces) == len(values) + 1


def test_static_tuples_are_keyed_by_what_is_in_them(run_async: Runner) -> None:
    pipeline, traces = traced(lambda x, shape: (add(x, 0), repr(shape)), static=["shape"])
    for value in [(1, 2), (1.0, 2), ((1,), "a"), ((1.0,), "a"), (1, 2)]:
        assert run_async(pipeline(0, value)) == (0, repr(value))
    assert len(traces) == 4


@pytest.mark.parametrize("value", [[1], {"a": 1}, np.ones(2), (1, [2])])
def test_what_cannot_be_hashed_cannot_be_static(value: Any) -> None:
    pipeline = flow.pipeline(static=("depth",))(lambda x, depth: x)
    with pytest.raises(TypeError, match=r"'depth' is static and must be hashable, got .*pass a tuple"):
        pipeline(1, value)


def test_graph_needs_static_values() -> None:
    pipeline = flow.pipeline(static=("depth",))(lambda x, depth: [add(x, i) for i in range(depth)])
    with pytest.raises(TypeError, match="needs a value for 'depth', which is static"):
        pipeline.graph()
    assert len(pipeline.graph(depth=3).nodes) == 3


def test_variadic_inputs(run_async: Runner) -> None:
    def fn(*xs: Any, scale: Any = 1, **named: Any) -> Any:
        total = named.get("start", 0)
        for x in xs:
            total = add(total, x)
        return total, sorted(named), len(xs), scale

    pipeline, traces = traced(fn)
    assert run_async(pipeline(1, 2, 3)) == (6, [], 3, 1)
    assert run_async(pipeline(4, 5, 6)) == (15, [], 3, 1)
    assert run_async(pipeline(1, start=10)) == (11, ["start"], 1, 1)
    assert run_async(pipeline(1, start=20, scale=5)) == (21, ["start"], 1, 5)
    assert run_async(pipeline()) == (0, [], 0, 1)
    assert len(traces) == 4


class Mode(NamedTuple):
    n: Any


@dataclass(frozen=True)
class Settings:
    n: Any
    mode: Any = None


@dataclass(frozen=True)
class HashedByName:
    n: Any

    def __hash__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        (0j, complex(0.0, -0.0)),
        (np.float64(0.0), np.float64(-0.0)),
        (np.timedelta64(1, "h"), np.timedelta64(60, "m")),
        (Decimal("1.0"), Decimal("1.00")),
        (range(0), range(3, 3)),
        ((1, (2,)), (1, (2.0,))),
        (frozenset({1}), frozenset({True})),
        (Mode(1), Mode(True)),
        (Settings(1), Settings(1.0)),
        (Settings(1, Mode((1,))), Settings(1, Mode((True,)))),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
    ],
    ids=repr,
)
def test_equal_values_that_are_not_the_same_have_graphs_of_their_own(one: Any, other: Any) -> None:
    assert one == other
    pipeline, traces = traced(lambda x, value: (x, repr(value)), static=("value",))
    for value in (one, other, one, copy.copy(other)):
        assert pipeline.debug(1, value) == (1, repr(value))
    assert len(traces) == 2


@pytest.mark.parametrize("value", [float("nan"), np.float64("nan"), complex("nan"), HashedByName([1])], ids=repr)
def test_the_same_value_again_has_the_same_graph(value: Any) -> None:
    pipeline, traces = traced(lambda x, value: (x, repr(value)), static=("value",))
    for again in (value, copy.copy(value), type(value)(value if value != value else [1])):
        assert pipeline.debug(1, again) == (1, repr(value))
    assert len(traces) == 1


def test_the_cache_of_plans_is_bounded_and_the_oldest_goes_first(
    run_async: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans_module, "CACHED_PLANS", 3)
    pipeline, traces = traced(lambda x, n: (add(x, 0), n), static=("n",))
    for n in (1, 2, 3, 1, 4):  # 2 is the one longest not used
        assert run_async(pipeline(0, n)) == (0, n)
    assert len(traces) == 4
    for n in (1, 3, 4):
        run_async(pipeline(0, n))
    assert len(traces) == 4
    run_async(pipeline(0, 2))
    assert len(traces) == 5


def test_concurrent_first_calls_trace_once() -> None:
    begun = threading.Barrier(8)

    def fn(x: Any) -> Any:
        return [add(x, i) for i in range(200)]

    pipeline, traces = traced(fn)

    def call(x: int) -> Any:
        begun.wait(20)
        return pipeline.run(x)

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(call, range(8)))
    assert results == [[x + i for i in range(200)] for x in range(8)]
    assert len(traces) == 1


# Methods.


class Model:
    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.traces = 0

    @flow.pipeline(static=("twice",))
    def forward(self, x: Any, *, twice: bool = False) -> Any:
        self.traces += 1
        y = add(x, self.weight)
        return add(y, self.weight) if twice else y

    @flow.pipeline
    def plain(self, x: Any) -> Any:
        return add(x, self.weight)

    @flow.pipeline(static=("n",))
    def many(self, x: Any, n: int) -> Any:
        return [self.forward(x) for _ in range(n)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model)

    __hash__ = None  # type: ignore[assignment]  # identity counts, and nothing is hashed


def test_methods_have_one_graph_for_each_instance(run_async: Runner) -> None:
    one, two = Model(1), Model(2)
    for _ in range(3):
        assert run_async(one.forward(10)) == 11
        assert run_async(two.forward(10)) == 12
    assert run_async(one.forward(10, twice=True)) == 12
    assert run_async(two.many(1, 2)) == [3, 3]
    assert one.forward.run(1) == 2
    assert one.forward.debug(1) == 2
    assert [node.spec.name for node in one.forward.graph().nodes] == ["add"]
    assert repr(one.forward).startswith("<pipeline forward of <")


def test_concurrent_first_calls_on_an_instance_trace_once() -> None:
    for _ in range(20):
        begun, traces = threading.Barrier(4), []

        class Traced(Model):
            @flow.pipeline
            def forward(self, x: Any) -> Any:
                traces.append(repr(x))  # noqa: B023  # this round's
                return [add(x, i) for i in range(50)]

        model = Traced(1)

        def call(x: int) -> Any:
            begun.wait(20)  # noqa: B023
            return model.forward.run(x)  # noqa: B023

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(call, range(4))) == [[x + i for i in range(50)] for x in range(4)]
        assert len(traces) == 1


def test_a_method_binds_as_the_plain_one_does(run_async: Runner) -> None:
    model = Model(1)
    assert run_async(model.plain(5)) == 6
    with pytest.raises(TypeError, match=r"plain\(\) too many positional arguments"):
        model.plain(1, 2)
    with pytest.raises(TypeError, match=r"plain\(\) missing a required argument: 'x'"):
        model.plain()


def test_a_method_called_through_its_class(run_async: Runner) -> None:
    """`self` is the instance all the same, not an input."""
    model = Model(3)
    assert run_async(Model.plain(model, 5)) == 8
    assert Model.plain.run(model, 5) == Model.plain.debug(model, 5) == 8
    assert len(Model.plain.graph(model).nodes) == 1

    class Child(Model):
        @flow.pipeline
        def plain(self, x: Any) -> Any:
            return add(super().plain(x), 100)

    assert run_async(Child(3).plain(5)) == 108


def test_a_parameter_may_be_called_self(run_async: Runner) -> None:
    pipeline = flow.pipeline(lambda a, self=1: add(a, self))
    assert run_async(pipeline(1, self=5)) == 6
    assert pipeline.run(1, self=5) == pipeline.debug(1, self=5) == 6
    assert len(pipeline.graph(self=5).nodes) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda x: UserDict(a=x),
        lambda x: ChainMap({"a": x}),
        lambda x: MappingProxyType({"a": x}),
        lambda x: ValueError(x),
        lambda x: SimpleNamespace(a=[{"b": x}]),
    ],
)
def test_no_placeholder_escapes_in_an_object_that_nobody_fills_in(make: Callable[[Any], Any]) -> None:
    with pytest.raises(flow.TraceError, match="holds a placeholder inside a"):
        flow.pipeline(make).graph()
    with pytest.raises(flow.TraceError, match="an argument of add holds a placeholder inside a"):
        flow.pipeline(lambda x: add(1, make(x))).graph()


@pytest.mark.parametrize("make", [lambda x: (x for _ in range(2)), lambda x: map(str, [x]), lambda x: iter([x])])
def test_what_gives_its_items_once_is_refused(make: Callable[[Any], Any]) -> None:
    with pytest.raises(flow.TraceError, match=r"gives its items once, at .*: make it a list"):
        flow.pipeline(make).graph()
    with pytest.raises(flow.TraceError, match=r"gives its items once, at .*: make it a list"):
        flow.pipeline(lambda x: add(1, make(x))).graph()


def test_a_method_does_not_keep_its_instance_alive(run_async: Runner) -> None:
    gc.disable()
    try:
        model = Model(1)
        gone, key = weakref.ref(model), id(model)
        assert run_async(model.forward(1)) == 2
        assert model.forward.run(1) == 2
        del model
        assert gone() is None
        assert key not in Model.forward._plans._owners
    finally:
        gc.enable()


def test_what_cannot_be_referred_to_weakly_is_refused() -> None:
    class Slots:
        __slots__ = ()

        @flow.pipeline
        def forward(self, x: Any) -> Any:
            return add(x, 1)

    with pytest.raises(TypeError, match=r"add '__weakref__' to its __slots__"):
        Slots().forward(1)


def test_an_attribute_that_changes_is_seen_after_retrace(run_async: Runner) -> None:
    model = Model(1)
    assert run_async(model.forward(1)) == 2
    model.weight = 5
    assert run_async(model.forward(1)) == 2
    Model.forward.retrace()
    assert run_async(model.forward(1)) == 6


# Shapes of results.


class Point(NamedTuple):
    x: Any
    y: Any


@dataclass
class Result:
    total: Any
    parts: list[Any]


def test_results_come_back_in_the_shape_of_the_body(run_async: Runner) -> None:
    @flow.pipeline
    def pipeline(x: Any) -> Any:
        y = add(x, 1)
        return {"point": Point(x, y), "result": Result(y, [x, (y, None)]), "constant": "text", "empty": ()}

    for x in (1, 2):
        assert run_async(pipeline(x)) == {
            "point": Point(x, x + 1),
            "result": Result(x + 1, [x, (x + 1, None)]),
            "constant": "text",
            "empty": (),
        }


@pytest.mark.parametrize("result", [None, 5, "text", [], (), {}, {"a": [1, 2]}])
def test_a_body_without_nodes(run_async: Runner, result: Any) -> None:
    pipeline = flow.pipeline(lambda: result)
    assert run_async(pipeline()) == result


# Misuse.


async def async_body(x: Any) -> Any:
    return x


def generator_body(x: Any) -> Any:
    yield x


async def async_generator_body(x: Any) -> Any:
    yield x


@pytest.mark.parametrize("body", [async_body, generator_body, async_generator_body])
def test_bodies_that_cannot_be_traced_are_refused_at_declaration(body: Any) -> None:
    with pytest.raises(TypeError, match=r"the body must be a plain `def`.*without `await`"):
        flow.pipeline(body)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: flow.pipeline(3), "pipeline: expected a function, got int"),
        (lambda: flow.pipeline(plus_one), "pipeline: expected a function, got Pipeline"),
        (lambda: flow.pipeline(static="depth")(lambda depth: 0), r"static must be a collection of names.*'depth'"),
        (
            lambda: flow.pipeline(static=("deep",))(lambda depth: 0),
            r"static names deep, no parameter of <lambda>\(depth",
        ),
        (lambda: flow.pipeline(static=("xs",))(lambda *xs: 0), "static names xs, no parameter"),
    ],
)
def test_misuse_is_refused(declare: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        declare()


@pytest.mark.parametrize("verb", ["run", "debug", "graph"])
def test_nothing_runs_while_a_body_is_traced(verb: str) -> None:
    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return getattr(plus_one, verb)(x)

    where = rf"at {__file__}:\d+: call plus_one\(\.\.\.\)"
    with pytest.raises(flow.TraceError, match=rf"plus_one\.{verb}\(\) was called while a pipeline is traced.*{where}"):
        pipeline.graph()


def test_a_placeholder_that_escaped_is_no_argument() -> None:
    escaped: list[Any] = []

    @flow.pipeline
    def leaks(x: Any) -> Any:
        escaped.append(x)
        return x

    with pytest.raises(flow.TraceError, match=r"the placeholder of 'x' outlives the body of 'leaks'.*'escaped'"):
        leaks.graph()
    with pytest.raises(TypeError, match="called with a placeholder, outside of the body"):
        plus_one(escaped[0])
    with pytest.raises(TypeError, match="called with a placeholder, outside of the body"):
        plus_one.run(x=escaped[0])


def test_inputs_that_compare_strangely_are_only_passed_on(run_async: Runner) -> None:
    """Arrays have no truth value, and some objects compare equal to everything."""

    class Equal:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    @flow.op
    def kind(x: Any) -> str:
        return type(x).__name__

    @flow.pipeline
    def pipeline(x: Any, y: Any = 3) -> Any:
        return kind(x), y

    assert run_async(pipeline(np.ones(3), np.ones(2)))[0] == "ndarray"
    assert run_async(pipeline(Equal())) == ("Equal", 3)


variable = contextvars.ContextVar("variable", default=0)


def test_the_body_is_traced_in_the_callers_context(run_async: Runner) -> None:
    @flow.pipeline
    def pipeline(x: Any) -> Any:
        return add(x, variable.get())

    token = variable.set(5)
    with pytest.warns(flow.TraceWarning, match=r"variable\.get\(\) at .* is called once, when the body is traced"):
        assert run_async(pipeline(1)) == 6
    variable.reset(token)
    assert run_async(pipeline(1)) == 6  # frozen


@flow.pipeline
def itself(x: Any) -> Any:
    return itself(add(x, 1))


@flow.pipeline
def ping(x: Any) -> Any:
    return pong(x)


@flow.pipeline
def pong(x: Any) -> Any:
    return helper_of_pong(x)


def helper_of_pong(x: Any) -> Any:
    return ping(add(x, 1))


@flow.pipeline(static=("n",))
def far(x: Any, n: int) -> Any:
    return far(add(x, 1), n - 1) if n else x


class Recursive:
    @flow.pipeline
    def method(self, x: Any) -> Any:
        return self.method(add(x, 1))


@flow.pipeline
def changed(x: Any) -> Any:
    return selected_of_changed(x)


selected_of_changed = changed.select("last")


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: itself.run(1), "'itself' calls itself in its body"),
        (lambda: ping.run(1), "'p(i|o)ng' calls itself by way of 'p(o|i)ng' in its body"),
        (lambda: Recursive().method.run(1), "'method' calls itself in its body"),
        (lambda: far.run(1, 5_000), "'far' calls itself in its body"),
        (lambda: changed.run(1), "'changed' calls itself in its body"),
    ],
)
def test_a_body_that_calls_its_pipeline_without_an_end_is_refused(run: Callable[[], Any], message: str) -> None:
    with pytest.raises(flow.TraceError, match=rf"{message} .*at .*test_pipeline\.py:\d+: .*flow\.cond") as caught:
        run()
    assert isinstance(caught.value.__cause__, RecursionError)
    assert plus_one.run(1) == 2


def test_a_body_that_calls_its_pipeline_ends_on_python_values() -> None:
    assert far.run(1, 20) == 21


def test_a_function_that_calls_itself_without_an_end_is_the_users_error() -> None:
    def endless(x: Any) -> Any:
        return endless(x)

    with pytest.raises(RecursionError):
        flow.pipeline(lambda x: endless(x)).run(1)


@flow.pipeline
def down(x: Any) -> Any:
    return flow.cond(x > 0, down, plus_one, x - 1)


@flow.op
async def down_again(x: Any) -> Any:
    return x if x < 0 else await down_by_op(x)


@flow.pipeline
def down_by_op(x: Any) -> Any:
    return down_again(x - 1)


@flow.pipeline
def nodes_of_tree(depth: Any) -> Any:
    return flow.op(sum)(flow.map(nodes_of_tree, flow.op(range)(depth))) + 1


def test_a_pipeline_may_call_itself_when_it_runs() -> None:
    assert down.run(5) == 0
    assert down_by_op.run(5) == -1
    assert nodes_of_tree.run(4) == 16
