"""What is no value yet, or one that is there only once: coroutines and Tasks, and iterators.

    fetch(url)                 a coroutine: it has to be awaited, and its result is the value
    zip(a, b), csv.reader(f)   read once: whoever comes second, another reader or the next run, gets nothing

Types tell, so that no code of the user's runs: an iterator has `__next__` and `__iter__`, and cannot be indexed.
An object that merely can be awaited as well (a lazy collection, the handle of a query) is a value like any other.
"""

from __future__ import annotations

import io
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import lru_cache
from itertools import chain, islice
from operator import attrgetter
from types import AsyncGeneratorType, CoroutineType, GeneratorType, MappingProxyType
from typing import Any, Final, cast

import numpy as np

from dataflow.graph.nodes import Declared, Graph, Kind, Node
from dataflow.graph.pytree import ATOMS

__all__ = [
    "LOOKED_AT",
    "ORDINARY",
    "Later",
    "close_coroutines",
    "described",
    "is_coroutine",
    "is_generator",
    "is_later",
    "is_once",
    "later_within",
    "once_within",
    "out_of_order",
]


class Later:
    """The base of what is to be awaited for its value, beside coroutines and what asyncio has."""

    __slots__ = ()


ORDINARY: Final[frozenset[type]] = ATOMS | {np.ndarray}
"""Types of values that need no second look."""

LOOKED_AT: Final = 1000
"""Objects that are looked at in one argument: a value's size must not hold the loop."""


@lru_cache(maxsize=1024)
def is_later(kind: Any) -> bool:
    """Whether objects of this type are no values before they are awaited: coroutines, Futures and Tasks."""
    return issubclass(kind, Later) or is_coroutine(kind) or _is_future(kind)


def is_coroutine(kind: Any) -> bool:
    """Whether this is the type of what calling an `async def` gives."""
    return issubclass(kind, CoroutineType) or _is_compiled(kind, "coroutine", "cr_frame")


def _is_future(kind: type) -> bool:
    """The mark by which asyncio itself knows them, whoever made them."""
    return any("_asyncio_future_blocking" in vars(cls) for cls in kind.__mro__)


def _is_compiled(kind: type, name: str, attribute: str) -> bool:
    """Whether it is Cython's type of this name, which is no other type's."""
    return kind.__name__ == name and kind.__module__.startswith("_cython") and hasattr(kind, attribute)


@lru_cache(maxsize=1024)
def is_generator(kind: Any) -> bool:
    """Whether objects of this type are generators or async generators."""
    return issubclass(kind, (GeneratorType, AsyncGeneratorType)) or _is_compiled(kind, "generator", "gi_frame")


@lru_cache(maxsize=1024)
def _iterates(kind: Any) -> bool:
    """Whether objects of this type are their own iterators; not so the instances of a model, which are what they are.

    Nor what can be indexed; numpy's iterators over arrays can be, too, and are moved on by their readers all the same.
    """
    iterator = hasattr(kind, "__next__") and hasattr(kind, "__iter__")
    iterator = iterator or (hasattr(kind, "__anext__") and hasattr(kind, "__aiter__"))
    if not iterator or (hasattr(kind, "__getitem__") and not issubclass(kind, (np.flatiter, np.nditer))):
        return False
    return not any(isinstance(attribute, Declared) for cls in kind.__mro__ for attribute in vars(cls).values())


def is_once(value: Any) -> bool:
    """Whether this can be read once. Files that are open for writing are not, whoever writes to them."""
    kind: Any = type(value)
    if not _iterates(kind):
        return False
    if not isinstance(value, io.IOBase):
        return True
    try:
        return value.readable() and not value.writable()
    except ValueError:  # it is closed
        return False


def described(value: Any) -> str:
    """What it is, for an error: "the coroutine 'fetch'", "a zip", "an asyncio Task"."""
    kind: Any = type(value)
    if _is_future(kind):
        return f"an asyncio {kind.__name__}"
    named = getattr(value, "__qualname__", None) if is_later(kind) or is_generator(kind) else None
    if isinstance(named, str):
        return f"the {kind.__name__.replace('_', ' ')} {named.replace('.<locals>', '')!r}"
    return f"{'an' if kind.__name__[0] in 'aeiouAEIOU' else 'a'} {kind.__name__}"


