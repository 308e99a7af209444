"""Operators that change a container which is not theirs: an error, as a write into an array that others read is.

There are two kinds of which an operator gets one of its own, so that nobody would see the change. One is around arrays
that are protected:

    CACHE = {"mean": np.zeros(3)}

    @flow.op
    def remember(cache, x):
        cache["last"] = x          what it was given is a dict of its own around protected arrays: nobody would see this

The other is one that the body has put nodes into, or changed, and gives to others as well
(`dataflow.graph.tracing.fixed`):

    out = {"x": x}
    add(out)                       as above
    return count(out)

A container with nothing in it to protect is passed on as it is, and such a change is seen by all. Of one that is
rebuilt for each reader (see `dataflow.graph.readonly`) a call remembers what was in it, and compares when the operator
is done. Calls that never met one pay nothing: a plan puts `watched` around those that read a slot when it meets the
first one there. One of very many parts is not compared.
"""

from __future__ import annotations

import operator
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from typing import Any

from dataflow.graph.attributes import own_attributes
from dataflow.graph.call import Caller
from dataflow.graph.nodes import Fixed, Kind, Node, Path, Thing
from dataflow.graph.pytree import ATOMS, Visit, larger_than
from dataflow.graph.readonly import Held, containers_in, handed
from dataflow.graph.templates import kind_of_base, kind_of_literal

__all__ = ["unchanged", "watched"]

_NUMBERS = (bytearray, array)
"""Containers of what is no object."""
_BUILTIN = (list, dict, set, deque, *_NUMBERS)
"""What is not taken for a record, if it is a dataclass as well."""

MANY = 10_000
"""Parts of a container from which on nobody looks whether it was changed: that would hold the loop."""


def watched(call: Caller, node: Node, slots: Collection[int]) -> Caller:
    """The call of a node, which fails if the operator changes what it finds held in one of these slots."""
    is_async = node.spec.kind is Kind.ASYNC

    def called(values: list[Any]) -> Any:
        given = _Given(values)
        before: list[_State] = []
        for slot in slots:
            held = values[slot]
            if type(held) is Held:
                own = handed(held)
                if own is not held.value and not larger_than(own, MANY):
                    given.held[slot] = Held.handed_out(held.value, own)
                    before += [_State(visit) for visit in containers_in(own) if visit.kind.mutable]
        result = call(given)  # type: ignore[arg-type]  # it asks for nothing but items
        if is_async and hasattr(result, "__await__"):
            return _awaited(result, partial(_refuse, node, before))
        _refuse(node, before)
        return result

    return called


async def _awaited(awaitable: Any, check: Callable[[], None]) -> Any:
    result = await awaitable
    check()
    return result


class _Given:
    """The values of a run as one call finds them: what was looked at already is not handed out again."""

    __slots__ = ("_values", "held")

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = values
        self.held: dict[int, Held] = {}

    def __getitem__(self, slot: int) -> Any:
        held = self.held
        return held[slot] if slot in held else self._values[slot]


class _State:
    """What was in a container. New attributes of a dataclass are no change, nor are private ones that were None: it may
    well keep there what it has computed."""

    __slots__ = ("_bytes", "_names", "_visit")

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._names: list[Any] = list(visit.kind.names(visit.like)) if visit.kind.names is not None else []
        self._bytes = bytes(visit.like) if isinstance(visit.like, _NUMBERS) else b""

    def changed(self) -> str:
        """The type of the container, if something else is in it now."""
        like, items, names = self._visit.like, self._visit.items, self._names
        if is_dataclass(like) and not isinstance(like, _BUILTIN):
            # What a property gives may be new each time, and what is private and was None, filled in.
            before = zip(names, items, strict=True)
            kept = [pair for pair in before if not isinstance(getattr(type(like), pair[0], None), property)]
            same = all(
                _same(getattr(like, name, None), item) or (item is None and name[:1] == "_") for name, item in kept
            )
        elif type(like) is set:
            same = like == set(items)
        else:
            now = self._visit.kind.items(like)
            same = len(now) == len(items) and all(map(_same, now, items))
            same = same and all(map(operator.is_, names, like if names else ()))
            same = same and (not isinstance(like, _NUMBERS) or bytes(like) == self._bytes)
        return "" if same else type(like).__name__


