"""Objects that each use changes, and the order of the operators that are given one.

    rng = np.random.default_rng(1)

    @flow.pipeline
    def p(x):
        return noise(x, rng), noise(x, rng)      the second starts after the first, as the plain functions would

Generators of random numbers, files and checksums give something else each time they are asked, or keep what was done to
them in the order in which it was done. Operators that are given the same one are therefore executed in the order of the
body. What comes from outside of the body (a constant, or the object of a bound method such as `flow.op(rng.normal)`) is
known when the trace ends; what is an input, at the call. Of results nothing is known before the run: one with several
readers in no order is an error there (see `wrong_result`).

Types tell. Objects of the user's own say it by `inout=`.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from types import BuiltinMethodType, MethodType
from typing import Any, Final

import numpy as np

from dataflow.graph.nodes import Declared, Graph, Node, Ref
from dataflow.graph.pytree import kind_of, larger_than, leaves
from dataflow.graph.templates import Literal

__all__ = ["found_in", "in_turn", "is_stateful", "names_of", "owner_of", "stateful_constants", "uses_something"]

MOST_PARTS = 200
"""Parts of an input that are looked at."""

_STATEFUL: Final = (
    np.random.Generator,
    np.random.RandomState,
    np.random.BitGenerator,
    np.random.SeedSequence,
    random.Random,
    io.IOBase,
)
_METHODS: Final = (
    ("update", "digest", "hexdigest"),
    ("writerow", "writerows"),
    ("compress", "flush"),
    ("write", "close"),
)
"""Of checksums, writers of tables, compressors, archives."""


def is_stateful(kind: Any) -> bool:
    """Whether each use of an object of this type changes it."""
    return _is_stateful(kind)


@lru_cache(maxsize=1024)
def _is_stateful(kind: Any) -> bool:
    return issubclass(kind, _STATEFUL) or any(all(hasattr(kind, name) for name in names) for names in _METHODS)


def owner_of(fn: Any) -> Any:
    """What each call of this changes: the object whose bound method it is, or that a partial has fixed; or None."""
    return next(found_in(fn), None)


@lru_cache(maxsize=1024)
def _uses_something(kind: Any) -> bool:
    return issubclass(kind, (Declared, partial, MethodType, BuiltinMethodType)) or _is_stateful(kind)


uses_something: Callable[[Any], bool] = _uses_something
"""Whether something may be found in a leaf of this type."""


def found_in(leaf: Any) -> Iterator[Any]:
    """What is stateful of a leaf: itself, or what it uses when it is called."""
    kind: Any = type(leaf)
    if issubclass(kind, Declared):  # not `isinstance`, which asks a placeholder
        if leaf.uses is not None:
            yield leaf.uses
    elif kind is partial:
        for part in (leaf.func, *leaf.args, *leaf.keywords.values()):
            yield from found_in(part)
    elif kind in (MethodType, BuiltinMethodType):
        if is_stateful(type(leaf.__self__)):
            yield leaf.__self__
    elif is_stateful(kind):
        yield leaf


def stateful_constants(node: Node) -> Iterator[Any]:
    """Those that a node is given as constants, or whose method it calls."""
    for argument in (*node.args, *node.kwargs.values()):
        if type(argument) is not Ref:
            for leaf in leaves(argument.value if type(argument) is Literal else argument):
                yield from found_in(leaf)
    if node.spec.owner is not None:
        yield node.spec.owner


def names_of(inputs: Sequence[Any], constants: Collection[int]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """The inputs that are, or hold, something stateful, and for each what: a number that the same ones have in common,
    or the id of a constant. One that has many parts is not looked through: that would hold the loop."""
    known: dict[int, int] = {key: key for key in constants}
    found: list[tuple[int, tuple[int, ...]]] = []
    for place, value in enumerate(inputs):
        if kind_of(type(value)) is None:
            used = list(found_in(value))
        else:
            used = [] if larger_than(value, MOST_PARTS) else [each for leaf in leaves(value) for each in found_in(leaf)]
        if used:
            found.append((place, tuple(known.setdefault(id(each), len(known)) for each in used)))
    return tuple(found)


def in_turn(graph: Graph, inputs: Mapping[int, tuple[int, ...]] | None = None) -> Graph:
    """The graph in which what is given the same one comes one after another; linear in the size of the graph.

    `inputs` as `names_of` says it.
    """
    known = {} if inputs is None else inputs
    after: dict[int, tuple[int, ...]] = dict(graph.after)
    last: dict[int, int] = {}
    for node in graph.nodes:
        used = {id(each) for each in stateful_constants(node)}
        used.update(name for number in node.reads for name in known.get(number, ()))
        before = {last[key] for key in used if key in last} - {*node.reads, *after.get(node.number, ())}
        if before:
            after[node.number] = (*after.get(node.number, ()), *sorted(before))
        last.update(dict.fromkeys(used, node.number))
    return replace(graph, after=after)
