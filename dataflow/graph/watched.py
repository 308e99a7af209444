"""Operators that change a container which is not theirs: an error, as a write into an array that others read is.

    CACHE = {"mean": np.zeros(3)}

    @flow.op
    def remember(cache, x):
        cache["last"] = x          what it was given is a dict of its own around protected arrays: nobody would see this

A container with nothing in it to protect is passed on as it is, and such a change is seen by all. Of one that is
rebuilt for each reader (see `dataflow.graph.readonly`) a call remembers what was in it, and compares when the operator
is done. Calls that never met one pay nothing: a plan puts `watched` around those that read a slot when it meets the
first one there. One of very many parts is not compared.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from dataclasses import is_dataclass
from typing import Any

from dataflow.graph.call import Caller
from dataflow.graph.nodes import Kind, Node
from dataflow.graph.pytree import Visit, larger_than
from dataflow.graph.readonly import Held, containers_in, handed

__all__ = ["watched"]

MANY = 10_000
"""Parts of a container from which on nobody looks whether it was changed: that would hold the loop."""


def watched(call: Caller, node: Node, slots: Collection[int]) -> Caller:
    """The call of a node, which fails if the operator changes what it finds held in one of these slots."""
    is_async = node.spec.kind is Kind.ASYNC

    def called(values: list[Any]) -> Any:
        given = _Given(values)
        before: list[tuple[int, list[_State]]] = []
        for slot in slots:
            held = values[slot]
            if type(held) is Held:
                own = handed(held)
                if own is not held.value and not larger_than(own, MANY):
                    given.held[slot] = Held.handed_out(held.value, own)
                    before.append((slot, [_State(visit) for visit in containers_in(own) if visit.kind.mutable]))
        result = call(given)  # type: ignore[arg-type]  # it asks for nothing but items
        if is_async and hasattr(result, "__await__"):
            return _awaited(result, node, before)
        _refuse(node, before)
        return result

    return called


async def _awaited(awaitable: Any, node: Node, before: list[tuple[int, list[_State]]]) -> Any:
    result = await awaitable
    _refuse(node, before)
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

    __slots__ = ("_names", "_visit")

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._names: list[Any] = list(visit.kind.names(visit.like)) if visit.kind.names is not None else []

    def changed(self) -> str:
        """The type of the container, if something else is in it now."""
        like, items, names = self._visit.like, self._visit.items, self._names
        if is_dataclass(like):
            # What a property gives may be new each time, and what is private and was None, filled in.
            before = zip(names, items, strict=True)
            kept = [pair for pair in before if not isinstance(getattr(type(like), pair[0], None), property)]
            same = all(getattr(like, name, None) is item or (item is None and name[:1] == "_") for name, item in kept)
        elif type(like) is set:
            same = like == set(items)
        else:
            now = self._visit.kind.items(like)
            same = len(now) == len(items) and all(map(operator.is_, now, items))
            same = same and all(map(operator.is_, names, like if names else ()))
        return "" if same else type(like).__name__


def _refuse(node: Node, before: list[tuple[int, list[_State]]]) -> None:
    for _, states in before:
        for state in states:
            if changed := state.changed():
                raise ValueError(
                    f"{node.spec.name!r} changed a {changed} that others read as well, or that is the caller's: since "
                    "there are arrays in it, the operator was given one of its own, and nobody would see the change. "
                    "Declare with inout= that it changes the argument for all, or with writes= that it wants a copy"
                )
