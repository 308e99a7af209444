"""Control at run time: what a pipeline's body cannot know when it is traced.

    flow.map(op, xs)                        as many calls as there are items, side by side
    flow.cond(pred, then, otherwise, *args) one of two

In a body each is one node: a kernel that runs the calls as an inner run. Anywhere else it is done here and now.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from dataflow.graph.nodes import Kind, OpSpec
from dataflow.graph.placeholder import record
from dataflow.graph.recording import current
from dataflow.op import Op
from dataflow.pipeline import BoundPipeline, Pipeline

__all__ = ["cond", "map_"]

T = TypeVar("T")

KEPT = 256
"""Functions whose inner pipelines are kept; the one longest not used goes first."""


def map_(function: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
    """Call an operator or a pipeline on each item, side by side, and give the list of results, in order.

    `items` may be a node of the body: how many there are need not be known before. The calls are an inner run on the
    inter-op threads; its failures and cancellation are those of the run around it. A plain function counts as an
    operator. Outside of a body this blocks, as `p.run()` does. TypeError for what cannot be called.
    """
    _check("map", function)
    if current() is not None:
        return cast("list[T]", record(_MAP, (function, items), {}))
    return _map(function, items)


def cond(pred: Any, then: Callable[..., T], otherwise: Callable[..., T], *args: Any) -> T:
    """`then(*args)` if `pred` is true, else `otherwise(*args)`; only that one is called.

    Both may be operators, pipelines or plain functions; `pred` may be a node. Failures and cancellation of the call are
    those of the run around it. Outside of a body it is called here and now. TypeError for what cannot be called.
    """
    _check("cond", then)
    _check("cond", otherwise)
    if current() is not None:
        return cast(T, record(_COND, (pred, then, otherwise, *args), {}))
    return cast(T, _cond(pred, then, otherwise, *args))


def _check(name: str, function: Any) -> None:
    if not callable(function) and not isinstance(function, (Pipeline, BoundPipeline)):
        raise TypeError(f"flow.{name}: expected an operator, a pipeline or a function, got {type(function).__name__}")


def _map(function: Any, items: Any) -> list[Any]:
    given = list(items)
    if not given:
        return []
    return cast("list[Any]", _each(function).run(*given))


def _cond(pred: Any, then: Any, otherwise: Any, *args: Any) -> Any:
    chosen = then if pred else otherwise
    if isinstance(chosen, (Pipeline, BoundPipeline)):
        return chosen.run(*args)
    if isinstance(chosen, Op) and chosen.is_async:
        return _once(chosen).run(*args)
    return chosen(*args)


_MAP = OpSpec(_map, "map", Kind.RECORDED)
_COND = OpSpec(_cond, "cond", Kind.RECORDED)

_kept: OrderedDict[tuple[Any, ...], Pipeline[..., Any]] = OrderedDict()
_lock = threading.Lock()


def _each(function: Any) -> Pipeline[..., Any]:
    """The pipeline that calls this on each of its arguments."""
    operator = function if isinstance(function, (Op, Pipeline, BoundPipeline)) else Op(function)

    def each(*items: Any) -> Any:
        return [operator(item) for item in items]

    return _keep(("map", function), each, operator.name)


def _once(operator: Op[..., Any]) -> Pipeline[..., Any]:
    """The pipeline that calls this once."""

    def once(*args: Any) -> Any:
        return operator(*args)

    return _keep(("once", operator), once, operator.name)


def _keep(key: tuple[Any, ...], body: Callable[..., Any], name: str) -> Pipeline[..., Any]:
    """One pipeline for each function, so that it is traced once for each number of arguments."""
    kind, function = key
    known = (kind, id(function))
    with _lock:
        pipeline = _kept.get(known)
        if pipeline is None:
            pipeline = Pipeline(body, name=f"{kind} of {name}")
            _kept[known] = pipeline  # its body keeps the function alive, so that the id stays its own
        _kept.move_to_end(known)
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return pipeline
