"""Control at run time: what a pipeline's body cannot know when it is traced.

    flow.map(op, xs)                        as many calls as there are items, side by side
    flow.cond(pred, then, otherwise, *args) one of two

In a body each is one node: a kernel that runs the calls as an inner run. Anywhere else it is done here and now.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any, NamedTuple, TypeVar, cast

from dataflow.engine.hosting import Runtime
from dataflow.frontend.op import Op
from dataflow.frontend.pipeline import Pipeline
from dataflow.graph.nodes import Declared, Kind, OpSpec
from dataflow.graph.tracing.annotations import scope
from dataflow.graph.tracing.placeholder import record
from dataflow.graph.tracing.tracer import current

__all__ = ["cond", "map_"]

T = TypeVar("T")


def map_(function: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
    """Call an operator or a pipeline on each item, side by side, and give the list of results, in order.

    `items` may be a node of the body: how many there are need not be known before. The calls are an inner run on the
    inter-op threads; its failures and cancellation are those of the run around it. The exception of a failing call has
    the number of its item, counted from 0, as the attribute `item` and in a note. A plain function counts as an
    operator. Outside of a body this blocks, as `p.run()` does. TypeError for what cannot be called.
    """
    callee = _callee("map", function)
    if current() is not None:
        return cast("list[T]", record(_MAP, (callee, items), {}))
    return _map(callee, items)


def cond(pred: Any, then: Callable[..., T], otherwise: Callable[..., T], *args: Any) -> T:
    """`then(*args)` if `pred` is true, else `otherwise(*args)`; only that one is called.

    Both may be operators, pipelines or plain functions; `pred` may be a node. Failures and cancellation of the call are
    those of the run around it. Outside of a body it is called here and now; what takes a run (a pipeline, an async
    operator, one with a timeout, retries or a limit) blocks as `p.run()` does. TypeError for what cannot be called.
    """
    callees = _callee("cond", then), _callee("cond", otherwise)
    if current() is not None:
        return cast(T, record(_COND, (pred, *callees, *args), {}))
    return cast(T, _cond(pred, *callees, *args))


class _Callee(NamedTuple):
    """A function to call. Of a method, the instance stands apart: where a graph may not hold it, a Ref does."""

    function: Op[..., Any] | Pipeline[..., Any]
    owner: Any


def _callee(name: str, function: Any) -> _Callee:
    if isinstance(function, Declared) and function._of is not None:
        return _Callee(function._of, function._owner)
    if isinstance(function, MethodType) and _weakly_held(function.__self__):
        return _Callee(_operator(function.__func__), function.__self__)
    if not callable(function):
        raise TypeError(f"flow.{name}: expected an operator, a pipeline or a function, got {type(function).__name__}")
    return _Callee(_operator(function), None)


def _operator(function: Any) -> Op[..., Any] | Pipeline[..., Any]:
    return function if isinstance(function, (Op, Pipeline)) else Op(function)


def _weakly_held(owner: Any) -> bool:
    try:
        weakref.ref(owner)
    except TypeError:
        return False
    return True


def _map(callee: _Callee, items: Any) -> list[Any]:
    given = list(items)
    if not given:
        return []
    return cast("list[Any]", _inner("map", callee).run(*given))


def _cond(pred: Any, then: _Callee, otherwise: _Callee, *args: Any) -> Any:
    function, owner = chosen = then if pred else otherwise
    if isinstance(function, Op) and not function.is_async and not function.is_managed:
        return function(*args) if owner is None else function(owner, *args)
    return _inner("cond", chosen).run(*args)


_MAP = OpSpec(_map, "map", Kind.RECORDED)
_COND = OpSpec(_cond, "cond", Kind.RECORDED)


def _inner(kind: str, callee: _Callee) -> Pipeline[..., Any]:
    """The pipeline that calls this once, or on each of its arguments; kept with the function, and traced once."""
    function, owner = callee
    key = kind, owner is not None
    made = function._inner.get(key)
    if made is None:
        body = _BODIES[key](function)
        made = function._inner.setdefault(key, Pipeline(body, name=f"{kind} of {function.name}"))
    if isinstance(function._runtime, Runtime):
        made = made.on(function._runtime)
    return made if owner is None else cast("Pipeline[..., Any]", made.__get__(owner))


def _on_each(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *items: _each(function, (), items)


def _method_on_each(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda owner, *items: _each(function, (owner,), items)


def _each(function: Callable[..., Any], first: tuple[Any, ...], items: tuple[Any, ...]) -> list[Any]:
    recording = current()
    assert recording is not None
    results = []
    for place, item in enumerate(items):
        recording.begin_item()
        if isinstance(function, Pipeline):
            with scope(str(place)):  # its labels come once for each item
                results.append(function(*first, item))
        else:
            results.append(function(*first, item))
    return results


def _once(function: Callable[..., Any]) -> Callable[..., Any]:
    def once(*args: Any) -> Any:
        return function(*args)

    return once


def _method_once(function: Callable[..., Any]) -> Callable[..., Any]:
    def once(owner: Any, *args: Any) -> Any:
        return function(owner, *args)

    return once


_BODIES = {
    ("map", False): _on_each,
    ("map", True): _method_on_each,
    ("cond", False): _once,
    ("cond", True): _method_once,
}
