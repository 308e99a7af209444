"""Operators and pipelines in other processes: what they are pickled as.

As functions are: by name where the name leads to them, and else by value, which is cloudpickle's business. What is made
of one that has a name (`options`, `bind`, `select`, `replace`) is pickled as that one and the changes. Graphs, caches
and locks stay behind.

    by name     _known(tag)         then   carrier                   both functions, under names of their own
    made of it  _new(type)          then   (the one with a name, recipe)
    by value    _new(type)          then   (function, recipe)
    bound       _bound(of, instance)

**Picklers know functions.** Which names lead somewhere on the other side is for the pickler to say: cloudpickle, dill
and the like send functions of `__main__`, and of modules registered for it, by value, while pickle sends them by name.
So one with a name is pickled as two functions that stand below that name, `blur._tag` and `blur._carrier`. By name, the
tag leads to the operator of the other process. By value, the tag is a new function, for which there is a new operator,
and the carrier brings along what that is made of.

**In two steps**, since a function may refer to itself by way of its globals: an empty object first, which others may
refer to, then what it is made of.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from dataflow.engine.service.runtime import Runtime
from dataflow.frontend.methods import MethodKind
from dataflow.graph.nodes import Declared

__all__ = ["Pickled"]

_PATHS = 4
"""The first protocol of pickle that knows functions by a path."""


class Pickled(Declared):
    """What operators and pipelines have in common here; they are immutable, so copies are themselves."""

    _fn: Any
    _runtime: Any
    _method_kind: MethodKind

    @property
    def _is_class_method(self) -> bool:
        return self._method_kind is classmethod

    def _recipe(self) -> dict[str, Any]:
        """What this is made of besides its function; can be pickled if that can be which the user gave."""
        raise NotImplementedError

    def _remake(self, fn: Any, recipe: dict[str, Any]) -> None:
        """Become what this recipe makes of a function."""
        raise NotImplementedError

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Of one that is bound, one that is bound to a copy, as with methods."""
        return self if self._of is None else self._of.__get__(copy.deepcopy(self._owner, memo))

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._of is not None:
            return _bound, (self._of, self._owner)
        if isinstance(self._runtime, Runtime):
            raise TypeError(
                f"{self!r} cannot be pickled: it is bound to a Runtime, which belongs to this process; pickle it "
                "without .on(...), and call .on(runtime) with a runtime of the other process there"
            )
        named = _named(self)
        if named is None:
            return _new, (type(self),), (self._fn, self._recipe())
        if named is not self:
            return _new, (type(self),), (named, self._changes(named._recipe()))
        return (_known, (type(self), self._tag), self._carrier) if protocol >= _PATHS else _path(self)

    def __setstate__(self, state: Any) -> None:
        if _is_made(self):  # known by its name
            return
        source, recipe = state if isinstance(state, tuple) else state()
        if type(source) is type(self):
            if not _is_made(source):  # it refers to this one, and will be made later
                source.__dict__.setdefault("_waiting", []).append(partial(self.__setstate__, state))
                return
            source, recipe = source._fn, {**source._recipe(), **recipe}
        waiting = self.__dict__.pop("_waiting", ())
        self._remake(source, recipe)
        for make in waiting:
            make()

    def _changes(self, before: dict[str, Any]) -> dict[str, Any]:
        """What is not as in that recipe: all else is what the other process has under that name."""
        recipe = self._recipe()
        changed = {name: value for name, value in recipe.items() if before.get(name) is not value}
        return changed | dict.fromkeys(before.keys() - recipe.keys())

    @property
    def _tag(self) -> Any:
        return self._functions()[0]

    @property
    def _carrier(self) -> Any:
        return self._functions()[1]

    def _functions(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The two that stand for this; always the same."""
        if self._of is not None:  # the name of a class method leads to one that is bound
            functions: tuple[Any, Any] = self._of._functions()
            return functions
        known: tuple[Any, Any] | None = self.__dict__.get("_pickled_as")
        return known if known is not None else self.__dict__.setdefault("_pickled_as", _functions_for(self))


def _functions_for(value: Pickled) -> tuple[Callable[..., Any], Callable[..., Any]]:
    made_of = value._fn, value._recipe()

    def tag() -> None: ...
    def carrier() -> Any:
        return made_of

    for function in (tag, carrier):
        function.__module__ = value.__module__
        function.__qualname__ = f"{_path(value)}._{function.__name__}"
    return tag, carrier


def _path(value: Any) -> str:
    """Where its module may have it."""
    return str(getattr(value, "__qualname__", ""))


def _found(module: str, path: str) -> Any:
    found: Any = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    return found._of if isinstance(found, Pickled) and found._of is not None and found._is_class_method else found


def _named(value: Pickled) -> Any:
    """What the name of the function leads to, if that was made of the same function; None if not."""
    found = _found(value.__module__, _path(value))
    return found if type(found) is type(value) and found._of is None and found._fn is value._fn else None


def _is_made(value: Any) -> bool:
    return "_fn" in value.__dict__


# What the other process calls.


def _known(kind: type[Pickled], tag: Any) -> Pickled:
    found = _found(tag.__module__, tag.__qualname__.rpartition(".")[0])
    return found if type(found) is kind and found._tag is tag else _new(kind)


def _new(kind: type[Pickled]) -> Pickled:
    return object.__new__(kind)


def _bound(of: Pickled, owner: Any) -> Any:
    return of.__get__(owner)