def _same(now: Any, then: Any) -> bool:
    return now is then or (type(now) is type(then) and type(now) in ATOMS and bool(now == then))


class _Attributes:
    """What an object of the user's own had."""

    __slots__ = ("_before", "_thing")

    def __init__(self, thing: Thing) -> None:
        self._thing = thing.value
        self._before = [pair for pair in own_attributes(thing.value) if pair[0] in thing.names]

    def changed(self) -> str:
        """The type of the object, if an attribute is something else now."""
        now = dict(own_attributes(self._thing))
        same = all(name in now and _same(now[name], value) for name, value in self._before)
        return "" if same else type(self._thing).__name__


_Watched = tuple[str, _State | _Attributes]
"""Of what kind of the user's own objects this is a part, or nothing; and how it was."""


def _refuse(node: Node, before: list[_State]) -> None:
    for state in before:
        if changed := state.changed():
            raise ValueError(
                f"{node.spec.name!r} changed a {changed} that others read as well, or that is the caller's: since "
                "there are arrays in it, the operator was given one of its own, and nobody would see the change. "
                "Declare with inout= that it changes the argument for all, or with writes= that it wants a copy"
            )


def unchanged(fn: Callable[..., Any], node: Node, fixed: Fixed) -> Callable[..., Any]:
    """The operator of a node; it fails if it changes what it may not."""

    def call(*args: Any, **kwargs: Any) -> Any:
        states: list[_Watched] = [
            ("", state) for found in _at(fixed.places, args, kwargs) for state in _state_of(found)
        ]
        states += [state for thing in fixed.things for state in _states_of(thing)]
        result = fn(*args, **kwargs)
        if node.spec.kind is Kind.ASYNC and hasattr(result, "__await__"):
            return _awaited(result, partial(_refuse_unseen, node, states))
        _refuse_unseen(node, states)
        return result

    return call


def _at(places: Iterable[Path], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """What is there; all of it before the operator is called."""
    known: dict[Path, Sequence[Any]] = {}
    for path in places:
        found = args[path[0]] if isinstance(path[0], int) else kwargs[path[0]]
        for depth in range(1, len(path)):
            items = known.get(path[:depth])
            if items is None:
                kind = kind_of_literal(type(found))
                assert kind is not None
                items = known[path[:depth]] = kind.items(found)
            found = items[path[depth]]  # type: ignore[index]  # only the first may be a name
        yield found


def _state_of(container: Any) -> Iterator[_State]:
    kind = kind_of_base(type(container))
    if kind is not None and (not isinstance(container, _BUILTIN) or len(container) <= MANY):
        yield _State(Visit(container, kind))


def _states_of(thing: Thing) -> Iterator[_Watched]:
    """Of an object its attributes, what is in those that are containers, and its own items."""
    own = type(thing.value).__name__
    yield own, _Attributes(thing)
    containers = [value for name, value in own_attributes(thing.value) if name in thing.names]
    if "" in thing.names:
        containers.append(thing.value)
    for container in containers:
        for state in _state_of(container):
            yield own, state


def _refuse_unseen(node: Node, states: list[_Watched]) -> None:
    for own, state in states:
        changed = state.changed()
        if changed and own:
            raise ValueError(
                f"{node.spec.name!r} changed a {own} that the body made: as the body runs once, all runs have the same "
                f"one, and would see what others do to it. Let an operator make it in each run (flow.op({own})(...), "
                "say), or make it outside of the body if all runs are to share it"
            )
        if changed:
            raise ValueError(
                f"{node.spec.name!r} changed a {changed} that the body goes on with, or gives to others later: as it "
                "has run already, each of them gets one of its own, and nobody would see the change. Return what is "
                "new, and give that to the others; or let an operator make what this one is given (flow.op(dict)(...), "
                "say), and declare with inout= that it changes that; or declare with writes= that it wants a copy"
            )
