"""What a body's code names, and what these names stood for when it was traced: a graph is worth as long as they do.

    GAIN = 2
    def helper(x): return g(x) * GAIN
    @flow.pipeline
    def p(x): return helper(x)              names: helper, and by way of it g and GAIN

Names are globals, the cells of closures, and what is named of the user's modules and classes. Plain functions of the
user's, pipelines, methods and partials that are named are followed. A name has changed when it is bound to another
object; numbers, strings and tuples count by value. What is inside a list, a dict or an object is not looked at.

What a function binds itself (a counter of its calls, say) is no reason to trace it again.

Every name of the code is taken for one, also that of an attribute, if there is a global of this name: so nothing has to
be known of bytecode. To ask whether all are as they were takes some fifty nanoseconds a name, at each call.
"""

from __future__ import annotations

import builtins
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import attrgetter, call, is_, itemgetter
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any, Final

import numpy as np

from dataflow.frontend.static_key import static_key
from dataflow.graph.attributes import dict_of
from dataflow.graph.diagnostics.bytecode import names_bound, names_in
from dataflow.graph.nodes import Declared
from dataflow.graph.tracing.tracer import is_module_of_user, is_of_user

__all__ = ["Names", "named_by"]

FOLLOWED: Final = 200
"""How many functions are followed, at most."""
NAMED: Final = 2_000
"""How many names are remembered, at most."""

_BY_VALUE = (int, float, complex, str, bytes, tuple, frozenset, range, np.generic)
_PLAIN = frozenset({int, float, complex, bool, str, bytes, tuple, list, dict, set, frozenset, np.ndarray, type(None)})
"""Types of what cannot be followed."""
_HELD = (*_BY_VALUE, type(None), type, ModuleType, BuiltinFunctionType, np.ufunc, FunctionType, Declared)
"""Types of what is remembered itself, and not by a weak reference, which takes longer."""
_FUNCTIONS = (FunctionType, partial, MethodType, staticmethod, classmethod, property, Declared)
_CALLED = ("__call__", "__init__")
"""Methods that are called without being named."""

_Known = tuple[Callable[[Any], tuple[Any, ...]], Any, tuple[Any, ...], bool]
"""What looks names up, and where; what they stood for; whether these are weak references."""
_Absent = tuple[frozenset[str], Any]
"""Builtins that a body names, and the globals in which there was none of these names."""

_content, _code = attrgetter("cell_contents"), attrgetter("__code__")


def _contents(cells: tuple[CellType, ...]) -> tuple[Any, ...]:
    return tuple(map(_content, cells))


def _codes(functions: tuple[FunctionType, ...]) -> tuple[Any, ...]:
    """Of functions that may be given other code, as IPython's `%autoreload` does."""
    return tuple(map(_code, functions))


class Names:
    """What the code of a body names. `same` says whether each still stands for the same."""

    __slots__ = ("_absent", "_known")

    def __init__(self, known: Iterable[_Known], absent: Iterable[_Absent]) -> None:
        self._known = tuple(known)
        self._absent = tuple(absent)

    def same(self) -> bool:
        """Whether each name still stands for the same object, or for an equal number or text."""
        try:
            for look_up, where, objects, weak in self._known:
                found = look_up(where)
                if not all(map(is_, found, map(call, objects) if weak else objects)) and not all(
                    map(_is_same, found, map(call, objects) if weak else objects)
                ):
                    return False
        except (KeyError, ValueError):  # a name, or a cell, is empty
            return False
        for names, space in self._absent:  # noqa: SIM110  # a generator takes as long as several names
            if not names.isdisjoint(space):
                return False
        return True


def _is_same(now: Any, then: Any) -> bool:
    if now is then:
        return True
    if type(now) is not type(then) or not issubclass(type(now), _BY_VALUE):
        return False
    try:
        return static_key(now) == static_key(then)
    except TypeError:  # a tuple with a list in it
        return False


def named_by(body: Any, owner: Any = None, values: Iterable[Any] = ()) -> tuple[Names, list[FunctionType]]:
    """What a body names, and the functions that were followed: the method of an instance or of none, which is given
    these Python values."""
    look = _Look()
    look.through(body, owner, values)
    return Names(look.known(), look.absent.values()), list(look.functions.values())


