"""`flow.after`, `flow.label` and `flow.scope`: order, names and groups of nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import dataflow as flow

Runner = Callable[[Any], Any]


@flow.op
def add(x: Any, y: Any) -> Any:
    return x + y


def test_what_is_recorded_inside_after_starts_after_it(run_async: Runner) -> None:
    flow.set_num_interop_threads(4)
    order: list[str] = []

    @flow.op
    def note(name: str, *_: Any) -> str:
        order.append(name)
        return name

    @flow.op
    async def note_on_loop(name: str) -> str:
        order.append(name)
        return name

    @flow.pipeline
    def pipeline() -> Any:
        first, second = note("first"), note_on_loop("second")
        with flow.after(first, second):
            third = note("third")
            with flow.after(third):
                note("fourth")
            note_on_loop("fifth")
        return note("any")

    for _ in range(50):
        order.clear()
        assert run_async(pipeline()) == "any"
        assert sorted(order) == ["any", "fifth", "first", "fourth", "second", "third"]
        assert max(order.index("first"), order.index("second")) < min(order.index("third"), order.index("fifth"))
        assert order.index("third") < order.index("fourth")
    assert dict(pipeline.graph().after) == {2: (0, 1), 3: (0, 1, 2), 4: (0, 1)}


def test_after_parts_inputs_and_nothing(run_async: Runner) -> None:
    order: list[str] = []

    @flow.op
    def pair(x: int) -> tuple[int, int]:
        order.append("pair")
        return x, x

    @flow.op
    def last() -> None:
        order.append("last")

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        with flow.after(x), flow.after(), flow.after(pair(x)[1]):
            last()

    assert run_async(pipeline(1)) is None
    assert order == ["pair", "last"]


def test_outside_of_a_trace_they_do_nothing() -> None:
    with flow.after(1, "two"), flow.scope("block"):
        assert flow.label([1], "one") == [1]


def test_labels_and_scopes_are_in_the_graph_and_in_errors(run_async: Runner) -> None:
    @flow.op
    def fails(x: Any) -> Any:
        raise KeyError

    @flow.pipeline
    def pipeline(x: Any) -> Any:
        with flow.scope("encoder"):
            y = flow.label(add(x, 1), "y")
            with flow.scope("block3"):
                return flow.label(fails(y), "t17")

    graph = pipeline.graph()
    assert dict(graph.labels) == {1: "y", 2: "t17"}
    assert dict(graph.scopes) == {1: "encoder", 2: "encoder/block3"}
    assert str(graph).splitlines()[2:4] == ["     1  encoder/add(0, y=1) 'y'", "     2  encoder/block3/fails(1) 't17'"]
    with pytest.raises(KeyError) as caught:
        run_async(pipeline(1))
    assert "operator 'fails', node 2 't17' in scope 'encoder/block3' of pipeline" in caught.value.__notes__[0]


REFUSED: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda x: flow.label(x, "x"), flow.TraceError, "is an input, which has its name already, at .*: label what"),
    (
        lambda x: (flow.label(x + 1, "a"), flow.label(x + 2, "a")),
        flow.TraceError,
        "label 'a' is given to a second.*`with flow.scope",
    ),
    (lambda x: flow.label(x + 1, 3), TypeError, "flow.label: the name must be a str, got int"),  # type: ignore[arg-type]
    (lambda x: flow.label(3, "a"), TypeError, "flow.label names nodes of the body, not int"),
    (lambda x: flow.after(3).__enter__(), TypeError, "flow.after takes nodes of the body, not int"),
    (lambda x: flow.scope(3).__enter__(), TypeError, "flow.scope: the name must be a str, got int"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("body", "error", "message"), REFUSED)
def test_misuse_is_refused(body: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        flow.pipeline(body).graph()


def test_a_node_of_another_trace_is_refused() -> None:
    kept: list[Any] = []
    with pytest.raises(flow.TraceError, match="outlives the body"):
        flow.pipeline(lambda x: kept.append(x + 1)).graph()

    def body(x: Any) -> Any:
        with flow.after(kept[0]):
            return add(x, 1)

    with pytest.raises(flow.TraceError, match="is used after the body of"):
        flow.pipeline(body).graph()


def test_the_same_label_twice_on_one_node_is_one() -> None:
    def body(x: Any) -> Any:
        return flow.label(flow.label(add(x, 1), "a"), "a")

    assert dict(flow.pipeline(body).graph().labels) == {1: "a"}
