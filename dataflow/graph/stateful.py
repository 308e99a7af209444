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
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

import numpy as np

from dataflow.graph.nodes import Graph, Node, Ref
from dataflow.graph.pytree import leaves
from dataflow.graph.templates import Literal

__all__ = ["in_turn", "is_stateful", "owner_of", "stateful_constants"]

_STATEFUL: Final = (
    np.random.Generator,
    np.random.RandomState,
    np.random.BitGenerator,
    np.random.SeedSequence,
    random.Random,
    io.IOBase,
)


def is_stateful(kind: Any) -> bool:
    """Whether each use of an object of this type changes it."""
    return _is_stateful(kind)


@lru_cache(maxsize=1024)
def _is_stateful(kind: Any) -> bool:
    return issubclass(kind, _STATEFUL) or all(hasattr(kind, name) for name in ("update", "digest", "hexdigest"))


def owner_of(fn: Any) -> Any:
    """The object whose bound method this is, if it is stateful."""
    owner = getattr(fn, "__self__", None)
    return owner if is_stateful(type(owner)) else None


def stateful_constants(node: Node) -> Iterator[Any]:
    """Those that a node is given as constants, or whose method it calls."""
    for argument in (*node.args, *node.kwargs.values()):
        if type(argument) is not Ref:
            value = argument.value if type(argument) is Literal else argument
            yield from (leaf for leaf in leaves(value) if is_stateful(type(leaf)))
    if node.spec.owner is not None:
        yield node.spec.owner


def in_turn(graph: Graph, inputs: Mapping[int, int] | None = None) -> Graph:
    """The graph in which what is given the same one comes one after another; linear in the size of the graph.

    `inputs` says which inputs are stateful, and for each what it is: a number that equal ones have in common, or the id
    of a constant.
    """
    known = {} if inputs is None else inputs
    after: dict[int, tuple[int, ...]] = dict(graph.after)
    last: dict[int, int] = {}
    for node in graph.nodes:
        used = {id(each) for each in stateful_constants(node)}
        used |= {known[number] for number in node.reads if number in known}
        before = {last[key] for key in used if key in last} - {*node.reads, *after.get(node.number, ())}
        if before:
            after[node.number] = (*after.get(node.number, ()), *sorted(before))
        last.update(dict.fromkeys(used, node.number))
    return replace(graph, after=after)
