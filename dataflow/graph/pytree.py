"""Containers: what counts as one, what is in it, and the same container around something else.

    {"a": [x, 1]}   ──leaves──▶  x          map_leaves(f, …)  ──▶  {"a": [f(x), 1]}

The rules hold for every module that looks into a value (capture, protection, copies, Tasks among arguments):

1. A container is an exact `list`, `tuple`, `dict`, `set`, `deque` or `bytearray`, a namedtuple, or a dataclass;
   `kind_of` is the one registry. A *kind* of list or dict (a MultiDict, a defaultdict, an attribute dict) has a mind of
   its own: it is a leaf.
2. The keys of a dict, and attributes of a dataclass that are no fields, belong to the container itself.
3. *Atoms* (numbers, strings, None) are passed over: nobody asks anything of them, and a list may hold a million.
4. What occurs twice occurs twice in the result as well, and what contains itself still does. Nothing is rebuilt that
   holds nothing new. Nothing here recurses, so depth costs memory and no stack.

The idea of one registry, and the name, are JAX's; jax.tree_util knows neither sharing nor cycles.
"""

from __future__ import annotations

import copy
import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from time import sleep
from typing import Any, Final, NamedTuple, cast

import numpy as np

from dataflow.graph.nodes import Declared

__all__ = [
    "ATOMS",
    "CHANGEABLE",
    "ContainerKind",
    "Visit",
    "arranged",
    "built",
    "is_model",
    "kind_of",
    "larger_than",
    "leaves",
    "map_leaves",
    "types_of",
    "walked",
]

ATOMS: Final[frozenset[type]] = frozenset(
    {type(None), type(...), bool, int, float, complex, str, bytes}
    | {np.bool_, np.float64, np.float32, np.int64, np.int32}
)
"""Types of leaves that hold nothing, and that nobody can write to."""


CHANGEABLE: Final = (list, dict, set, deque, bytearray)
"""Exact types of containers that their owner can change."""


class ContainerKind(NamedTuple):
    """How containers of one type are taken apart and put together."""

    items: Callable[[Any], Sequence[Any]]
    """What is in it, in order; may be the container itself."""
    whole: Callable[[Any, Sequence[Any]], Any] | None = None
    """Of one that cannot be changed once it is made: `make`."""
    shell: Callable[[Any], Any] | None = None
    """Of all others: one as this, yet to be filled by `put`."""
    put: Callable[[Any, Any, Sequence[Any]], object] | None = None
    """`put(shell, like, items)`."""
    names: Callable[[Any], Sequence[Any]] | None = None
    """Of one whose items have names: these, in order."""

    def make(self, like: Any, items: Sequence[Any]) -> Any:
        """A container as this one, around other items: as many, in the same order."""
        if self.whole is not None:
            return self.whole(like, items)
        assert self.shell is not None
        assert self.put is not None
        new = self.shell(like)
        self.put(new, like, items)
        return new

    @property
    def mutable(self) -> bool:
        """Whether its owner can change what is in it."""
        return self.shell is not None


_EXACT: Final[dict[type, ContainerKind]] = {
    list: ContainerKind(
        items=lambda value: value,
        shell=lambda like: [],
        put=lambda shell, like, items: shell.extend(items),
    ),
    tuple: ContainerKind(items=lambda value: value, whole=lambda like, items: tuple(items)),
    dict: ContainerKind(
        items=lambda value: list(value.values()),
        shell=lambda like: {},
        put=lambda shell, like, items: shell.update(zip(like, items, strict=True)),
        names=list,
    ),
    set: ContainerKind(
        items=list,
        shell=lambda like: set(),
        put=lambda shell, like, items: shell.update(items),
    ),
    bytearray: ContainerKind(  # one whose items nobody asks for
        items=lambda value: (),
        shell=bytearray,
        put=lambda shell, like, items: None,
    ),
    deque: ContainerKind(
        items=list,
        shell=lambda like: deque(maxlen=like.maxlen),
        put=lambda shell, like, items: shell.extend(items),
    ),
}
_NAMEDTUPLE: Final = ContainerKind(items=lambda value: value, whole=lambda like, items: type(like)._make(items))


def _names_held(record: Any) -> list[str]:
    """Its fields, and what attributes it has besides. A field without a value (not yet set) stays without one."""
    names = [name for name in _field_names(type(record)) if hasattr(record, name)]
    others: dict[str, Any] = getattr(record, "__dict__", {})
    return names + [name for name in others if name not in names] if len(others) > len(names) else names


