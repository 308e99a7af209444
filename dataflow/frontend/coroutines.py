"""What frameworks ask before they call: whether a call gives a coroutine, which they have to await.

`inspect.iscoroutinefunction` is true of async operators and of pipelines, also on an instance and after `.on`, `.bind`
and the like. What says so is no entry of their `__dict__`, which `functools.wraps` copies to plain functions around
them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any

__all__ = ["GivesCoroutines", "gives_coroutines", "innermost"]


class GivesCoroutines:
    """A class some of whose instances give a coroutine when they are called."""

    _fn: Any

    @property
    def _gives_coroutine(self) -> bool:
        raise NotImplementedError


class _Mark:
    """An attribute that only those instances have which give coroutines."""

    __slots__ = ("_name", "_value")

    def __init__(self, name: str, value: Callable[[GivesCoroutines], Any]) -> None:
        self._name = name
        self._value = value

    def __get__(self, instance: GivesCoroutines | None, owner: type) -> Any:
        if instance is None or not instance._gives_coroutine:
            raise AttributeError(f"{owner.__name__!r} object has no attribute {self._name!r}")
        return self._value(instance)


async def _async() -> None:
    """For its code."""


def _code(instance: GivesCoroutines) -> Any:
    fn = instance._fn
    if not isinstance(fn, FunctionType):
        return _async.__code__
    return fn.__code__.replace(co_flags=fn.__code__.co_flags | inspect.CO_COROUTINE)


def _given(value: Any, _: GivesCoroutines) -> Any:
    return value


def _marks() -> Iterator[tuple[str, Callable[[GivesCoroutines], Any]]]:
    """The attributes that `inspect` looks for."""
    mark: Any = getattr(inspect, "markcoroutinefunction", None)
    if mark is None:  # Python 3.11 looks at the code of what looks like a function, in these three
        yield "__code__", _code
        yield "__defaults__", lambda instance: getattr(instance._fn, "__defaults__", None)
        yield "__kwdefaults__", lambda instance: getattr(instance._fn, "__kwdefaults__", None)
        return

    def marked() -> None: ...

    mark(marked)
    for name, value in vars(marked).items():
        yield name, partial(_given, value)


for _name, _value in _marks():
    setattr(GivesCoroutines, _name, _Mark(_name, _value))


def gives_coroutines(fn: Any) -> bool:
    """Whether a call of this function, or of whatever else can be called, gives a coroutine."""
    while isinstance(fn, partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def innermost(fn: Any) -> Any:
    """What is called in the end, below partials and methods."""
    while isinstance(fn, (partial, MethodType)):
        fn = fn.func if isinstance(fn, partial) else fn.__func__
    return fn
