"""The constants of a body that its operators change (`inout=`, and what is stateful): they must be somebody else's.

    OUT = np.memmap(...)

    @flow.pipeline
    def p(x):
        fill(OUT, x)                 from outside: that very array, in every run
        own = np.zeros(3)
        fill(own, x)                 refused: the body made it, and would compute `own + 1` now, before any run
        new = flow.op(np.zeros)(3)
        fill(new, x)                 the result of an operator, new in every run

As with containers (`dataflow.graph.tracing.literals`), it is decided when the trace ends who made what.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dataflow.graph.inout import changed_by
from dataflow.graph.nodes import Kind, Node, Ref
from dataflow.graph.pytree import ATOMS, kind_of, leaves
from dataflow.graph.stateful import is_stateful
from dataflow.graph.templates import Literal
from dataflow.graph.tracing.tracer import Trace, refusal

__all__ = ["Changed"]


class Changed:
    """Those of one trace. Made before its literals are settled, asked after that; it has no reference to them."""

    __slots__ = ("_found", "_parts")

    def __init__(self, recording: Trace) -> None:
        self._found: list[tuple[str, Literal, int, Node]] = []
        """What it is, what stands for it, the id of the array that it is a part of (or 0), and the node."""
        self._parts: dict[int, list[Literal]] = {}
        """By the id of an array, what stands for those that are parts of it."""
        for node in recording.nodes:
            for argument in changed_by(node):
                self._add(recording, node, argument)
            for argument in (*node.args, *node.kwargs.values()) if recording.stateful else ():
                if is_stateful(type(argument)):  # of one inside a tuple nobody can tell whose it is
                    self._add(recording, node, argument)
        if self._parts:
            self._add_siblings(recording)

    def _add(self, recording: Trace, node: Node, argument: Any) -> None:
        """What a node changes; `flow.map` changes what is in a list, and not the list."""
        kind = type(argument)
        if kind is Literal and node.spec.kind is not Kind.RECORDED:
            self._found.append(("a container", argument, 0, node))
        elif kind is Literal:
            return
        elif kind_of(kind) is not None:
            self._add_parts(recording, node, argument)
        elif kind is not Ref and kind not in ATOMS:
            stands_for = recording.literals.add_changed
            whole = 0
            if isinstance(argument, np.ndarray) and isinstance(argument.base, np.ndarray):
                whole = id(argument.base)
                self._parts[whole] = [stands_for(argument.base, node.where)]
            self._found.append((f"the {kind.__name__}", stands_for(argument, node.where), whole, node))

    def _add_parts(self, recording: Trace, node: Node, container: Any) -> None:
        def into(part: Any) -> bool:
            kind = kind_of(type(part))
            if kind is not None and kind.mutable and node.spec.kind is not Kind.RECORDED:
                raise refusal(
                    f"the body has put nodes into the {type(part).__name__} that {node.spec.name} is to change",
                    "a change of it would be lost: pass a tuple of them, or each as an argument of its own",
                    node.where,
                )
            return True

        held = list(leaves(container, into))
        if not any(type(leaf) is Ref for leaf in held):  # it may be somebody else's, with all that is in it
            recording.literals.add_changed(container, node.where)
        for leaf in held:
            self._add(recording, node, leaf)

    def _add_siblings(self, recording: Trace) -> None:
        """Other parts of the same arrays: if somebody has one of them, he has the array."""
        for node in recording.nodes:
            for argument in (*node.args, *node.kwargs.values()):
                for leaf in leaves(argument):
                    if isinstance(leaf, np.ndarray) and id(leaf.base) in self._parts:
                        self._parts[id(leaf.base)].append(recording.literals.add_changed(leaf, node.where))

    def refuse_own(self) -> None:
        """TraceError for what the body made itself."""
        for what, literal, whole, node in self._found:
            if literal.fresh and all(part.fresh for part in self._parts.get(whole, ())):
                stateful = is_stateful(type(literal.value))
                raise refusal(
                    f"{node.spec.name} {'uses' if stateful else 'is to change'} {what} that the body made",
                    _USED if stateful else _CHANGED,
                    node.where,
                )


_CHANGED = (
    "what the body itself does with it is done now, before any run: let an operator make it (flow.op(np.zeros)(3), "
    "say), or pass it as an argument"
)
_USED = (
    "the body runs once, and each run would go on with it where the last one stopped: let an operator make it "
    "(flow.op(np.random.default_rng)(1), say), or pass it as an argument"
)