def _set_fields(record: Any, items: Sequence[Any]) -> Any:
    for name, item in zip(_names_held(record), items, strict=True):
        if getattr(record, name) is not item:
            object.__setattr__(record, name, item)  # also of a frozen one
    return record


_RECORD: Final = ContainerKind(
    items=lambda value: [getattr(value, name) for name in _names_held(value)],
    shell=copy.copy,
    put=lambda shell, like, items: _set_fields(shell, items),
    names=_names_held,
)


def kind_of(type_: Any) -> ContainerKind | None:
    """How values of this type are taken apart; None if they are leaves."""
    if type_ in ATOMS:
        return None
    exact = _EXACT.get(type_)
    return _kind_of(type_) if exact is None else exact


def _find_kind(type_: Any) -> ContainerKind | None:
    if issubclass(type_, tuple):
        return _NAMEDTUPLE if hasattr(type_, "_make") and hasattr(type_, "_fields") else None
    if is_dataclass(type_) and not issubclass(cast(type, type_), _NO_RECORDS):
        return _RECORD
    return None


_NO_RECORDS: Final = (list, dict, set, frozenset, deque, BaseException, np.ndarray)
_kind_of: Callable[[Any], ContainerKind | None] = lru_cache(maxsize=1024)(_find_kind)


def _names_of_fields(type_: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(type_))


_field_names: Callable[[Any], tuple[str, ...]] = lru_cache(maxsize=1024)(_names_of_fields)


@lru_cache(maxsize=1024)
def is_model(type_: Any) -> bool:
    """Whether this is a dataclass that does more than hold data: one with operators or pipelines in its class, whose
    methods may well set attributes."""
    classes: tuple[type, ...] = type_.__mro__
    attributes = (attribute for cls in classes for attribute in vars(cls).values())
    return is_dataclass(type_) and any(isinstance(attribute, Declared) for attribute in attributes)


_CHUNK: Final = 20_000
"""Items whose types are asked for at once, which is a call in C: other threads run in between."""


def types_of(items: Sequence[Any]) -> set[type]:
    """The types of items, of however many."""
    if len(items) <= _CHUNK:
        return set(map(type, items))
    found: set[type] = set()
    for first in range(0, len(items), _CHUNK):
        found.update(map(type, items[first : first + _CHUNK]))
        sleep(0)  # lets the interpreter go: the loop may wait for it
    return found


def leaves(value: Any, into: Callable[[Any], bool] | None = None) -> Iterator[Any]:
    """All leaves that are no atoms, those of a container that occurs twice once; `value` itself if it is a leaf.

    `into` says of each container whether to look into it; one that is not is a leaf.
    """
    seen: dict[int, Any] = {}  # with the containers: what is alive keeps its id
    waiting = [value]
    while waiting:
        part = waiting.pop()
        type_ = type(part)
        if type_ in ATOMS:
            continue
        kind = kind_of(type_)
        if kind is None or (into is not None and not into(part)):
            yield part
        elif id(part) not in seen:
            seen[id(part)] = part
            items = kind.items(part)
            if not types_of(items) <= ATOMS:
                waiting += reversed(items)


def larger_than(value: Any, count: int) -> bool:
    """Whether a value is a container that has more than so many parts in all; looks at no more of them than that."""
    kind = kind_of(type(value))
    if kind is None:
        return False
    items = kind.items(value)
    if len(items) > count or not any(map(kind_of, types_of(items))):  # flat, as most are
        return len(items) > count
    seen: dict[int, Any] = {}
    waiting = [value]
    while waiting:
        part = waiting.pop()
        kind = kind_of(type(part))
        if kind is None or id(part) in seen:
            continue
        if type(part) in _EXACT and len(part) > count:
            return True
        items = kind.items(part)
        count -= len(items)
        if count < 0:
            return True
        seen[id(part)] = part
        waiting += items
    return False


class Visit:
    """A container on the way through a value: its items, and which of them are containers."""

    __slots__ = ("changed", "inner", "items", "kind", "like", "todo")

    def __init__(self, like: Any, kind: ContainerKind) -> None:
        self.like = like
        self.kind = kind
        self.items: list[Any] = list(kind.items(like))
        self.inner: list[tuple[int, int]] = []
        """(place, number): what stands at this place is the container of that visit."""
        self.changed = False
        plain = types_of(self.items) <= ATOMS
        self.todo: Iterator[tuple[int, Any]] = iter(()) if plain else iter(enumerate(self.items))


