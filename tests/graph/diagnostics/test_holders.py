"""No placeholder outlives its trace: who holds one is named; who only shows the body is not taken for a holder."""

from __future__ import annotations

import contextvars
import functools
import gc
import logging
import queue
import re
import sys
import threading
import types
import weakref
from collections import UserDict, deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.graph.tracing.trace import Trace, trace

total = flow.op(lambda value: 0)


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    yield
    KEPT.clear()
    MODEL.__dict__.clear()
    VARIABLE.set(None)
    Model.shared = None


@pytest.fixture
def all_seen() -> Iterator[None]:
    """The collector sees what tests/conftest.py has set aside, too, such as the variables of this module."""
    gc.unfreeze()
    yield
    gc.freeze()


KEPT: list[Any] = []
VARIABLE: contextvars.ContextVar[Any] = contextvars.ContextVar("test_holders", default=None)


class Model:
    shared: Any = None

    @functools.cached_property
    def scaled(self) -> Any:
        return self.given * 2  # type: ignore[attr-defined]


MODEL = Model()


class Slots:
    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


class Box:
    def __init__(self, **held: Any) -> None:
        self.__dict__.update(held)


def deep(x: Any, levels: int) -> Any:
    for _ in range(levels):
        x = {"k": [x]}
    return x


def frame(x: Any) -> Any:
    return pytest.importorskip("pandas").DataFrame({"v": [x, 1]}, dtype=object)


def series(x: Any) -> Any:
    return pytest.importorskip("pandas").Series([x, 1], dtype=object)


def objects(x: Any) -> Any:
    array = np.empty(2, dtype=object)
    array[:] = [Box(held=x), None]
    return array


GIVEN: list[tuple[Callable[[Any], Any], str]] = [
    (lambda x: Box(inner=Box(held=x)), "a Box"),
    (lambda x: Box(inner=[Box(held=Slots(x))]), "a Box"),
    (lambda x: Box(table=deep(x, 6)), "a Box"),
    (lambda x: SimpleNamespace(inner=SimpleNamespace(held=x)), "a SimpleNamespace"),
    (lambda x: Slots(Slots(x)), "a Slots"),
    (lambda x: UserDict(a={"b": {"c": {"d": x}}}), "an? UserDict"),
    (lambda x: deque([Box(held=Box(held=x))]), "a (deque|Box)"),
    (lambda x: {"k": (1, [deque([Box(held=Slots(x))])])}, "a (dict|Box)"),
    (lambda x: functools.partial(len, Box(held=x)), "a partial"),
    (lambda x: functools.partial(functools.partial(len, [deep(x, 5)])), "a partial"),
    (lambda x: Box(method=Box(held=x).__repr__), "a Box"),
    (lambda x: Box(call=lambda: x), "a Box"),
    (objects, "a (ndarray|Box)"),
    (series, "a Series"),
    (frame, "a DataFrame"),
    (lambda x: Box(column=series(x)), "a Box"),
]


def line_of(body: Callable[..., Any]) -> int:
    return body.__code__.co_firstlineno


@pytest.mark.parametrize(("make", "what"), GIVEN)
@pytest.mark.parametrize("how", ["positional", "keyword", "returned"])
def test_what_is_given_or_returned_with_a_placeholder_far_inside(
    make: Callable[[Any], Any], what: str, how: str
) -> None:
    def body(x: Any) -> Any:
        y = x + 1
        made = make(y)
        if how == "returned":
            return made
        return total(made) if how == "positional" else total(value=made)

    with pytest.raises(flow.TraceError) as caught:
        flow.pipeline(body).graph()
    assert re.search(rf"(held by {what} |holds a placeholder inside {what})", str(caught.value))
    assert re.search(rf", at {re.escape(__file__)}:\d+: ", str(caught.value))


def test_the_lines_of_the_node_and_of_the_call_are_named() -> None:
    def body(x: Any) -> Any:
        first = x - 1
        y = np.sqrt(first)
        made = Box(inner=Box(held=y))
        return total(made)

    with pytest.raises(flow.TraceError) as caught:
        flow.pipeline(body, name="sums").graph()
    line = line_of(body)
    assert str(caught.value).startswith(
        f"the placeholder of 'sqrt' outlives the body of 'sums': it is held by a Box that <lambda> is given at"
        f" {__file__}:{line + 4}, at {__file__}:{line + 2}: "
    )


def test_an_argument_of_its_own_is_what_is_filled_in() -> None:
    """The remedy, followed."""

    @flow.op
    def boxed(y: Any) -> Any:
        return Box(inner=Box(held=y))

    assert flow.pipeline(lambda x: boxed(x + 1)).run(1).inner.held == 2


# ---------------------------------------------------------------------------------------------- kept elsewhere


def kept_in_a_list(x: Any) -> Any:
    KEPT.append(x + 1)
    return x


def kept_in_an_attribute(x: Any) -> Any:
    MODEL.cache = x.mean()  # type: ignore[attr-defined]
    return x


