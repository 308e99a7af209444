"""`stream` of a pipeline: checks what it is given, and says what is run for each item."""

from __future__ import annotations

import asyncio
import inspect
import operator
from collections.abc import AsyncIterable, Iterable, Mapping
from contextvars import copy_context
from enum import Enum
from types import CoroutineType
from typing import Any, Literal, TypeVar

from dataflow.engine.service.items import Calls, OnError, OnFull, Options
from dataflow.engine.service.runtime import Runtime
from dataflow.engine.service.stream import Stream
from dataflow.frontend.scan import Carried, CarryingCalls
from dataflow.frontend.target import Target
from dataflow.frontend.task import Task
from dataflow.graph.plan import Plan
from dataflow.threads.settings import get_num_interop_threads

__all__ = ["Full", "Source", "open_stream"]

E = TypeVar("E", bound=Enum)

Source = AsyncIterable[Any] | Iterable[Any]
Full = Literal["wait", "drop_oldest"]


def open_stream(
    target: Target,
    source: Source,
    *,
    in_flight: int | None,
    ordered: bool,
    on_error: str,
    on_full: str,
    carry: Mapping[str, Any] | None,
    copy: bool,
) -> Stream[Any]:
    """The stream of a target over a source; `Pipeline.stream` says what each argument means. TypeError, ValueError."""
    where = f"{target.name}.stream()"
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
    host = target.runtime if isinstance(target.runtime, Runtime) else None
    return Stream(_calls(where, target, carry, options), source, options, copy_context(), host)


class _PlainCalls:
    """A run of the target itself for each item."""

    __slots__ = ("_target", "name")

    def __init__(self, target: Target) -> None:
        self.name = target.name
        self._target = target

    def bind(self, value: Any) -> tuple[Plan, list[Any], Any]:
        """As a call with one argument, on the plans of this moment: `retrace` holds for later items."""
        return *self._target.prepare((value,), {}), None

    def ended(self, token: Any, *, succeeded: bool) -> None:
        """Nobody else waits for it."""

    def delivered(self, token: Any, number: int) -> None:
        """It has nothing to carry on."""

    def carried(self) -> None:
        """Nothing."""


def _calls(where: str, target: Target, carry: Mapping[str, Any] | None, options: Options) -> Calls:
    if carry is None:
        _check_parameters(where, target, ())
        return _PlainCalls(target)
    carried = Carried(target.name, carry, target.parameters.tree)
    _check_parameters(where, target, carried.names)
    return CarryingCalls(target, carried, carry, early=options.on_error is OnError.RAISE)


def _check_parameters(where: str, target: Target, carried: tuple[str, ...]) -> None:
    """One item and what is carried must be all that a run needs."""
    parameters = target.parameters
    named = {
        name for name, p in parameters.open.parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    variadic = any(p.kind is p.VAR_KEYWORD for p in parameters.open.parameters.values())
    unknown = [name for name in carried if name not in named and not variadic]
    if unknown:
        raise TypeError(
            f"{where}: carry names {', '.join(map(repr, unknown))}, no parameter that "
            f"{target.name}{parameters.open} takes by name: the body takes the state as a parameter, and returns "
            "(result, {name: new state})"
        )
    if static := [name for name in carried if name in parameters.static]:
        raise TypeError(f"{where}: carry names {', '.join(map(repr, static))}, which is static and cannot change")
    if shaped := [name for name in carried if name in parameters.shapes]:
        raise TypeError(
            f"{where}: carry names {', '.join(map(repr, shaped))}, which is in shapes=: a state is only known when the "
            "item before has run; leave it out of one of them"
        )
    left = [p for name, p in parameters.open.parameters.items() if name not in carried]
    try:
        inspect.Signature(left).bind(None)
    except TypeError:
        needed = [p for p in left if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        names = ", ".join(p.name for p in needed) or "nothing"
        remedy = f"fix the others first, {target.name}.bind(name=value).stream(...)" if needed else "give the body one"
        raise TypeError(
            f"{where}: each item is the one argument of a run, and {target.name} takes {names}: {remedy}"
        ) from None


def _check_source(where: str, source: Any) -> None:
    kind = type(source)
    if hasattr(kind, "__aiter__"):
        return
    iterable = hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")
    if iterable and not isinstance(source, (asyncio.Future, Task)):  # asyncio's can be iterated over, to no purpose
        return
    named, hint = kind.__name__, ""
    if isinstance(source, CoroutineType):
        named = f"the coroutine {source.__qualname__!r}"
        source.close()  # else a "never awaited" warning would follow the error
    if hasattr(kind, "__await__"):
        hint = (
            ": await it first, p.stream(await ...); or make it an async generator, `async def` with `yield`, which is "
            "passed as it is"
        )
    elif callable(source):
        hint = "; call it, and pass what that gives"
    raise TypeError(f"{where}: source must be an iterable or an async iterable, not {named}{hint}")


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
