"""Control at run time: what a pipeline's body cannot know when it is traced.

    flow.map(op, xs, …, by=z)               as many calls as there are items, side by side
    flow.cond(pred, then, otherwise, *args) one of two

In a body each is one node: a kernel that runs the calls as an inner run. Anywhere else it is done here and now.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from functools import lru_cache, partial
from types import MethodType
from typing import Any, Final, NamedTuple, TypeVar, cast

from dataflow.engine.service.runtime import Runtime
from dataflow.frontend.op import Op
from dataflow.frontend.pipeline import Pipeline
from dataflow.graph.inout import in_order
from dataflow.graph.joined import joined
from dataflow.graph.nodes import Declared, Graph, Kind, OpSpec
from dataflow.graph.plan import Plan, make_plan
from dataflow.graph.pytree import leaves
from dataflow.graph.readonly import PLAIN_RESULT, Held
from dataflow.graph.stateful import in_turn
from dataflow.graph.tracing.placeholder import is_placeholder, record
from dataflow.graph.tracing.tracer import current, refusal

__all__ = ["cond", "map_"]

T = TypeVar("T")


def map_(function: Callable[..., T], items: Iterable[Any], /, *more: Iterable[Any], **shared: Any) -> list[T]:
    """Call an operator or a pipeline on each item, side by side, and give the list of results, in order.

    With several sequences, which must be as long as each other (ValueError), each call gets one item of each, as with
    Python's `map`. Keyword arguments are the same for all calls: `flow.map(blur, images, sigma=2)`. So is what a
    `functools.partial` of an operator or a pipeline fixes, which may be nodes.

    All of these may be nodes of the body: how many items there are need not be known before. The calls are an inner run
    on the inter-op threads; its failures and cancellation are those of the run around it. The exception of a failing
    call has the number of its item, counted from 0, as the attribute `item` and in a note. A plain function counts as
    an operator; a pipeline's body is traced once, not for each item. Outside of a body this blocks, as `p.run()` does.
    TypeError for what cannot be called, and for arguments that it does not take.
    """
    function, fixed, named = _taken_apart(function)
    shared = {**named, **shared}
    callee = _callee("map", function)
    if current() is None:
        return _map(callee, len(fixed), *fixed, items, *more, **shared)
    changed = _changed(callee, 2, len(fixed) + 1 + len(more), shared)
    return cast("list[T]", record(_map_spec(changed), (callee, len(fixed), *fixed, items, *more), shared))


def cond(pred: Any, then: Callable[..., T], otherwise: Callable[..., T], *args: Any) -> T:
    """`then(*args)` if `pred` is true, else `otherwise(*args)`; only that one is called.

    Both may be operators, pipelines or plain functions; `pred` may be a node. Failures and cancellation of the call are
    those of the run around it. Outside of a body it is called here and now; what takes a run (a pipeline, an async
    operator, one with a timeout, retries or a limit) blocks as `p.run()` does. TypeError for what cannot be called.
    """
    callees = _callee("cond", then), _callee("cond", otherwise)
    if current() is not None:
        changed = dict.fromkeys(place for callee in callees for place in _changed(callee, 3, len(args), {}))
        return cast(T, record(_cond_spec(tuple(changed)), (pred, *callees, *args), {}))
    return cast(T, _cond(pred, *callees, *args))


def _taken_apart(function: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """What a `functools.partial` calls, and what it fixes: arguments like others, if for an operator or if nodes."""
    if type(function) is not partial or any(value is _HOLE for value in function.args):
        return function, (), {}
    called: Any = function.func
    if isinstance(called, Declared) or _has_nodes((*function.args, *function.keywords.values())):
        return called, function.args, dict(function.keywords)
    return function, (), {}


_HOLE: Final = getattr(functools, "Placeholder", object())
"""What stands in a partial, since Python 3.14, for an argument of the call."""


def _has_nodes(values: Iterable[Any]) -> bool:
    return any(is_placeholder(leaf) for value in values for leaf in leaves(value))


class _Callee(NamedTuple):
    """A function to call. Of a method, the instance stands apart: where a graph may not hold it, a Ref does."""

    function: Op[..., Any] | Pipeline[..., Any]
    owner: Any


def _callee(name: str, function: Any) -> _Callee:
    _refuse_fixed_nodes(name, function)
    if isinstance(function, Declared) and function._of is not None:
        return _Callee(function._of, function._owner)
    if isinstance(function, MethodType) and _weakly_held(function.__self__):
        return _Callee(_operator(function.__func__), function.__self__)
    if not callable(function):
        raise TypeError(f"flow.{name}: expected an operator, a pipeline or a function, got {type(function).__name__}")
    return _Callee(_operator(function), None)


_SHARED = {
    "map": "pass it as an argument that all calls share, flow.map(function, items, name=node)",
    "cond": "pass it as an argument, flow.cond(pred, then, otherwise, node)",
}


def _refuse_fixed_nodes(name: str, function: Any) -> None:
    """The function is called when nodes mean nothing any more."""
    if isinstance(function, partial):
        fixed: Iterable[Any] = (*function.args, *function.keywords.values())
    elif isinstance(function, Pipeline):
        fixed = function.parameters.all_fixed.values()
    else:
        return
    if _has_nodes(fixed):
        raise refusal(f"the function that flow.{name} is to call has a node fixed in it", _SHARED[name])


def _operator(function: Any) -> Op[..., Any] | Pipeline[..., Any]:
    if isinstance(function, partial) and isinstance(function.func, Op) and function.func.is_managed:
        return Pipeline(function)  # as a plain function, it would be without its options
    return function if isinstance(function, (Op, Pipeline)) else Op(function)


def _weakly_held(owner: Any) -> bool:
    try:
        weakref.ref(owner)
    except TypeError:
        return False
    return True


CACHED_MAP_NODES = 20_000
"""The nodes of all plans that are kept for `flow.map` of one operator or pipeline: one for each number of items."""


def _map(callee: _Callee, count: int, /, *given: Any, **shared: Any) -> list[Any]:
    """The first `count` of what is given are the same for all calls; the others are sequences."""
    fixed, sequences = given[:count], given[count:]
    columns = [list(sequence) for sequence in sequences]
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"flow.map of {callee.function.name}: the sequences have {', '.join(map(str, lengths))} items; each call "
            "gets one of each, so they must be as long as each other"
        )
    if not lengths[0]:
        return []
    function, owner = callee
    target = function if owner is None else function.__get__(owner)
    calls = [target.prepare((*fixed, *items), shared) for items in zip(*columns, strict=True)]
    graphs = [plan.graph for plan, _ in calls]
    inputs = [value for _, given in calls for value in given]
    plan = _joined_plan(target, graphs).for_inputs(inputs)
    if shared or fixed:
        _hold_once(inputs, (*fixed, *shared.values()))
    del columns, calls, shared, given, fixed, sequences  # what the run releases, nobody else should keep
    return cast("list[Any]", function.runtime.block(plan, inputs, copy_context()))


def _hold_once(inputs: list[Any], shared: Iterable[Any]) -> None:
    """What all calls share is looked through once."""
    held = {id(value): Held(value) for value in shared if type(value) not in PLAIN_RESULT}
    for place, value in enumerate(inputs):
        if id(value) in held:
            inputs[place] = held[id(value)]


def _joined_plan(function: Op[..., Any] | Pipeline[..., Any], graphs: list[Graph]) -> Plan:
    name, scoped = f"map of {function.name}", isinstance(function, Pipeline)
    if any(graph is not graphs[0] for graph in graphs):  # as with None among the items
        return make_plan(_together(name, graphs, scoped=scoped))
    plans = function._map_plans(CACHED_MAP_NODES)
    key = graphs[0], len(graphs)
    plan = plans.get(key)
    if plan is None:
        plan = make_plan(_together(name, graphs, scoped=scoped))
        if len(plan.graph) <= CACHED_MAP_NODES:
            plans.put(key, plan, plans.generation)
    return plan


def _together(name: str, graphs: list[Graph], *, scoped: bool) -> Graph:
    """All of them as one graph; what several change is changed in the order of the items."""
    graph = joined(name, graphs, scoped=scoped)
    graph = in_order(graph) if any(node.spec.inout for node in graph.nodes) else graph
    return in_turn(graph) if graph.stateful else graph


def _cond(pred: Any, then: _Callee, otherwise: _Callee, *args: Any) -> Any:
    function, owner = chosen = then if pred else otherwise
    if isinstance(function, Op) and not (function.is_async or function.is_managed or function._writes):
        return function(*args) if owner is None else function(owner, *args)
    return _calling(chosen).run(*args)


def _changed(callee: _Callee, first: int, given: int, shared: Mapping[str, Any]) -> tuple[int | str, ...]:
    """The arguments that a node changes by calling an operator on them: from the `first` on, or by name."""
    function, owner = callee
    if not isinstance(function, Op):
        return ()
    found: list[int | str] = []
    for name, place in zip(function._inout, function._spec.inout, strict=True):
        position = place - (owner is not None) if isinstance(place, int) else given
        if 0 <= position < given:
            found.append(first + position)
        elif name in shared:
            found.append(name)
    return tuple(found)


@lru_cache(maxsize=1024)
def _map_spec(changed: tuple[int | str, ...]) -> OpSpec:
    return OpSpec(_map, "map", Kind.RECORDED, inout=changed)


@lru_cache(maxsize=1024)
def _cond_spec(changed: tuple[int | str, ...]) -> OpSpec:
    return OpSpec(_cond, "cond", Kind.RECORDED, inout=changed)


def _calling(callee: _Callee) -> Pipeline[..., Any]:
    """The pipeline that calls this; kept with the function, and traced once."""
    function, owner = callee
    key = "cond", owner is not None
    made = function._inner.get(key)
    if made is None:
        body = _once(function) if owner is None else _method_once(function)
        made = function._inner.setdefault(key, Pipeline(body, name=f"cond of {function.name}"))
    if isinstance(function._runtime, Runtime):
        made = made.on(function._runtime)
    return made if owner is None else cast("Pipeline[..., Any]", made.__get__(owner))


def _once(function: Callable[..., Any]) -> Callable[..., Any]:
    def once(*args: Any) -> Any:
        return function(*args)

    return once


def _method_once(function: Callable[..., Any]) -> Callable[..., Any]:
    def once(owner: Any, *args: Any) -> Any:
        return function(owner, *args)

    return once