def kept_by_a_cached_property(x: Any) -> Any:
    MODEL.given = 3  # type: ignore[attr-defined]
    Model.shared = x
    MODEL.__dict__["given"] = x
    return MODEL.scaled


def kept_on_a_class(x: Any) -> Any:
    Model.shared = [x]
    return x


def kept_as_a_closure(x: Any) -> Any:
    KEPT.append(lambda: x)
    return x + 1


def kept_as_a_default(x: Any) -> Any:
    def later(y: Any = x) -> Any:
        return y

    KEPT.append(later)
    return x + 1


def kept_as_a_generator(x: Any) -> Any:
    def parts() -> Iterator[Any]:
        yield x[0]
        yield x[1]

    started = parts()
    next(started)
    KEPT.append(started)
    return x


def kept_as_a_method(x: Any) -> Any:
    KEPT.append(x.mean)
    return x


def kept_as_plumbing(x: Any) -> Any:
    KEPT.append(x.shape[0])
    return x


def kept_in_a_queue(x: Any) -> Any:
    waiting: queue.Queue[Any] = queue.Queue()
    waiting.put(x)
    KEPT.append(waiting)
    return x


def kept_in_a_context_variable(x: Any) -> Any:
    VARIABLE.set(x)
    return x


def kept_in_an_array(x: Any) -> Any:
    array = np.empty(1, dtype=object)
    array[0] = x
    KEPT.append(array)
    return x


def kept_in_a_series(x: Any) -> Any:
    KEPT.append(series(x))
    return x


def kept_in_a_module(x: Any) -> Any:
    sys.modules["test_holders_of_its_own"].cache = x  # type: ignore[attr-defined]
    return x


def kept_in_a_dict_by_a_helper(x: Any) -> Any:
    table: dict[str, Any] = {}
    KEPT.append(table)
    remember(table, x)
    return x


def remember(table: dict[str, Any], x: Any) -> None:
    table["last"] = {"value": [x * 2]}


ELSEWHERE: list[tuple[Callable[[Any], Any], str, str, int]] = [
    (kept_in_a_list, "'add'", f"the global 'KEPT' of {__name__}", 1),
    (kept_in_an_attribute, "'mean'", "the attribute 'cache' of a Model", 1),
    (kept_by_a_cached_property, "'(x|multiply)'", "the attribute '(shared|given|scaled)' of .*Model", 0),
    (kept_on_a_class, "'x'", "the attribute 'shared' of the type Model", 0),
    (kept_as_a_closure, "'x'", "the variable 'x' of the function kept_as_a_closure.<locals>.<lambda>", 0),
    (kept_as_a_default, "'x'", "the function kept_as_a_default.<locals>.later", 0),
    (kept_as_a_generator, "'(x|getitem)'", "(the generator .*parts|the variable 'x' of)", 0),
    (kept_as_a_method, "'(x|mean)'", f"the global 'KEPT' of {__name__}", 0),
    (kept_as_plumbing, "'(x|shape|getitem)'", f"the global 'KEPT' of {__name__}", 0),
    (kept_in_a_queue, "'x'", "(a deque|an? Queue)", 0),
    (kept_in_a_context_variable, "'x'", "a context variable", 0),
    (kept_in_an_array, "'x'", "something that Python's collector does not look into", 0),
    (kept_in_a_series, "'x'", "something that Python's collector does not look into", 0),
    (kept_in_a_module, "'x'", "the global 'cache' of test_holders_of_its_own", 0),
    (kept_in_a_dict_by_a_helper, "'multiply'", f"the global 'KEPT' of {__name__}", 0),
]


@pytest.mark.usefixtures("all_seen")
@pytest.mark.parametrize(("body", "node", "holder", "offset"), ELSEWHERE)
def test_what_is_kept_elsewhere(body: Callable[[Any], Any], node: str, holder: str, offset: int) -> None:
    sys.modules["test_holders_of_its_own"] = types.ModuleType("test_holders_of_its_own")
    try:
        with pytest.raises(flow.TraceError) as caught:
            flow.pipeline(body, name="edges").graph()
    finally:
        del sys.modules["test_holders_of_its_own"]
    message = str(caught.value)
    line = f"{line_of(body) + offset}" if offset else r"\d+"
    pattern = (
        rf"the placeholder of {node} outlives the body of 'edges': it is held by {holder}.*, at {__file__}:{line}: "
    )
    assert re.match(pattern, message), message
    assert "return it from the body" in message


@pytest.mark.usefixtures("all_seen")
def test_the_next_call_traces_anew_and_says_so_again() -> None:
    pipeline = flow.pipeline(kept_in_a_list)
    for _ in range(2):
        with pytest.raises(flow.TraceError, match="outlives"):
            pipeline.run(1)
        KEPT.clear()


def test_a_result_is_what_is_kept() -> None:
    """The remedy, followed."""
    pipeline = flow.pipeline(lambda x: (x.mean(), x))
    MODEL.cache, _ = pipeline.run(np.ones(3))  # type: ignore[attr-defined]
    assert MODEL.cache == 1  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------------------- ordinary bodies


