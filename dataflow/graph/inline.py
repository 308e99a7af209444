"""Graph → trace: record the nodes of a graph into the body that is being traced, on other inputs.

For pipelines that `select` or `replace` made of others: they have a graph, but no body that would give it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dataflow.graph.nodes import Graph
from dataflow.graph.templates import Renewed, fill
from dataflow.graph.tracing.placeholder import record
from dataflow.graph.tracing.tracer import Trace, Traced, label_taken

__all__ = ["spliced"]


def spliced(recording: Trace, graph: Graph, inputs: Sequence[Any]) -> Any:
    """What the graph gives, as placeholders; `inputs` are placeholders or values. Order, labels and scopes are kept."""
    known, renewed = list(inputs), Renewed()
    after, scope = recording.after, recording.scope
    try:
        for node in graph.nodes:
            before = (*graph.after.get(node.number, ()), *graph.waits.get(node.number, ()))
            recording.after = (*after, *_numbers(known, before))
            recording.scope = _joined(scope, graph.scopes.get(node.number, ""))
            args = tuple(fill(arg, known, renewed) for arg in node.args)
            kwargs = {name: fill(arg, known, renewed) for name, arg in node.kwargs.items()}
            known.append(made := record(node.spec, args, kwargs))
            if node.number in graph.fixed:
                recording.fixed[made._ref] = graph.fixed[node.number]
    finally:
        recording.after, recording.scope = after, scope
    for name, number in graph.names.items():
        (place,) = _numbers(known, (number,))
        if recording.label(place, name) != place:
            raise label_taken(name)
    return fill(graph.output, known)


def _numbers(known: Sequence[Any], numbers: Sequence[int]) -> list[int]:
    """The numbers in this trace of what has these in the graph; values have none."""
    found = (known[number] for number in numbers)
    return [int(value._read()) for value in found if isinstance(value, Traced)]


def _joined(outer: str, inner: str) -> str:
    return f"{outer}/{inner}" if outer and inner else outer or inner
