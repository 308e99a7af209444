"""Functions of one value that are chosen by its type, to which users add their own types.

    readonly.register(MyType)(function)          readonly(value) ──▶ function of type(value), or of the nearest base

As `functools.singledispatch`, but with one lookup in a dict for a type that was met before, which is what every read of
a shared value costs; and with types of libraries that are registered when the first of them is met.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar, overload

__all__ = ["ByType"]

T = TypeVar("T")
Function = Callable[[Any], Any]
MOST_KNOWN = 1024
"""Types that are remembered: classes that a program makes without end are let go of."""


class ByType:
    """A function of one value, chosen by the type of the value.

    Called with a value, it gives what the function says that is registered for its type, else for the nearest of the
    base classes, else for an abstract class that counts it among its own; where there is none, the value itself. Of
    containers it gives one around what it gives for the items.
    """

    def __init__(
        self,
        name: str,
        doc: str,
        *,
        met: Callable[[type], object],
        otherwise: Callable[[type], Function | None],
        fixed: frozenset[type],
        default: Function = lambda value: value,
    ) -> None:
        self.__name__ = name
        self.__doc__ = doc
        self._met = met
        """What is told of each type that is new, and may register it."""
        self._otherwise = otherwise
        """What is asked about a type that has nothing registered: for containers."""
        self._default = default
        """What is called for a type of which nobody knows anything."""
        self._fixed = fixed
        """Types that are nobody's to register."""
        self._functions: dict[type, Function] = {}
        self._lock = Lock()
        """Over changes of `_functions`, which is replaced and never changed in place."""
        self._known: dict[type, Function] = {}

    def __call__(self, value: Any) -> Any:
        kind = type(value)
        function = self._known.get(kind)
        return self._find(kind)(value) if function is None else function(value)

    def __repr__(self) -> str:
        return f"<flow.{self.__name__}>"

    def dispatch(self, kind: type) -> Function:
        """The function that is called for values of this type."""
        return self._known.get(kind) or self._find(kind)

    @overload
    def register(self, kind: type[T]) -> Callable[[Callable[[T], Any]], Callable[[T], Any]]: ...
    @overload
    def register(self, kind: type[T], function: Callable[[T], Any]) -> Callable[[T], Any]: ...
    def register(self, kind: type[Any], function: Function | None = None) -> Any:
        """Say what becomes of values of this type, and of types derived from it; as a decorator, or with a function.

        Later registrations take the place of earlier ones. TypeError for what is no class, and for types of which it is
        settled what becomes of them: numbers, strings, plain arrays, lists, tuples, dicts, sets and deques.
        """
        if not isinstance(kind, type):
            raise TypeError(f"flow.{self.__name__}.register: expected a class, got {type(kind).__name__}")
        if kind in self._fixed:
            raise TypeError(
                f"flow.{self.__name__}.register: what becomes of {kind.__name__} is settled; "
                "register a class of your own"
            )
        if function is None:
            return lambda function: self.register(kind, function)
        if not callable(function):
            raise TypeError(
                f"flow.{self.__name__}.register: expected a function of the value, got {type(function).__name__}"
            )
        with self._lock:
            self._functions = {**self._functions, kind: function}
            self._known = {}  # another one: whoever is about to add to the old one does no harm
        return function

    def default(self, functions: dict[type, Function]) -> None:
        """Register these where nothing is registered yet."""
        with self._lock:
            self._functions = {**functions, **self._functions}
            self._known = {}

    def knows(self, kind: type) -> bool:
        """Whether it says anything of this type but the default."""
        return self.dispatch(kind) is not self._default

    def _find(self, kind: type) -> Function:
        self._met(kind)
        known, functions = self._known, self._functions
        function = self._nearest(kind, functions)
        if len(known) >= MOST_KNOWN:
            known.clear()
        known[kind] = function
        return function

    def _nearest(self, kind: Any, functions: dict[type, Function]) -> Function:
        for base in kind.__mro__:
            if base in functions:
                return functions[base]
        container = self._otherwise(kind)
        if container is not None:
            return container
        for registered, function in reversed(functions.items()):
            if isinstance(registered, ABCMeta) and issubclass(kind, registered):
                return function
        return self._default