def recursive(x: Any) -> Any:
    done: dict[int, Any] = {}

    def visit(depth: int) -> Any:
        if depth not in done:
            done[depth] = x + depth if depth == 0 else visit(depth - 1) * 2
        return done[depth]

    return visit(5)


def with_a_cycle(x: Any) -> Any:
    node: dict[str, Any] = {"value": x}
    node["self"] = node
    parent, child = Box(x=x), Box(x=x)
    parent.child, child.parent = child, parent  # type: ignore[attr-defined]
    return total(x)


def with_a_class(x: Any) -> Any:
    class Layer:
        weights = (x,)

        def __call__(self, y: Any) -> Any:
            return x * y

    return Layer()(x)


def with_an_error_in_a_variable(x: Any) -> Any:
    y = x + 1
    try:
        raise KeyError("missing")
    except KeyError as error:
        kept = error
    return y, str(kept)


def with_an_error_kept(x: Any) -> Any:
    try:
        raise KeyError("missing")
    except KeyError as error:
        KEPT.append(error)
    return x + 1


def with_its_frame_kept(x: Any) -> Any:
    KEPT.append(sys._getframe())
    return x + 1


def with_its_variables_kept(x: Any) -> Any:
    """As debuggers do."""
    KEPT.append(sys._getframe())
    KEPT[-1].f_locals
    return x + 1


def with_a_copy_of_the_context(x: Any) -> Any:
    KEPT.append(contextvars.copy_context())
    return x + 1


def with_a_half_used_generator(x: Any) -> Any:
    parts = (x[i] for i in range(10))
    return next(parts)


def with_a_log(x: Any) -> Any:
    logging.getLogger("test_holders").warning("%r and %r", x, x + 1)
    return x + 1


def with_a_weak_reference(x: Any) -> Any:
    box = Box(x=x)
    KEPT.append(weakref.ref(box))
    return x + 1


def with_another_trace(x: Any) -> Any:
    KEPT.append(len(trace("inner", ("y",), lambda placeholders: recursive(placeholders[0]))))
    return recursive(x)


def with_a_refusal_elsewhere(x: Any) -> Any:
    try:
        trace("inner", ("y",), lambda placeholders: kept_in_a_list(placeholders[0]))
    except flow.TraceError as error:
        assert "outlives" in str(error)
    KEPT.clear()
    return x + 1


def with_a_closure_for_a_kernel(x: Any) -> Any:
    depth = 3
    return flow.map(flow.op(lambda y: y + depth), x)


def with_a_callback(x: Any) -> Any:
    return sorted([3, 1], key=lambda n: (n, repr(x))), functools.reduce(lambda a, b: a * b, [x, x])


ORDINARY = [
    recursive,
    with_a_cycle,
    with_a_class,
    with_an_error_in_a_variable,
    with_an_error_kept,
    with_its_frame_kept,
    with_its_variables_kept,
    with_a_copy_of_the_context,
    with_a_half_used_generator,
    with_a_log,
    with_a_weak_reference,
    with_another_trace,
    with_a_refusal_elsewhere,
    with_a_closure_for_a_kernel,
    with_a_callback,
]


@pytest.mark.usefixtures("all_seen", "caplog")
@pytest.mark.parametrize("body", ORDINARY)
def test_ordinary_bodies_are_traced(body: Callable[[Any], Any]) -> None:
    for collecting in (True, False):
        if not collecting:
            gc.disable()
        try:
            assert len(flow.pipeline(body).graph()) > 0
        finally:
            gc.enable()


@pytest.mark.usefixtures("all_seen")
def test_a_body_under_a_tracer_that_keeps_its_frames() -> None:
    frames: list[Any] = []

    def watch(frame: Any, event: str, arg: Any) -> Any:
        frames.append((frame, arg))
        return watch

    def body(x: Any) -> Any:
        y = x + 1
        return y * 2

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        graph = flow.pipeline(body).graph()
    finally:
        sys.settrace(before)
    assert len(graph) == 2
    frames.clear()


def test_a_thread_that_still_has_a_node() -> None:
    looking, done = threading.Event(), threading.Event()

    def look(x: Any) -> None:
        looking.set()
        done.wait(30)

    def body(x: Any) -> Any:
        thread = threading.Thread(target=look, args=(x,))
        thread.start()
        looking.wait(30)
        threads.append(thread)
        return x + 1

    threads: list[threading.Thread] = []
    try:
        with pytest.raises(flow.TraceError, match="the placeholder of 'x' outlives the body of 'body': it is held by"):
            flow.pipeline(body).graph()
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_a_trace_leaves_nothing_behind() -> None:
    """Nothing to collect: the net costs what a weak reference does."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            flow.pipeline(lambda x: [np.sqrt(x + i) for i in range(10)], name="leaves nothing").graph()
        assert not [each for each in gc.get_objects() if type(each) is Trace and each.name == "leaves nothing"]
    finally:
        gc.enable()
