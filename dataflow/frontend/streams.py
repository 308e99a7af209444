"""`stream` of a pipeline, also of one on an instance: checks what it is given, and says what is run for each item."""

from __future__ import annotations

import inspect
import operator
from collections.abc import AsyncIterable, Iterable, Mapping
from contextvars import copy_context
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from dataflow.engine.hosting import Runtime
from dataflow.engine.items import Calls, OnError, OnFull, Options
from dataflow.engine.stream import Stream
from dataflow.frontend.scan import Carried, CarryingCalls
from dataflow.graph.plan import Plan
from dataflow.threads.settings import get_num_interop_threads

if TYPE_CHECKING:
    from dataflow.frontend.pipeline import Pipeline

__all__ = ["Streaming"]

R = TypeVar("R")
E = TypeVar("E", bound=Enum)

Source = AsyncIterable[Any] | Iterable[Any]
Full = Literal["wait", "drop_oldest"]


class Streaming(Generic[R]):
    """What has `stream`: pipelines, and pipelines on an instance."""

    __slots__ = ()

    def _parts(self) -> tuple[Pipeline[..., R], Any]:
        """The pipeline, and the instance that it is a method of, or None."""
        raise NotImplementedError

    @overload
    def stream(
        self,
        source: Source,
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        on_error: Literal["raise"] = "raise",
        on_full: Full = "wait",
        carry: None = None,
        copy: bool = False,
    ) -> Stream[R]: ...
    @overload
    def stream(
        self,
        source: Source,
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        on_error: Literal["yield"],
        on_full: Full = "wait",
        carry: None = None,
        copy: bool = False,
    ) -> Stream[R | Exception]: ...
    @overload
    def stream(
        self,
        source: Source,
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        on_error: Literal["raise", "yield"] = "raise",
        on_full: Full = "wait",
        carry: Mapping[str, Any],
        copy: bool = False,
    ) -> Stream[Any]: ...
    def stream(
        self,
        source: Source,
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        on_error: str = "raise",
        on_full: str = "wait",
        carry: Mapping[str, Any] | None = None,
        copy: bool = False,
    ) -> Stream[Any]:
        """Run the pipeline on every item of a source, several items at a time; gives an async iterator of the results.

        `async with p.stream(source) as s: async for y in s`, or `async for y in p.stream(source)`. Each item is the
        one positional argument of a run; `p.bind(rate=48000)` fixes other arguments. Runs overlap: item 2 is in the
        first operator while item 1 is in the last. The context is captured here; nothing starts before the stream is
        entered. See `Stream` for how it ends.

        `source`: an iterable or an async iterable, also an endless one. It is pulled on the event loop, so the `next`
        of a plain iterable must be quick (what waits is to be an async iterable). Its exception is raised after the
        results of the items before it. Generators are closed at the end.

        `in_flight`: at most so many items are pulled and not yet handed to the consumer, finished or not; the source
        waits meanwhile. Default: twice the inter-op threads, at least 2.

        `ordered`: results in the order of the source, or (False) as they end.

        `on_error`: "raise": the first failing item, in the order of the results, ends the stream; what is in flight is
        stopped, and the operator's exception is raised as by `await p(...)`, with the number of the item in a note.
        "yield": the exception takes the place of the result, and the stream goes on.

        `on_full`: with "drop_oldest" the source is never kept waiting: when as many items are in flight as may be, the
        oldest is dropped for the next one (its run is stopped), and `Stream.dropped` counts it. For live sources.

        `carry`: state from item to item, as in `jax.lax.scan`: `carry={"tail": zeros}` gives the first item's body
        `tail`, and the body returns `(result, {"tail": new})`. Operators that read `tail` wait for that of the item
        before, everything else overlaps. Arrays and scalars, and tuples, lists and dicts of them; they are copied, and
        arrive read-only. With `on_error="yield"` an item gets the state from before a failed one, and for that a
        state is handed on only when its whole item has succeeded. Not with "drop_oldest".

        `copy`: copy the arrays of an item (also inside tuples, lists, dicts and dataclasses) before the next is pulled,
        for sources that fill one buffer again and again.

        `p.on(rt).stream(...)` takes one place in the runtime, for all of its items, from when it is entered until it
        has ended; see `Stream`.

        Raises TypeError and ValueError for wrong values, TypeError for pipelines that need more than one argument, and
        TraceError in the body of a pipeline.
        """
        pipeline, owner = self._parts()
        pipeline._refuse_trace("stream")
        where = f"{pipeline.name}.stream()"
        _check_source(where, source)
        options = Options(
            _checked_in_flight(where, in_flight),
            _checked_bool(where, "ordered", ordered),
            _checked_choice(where, "on_error", on_error, OnError),
            _checked_choice(where, "on_full", on_full, OnFull),
            _checked_bool(where, "copy", copy),
        )
        if carry is not None and options.on_full is OnFull.DROP_OLDEST:
            raise ValueError(
                f"{where}: carry needs every item, and on_full='drop_oldest' drops some: "
                "leave one of them out (on_full='wait' keeps the source waiting instead)"
            )
        host = pipeline._runtime if isinstance(pipeline._runtime, Runtime) else None
        return Stream(_calls(where, pipeline, owner, carry, options), source, options, copy_context(), host)