def walked(
    value: Any,
    into: Callable[[Any], bool] | None = None,
    function: Callable[[Any], Any] | None = None,
    kinds: Callable[[type], ContainerKind | None] = kind_of,
) -> list[Visit]:
    """Every container of a container once, itself first, depth first and in order.

    With a `function`, items that are leaves are replaced by what it gives for them, in the visit.
    """
    kind = kinds(type(value))
    assert kind is not None
    visits = [Visit(value, kind)]
    numbers = {id(value): 0}
    path = [visits[0]]
    while path:
        visit = path[-1]
        for place, item in visit.todo:
            type_ = type(item)
            if type_ in ATOMS:
                continue
            kind = kinds(type_)
            if kind is None or (into is not None and not into(item)):
                if function is not None and (made := function(item)) is not item:
                    visit.items[place] = made
                    visit.changed = True
                continue
            known = numbers.get(id(item))  # `items` keeps it alive, so its id is its own
            if known is None:
                visit.inner.append((place, len(visits)))
                numbers[id(item)] = len(visits)
                path.append(Visit(item, kind))
                visits.append(path[-1])
                break
            visit.inner.append((place, known))
        else:
            path.pop().todo = iter(())  # `enumerate` keeps what it gave last
    return visits


def arranged(visits: Sequence[Visit], those: Iterable[int]) -> list[int]:
    """The numbers of those visits in the order in which their containers are put together, once there are shells of
    what can be filled later: tuples first, each after those that it holds. Among them there is no cycle."""
    tuples = {number for number in those if visits[number].kind.shell is None}
    placed: dict[int, None] = {}
    waiting = list(tuples)
    while waiting:
        number = waiting[-1]
        missing = [inner for _, inner in visits[number].inner if inner in tuples and inner not in placed]
        waiting += missing
        if not missing:
            placed[waiting.pop()] = None
    return [*placed, *(number for number in those if number not in tuples)]


def built(visits: Sequence[Visit], those: Sequence[int]) -> Any:
    """The first container, where those of these numbers are new ones around the items of the visits."""
    made: dict[int, Any] = {}
    for number in those:
        shell = visits[number].kind.shell
        if shell is not None:
            made[number] = shell(visits[number].like)
    for number in arranged(visits, those) if len(visits) > 1 else those:
        visit = visits[number]
        kind, like, items = visit.kind, visit.like, visit.items.copy()
        for place, other in visit.inner:
            if other in made:
                items[place] = made[other]
        if kind.put is None:
            made[number] = kind.make(like, items)
        else:
            kind.put(made[number], like, items)
    return made.get(0, visits[0].like)


def map_leaves(
    function: Callable[[Any], Any],
    value: Any,
    *,
    into: Callable[[Any], bool] | None = None,
    always: bool = False,
) -> Any:
    """The same value, with what `function` gives for each leaf that is no atom.

    `into` says of each container whether to look into it; one that is not is a leaf. With `always`, every container
    is a new one, else only those that hold something new. Leaves are visited in order, one that occurs twice once.
    """
    kind = kind_of(type(value))
    if kind is None or (into is not None and not into(value)):
        return value if type(value) in ATOMS else function(value)
    done: dict[int, tuple[Any, Any]] = {}  # with the leaf: what is alive keeps its id

    def once(leaf: Any) -> Any:
        if id(leaf) not in done:
            done[id(leaf)] = leaf, function(leaf)
        return done[id(leaf)][1]

    items = kind.items(value)
    types = types_of(items)
    if types <= ATOMS:
        return kind.make(value, items) if always else value
    if not any(kind_of(each) for each in types):  # flat, as most are
        new = [item if type(item) in ATOMS else once(item) for item in items]
        return kind.make(value, new) if always or not all(map(operator.is_, new, items)) else value
    visits = walked(value, into, once)
    return built(visits, range(len(visits)) if always else _changed(visits))


def _changed(visits: list[Visit]) -> list[int]:
    """The numbers of those that hold something new; what holds these is new itself."""
    found = [number for number, visit in enumerate(visits) if visit.changed]
    if found:
        parents: dict[int, list[int]] = {}
        for number, visit in enumerate(visits):
            for _, inner in visit.inner:
                parents.setdefault(inner, []).append(number)
        for number in found:  # grows
            for parent in parents.get(number, ()):
                if not visits[parent].changed:
                    visits[parent].changed = True
                    found.append(parent)
    return found
