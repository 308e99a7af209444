"""What a body asks once that it would ask anew in every run on values: the time, random numbers, who calls.

    noise = np.random.normal(size=3)       every run adds the same three numbers
    started = time.time()                  every run has started then
    who = user.get()                       a context variable: every run is that of the first caller

Found in the code of the body and of the plain functions that it calls; what an operator does is done in every run.
"""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from datetime import date
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple, cast

import numpy as np

from dataflow.graph.attributes import dict_of
from dataflow.graph.diagnostics.bytecode import Called, calls_in, names_in
from dataflow.graph.nodes import Declared
from dataflow.graph.tracing.tracer import is_of_user

__all__ = ["Frozen", "frozen_calls"]

_MODULES: Final = frozenset({"random", "time", "datetime", "secrets", "uuid", "os", "numpy", "numpy.random"})
_CALLABLE: Final = (FunctionType, MethodType, BuiltinFunctionType, type)
_ASKED: Final = {
    "time": {
        *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time"),
        *("process_time_ns", "thread_time", "thread_time_ns"),
    },
    "uuid": {"uuid1", "uuid4", "uuid6", "uuid7"},
    "secrets": {"token_bytes", "token_hex", "token_urlsafe", "randbelow"},
    "posix": {"urandom"},
    "nt": {"urandom"},
}
_ASKED_BARE: Final = {"time": {"localtime", "gmtime", "ctime"}}
_OF_DATES: Final = frozenset({"now", "utcnow", "today"})
_TAKES_NO_NUMBERS: Final = frozenset({"seed", "setstate", "getstate", "set_state", "get_state", "spawn", "jump"})
_MOST = 200
"""Functions that are looked at."""


class Frozen(NamedTuple):
    """A call of a body."""

    what: str
    file: str
    line: int

    def __str__(self) -> str:
        return (
            f"{self.what}() at {self.file}:{self.line} is called once, when the body is traced, and all runs get what "
            "it gave then: call it inside an op, or pass what it gives as an argument"
        )


def frozen_calls(body: Any, owner: Any, functions: Iterable[FunctionType]) -> Iterator[tuple[Frozen, dict[str, Any]]]:
    """The calls in a body, the method of an instance or of none, and in what it calls; with the globals there.

    `functions` are all those that the body names.
    """
    if not any(map(_may_ask, functions)) and not _draws(dict_of(owner).values()):
        return
    waiting, seen = [body], set[int]()
    while waiting and len(seen) < _MOST:
        function = _plain(waiting.pop())
        if function is None or id(function) in seen or not (function is body or _is_users(function)):
            continue
        seen.add(id(function))
        for called in calls_in(function.__code__):
            value = _called(function, called, owner if function is body else None)
            if _asks(value, bare=called.bare):
                file = function.__code__.co_filename
                yield Frozen(".".join(called.names), file, called.line), function.__globals__
            else:
                waiting.append(value)


def _is_users(function: FunctionType) -> bool:
    return is_of_user(function.__code__.co_filename)


def _plain(value: Any) -> FunctionType | None:
    """The function that is traced when this is called."""
    while True:
        kind = type(value)
        if issubclass(kind, Declared):
            value = value._body
        elif issubclass(kind, MethodType) or issubclass(kind, (staticmethod, classmethod)):
            value = value.__func__
        elif issubclass(kind, partial):
            value = value.func
        else:
            return value if kind is FunctionType else None


def _may_ask(function: FunctionType) -> bool:
    """Whether it names a module, a function or a generator that gives the time or random numbers: most do not."""
    names = names_in(function.__code__)
    named = [function.__globals__.get(name) for name in names]
    if "random" not in names:
        named = [value for value in named if value is not np]  # which nearly all bodies name
    named += [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    return _draws(named) or any(map(_may_be_asked, named))


def _may_be_asked(value: Any) -> bool:
    kind = type(value)
    if kind is ModuleType:
        return value.__name__ in _MODULES
    if kind is ContextVar:
        return True
    if kind is MethodType:
        return _draws((value.__self__,))
    if kind is type:
        return issubclass(value, (date, *_generators()))
    return kind in _CALLABLE and (kind is not FunctionType or value.__module__ in _MODULES)


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _draws(values: Iterable[Any]) -> bool:
    return any(issubclass(type(value), _generators()) for value in values)


def _generators() -> tuple[type, ...]:
    """Classes whose objects draw random numbers."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is None:
        return (random.Random,)
    return random.Random, numpy_random.Generator, numpy_random.RandomState


_NOTHING = object()


def _called(function: FunctionType, called: Called, owner: Any) -> Any:
    """What stands under the name of a call; _NOTHING if that is not known. Runs no code of the user's."""
    first, *others = called.names
    code, value = function.__code__, _NOTHING
    if called.is_local:
        if owner is not None and code.co_varnames[:1] == (first,) and others:
            value = _of_object(owner, others.pop(0))
    elif first in code.co_freevars:
        cell = (function.__closure__ or ())[code.co_freevars.index(first)]
        value = cell.cell_contents if _is_filled(cell) else _NOTHING
    else:
        value = function.__globals__.get(first, _NOTHING)
    for name in others:
        value = _attribute(value, name)
    return value


def _of_object(value: Any, name: str) -> Any:
    own = dict_of(value)
    return own[name] if name in own else inspect.getattr_static(type(value), name, _NOTHING)


def _attribute(value: Any, name: str) -> Any:
    kind = type(value)
    if issubclass(kind, ModuleType):
        return vars(value).get(name, _NOTHING)
    if kind is ContextVar or issubclass(kind, _generators()) or (issubclass(kind, type) and issubclass(value, date)):
        return getattr(value, name, _NOTHING)
    if issubclass(kind, type):
        return inspect.getattr_static(value, name, _NOTHING)
    return _NOTHING if value is _NOTHING else _of_object(value, name)


def _asks(value: Any, *, bare: bool) -> bool:
    """Whether this gives the time, or random numbers."""
    kind: Any = type(value)
    if kind is type:
        return bare and issubclass(value, _generators())
    if kind not in _CALLABLE and kind.__name__ != "cython_function_or_method":
        return False
    name, module, of = value.__name__, str(getattr(value, "__module__", "")), getattr(value, "__self__", None)
    if type(of) is ContextVar:
        return bool(name == "get")
    if issubclass(type(of), _generators()):
        return name not in _TAKES_NO_NUMBERS
    if issubclass(type(of), type) and issubclass(cast(type, of), date):
        return name in _OF_DATES
    if bare and (name == "default_rng" or name in _ASKED_BARE.get(module, ())):
        return True
    return name in _ASKED.get(module, ())
