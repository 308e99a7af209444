"""Pipelines made of others: `select`, `replace`, `bind`; and arguments that are trees."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import dataflow as flow

Runner = Callable[[Any], Any]

ran: list[str] = []


@flow.op
def fetch(x: Any) -> Any:
    ran.append("fetch")
    return x + 1


@flow.op
def double(x: Any) -> Any:
    ran.append("double")
    return 2 * x


@flow.op
async def later(x: Any) -> Any:
    ran.append("later")
    await asyncio.sleep(0)
    return x - 1


@flow.pipeline
def three(x: Any) -> Any:
    with flow.scope("loading"):
        a = flow.label(fetch(x), "a")
    b = flow.label(double(a), "b")
    with flow.after(b):
        c = flow.label(later([a, x][0]), "c")
    return a, b, c


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@pytest.mark.parametrize(
    ("labels", "expected", "run"),
    [
        (("a",), 11, ["fetch"]),
        (("b",), 22, ["fetch", "double"]),
        (("c",), 10, ["fetch", "double", "later"]),  # starts after b
        (("b", "a"), (22, 11), ["fetch", "double"]),
        (("a", "a"), (11, 11), ["fetch"]),
    ],
)
def test_select_runs_the_ancestors_alone(
    run_async: Runner, labels: tuple[str, ...], expected: Any, run: list[str]
) -> None:
    selected = three.select(*labels)
    assert run_async(selected(10)) == expected
    assert ran == run
    assert selected.run(10) == selected.debug(10) == expected
    assert run_async(three(10)) == (11, 22, 10)


def test_a_selected_graph_keeps_labels_scopes_and_order() -> None:
    graph = three.select("c").graph()
    assert (dict(graph.labels), dict(graph.scopes), dict(graph.after)) == (
        {1: "a", 2: "b", 3: "c"},
        {1: "loading"},
        {3: (2,)},
    )
    assert [node.number for node in graph.nodes] == [1, 2, 3]
    assert three.graph().output != graph.output


def test_an_unknown_label_is_a_graph_error() -> None:
    with pytest.raises(flow.GraphError, match=r"no node of 'three' is labelled 'z'; labels are: 'loading/a', 'b', 'c'"):
        three.select("z").graph()
    with pytest.raises(TypeError, match=r"three.select\(\) takes labels"):
        three.select()


def test_labels_are_known_by_their_scopes(run_async: Runner) -> None:
    @flow.pipeline
    def part(x: Any) -> Any:
        return flow.label(flow.label(fetch(x), "h"), "same")

    @flow.pipeline
    def whole(x: Any) -> Any:
        with flow.scope("left"):
            left = part(x)
        with flow.scope("right"), flow.scope("far"):
            right = part(double(x))
        return flow.label(left + right, "sum")

    assert run_async(whole(10)) == 32
    selected = whole.select("left/h", "right/far/h", "far/same", "sum")
    assert run_async(selected(10)) == (11, 21, 21, 32)
    assert run_async(part.select("h")(1)) == run_async(part.select("same")(1)) == 2
    with pytest.raises(
        flow.GraphError, match=r"several nodes .* labelled 'h': 'left/h', 'right/far/h'; name the scope"
    ):
        whole.select("h").graph()
    assert run_async(whole.select("sum").select("left/h")(10)) == 11


def test_replace_gives_another_function_for_an_operator(run_async: Runner) -> None:
    async def fake_later(x: Any) -> Any:
        return x * 1000

    faked = three.replace({fetch: lambda x: 100, later: fake_later})
    assert run_async(faked(10)) == (100, 200, 100_000)
    assert ran == ["double"]
    assert run_async(three.replace({later: double})(10)) == (11, 22, 22)
    assert run_async(three(10)) == (11, 22, 10)
    assert run_async(faked.select("b")(1)) == 200


def test_replace_says_what_is_wrong() -> None:
    other = flow.op(len)
    with pytest.raises(flow.GraphError, match="no node of 'three' calls 'len', which is to be replaced"):
        three.replace({other: sum}).graph()
    with pytest.raises(TypeError, match=r"three.replace\(\) replaces operators, not function"):
        three.replace({(lambda x: x): sum})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="expected a function, got int"):
        three.replace({fetch: 3})  # type: ignore[dict-item]


def test_a_changed_pipeline_is_a_part_of_another(run_async: Runner) -> None:
    @flow.pipeline
    def outer(x: Any) -> Any:
        with flow.scope("part"):
            b, c = three.replace({fetch: lambda x: x + 100}).select("b", "c")(x * 2)
        with flow.scope("constant"):
            constant = three.select("a")(5)
        return b, c, constant, three.bind(x=x).select("a")()

    assert run_async(outer(1)) == (204, 101, 6, 2)
    graph = outer.graph()
    assert sorted(graph.names) == ["constant/loading/a", "loading/a", "part/b", "part/c", "part/loading/a"]
    number = graph.names["part/c"]
    assert graph.after[number] == (graph.names["part/b"],)
    assert graph.scopes[graph.names["part/loading/a"]] == "part/loading"
    assert run_async(outer.select("part/b")(1)) == 204
    with pytest.raises(flow.TraceError, match="label 'loading/a' is given to a second node"):
        flow.pipeline(lambda x: (three.select("a")(x), three.select("a")(x))).graph()


def test_a_changed_method_is_a_part_of_another(run_async: Runner) -> None:
    class Pair:
        @flow.pipeline
        def both(self, x: Any) -> Any:
            faked = model.forward.replace({double: lambda x: -x})
            with flow.scope("faked"):
                y = faked(x, 10)
            return y, Model.forward.select("doubled")(model, x, 1), self

    model, pair = Model(3), Pair()
    assert run_async(pair.both(1)) == (-30, 2, pair)


class Scaler:
    def __init__(self, gain: int) -> None:
        self.gain = gain

    @flow.op
    def scaled(self, x: Any) -> Any:
        return self.gain * x

    @flow.pipeline
    def twice(self, x: Any) -> Any:
        return self.scaled(self.scaled(x)), passed_on(self.scaled, x)


@flow.op
def passed_on(function: Any, x: Any) -> Any:
    return function(x)


def test_replace_knows_operators_of_instances(run_async: Runner) -> None:
    one, ten = Scaler(1), Scaler(10)
    assert run_async(three.replace({double: ten.scaled})(1)) == (2, 20, 1)
    with pytest.raises(TypeError, match=r"for all instances: give it as its class has it \(Scaler\.scaled\)"):
        one.twice.replace({one.scaled: lambda self, x: 0})
    faked = one.twice.replace({Scaler.scaled: lambda self, x: self.gain + x})
    assert run_async(faked(1)) == (3, 2)
    assert run_async(ten.twice.replace({Scaler.scaled: Scaler.scaled.options(name="n")})(1)) == (100, 10)


def test_replace_reaches_what_map_and_cond_call(run_async: Runner) -> None:
    @flow.pipeline
    def part(x: Any) -> Any:
        return fetch(x) + double(1)

    @flow.pipeline
    def whole(xs: Any) -> Any:
        return flow.map(fetch, xs), flow.map(part, xs), flow.cond(xs[0] > 0, part, fetch, xs[0]), apply(fetch, xs[0])

    faked = whole.replace({fetch: lambda x: 100 * x})
    assert run_async(faked([1, 2])) == ([100, 200], [102, 202], 102, 100)
    assert run_async(whole([1, 2])) == ([2, 3], [4, 5], 4, 2)
    with pytest.raises(flow.GraphError, match="calls 'later', which is to be replaced"):
        flow.pipeline(lambda xs: flow.map(fetch, xs)).replace({later: fetch}).graph()


@flow.op
def apply(function: Any, x: Any) -> Any:
    return function(x)


def test_bind_fixes_arguments(run_async: Runner) -> None:
    @flow.pipeline(static=("times",))
    def scaled(x: Any, gain: Any, times: int = 1, *, offset: Any = 0) -> Any:
        for _ in range(times):
            x = x * gain
        return x + offset

    assert run_async(scaled.bind(gain=3)(2)) == 6
    twice = scaled.bind(gain=3, times=2)
    assert run_async(twice(2)) == 18
    assert run_async(twice.bind(offset=100)(2)) == 118
    assert twice.run(x=2, offset=1) == 19
    assert str(inspect.signature(twice)) == "(x: 'Any', *, offset: 'Any' = 0) -> 'Any'"
    assert twice.graph().inputs == ("x", "gain")
    assert run_async(flow.pipeline(lambda x: twice(x))(2)) == 18
    with pytest.raises(TypeError, match=r"scaled.bind\(\) got gain, which scaled\(x"):
        twice.bind(gain=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'gain'"):
        twice(2, gain=1)
    weights = np.ones(3)
    bound = scaled.bind(gain=weights)
    assert run_async(bound(2)).tolist() == [2, 2, 2]
    weights[:] = 5  # an input as any other, seen by the next run
    assert run_async(bound(2)).tolist() == [10, 10, 10]


def test_bind_fixes_arguments_that_only_the_call_names(run_async: Runner) -> None:
    @flow.pipeline
    def total(x: Any = 0, **inputs: Any) -> Any:
        return {"x": x, **inputs}

    bound = total.bind(a=1, x=2)
    assert run_async(bound(b=3)) == {"x": 2, "a": 1, "b": 3}
    assert run_async(bound.bind(c=4)()) == {"x": 2, "a": 1, "c": 4}
    for wrong in (lambda: bound(a=2), lambda: bound(x=2), lambda: bound.bind(a=2), lambda: bound.bind(x=2)):
        with pytest.raises(TypeError, match=r"^total(\.bind)?\(\) got [ax], which "):
            wrong()


class Model:
    def __init__(self, weight: int) -> None:
        self.weight = weight

    @flow.pipeline
    def forward(self, x: Any, gain: Any) -> Any:
        return flow.label(double(x), "doubled") * self.weight * gain

    @flow.pipeline
    def once(self, x: Any) -> Any:
        return double(x) * self.weight


def test_derived_methods(run_async: Runner) -> None:
    model = Model(3)
    assert run_async(model.forward.bind(gain=10)(1)) == 60
    assert run_async(model.forward.select("doubled")(1, 1)) == 2
    assert model.forward.replace({double: lambda x: 0}).run(1, 1) == 0


def test_retrace_of_one_instance(run_async: Runner) -> None:
    model, other = Model(3), Model(3)
    assert run_async(model.forward(1, 1)) == run_async(other.forward(1, 1)) == 6
    model.weight = other.weight = 5
    model.forward.retrace()
    assert (run_async(model.forward(1, 1)), run_async(other.forward(1, 1))) == (10, 6)


def test_retrace_reaches_what_is_kept_of_a_method(run_async: Runner) -> None:
    model, other = Model(3), Model(4)
    kept, mapped = model.forward, flow.pipeline(lambda xs: flow.map(model.once, xs))
    assert run_async(kept(1, 1)) == 6
    assert flow.map(model.once, [1]) == [6]
    assert flow.map(other.once, [1]) == [8]
    model.weight = other.weight = 5
    Model.forward.retrace()  # of all instances, also where somebody holds one of its methods
    assert run_async(kept(1, 1)) == run_async(model.forward(1, 1)) == 10
    model.once.retrace()
    assert flow.map(model.once, [1]) == mapped.run([1]) == [10]
    assert flow.map(other.once, [1]) == [8]


def test_pipelines_of_an_instance_are_pipelines() -> None:
    model, other = Model(3), Model(3)
    assert type(model.forward) is type(Model.forward) is flow.Pipeline
    assert model.forward == model.forward != other.forward
    assert {model.forward, model.forward, other.forward, Model.forward} == {other.forward, Model.forward, model.forward}
    assert model.forward != model.forward.bind(gain=1)
    assert str(inspect.signature(model.forward)) == "(x: 'Any', gain: 'Any') -> 'Any'"
    assert str(inspect.signature(model.forward.bind(gain=1))) == "(x: 'Any') -> 'Any'"
    assert model.forward.bind(gain=10).bind(x=1).run() == 60
    assert model.forward.bind(x=1).select("doubled").run(gain=5) == 2
    with pytest.raises(TypeError, match=r"forward.bind\(\) got self, which forward\(x"):
        model.forward.bind(self=other)
    with pytest.raises(TypeError, match="has no parameter for the instance"):
        type("Odd", (), {"p": flow.pipeline(lambda *args: args)})().p.run(1)


# Trees.


class Pair(NamedTuple):
    w: Any
    b: Any


def test_the_structure_of_a_tree_is_static_and_its_leaves_are_inputs(run_async: Runner) -> None:
    traces = 0

    @flow.pipeline(tree=("weights",))
    def model(x: Any, weights: Any) -> Any:
        nonlocal traces
        traces += 1
        for layer in weights["layers"]:
            x = x @ layer.w if layer.b is None else x @ layer.w + layer.b
        return np.tanh(x) if weights.get("squash") is not None else x, len(weights["layers"])

    def plain(x: Any, weights: Any) -> Any:
        for layer in weights["layers"]:
            x = x @ layer.w if layer.b is None else x @ layer.w + layer.b
        return np.tanh(x) if weights.get("squash") is not None else x

    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3))

    def weights(count: int, bias: bool) -> Any:
        layers = [Pair(rng.standard_normal((3, 3)), rng.standard_normal(3) if bias else None) for _ in range(count)]
        return {"layers": layers, "squash": 1}

    for count, bias in [(1, True), (2, True), (2, False), (2, True), (1, True)]:
        given = weights(count, bias)
        result, layers = run_async(model(x, given))
        np.testing.assert_array_equal(result, plain(x, given))
        assert layers == count
        assert result.flags.writeable
        assert all(layer.w.flags.writeable for layer in given["layers"])
    assert traces == 3
    assert run_async(model(x, {"layers": ()}))[1] == 0
    assert model.graph(x, weights(1, False)).inputs == ("x", "weights['layers'][0][0]", "weights['squash']")


def test_trees_of_other_kinds(run_async: Runner) -> None:
    @flow.pipeline(tree=("weights",))
    def keys(weights: Any) -> Any:
        return [(type(key), leaf + 1) for key, leaf in weights.items()], type(weights)

    assert run_async(keys({1: 2})) == ([(int, 3)], dict)
    assert run_async(keys({True: 2})) == ([(bool, 3)], dict)
    assert run_async(keys({1.0: 2})) == ([(float, 3)], dict)
    assert run_async(keys(OrderedDict(a=1, b=2))) == ([(str, 2), (str, 3)], OrderedDict)
    assert run_async(keys(defaultdict(list, a=1))) == ([(str, 2)], defaultdict)
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(TypeError, match=r"keys\(\): 'weights' is a tree that contains itself"):
        keys(loop)


def test_misuse_of_tree() -> None:
    with pytest.raises(TypeError, match=r"tree names weight, no parameter of"):
        flow.pipeline(tree=("weight",))(lambda x, weights: x)
    with pytest.raises(TypeError, match=r"tree must be a collection of names, e.g. tree=\('weights',\)"):
        flow.pipeline(tree="weights")(lambda x, weights: x)
    with pytest.raises(TypeError, match="cannot be both static and a tree"):
        flow.pipeline(tree=("w",), static=("w",))(lambda x, w: x)
    with pytest.raises(TypeError, match=r"graph\(\) needs a value for 'w', which is a tree"):
        flow.pipeline(tree=("w",))(lambda x, w: x).graph()


# A graph that only a program knows.


def test_ten_thousand_tasks_from_a_file(run_async: Runner, tmp_path: Path) -> None:
    """A file of tasks becomes a pipeline; selected outputs run alone."""
    rng = np.random.default_rng(1)
    tasks = [
        {
            "name": f"t{i}",
            "op": f"f{rng.integers(50)}",
            "needs": [f"t{j}" for j in rng.integers(0, i, size=2)] if i else [],
        }
        for i in range(10_000)
    ]
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps(tasks))
    calls: list[int] = []  # appended to by several threads at once

    def make(number: int) -> Any:
        def function(*needed: int) -> int:
            calls.append(number)
            return (number + sum(needed)) % 1_000_003

        return flow.op(function, name=f"f{number}")

    operators = {f"f{number}": make(number) for number in range(50)}

    @flow.pipeline
    def graph() -> Any:
        done: dict[str, Any] = {}
        for task in json.loads(path.read_text()):
            inputs = [done[name] for name in task["needs"]]
            done[task["name"]] = flow.label(operators[task["op"]](*inputs), task["name"])
        return done["t9999"]

    values: dict[str, int] = {}
    for task in tasks:
        values[task["name"]] = operators[task["op"]](*[values[name] for name in task["needs"]])
    calls.clear()
    assert run_async(graph()) == values["t9999"]
    assert len(calls) == 10_000
    calls.clear()
    assert run_async(graph.select("t5", "t7")()) == (values["t5"], values["t7"])
    assert len(calls) <= 8
