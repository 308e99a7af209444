"""What a body says of nodes beyond calling them: their order, their names, the scope they belong to.

    with flow.after(saved):           # starts when `saved` is done, though it reads nothing of it
        report = write_report()
    with flow.scope("block3"):        # groups nodes in pictures and tables
        y = flow.label(conv(x), "c3")   # names one, for errors and for `p.select("c3")`

Outside of a trace a body is a plain function that runs from top to bottom, and all three do nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from dataflow.graph.tracing.tracer import Traced, current, label_taken, refusal, stranger

__all__ = ["after", "label", "scope"]

T = TypeVar("T")


@contextmanager
def after(*nodes: Any) -> Iterator[None]:
    """Whatever the body records inside starts after these nodes are done, also if it reads nothing of them.

    For effects: a file that is written before it is read. Nested, all of them count. Raises TypeError for what is no
    node, and TraceError for a node of another trace.
    """
    recording = current()
    if recording is None:
        yield
        return
    numbers: list[int] = []
    for node in nodes:
        if not isinstance(node, Traced):
            raise TypeError(f"flow.after takes nodes of the body, not {type(node).__name__}")
        if node._trace is not recording:
            raise stranger(node)
        numbers.append(int(node._read()))
    recording.lines.enter()
    before = recording.after
    recording.after = tuple(dict.fromkeys((*before, *numbers)))
    try:
        yield
    finally:
        recording.after = before


def label(node: T, name: str) -> T:
    """Name a node, for errors, pictures and `p.select`; returns it.

    The name must be new in its scope (TraceError). A node may have several; errors and pictures show the last.
    """
    if not isinstance(name, str):
        raise TypeError(f"flow.label: the name must be a str, got {type(name).__name__}")
    recording = current()
    if recording is None:
        return node
    if not isinstance(node, Traced):
        raise TypeError(f"flow.label names nodes of the body, not {type(node).__name__}")
    if node._trace is not recording:
        raise stranger(node)
    number = int(node._read())
    if number < len(recording.inputs):
        raise refusal(f"{node!r} is an input, which has its name already", "label what an operator makes of it")
    if recording.label(number, name) != number:
        raise label_taken(name)
    return node


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Group what the body records inside under a name; nested scopes join: "encoder/block3"."""
    if not isinstance(name, str):
        raise TypeError(f"flow.scope: the name must be a str, got {type(name).__name__}")
    recording = current()
    if recording is None:
        yield
        return
    recording.lines.enter()
    before = recording.scope
    recording.scope = f"{before}/{name}" if before else name
    try:
        yield
    finally:
        recording.scope = before