class _PlainCalls:
    """A run of the pipeline itself for each item."""

    __slots__ = ("_owner", "_pipeline", "name")

    def __init__(self, pipeline: Pipeline[..., Any], owner: Any) -> None:
        self.name = pipeline.name
        self._pipeline = pipeline
        self._owner = owner

    def bind(self, value: Any) -> tuple[Plan, list[Any], Any]:
        """As a call with one argument, on the plans of this moment: `retrace` holds for later items."""
        pipeline, owner = self._pipeline, self._owner
        plans = pipeline._plans if owner is None else pipeline._plans_of(owner)
        return *pipeline._bind(plans, owner, (value,), {}), None

    def ended(self, token: Any, *, succeeded: bool) -> None:
        """Nobody else waits for it."""

    def delivered(self, token: Any, number: int) -> None:
        """It has nothing to carry on."""

    def carried(self) -> None:
        """Nothing."""


def _calls(
    where: str, pipeline: Pipeline[..., Any], owner: Any, carry: Mapping[str, Any] | None, options: Options
) -> Calls:
    if carry is None:
        _check_parameters(where, pipeline, owner, ())
        return _PlainCalls(pipeline, owner)
    carried = Carried(pipeline.name, carry, pipeline._parameters.tree)
    _check_parameters(where, pipeline, owner, carried.names)
    return CarryingCalls(pipeline, owner, carried, carry, early=options.on_error is OnError.RAISE)


def _check_parameters(where: str, pipeline: Pipeline[..., Any], owner: Any, carried: tuple[str, ...]) -> None:
    """One item and what is carried must be all that a run needs."""
    parameters = pipeline._parameters
    named = {
        name for name, p in parameters.open.parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    variadic = any(p.kind is p.VAR_KEYWORD for p in parameters.open.parameters.values())
    unknown = [name for name in carried if name not in named and not variadic]
    if unknown:
        raise TypeError(
            f"{where}: carry names {', '.join(map(repr, unknown))}, no parameter that "
            f"{pipeline.name}{parameters.open} takes by name: the body takes the state as a parameter, and returns "
            "(result, {name: new state})"
        )
    if static := [name for name in carried if name in parameters.static]:
        raise TypeError(f"{where}: carry names {', '.join(map(repr, static))}, which is static and cannot change")
    left = [p for name, p in parameters.open.parameters.items() if name not in carried]
    try:
        inspect.Signature(left).bind(*(() if owner is None else (owner,)), None)
    except TypeError:
        needed = [
            p
            for p in left[owner is not None :]
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        names = ", ".join(p.name for p in needed) or "nothing"
        remedy = (
            f"fix the others first, {pipeline.name}.bind(name=value).stream(...)" if needed else "give the body one"
        )
        raise TypeError(
            f"{where}: each item is the one argument of a run, and {pipeline.name} takes {names}: {remedy}"
        ) from None


def _check_source(where: str, source: Any) -> None:
    if hasattr(type(source), "__aiter__") or hasattr(type(source), "__iter__") or hasattr(type(source), "__getitem__"):
        return
    hint = "; call it, and pass what that gives" if callable(source) else ""
    raise TypeError(f"{where}: source must be an iterable or an async iterable, not {type(source).__name__}{hint}")


def _checked_in_flight(where: str, given: Any) -> int:
    if given is None:
        return max(2, 2 * get_num_interop_threads())
    if isinstance(given, bool) or not hasattr(type(given), "__index__"):
        raise TypeError(f"{where}: in_flight must be an int, not {type(given).__name__}: it is a number of items")
    count = operator.index(given)
    if count < 1:
        raise ValueError(f"{where}: in_flight must be at least 1, not {count}: no item could ever be pulled")
    return count


def _checked_bool(where: str, name: str, given: Any) -> bool:
    if not isinstance(given, bool):
        raise TypeError(f"{where}: {name} must be True or False, not {given!r} ({type(given).__name__})")
    return given


def _checked_choice(where: str, name: str, given: Any, choices: type[E]) -> E:
    names = " or ".join(repr(choice.value) for choice in choices)
    if not isinstance(given, str):
        raise TypeError(f"{where}: {name} must be {names}, not {given!r} ({type(given).__name__})")
    try:
        return choices(given)
    except ValueError:
        raise ValueError(f"{where}: {name} must be {names}, not {given!r}") from None
