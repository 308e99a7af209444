"""How a step is called: one function of the run's values, made once for each node.

A lane calls `call(values)` and nothing else. A function that fetches its arguments by number costs least, 0.11
microseconds for five arguments; unpacking what an `itemgetter` gathers costs 0.17, and what a list comprehension does,
0.35 (Python 3.11; 0.14, 0.17 and 0.24 on 3.13).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from dataflow.graph.nodes import Node, Ref
from dataflow.graph.readonly import guard, writable
from dataflow.graph.templates import Literal, Numbering, builder

__all__ = ["Caller", "make_call", "writing"]

Caller = Callable[[list[Any]], Any]


def make_call(
    node: Node,
    slot_of: Numbering,
    constant: Callable[[Any], int],
    read: Sequence[int] | None = None,
    *,
    fn: Callable[..., Any] | None = None,
) -> Caller:
    """The function that calls this node's operator, or `fn`, on values; `constant` gives a constant its slot.

    `read` are the slots of what the node reads, for those who have them.
    """
    fn = node.spec.fn if fn is None else fn
    if node.nested:
        return _filled(fn, node, slot_of, constant)
    args, reads = node.args, node.reads
    if len(args) == len(reads) and not node.kwargs:  # every argument is a value, and no two are the same
        return _positional(fn, [slot_of[number] for number in reads] if read is None else read)
    slots = [slot_of[argument] if type(argument) is Ref else constant(argument) for argument in args]
    if node.kwargs:
        names = {name: slot_of[value] if type(value) is Ref else constant(value) for name, value in node.kwargs.items()}
        return _with_keywords(fn, slots, list(names.items()))
    return _positional(fn, slots)


def _positional(fn: Callable[..., Any], slots: Sequence[int]) -> Callable[..., Any]:
    """Defaults, where one would write a closure: they take half as long to make, and are as quick to call."""
    count = len(slots)
    if count == 1:
        return lambda v, fn=fn, a=slots[0]: fn(v[a])
    if count == 2:
        return lambda v, fn=fn, a=slots[0], b=slots[1]: fn(v[a], v[b])
    if count == 3:
        return lambda v, fn=fn, a=slots[0], b=slots[1], c=slots[2]: fn(v[a], v[b], v[c])
    if count == 4:
        return lambda v, fn=fn, a=slots[0], b=slots[1], c=slots[2], d=slots[3]: fn(v[a], v[b], v[c], v[d])
    if count == 5:
        return lambda v, fn=fn, a=slots[0], b=slots[1], c=slots[2], d=slots[3], e=slots[4]: fn(
            v[a], v[b], v[c], v[d], v[e]
        )
    if count == 0:
        return lambda v: fn()
    return lambda v, fn=fn, gather=itemgetter(*slots): fn(*gather(v))


def _with_keywords(fn: Callable[..., Any], slots: list[int], names: list[tuple[str, int]]) -> Caller:
    return lambda v: fn(*[v[a] for a in slots], **{name: v[a] for name, a in names})


def _filled(fn: Callable[..., Any], node: Node, slot_of: Numbering, constant: Callable[[Any], int]) -> Caller:
    """Some argument is a container with values in it, which is built anew for each call."""

    def slot(leaf: Any) -> int | None:
        kind = type(leaf)
        return slot_of[leaf] if kind is Ref else constant(leaf) if kind is Literal else None

    def build(argument: Any) -> Caller:
        return builder(argument, slot, constant=guard)  # its constants are as much the user's as those outside

    filled = [build(argument) for argument in node.args]
    names = [(name, build(argument)) for name, argument in node.kwargs.items()]
    if not names and len(filled) == 1:
        only = filled[0]
        return lambda v: fn(only(v))
    return lambda v: fn(*[get(v) for get in filled], **{name: get(v) for name, get in names})


def writing(node: Node, owned: Callable[[int], bool]) -> Callable[..., Any]:
    """The operator, given copies of what it writes into; but what is `owned`, by its number, is given as it is."""
    fn = node.spec.fn
    given: dict[int | str, Any] = dict(enumerate(node.args))
    given.update(node.kwargs.items())
    refs = [argument for argument in given.values() if type(argument) is Ref]
    copied = {
        place: not (type(given[place]) is Ref and owned(given[place]) and refs.count(given[place]) == 1)
        for place in node.spec.writes
        if place in given
    }

    def write(*args: Any, **kwargs: Any) -> Any:
        positional = list(args)
        for place, copy in copied.items():
            if isinstance(place, int):
                positional[place] = writable(positional[place], copy=copy)
            else:
                kwargs[place] = writable(kwargs[place], copy=copy)
        return fn(*positional, **kwargs)

    return write
