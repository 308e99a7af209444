"""How a step is called: one function of the run's values, made once for each node.

A worker calls `call(values)` and nothing else. A function that fetches its arguments by number costs least, 0.11
microseconds for five arguments; unpacking what an `itemgetter` gathers costs 0.17, and what a list comprehension does,
0.35 (Python 3.11; 0.14, 0.17 and 0.24 on 3.13). So for each *way* in which up to eight arguments are fetched, such a
function is compiled, once in a process.

A way has one letter for an argument:

    .  as it is       nobody else has it
    h  handed out     it may be held: the reader gets its own, protected (see `dataflow.graph.readonly`)
    b  bare           it may be held, and what is called needs the value itself: plumbing, what changes it, and what
                      copies it anyway
    c  copied         for a kernel that may be called again
    r  renewed        the same for an async operator
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

import numpy as np

from dataflow.graph.nodes import Kind, Node, OpSpec, Ref
from dataflow.graph.readonly import Bare, Handed, Held, bare, copied, handed, readonly, renewed, writable
from dataflow.graph.templates import Literal, Numbering, builder

__all__ = ["Caller", "handed_to", "is_usual", "make_call", "retried", "writing", "written"]

Caller = Callable[[list[Any]], Any]
MOST_COMPILED = 8
_WAYS: Final[dict[str, Callable[[Any], Any]]] = {"h": handed, "b": bare, "c": copied, "r": renewed}


def make_call(
    node: Node,
    slot_of: Numbering,
    constant: Callable[[Any], int],
    shared: Sequence[int],
    read: Sequence[int] | None = None,
    *,
    fn: Callable[..., Any] | None = None,
    usual: bool = False,
) -> Caller:
    """The function that calls this node's operator, or `fn`, on values; `constant` gives a constant its slot.

    `shared` says of each slot, also of those of constants once they are given, whether its value may be held; `read`
    are the slots of what the node reads, for those who have them; `usual` is what `is_usual` says, for those who know.
    """
    spec = node.spec
    fn = spec.fn if fn is None else fn
    if node.nested:
        return _filled(fn, node, slot_of, constant, shared)
    args, reads, kwargs = node.args, node.reads, node.kwargs
    if len(args) == len(reads) and not kwargs:  # every argument is a value, and no two are the same
        slots: Sequence[int] = [slot_of[number] for number in reads] if read is None else read
    else:
        slots = [slot_of[argument] if type(argument) is Ref else constant(argument) for argument in args]
        if len(set(slots)) < len(slots) and not kwargs and not spec.writes and not spec.inout:
            fn, slots = _each_once(fn, slots)
    if not kwargs and (usual or is_usual(spec)):
        return _usually(fn, slots, shared)
    lone = _at_retries(node)
    way = "b" if spec.kind is Kind.PLUMBING else "h"
    itself = (*spec.writes, *spec.inout)
    ways = ["b" if place in itself else way if shared[slot] else lone for place, slot in enumerate(slots)]
    if kwargs:
        named = []
        for name, value in kwargs.items():
            slot = slot_of[value] if type(value) is Ref else constant(value)
            named.append((name, "b" if name in itself else way if shared[slot] else lone, slot))
        given = [*slots, *(slot for _, _, slot in named)]
        if len(set(given)) < len(given):  # the same object in each place
            return _filled(fn, node, slot_of, constant, shared)
        return _with_keywords(fn, list(zip(ways, slots)), named)
    return _positional(fn, slots, "".join(ways))


def _each_once(fn: Callable[..., Any], slots: Sequence[int]) -> tuple[Callable[..., Any], list[int]]:
    """For what is given a value several times: it is the same object in each place, as in plain Python."""
    once = list(dict.fromkeys(slots))
    places = [once.index(slot) for slot in slots]
    return lambda *given: fn(*[given[place] for place in places]), once


def is_usual(spec: OpSpec) -> bool:
    """Whether an operator is given what is shared protected, and everything else as it is."""
    return spec.options is None and spec.kind is not Kind.PLUMBING and not spec.writes and not spec.inout


def retried(node: Node) -> bool:
    """Whether a step may be called more than once in a run."""
    options = node.spec.options
    return options is not None and options.retries > 0


def _at_retries(node: Node) -> str:
    """The way of what the node alone reads: what a failed attempt had written must not reach the next one."""
    return "." if not retried(node) else "r" if node.spec.kind is Kind.ASYNC else "c"


def _usually(fn: Callable[..., Any], slots: Sequence[int], shared: Sequence[int]) -> Callable[..., Any]:
    """Most nodes, and planning one takes 3 µs: so the most frequent are not looked up."""
    count = len(slots)
    if count == 1:
        a = slots[0]
        return _handed_one(fn, a) if shared[a] else lambda v, fn=fn, a=a: fn(v[a])
    if count == 2:
        a, b = slots
        held = shared[a] + 2 * shared[b]
        return _handed_two[held](fn, a, b) if held else lambda v, fn=fn, a=a, b=b: fn(v[a], v[b])
    return _positional(fn, slots, "".join([".h"[shared[slot]] for slot in slots]))


def _positional(fn: Callable[..., Any], slots: Sequence[int], ways: str) -> Caller:
    if len(slots) <= MOST_COMPILED:
        return _compiled(ways)(fn, *slots)
    if ways.strip("."):
        fetched = list(zip(ways, slots))
        return lambda v: fn(*[v[a] if way == "." else _WAYS[way](v[a]) for way, a in fetched])
    return lambda v, fn=fn, gather=itemgetter(*slots): fn(*gather(v))  # type: ignore[misc]


@lru_cache(maxsize=1024)
def _compiled(ways: str) -> Callable[..., Caller]:
    """Of "h." what makes `lambda v: fn(handed(v[a0]), v[a1])`.

    With defaults, where one would write a closure: they take half as long to make, and are as quick to call.
    """
    names = [f"a{place}" for place in range(len(ways))]
    values = [_FETCHED[way].format(name) for name, way in zip(names, ways)]
    defaults = "".join(f", {name}={name}" for name in names)
    source = f"lambda {', '.join(['fn', *names])}: lambda v, fn=fn{defaults}: fn({', '.join(values)})"
    made: Callable[..., Caller] = eval(compile(source, __file__, "eval"), _NAMES)
    return made


_FETCHED: Final = {".": "v[{0}]", **{way: f"{function.__name__}(v[{{0}}])" for way, function in _WAYS.items()}}
# What `handed` does, since every read of a shared value takes it: a number costs 15 ns so, not 35, an array 75, not 95.
_FETCHED["h"] = "(x if type(x := v[{0}]) is not Held else x.seed.view() if type(x.seed) is ndarray else handed(x))"
_NAMES: Final[dict[str, Any]] = {
    **{function.__name__: function for function in _WAYS.values()},
    "Held": Held,
    "ndarray": np.ndarray,
}


_handed_one: Final = _compiled("h")
_handed_two: Final = [_compiled(ways) for ways in ("..", "h.", ".h", "hh")]


def _with_keywords(fn: Callable[..., Any], slots: list[tuple[str, int]], names: list[tuple[str, str, int]]) -> Caller:
    if all(way == "." for way, _ in slots) and all(way == "." for _, way, _ in names):
        plain, named = [a for _, a in slots], [(name, a) for name, _, a in names]
        return lambda v: fn(*[v[a] for a in plain], **{name: v[a] for name, a in named})
    return lambda v: fn(
        *[v[a] if way == "." else _WAYS[way](v[a]) for way, a in slots],
        **{name: v[a] if way == "." else _WAYS[way](v[a]) for name, way, a in names},
    )


def _filled(
    fn: Callable[..., Any], node: Node, slot_of: Numbering, constant: Callable[[Any], int], shared: Sequence[int]
) -> Caller:
    """Some argument is a container with values in it, which is built anew for each call."""
    fetched: list[int] = []

    def slot(leaf: Any) -> int | None:
        if type(leaf) is not Ref and type(leaf) is not Literal and not readonly.knows(type(leaf)):
            return None
        fetched.append(slot_of[leaf] if type(leaf) is Ref else constant(leaf))  # as much the user's as those outside
        return fetched[-1]

    filled = [builder(argument, slot) for argument in node.args]
    names = [(name, builder(argument, slot)) for name, argument in node.kwargs.items()]
    inout, lone = node.spec.inout, _WAYS.get(_at_retries(node))
    if lone is None and not inout and not any(shared[each] for each in fetched):
        if not names and len(filled) == 1:
            only = filled[0]
            return lambda v: fn(only(v))
        return lambda v: fn(*[get(v) for get in filled], **{name: get(v) for name, get in names})

    bares = [place in inout for place in range(len(filled))]
    named = [(name, name in inout, get) for name, get in names]

    def call(v: Any) -> Any:
        handed_out: Any = Handed(v, lone)
        bare_ones: Any = Bare(v)
        return fn(
            *[get(bare_ones if itself else handed_out) for itself, get in zip(bares, filled)],
            **{name: get(bare_ones if itself else handed_out) for name, itself, get in named},
        )

    return call


def handed_to(node: Node) -> list[Any]:
    """The arguments of a node that its operator gets as a reader: all but what it writes into or changes."""
    if node.spec.kind is Kind.PLUMBING:
        return []
    itself = (*node.spec.writes, *node.spec.inout)
    return [argument for place, argument in node.given.items() if place not in itself]


def written(node: Node) -> list[int]:
    """The numbers of what a node writes into, where it is the value of another and no argument besides."""
    given = node.given
    refs = [argument for argument in given.values() if type(argument) is Ref]
    found = [given[place] for place in node.spec.writes if place in given]
    return [argument for argument in found if type(argument) is Ref and refs.count(argument) == 1]


def writing(node: Node, owned: Callable[[int], bool]) -> Callable[..., Any]:
    """The operator, given copies of what it writes into; but what is `owned`, by its number, is given as it is."""
    fn = node.spec.fn
    given = node.given
    alone = written(node)
    shared = {
        place: not (type(given[place]) is Ref and given[place] in alone and owned(given[place]))
        for place in node.spec.writes
        if place in given
    }

    def write(*args: Any, **kwargs: Any) -> Any:
        positional = list(args)
        for place, has_others in shared.items():
            given: Any = positional if isinstance(place, int) else kwargs
            given[place] = copied(bare(given[place])) if has_others else writable(given[place])
        return fn(*positional, **kwargs)

    return write