class _Look:
    """One look at a body and at what it names."""

    def __init__(self) -> None:
        self.functions: dict[int, FunctionType] = {}
        """Those that were followed, by identity."""
        self._seen: set[int] = set()
        self._waiting: list[tuple[Any, tuple[str, ...], type | None]] = []
        """What is to be followed; the names in the code, for a module, a class or an object of the user's; and of what
        class it is a method."""
        self._count = 0
        self._cells: dict[int, tuple[CellType, Any]] = {}
        self._spaces: dict[int, tuple[Any, dict[str, Any]]] = {}
        """By identity of a module's globals, or of a class: where they are looked up, and what was named of them."""
        self.absent: dict[int, _Absent] = {}
        """Likewise, for the builtins among the names."""

    def through(self, body: Any, owner: Any, values: Iterable[Any]) -> None:
        """Follow all that there is to follow."""
        for value in values:
            self._offer(value, ())
        if isinstance(body, FunctionType):
            names = self._visit(body)  # whoever wrote it
            if owner is not None:
                self._class(_class_of(owner), names)
        else:
            self._offer(body, ())
        while self._waiting and len(self.functions) < FOLLOWED and self._count < NAMED:
            value, near, kind = self._waiting.pop()
            if near or kind is not None or id(value) not in self._seen:
                self._seen.add(id(value))
                self._follow(value, near, kind)

    def known(self) -> Iterator[_Known]:
        """For `Names`."""
        for space, named in self._spaces.values():
            for names, objects, weak in _groups(list(named.items())):
                twice = 2 if len(names) == 1 else 1  # of one name, itemgetter gives no tuple
                yield itemgetter(*names * twice), space, objects * twice, weak
        if functions := tuple(self.functions.values()):
            yield _codes, functions, _codes(functions), False
        for cells, objects, weak in _groups(list(self._cells.values())):
            yield _contents, cells, objects, weak

    def _visit(self, function: FunctionType) -> tuple[str, ...]:
        self.functions[id(function)] = function
        names, space, bound = names_in(function.__code__), function.__globals__, names_bound(function.__code__)
        self._named(id(space), space, [name for name in names if name not in bound], names)
        if absent := {name for name in _BUILTINS.intersection(names) if name not in space}:
            self.absent[id(space)] = self.absent.get(id(space), (frozenset(), space))[0] | absent, space
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name != "__class__" and name not in bound and id(cell) not in self._cells:
                try:
                    value = cell.cell_contents
                except ValueError:
                    continue
                self._count += 1
                self._cells[id(cell)] = cell, value
                self._offer(value, names)
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self._offer(value, names)
        return names

    def _named(self, key: int, space: Any, names: Iterable[str], near: tuple[str, ...], of: type | None = None) -> None:
        """These names, as far as this module or class has them; `near` are all names of the code."""
        known = self._spaces.setdefault(key, (space, {}))[1]
        for name in names:
            if name in space and name not in known:
                known[name] = value = space[name]
                self._count += 1
                self._offer(value, near, of)

    def _offer(self, value: Any, near: tuple[str, ...], of: type | None = None) -> None:
        """Follow it, if it is something that can be."""
        kind = type(value)
        if kind in _PLAIN:
            return
        if issubclass(kind, _FUNCTIONS):
            self._waiting.append((value, (), of))
        elif issubclass(kind, (ModuleType, type)) or is_module_of_user(kind.__module__):
            self._waiting.append((value, near, None))
        elif "__wrapped__" in dict_of(value):  # what functools.cache makes, and its like
            self._waiting.append((dict_of(value)["__wrapped__"], (), of))

    def _follow(self, value: Any, near: tuple[str, ...], of: type | None) -> None:
        kind = type(value)
        if kind is FunctionType:
            self._function(value, of)
        elif issubclass(kind, partial):
            for part in (value.func, *value.args, *value.keywords.values()):
                self._offer(part, near)
        elif issubclass(kind, MethodType):
            self._offer(value.__func__, near, _class_of(value.__self__))
            self._offer(value.__self__, near)
        elif issubclass(kind, (staticmethod, classmethod)):
            self._offer(value.__func__, near, of)
        elif issubclass(kind, property):
            self._offer(value.fget, near, of)
        elif issubclass(kind, Declared):
            self._offer(value._body, near, of if value._of is None else _class_of(value._owner))
        elif issubclass(kind, ModuleType):
            if is_module_of_user(value.__name__):
                self._named(id(value), vars(value), near, near)
        else:
            self._class(value if issubclass(kind, type) else kind, near)

    def _function(self, function: FunctionType, of: type | None) -> None:
        if not is_of_user(function.__code__.co_filename):
            return
        names = names_in(function.__code__) if id(function) in self.functions else self._visit(function)
        if of is not None:
            self._class(of, names)

    def _class(self, kind: type, near: tuple[str, ...]) -> None:
        for each in kind.__mro__:
            if is_module_of_user(each.__module__):
                self._named(id(each), each.__dict__, (*near, *_CALLED), near, kind)


def _class_of(owner: Any) -> type:
    """Where the names of a method's first argument are found; of a class method, that is the class."""
    return owner if issubclass(type(owner), type) else type(owner)


def _groups(named: list[tuple[Any, Any]]) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...], bool]]:
    """Names, and what they stand for: what is there for good, or small, itself; all else by weak references."""
    held: list[tuple[Any, Any]] = []
    weak: list[tuple[Any, Any]] = []
    for name, value in named:
        if issubclass(type(value), _HELD) and not (issubclass(type(value), Declared) and value._of is not None):
            held.append((name, value))
            continue
        try:
            weak.append((name, weakref.ref(value)))
        except TypeError:
            held.append((name, value))
    for group, is_weak in ((held, False), (weak, True)):
        if group:
            names, objects = zip(*group, strict=True)
            yield names, objects, is_weak


_BUILTINS: Final = frozenset(vars(builtins))