def close_coroutines(value: Any) -> None:
    """Close those that are, or are in, what is refused: else "never awaited" warnings would follow the error."""
    for found in _all_within(value, _is_later):
        if is_coroutine(type(found)):
            try:
                found.close()
            except Exception:  # it runs, or does not want to end
                pass


def later_within(value: Any) -> Any:
    """What in a value is to be awaited first: it, or something in the containers that it is made of. Or None."""
    return next(_all_within(value, _is_later), None)


def once_within(value: Any) -> Any:
    """What in a value can be read once, likewise."""
    return next(_all_within(value, is_once), None)


def _is_later(value: Any) -> bool:
    kind: Any = type(value)
    return is_later(kind)


def _all_within(value: Any, wanted: Callable[[Any], bool]) -> Iterator[Any]:
    """No more than `LOOKED_AT` objects are looked at. Generators are not run: what they hold is seen where it is a
    variable of theirs."""
    left = LOOKED_AT
    waiting: list[Any] = [value]
    seen: dict[int, Any] = {}
    while waiting:
        value = waiting.pop()
        kind: Any = type(value)
        if kind in ORDINARY:
            continue
        if wanted(value):
            yield value
            continue
        held = _held(value) if left > 0 and id(value) not in seen else None
        if held is None:
            continue
        seen[id(value)] = value
        try:
            items = list(islice(held, left))
        except RuntimeError:  # another thread changes it
            continue
        left -= len(items) + 1
        if not ORDINARY.issuperset(map(type, items)):  # a quarter of what looking at each takes
            waiting += [item for item in reversed(items) if type(item) not in ORDINARY]


_MAPPINGS: Final[tuple[dict[Any, Any], ...]] = {}, OrderedDict()
_VIEWS: Final = frozenset(type(view) for each in _MAPPINGS for view in (each.keys(), each.values(), each.items()))
_ITERATORS: Final[frozenset[type]] = frozenset(
    {type(iter([])), type(iter(())), type(reversed([])), map, filter, zip, enumerate}
)
"""Iterators that, asked how they would be copied, say what they iterate over, and stay where they are."""


def _held(value: Any) -> Iterable[Any] | None:
    """What is in a container; None for what is none."""
    kind: Any = type(value)
    for base in (list, tuple, set, frozenset, deque):
        if issubclass(kind, base):
            return cast("Iterable[Any]", base.__iter__(value))  # not what a class of the user's says of it
    if issubclass(kind, dict):
        return chain(dict.values(value), dict.keys(value))
    if kind in _VIEWS:
        return value  # type: ignore[no-any-return]
    if kind is MappingProxyType:
        return list(value.values())
    if kind is GeneratorType:
        return [] if value.gi_frame is None or value.gi_running else list(value.gi_frame.f_locals.values())
    if kind in _ITERATORS:
        parts: Any = value.__reduce__()
        return list(parts[1])
    if is_dataclass(kind):
        return [getattr(value, field.name, None) for field in fields(kind)]
    return None


def out_of_order(graph: Graph, number: int) -> str:
    """Why what reads this value may not all get what it would, called in the order of the body; empty if it does.

    That is so for one reader, and for several of which each waits for the one before. Attributes read nothing of it.
    """
    needed: set[int] = set()
    later: Node | None = None
    for node in reversed(graph.nodes):
        if number in node.reads and not _is_attribute(node):
            if node.spec.options is not None and node.spec.options.retries:
                return f"{node.spec.name!r} reads it again when it is tried again"
            if later is not None and node.number not in needed:
                return f"both {node.spec.name!r} and {later.spec.name!r} read it, in no order"
            needed, later = set(), node
        elif node.number not in needed:
            continue
        needed.update(node.reads, graph.after.get(node.number, ()), graph.waits.get(node.number, ()))
    return ""


def _is_attribute(node: Node) -> bool:
    return node.spec.kind is Kind.PLUMBING and type(node.spec.fn) is attrgetter
